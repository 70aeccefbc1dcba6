"""What is fitted and what is left; networks that are hard to read; the same bytes twice."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.errors import ModelError
from onnx_subprune.model import Scratch, array_of, input_specs
from onnx_subprune.recovery.exact import Networks, Refit, Settings, paired_run, refit
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import find_linears
from onnx_subprune.recovery.exact.rows import rows_of

RNG = np.random.default_rng(11)


def _whole(name: str, value: np.ndarray) -> np.ndarray:
    return value


def _refit(dense: onnx.ModelProto, pruned: onnx.ModelProto, data: Any, **settings: Any) -> Refit:
    data = open_data(data, input_specs(dense)) if isinstance(data, dict | list) else data
    return refit(Networks(dense, pruned, _whole), data, Settings(threads=1, **({"batch_size": 8} | settings)))


def _with(model: onnx.ModelProto, **weights: np.ndarray) -> onnx.ModelProto:
    """Return a copy with other weights."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name in weights:
            values = np.asarray(weights[tensor.name], array_of(tensor).dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    return copy


def _stored(model: onnx.ModelProto, name: str) -> np.ndarray:
    return next(array_of(tensor) for tensor in model.graph.initializer if tensor.name == name)


def _damaged(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    """Return a copy with noise on some weights."""
    rng = np.random.default_rng(2)
    return _with(model, **{n: (v := _stored(model, n)) + 0.3 * rng.standard_normal(v.shape) for n in names})


DENSE = """g (float[N,3,8,8] x) => (float[a,b] y) {
    [c1] a = Conv <pads=[1,1,1,1]> (x, w1, b1)
    [r1] b = Relu(a)
    [c2] c = Conv <pads=[1,1,1,1], strides=[2,2]> (b, w2)
    [d] d = Conv <group=6, pads=[1,1,1,1]> (c, w3, b3)
    [p] p = GlobalAveragePool(d)
    [f] f = Flatten(p)
    [g] y = Gemm(f, w4, b4)
}"""
WEIGHTS = {"w1": (6, 3, 3, 3), "b1": (6,), "w2": (6, 6, 3, 3), "w3": (6, 1, 3, 3), "b3": (6,), "w4": (6, 4), "b4": (4,)}


@pytest.mark.parametrize("sequential", [True, False])
def test_equal_networks_lose_nothing(net, draw, sequential):
    model = net(DENSE, **WEIGHTS)
    found = _refit(model, model, draw(model, 40), sequential=sequential)
    assert found.model.SerializeToString() == model.SerializeToString()
    assert [layer.name for layer in found.layers] == ["c1", "c2", "d", "g"]
    assert all(np.isinf(layer.strength) for layer in found.layers)


def test_equal_networks_with_a_shared_bias_lose_nothing(net, draw):
    model = net(
        """g (float[N,4] x) => (float[a,b] y) {
            [g1] h = Gemm(x, w1, b)
            [g2] y = Gemm(h, w2, b)
        }""",
        w1=(4, 4), w2=(4, 4), b=(4,),
    )  # fmt: skip
    found = _refit(model, model, draw(model, 40))
    assert found.model.SerializeToString() == model.SerializeToString()
    assert not found.left


@pytest.mark.parametrize("sequential", [True, False])
def test_damaged_weights_are_repaired(net, draw, distance, sequential):
    model = net(DENSE, **WEIGHTS)
    damaged = _damaged(model, "w1", "b1", "w2", "w3", "w4")
    before = damaged.SerializeToString()
    found = _refit(model, damaged, draw(model, 40), sequential=sequential)
    assert distance(model, damaged) > 0.1
    assert distance(model, found.model) < 1e-4
    assert damaged.SerializeToString() == before


def test_the_same_bytes_twice(net, draw):
    model = net(DENSE, **WEIGHTS)
    damaged = _damaged(model, "w1", "w3")
    one, other = (_refit(model, damaged, draw(model, 40), rows=1) for _ in range(2))
    assert one.model.SerializeToString() == other.model.SerializeToString()
    assert one.layers == other.layers
    another = _refit(model, damaged, draw(model, 40), rows=1, seed=1)
    assert another.model.SerializeToString() != one.model.SerializeToString()


def test_memory_limits_change_nothing(net, draw):
    model = net(DENSE, **WEIGHTS)
    one, other = (_refit(model, _damaged(model, "w1", "w3"), draw(model, 40), max_bytes=n) for n in (0, 1 << 30))
    assert one.model.SerializeToString() == other.model.SerializeToString()


RESIDUAL = """g (float[N,5,6] x) => (float[a,b,c] z) {
    [m2] u = MatMul(x, w2)
    [a1] s = Add(u, x)
    [m3] k = MatMul(s, w3)
    [m4] q = MatMul(k, w4)
    TAIL
}"""


@pytest.mark.parametrize(
    "tail",
    [
        "[a2] z = Add(q, s)",
        "[a2] z = Add(s, q)",
        "[l] l = Mul(q, gamma)\n[a2] z = Add(l, s)",
        "[ba] qb = Add(q, bias)\n[l] l = Mul(gamma, qb)\n[a2] z = Add(l, s)",
        "[t] t = Transpose <perm=[0,2,1]> (q)\n[e] e = Reshape(t, flat)\n[st] st = Transpose <perm=[0,2,1]> (s)\n"
        "[f] f = Reshape(st, flat)\n[a2] o = Add(e, f)\n[j] z = Reshape(o, cube)",
        "[e] e = Reshape(q, flat)\n[t] t = Transpose(e)\n[f] f = Reshape(s, flat)\n[ft] ft = Transpose(f)\n"
        "[a2] o = Add(t, ft)\n[ot] ot = Transpose(o)\n[j] z = Reshape(ot, wide)",
    ],
)
def test_what_the_first_block_broke_the_second_repairs(net, draw, distance, tail):
    consts = {"gamma": np.float32([0.5, -0.1, 2, 0.7, 1, 0.3]), "bias": (6,), "flat": np.array([0, -1]),
              "cube": np.array([0, 6, 5]), "wide": np.array([0, 5, 6])}  # fmt: skip
    weights = {f"w{number}": (6, 6) for number in (2, 3, 4)}
    dense = net(RESIDUAL.replace("TAIL", tail), **weights, **{n: v for n, v in consts.items() if n in tail})
    lost = _hidden(_with(dense, w2=np.zeros((6, 6))))
    found = _refit(dense, lost, draw(dense, 60))
    assert found.left == {"m2": "weight 'w2' is an output of the network too"}
    assert [len(layer.factors) for layer in found.layers] == [1, 2], "no shortcut was seen"
    assert distance(dense, lost) > 0.1
    assert distance(dense, found.model) < 1e-4
    # In one pass, and with a target of its own alone, it cannot know.
    assert distance(dense, _refit(dense, lost, draw(dense, 60), sequential=False).model) > 0.1


def test_channels_of_a_tiny_scale_keep_their_weights(net, draw):
    gamma = np.float32([0.5, -0.1, 2, 1e-9, 1, 0.3])
    weights = {f"w{number}": (6, 6) for number in (2, 3, 4)}
    dense = net(RESIDUAL.replace("TAIL", "[l] l = Mul(q, gamma)\n[a2] z = Add(l, s)"), **weights, gamma=gamma)
    found = _refit(dense, _hidden(_with(dense, w2=np.zeros((6, 6)))), draw(dense, 60))
    same = (_stored(found.model, "w4") == _stored(dense, "w4")).all(axis=0)
    assert same.tolist() == [False, False, False, True, False, False]


def test_a_scale_that_varies_by_position_hides_the_shortcut(net, draw):
    weights = {f"w{number}": (6, 6) for number in (2, 3, 4)}
    dense = net(RESIDUAL.replace("TAIL", "[l] l = Mul(q, gamma)\n[a2] z = Add(l, s)"), **weights, gamma=(5, 6))
    found = _refit(dense, _hidden(_with(dense, w2=np.zeros((6, 6)))), draw(dense, 60))
    assert [len(layer.factors) for layer in found.layers] == [1, 1]


def _hidden(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose first layer cannot be fitted: its weight is an output too."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.append(onnx.helper.make_tensor_value_info("w2", onnx.TensorProto.FLOAT, [6, 6]))
    return copy


def test_twice_the_same_operand_is_no_shortcut(net, draw, distance):
    model = net("g (float[N,4] x) => (float[a,b] z) { [m] y = MatMul(x, w)\n[a] z = Add(y, y) }", w=(4, 4))
    found = _refit(model, _damaged(model, "w"), draw(model, 40))
    assert found.layers[0].factors == pytest.approx((1.0,))
    assert distance(model, found.model) < 1e-4


def test_a_layer_that_two_adds_read(net, draw, distance):
    model = net(
        """g (float[N,4] x, float[N,4] k) => (float[a,b] z, float[c,d] v) {
            [m] y = MatMul(x, w)
            [a] z = Add(y, x)
            [b] v = Add(y, k)
        }""",
        w=(4, 4),
    )
    found = _refit(model, _damaged(model, "w"), draw(model, 40))
    assert len(found.layers[0].factors) == 1
    assert distance(model, found.model) < 1e-4


def test_a_layer_that_is_read_in_a_body_too(net, draw, distance):
    model = net(
        """g (float[N,4] x, float[N,4] k) => (float[a,b] z, float[c,d] v) {
            [m] y = MatMul(x, w)
            [a] z = Add(y, x)
            [s] s = ReduceSum <keepdims=0> (k)
            [c] c = Greater(s, zero)
            [if] v = If (c) <
                then_branch = t () => (float[a,b] tv) { [n] tv = Neg(y) },
                else_branch = e () => (float[a,b] ev) { [i] ev = MatMul(y, u) }
            >
        }""",
        w=(4, 4), u=(4, 4), zero=np.float32(0),
    )  # fmt: skip
    found = _refit(model, _damaged(model, "w"), draw(model, 40))
    assert len(found.layers[0].factors) == 1
    assert distance(model, found.model) < 1e-4
    assert found.left == {"i": "it is in the body of a loop or a branch"}


def test_layers_that_read_the_same_are_fitted_together(net, draw, distance, monkeypatch):
    model = net(
        """g (float[N,5,6] x) => (float[a,b,c] y) {
            [r] h = Relu(x)
            [q0] q = MatMul(h, wq)
            [qa] qb = Add(q, bq)
            [k] k = MatMul(h, wk)
            [v] v = MatMul(h, wv)
            [g] g = Mul(qb, k)
            [y] y = Mul(g, v)
        }""",
        wq=(6, 4), bq=(4,), wk=(6, 4), wv=(6, 4),
    )  # fmt: skip
    seen = []

    def noting(linears: Any, *given: Any, **more: Any) -> Any:
        seen.append([one.name for one in linears])
        return rows_of(linears, *given, **more)

    monkeypatch.setattr(paired_run, "rows_of", noting)
    damaged = _damaged(model, "wq", "bq", "wk", "wv")
    found = _refit(model, damaged, draw(model, 40), batch_size=40)
    # A bias makes a difference: with one the fit is affine.
    assert [names for names, _ in groupby(seen)] == [["q0"], ["k", "v"]]
    assert [layer.name for layer in found.layers] == ["q0", "k", "v"]
    assert distance(model, found.model) < 1e-4


@pytest.mark.parametrize("sizes", [(7, 1, 8, 8, 3), (1,) * 12])
def test_batches_and_images_of_unlike_sizes(net, distance, sizes):
    """The geometry follows the image, the held-out rows the sample."""
    model = net(DENSE.replace("8,8]", "H,W]"), **WEIGHTS)
    rng = np.random.default_rng(0)
    data = [
        {"x": rng.standard_normal((size, 3, 5 + number, 9 - number % 4)).astype(np.float32)}
        for number, size in enumerate(sizes)
    ]
    found = _refit(model, _damaged(model, "w1", "w2", "w3", "w4"), data)
    assert distance(model, found.model, {"x": rng.standard_normal((2, 3, 7, 7)).astype(np.float32)}) < 1e-4


def test_a_fixed_batch(net, draw, distance):
    model = net(DENSE.replace("N,3", "4,3"), **WEIGHTS)
    found = _refit(model, _damaged(model, "w1", "w2", "w3", "w4"), draw(model, 40))
    assert distance(model, found.model) < 1e-4


@pytest.mark.parametrize("count", [1, 2, 3, 12])
def test_whole_sets_of_inputs(net, distance, count):
    """No axis is the batch; of a single sample a part is held out."""
    model = net("g (float[40,4] x, float scale) => (float[a,b] y) { [s] h = Mul(x, scale)\n[m] y = MatMul(h, w) }",
                w=(4, 4))  # fmt: skip
    rng = np.random.default_rng(0)
    data = [
        {"x": rng.standard_normal((40, 4)).astype(np.float32), "scale": np.array(1.5, np.float32)} for _ in range(count)
    ]
    found = _refit(model, _damaged(model, "w"), data)
    assert distance(model, found.model, data[0] | {"x": -data[0]["x"] * 2}) < 1e-4


def test_a_single_row_is_too_little_to_hold_any_out(net, draw):
    model = net("g (float[N,4] x) => (float[a,b] y) { [m] y = MatMul(x, w) }", w=(4, 4))
    damaged = _damaged(model, "w")
    found = _refit(model, damaged, draw(model, 1))
    assert "m" in found.left
    assert found.model.SerializeToString() == damaged.SerializeToString()


def test_what_no_sample_reaches_is_left(net, draw):
    """Rows that a condition chooses, and none is chosen."""
    model = net(
        """g (float[N,4] x) => (float[a,b] y) {
            [s] s = ReduceSum <keepdims=0> (x, one)
            [g] g = Greater(s, much)
            [c] h = Compress <axis=0> (x, g)
            [m] y = MatMul(h, w)
        }""",
        w=(4, 4), one=np.array([1]), much=np.float32(1e3),
    )  # fmt: skip
    damaged = _damaged(model, "w")
    found = _refit(model, damaged, draw(model, 40))
    assert found.left == {"m": "no sample reaches it"}
    assert found.model.SerializeToString() == damaged.SerializeToString()


def test_what_is_not_finite_is_left(net, draw):
    model = net(
        """g (float[N,4] x) => (float[a,b] y) {
            [l] h = Log(x)
            [m] y = MatMul(h, w)
        }""",
        w=(4, 4),
    )
    found = _refit(model, _damaged(model, "w"), draw(model, 40))
    assert found.left == {"m": "what it reads or gives is not finite"}


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        (
            "[m] y = MatMul(x, w)\n[n] v = Gemm <transB=1> (y, w)",
            {"w": (4, 4)},
            "weight 'w' is not the same matrix to 'm' and 'n'",
        ),
        ("[m] y = Gemm <transA=1> (x, w)\n[n] v = Neg(y)", {"w": (8, 4)}, "it transposes its input"),
        ("[m] y = Gemm(x, w, b)\n[n] v = Neg(y)", {"w": (4, 4), "b": (1,)}, "its bias is broadcast"),
        ("[m] y = Gemm(x, w, b)\n[n] v = Neg(y)", {"w": (4, 4), "b": (8, 1)}, "its bias is broadcast"),
        ("[m] y = Gemm <beta=0.0> (x, w, b)\n[n] v = Neg(y)", {"w": (4, 4), "b": (4,)}, "it multiplies by zero"),
        ("[t] t = Tanh(w)\n[m] y = Gemm(x, t)\n[n] v = Neg(y)", {"w": (4, 4)}, "its weight is computed"),
        ("[m] y = MatMul(x, w)\n[n] v = Neg(y)", {"w": (1, 4, 4)}, "its weight has 3 axes"),
    ],
)
def test_layers_that_are_left(net, draw, text, weights, reason):
    model = net(
        f"g (float[8,4] x) => (float[a,b] v) {{ {text} }}".replace("(float[a,b] v)", "(float[a,b] v)"), **weights
    )
    damaged = _damaged(model, "w")
    found = _refit(model, damaged, draw(model, 40))
    assert found.left["m"] == reason
    assert found.model.SerializeToString() == damaged.SerializeToString()


@pytest.mark.parametrize("name", ["w", "b"])
def test_what_a_caller_may_replace_stays_the_callers(net, draw, name):
    """A weight or bias that is an input with a default; the bias has two readers too, so that it would be cloned."""
    model = net(
        """g (float[N,4] x, float[4,4] w, float[4] b) => (float[a,b] y) {
            [g1] h = Gemm(x, w, b)
            [g2] y = Gemm(h, u, b)
        }""",
        w=(4, 4), u=(4, 4), b=(4,),
    )  # fmt: skip
    damaged = _damaged(model, name)
    found = _refit(model, damaged, draw(model, 40))
    assert set(found.left) >= {"g1"}
    assert (_stored(found.model, name) == _stored(damaged, name)).all()
    assert [list(node.input) for node in found.model.graph.node] == [list(node.input) for node in model.graph.node]


def test_several_inputs_and_a_layer_that_is_an_output(net, draw, distance):
    model = net(
        """g (float[N,3,5,5] x, float[N,4] k) => (float[a,b,c,d] h, float[e,f] y) {
            [c] h = Conv(x, w1)
            [p] p = GlobalAveragePool(h)
            [f] f = Flatten(p)
            [j] j = Concat <axis=1> (f, k)
            [g] y = Gemm(j, w2, b2)
        }""",
        w1=(4, 3, 3, 3), w2=(8, 4), b2=(4,),
    )  # fmt: skip
    found = _refit(model, _damaged(model, "w1", "w2"), draw(model, 40))
    assert distance(model, found.model) < 1e-4


def test_a_layer_that_divides_the_samples_over_its_first_axis(net, draw, distance):
    """Windows folded into the batch: the rows to hold out are still those of whole samples."""
    model = net(
        """g (float[N,6,4] x) => (float[a,b] y) {
            [r] h = Reshape(x, flat)
            [m] y = MatMul(h, w)
        }""",
        w=(4, 4), flat=np.array([-1, 4]),
    )  # fmt: skip
    found = _refit(model, _damaged(model, "w"), draw(model, 40))
    assert distance(model, found.model) < 1e-4


def test_weights_that_stay_in_files(net, draw, distance):
    wide = net("g (float[N,128] x) => (float[a,b] y) { [g] y = Gemm(x, w, b) }", w=(128, 200), b=(200,))
    damaged = _damaged(wide, "w")
    scratch = Scratch()
    placed = onnx.ModelProto()
    placed.CopyFrom(damaged)
    placed.graph.initializer[0].CopyFrom(scratch.put(_stored(damaged, "w"), "w"))
    data = open_data(draw(wide, 600), input_specs(wide))
    found = refit(Networks(wide, placed, _whole, scratch), data, Settings(threads=1))
    assert found.model.graph.initializer[0].data_location == onnx.TensorProto.EXTERNAL
    assert distance(wide, found.model) < 1e-4


def test_half_precision_that_overflows_is_not_written(net, draw):
    """The fit asks for a weight that float16 does not have."""
    model = net(
        """g (float[N,4] x) => (float[a,b] y) {
            [s] h = Mul(x, tiny)
            [t] t = Cast <to=10> (h)
            [m] k = MatMul(t, w)
            [u] y = Cast <to=1> (k)
        }""",
        tiny=np.float32(1e-2), w=np.full((4, 4), 3e4, np.float16),
    )  # fmt: skip
    pruned = _with(model, w=np.full((4, 4), 1.0), tiny=np.float32(1e-4))
    found = _refit(model, pruned, draw(model, 40))
    assert np.isfinite(_stored(found.model, "w")).all()


def test_rows_count_by_the_size_of_what_is_normalised(net, draw):
    """A position of 100 times the size is divided by 100 times the spread: its errors count no more than others'."""
    model = net(
        """g (float[N,8,6] x) => (float[a,b,c] y) {
            [m] h = MatMul(x, w)
            [n] y = LayerNormalization(h, s)
        }""",
        w=(6, 6), s=np.ones(6, np.float32),
    )  # fmt: skip
    data = draw(model, 60)
    # Large positions ask for another weight than small ones.
    data["x"][:, :1] *= 100
    data["x"][:, :1, 3:] = 0
    pruned = _with(model, w=_stored(model, "w") * (np.arange(6) % 3 != 0)[:, None])
    plain = net("g (float[N,8,6] x) => (float[a,b,c] h) { [m] h = MatMul(x, w) }", w=(6, 6))
    cut = {"x": data["x"].copy()}
    found = _refit(model, pruned, cut)
    assert found.layers[0].after < 1e-4
    assert _refit(plain, _with(plain, w=_stored(pruned, "w")), cut).layers[0].before != found.layers[0].before


@pytest.mark.parametrize(
    ("text", "is_normalised"),
    [
        ("[n] y = LayerNormalization(h, s)", True),
        ("[p] p = Pow(h, two)\n[n] n = ReduceMean <axes=[-1]> (p)\n[d] y = Div(h, n)", True),
        ("[p] p = Mul(h, h)\n[n] n = ReduceMean <axes=[2]> (p)\n[d] y = Div(h, n)", True),
        ("[n] n = ReduceMean <axes=[-1]> (h)\n[d] y = Sub(h, n)", True),
        ("[n] n = ReduceMean <axes=[1]> (h)\n[d] y = Sub(h, n)", False),
        ("[p] p = Pow(h, three)\n[d] y = Add(h, p)", False),
        ("[p] y = Tanh(h)", False),
    ],
)
def test_what_a_normalisation_is(net, text, is_normalised):
    used = {name: value for name, value in (("s", np.ones(6, np.float32)), ("two", np.float32(2)),
                                            ("three", np.float32(3))) if f"{name})" in text}  # fmt: skip
    model = net(f"g (float[N,8,6] x) => (float[a,b,c] y) {{ [m] h = MatMul(x, w)\n{text} }}", w=(6, 6), **used)
    (linear,), _ = find_linears(model)
    assert Surroundings(model, model).normalised(linear, None, 3) == is_normalised


def test_a_segment_that_does_not_run_is_said_so(net, draw):
    model = net(
        """g (float[N,4] x) => (float[a,b] y) {
            [r] h = Reshape(x, seven)
            [m] y = MatMul(h, w)
        }""",
        w=(7, 4), seven=np.array([-1, 7]),
    )  # fmt: skip
    with pytest.raises(ModelError):
        _refit(model, _damaged(model, "w"), draw(model, 5))


CHAINS = [
    ("[t] t = Transpose(w)\n[m] y = MatMul(x, t)", np.float32, (3, 4)),
    ("[t] t = Transpose <perm=[1,0]> (w)\n[m] y = Gemm <transB=1, alpha=0.5> (x, t)", np.float32, (4, 3)),
    ("[c] c = Cast <to=1> (w)\n[t] t = Transpose(c)\n[i] i = Identity(t)\n[m] y = MatMul(x, i)", np.float64, (3, 4)),
    ("[c] c = Cast <to=1> (w)\n[m] k = MatMul(x, c)\n[a] y = Add(k, b)", np.float64, (4, 3)),
]


@pytest.mark.parametrize(("text", "kind", "shape"), CHAINS)
def test_weights_are_written_back_through_a_chain(net, draw, distance, text, kind, shape):
    weights = {"w": RNG.standard_normal(shape).astype(kind), **({"b": (3,)} if ", b)" in text else {})}
    model = net(f"g (float[N,4] x) => (float[a,b] y) {{ {text} }}", **weights)
    found = _refit(model, _damaged(model, "w"), draw(model, 40))
    assert distance(model, found.model) < 1e-4
    assert _stored(found.model, "w").dtype == kind
    assert [node.name for node in found.model.graph.node] == [node.name for node in model.graph.node]


def test_a_convolution_reads_through_a_chain(net, draw, distance):
    model = net(
        """g (float[N,3,5,5] x) => (float[a,b,c,d] y) {
            [t] t = Transpose <perm=[3,2,0,1]> (w)
            [c] y = Conv <pads=[1,1,1,1]> (x, t)
        }""",
        w=(3, 2, 3, 4),
    )  # fmt: skip
    found = _refit(model, _damaged(model, "w"), draw(model, 40))
    assert distance(model, found.model) < 1e-4
    assert not found.left


@pytest.mark.parametrize("reader", ["Tanh(t)", "Tanh(w)", "Gather(w, i)"])
def test_a_chain_with_other_readers_is_left(net, draw, reader):
    model = net(
        f"""g (float[N,4] x) => (float[a,b] y, float[c,d] v) {{
            [t] t = Transpose(w)
            [m] y = MatMul(x, t)
            [n] v = {reader}
        }}""",
        w=(4, 4), **({"i": np.array([0, 1])} if "i" in reader.partition("(")[2] else {}),
    )  # fmt: skip
    found = _refit(model, _damaged(model, "w"), draw(model, 40))
    operator = reader.partition("(")[0]
    assert found.left == {"m": f"weight 'w' is read by {operator} 'n' too, which is not fitted"}
