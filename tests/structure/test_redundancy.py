"""Units that others can stand in for are removed without a trace: the recovery restores the outputs exactly."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from onnx_subprune.model import open_session, run
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import Options, RecoveryOptions
from onnx_subprune.pipeline import analyse, apply
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.subspace import intercept_is_exact

KEPT, SIZE = 5, 8
RNG = np.random.default_rng(7)
MIX = RNG.standard_normal((SIZE - KEPT, KEPT))
COPIES = np.eye(KEPT)[[0, 3, 3]]


def redundant(shape: Sequence[int], axis: int = 0, mix: np.ndarray = MIX, shift: float = 0.0) -> np.ndarray:
    """Random weights whose last units along `axis` are mixtures of the first, plus `shift`."""
    first = RNG.standard_normal((KEPT, *(n for i, n in enumerate(shape) if i != axis))) / 2
    rest = np.tensordot(mix, first, axes=1) + shift
    return np.moveaxis(np.concatenate([first, rest]), 0, axis).astype(np.float32)


def _between(net, text, both, image="4,3,6,7", **weights):
    """Conv c1 of the weights and biases `both` [8, 3 + 1] -> `text`, which makes y from h."""
    return net(
        f"""g (float[{image}] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1, b1)
            {text}
        }}""",
        w1=both[:, :3].reshape(8, 3, 1, 1), b1=np.ascontiguousarray(both[:, 3]), **weights,
    )  # fmt: skip


_BOTH = redundant((8, 4))
_TWINS = redundant((8, 4), mix=COPIES)
_SHIFTED = _BOTH + np.outer(np.arange(8) >= KEPT, [0, 0, 0, 0.9]).astype(np.float32)


def _used(weights: Mapping[str, object], text: str) -> dict[str, object]:
    """Return the weights that a text names."""
    return {name: value for name, value in weights.items() if re.search(rf"\b{name}\b", text)}


@pytest.mark.parametrize(
    ("attributes", "kernel"),
    [
        ("group=1", (4, 8, 1, 1)),
        ("pads=[1,1,1,1]", (4, 8, 3, 3)),
        ("pads=[2,0,1,1], strides=[2,1], dilations=[2,1]", (4, 8, 3, 2)),
        ('auto_pad="SAME_UPPER"', (4, 8, 3, 3)),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_a_conv_reads_mixtures(net, exact, attributes, kernel, bias):
    more = {"b2": (4,)} if bias else {}
    exact(_between(net, f"[c2] y = Conv <{attributes}> (h, w2 {', b2' if bias else ''})", _BOTH, w2=kernel, **more))


@pytest.mark.parametrize(
    "text", ["strides=[1,1]", "strides=[2,2], pads=[1,0,0,1]", "dilations=[2,2], output_padding=[0,0]"]
)
def test_a_transposed_conv_reads_mixtures(net, exact, text):
    exact(_between(net, f"[c2] y = ConvTranspose <{text}> (h, w2)", _BOTH, w2=(8, 4, 3, 3)))


def _within_groups(mix: np.ndarray, shift: float) -> np.ndarray:
    """[2 groups x 8, 3 + 1]: in each group the last units are mixtures of its first."""
    return np.concatenate([redundant((8, 4), mix=mix) for _ in range(2)]) + np.float32(
        np.array([0, 0, 0, shift]) * (np.arange(16) % 8 >= KEPT)[:, None]
    )


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_a_grouped_conv_reads_mixtures_in_each_group(net, exact, op):
    both = _within_groups(MIX, 0.0)
    model = net(
        f"""g (float[4,3,6,7] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1, b1)
            [c2] y = {op} <group=2, pads=[1,1,1,1]> (h, w2)
        }}""",
        w1=both[:, :3].reshape(16, 3, 1, 1), b1=both[:, 3], w2=(4, 8, 3, 3) if op == "Conv" else (16, 3, 3, 3),
    )  # fmt: skip
    exact(model, {"c1#2": range(KEPT)})


def test_a_grouped_conv_takes_constant_differences_into_its_bias(net, exact):
    both = _within_groups(MIX, 0.8)
    model = net(
        """g (float[4,3,6,7] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [c2] u = Conv <group=2> (h, w2)
            [c3] y = Conv(u, w3)
        }""",
        w1=both[:, :3].reshape(16, 3, 1, 1), b1=both[:, 3], w2=(4, 8, 2, 2), w3=(2, 4, 1, 1),
    )  # fmt: skip
    exact(model, {"c1#2": range(KEPT)})


@pytest.mark.parametrize(
    "text",
    [
        "[r] r = Relu(h)\n[c2] y = Conv <pads=[1,1,1,1]> (r, w2)",
        "[n] n = InstanceNormalization(h, s, s)\n[c2] y = Conv(n, w2)",
        "[n] n = BatchNormalization(h, s, s, s, v)\n[c2] u = Conv(n, w2)\n[c3] w = Conv(h, w3)\n[a] y = Add(u, w)",
        "[d] d = Conv <group=8, pads=[1,1,1,1]> (h, wd)\n[r] r = Sigmoid(d)\n[c2] y = Conv(r, w2)",
        "[p] p = MaxPool <kernel_shape=[2,2]> (h)\n[u] u = Resize(p, , k)\n[c2] y = Conv(u, w2)",
        "[g] g = GlobalAveragePool(h)\n[e] e = Sigmoid(g)\n[m] m = Mul(e, h)\n[c2] y = Conv <pads=[1,1,1,1]> (m, w2)",
        "[q] q = PRelu(h, v1)\n[c2] y = Conv(q, w2)",
        "[q] q = Add(v1, h)\n[t] t = Tanh(q)\n[c2] y = Conv(t, w2)",
    ],
)
def test_twins_stay_twins_through_what_carries_them(net, exact, text):
    """Duplicates, so that what lies between need not be linear."""
    weights = {
        "w2": (4, 8, 3, 3), "w3": (4, 8, 3, 3), "wd": redundant((8, 1, 3, 3), mix=COPIES),
        "k": np.float32([1, 1, 2, 2]),
        "s": redundant((8,), mix=COPIES), "v": np.abs(redundant((8,), mix=COPIES)) + np.float32(0.1),
        "v1": redundant((8, 1, 1), mix=COPIES),
    }  # fmt: skip
    exact(_between(net, text, _TWINS, **_used(weights, text)))


def test_a_residual_stream_of_twins(net, exact):
    model = net(
        """g (float[4,3,6,6] x) => (float[a,b,c,d] y) {
            [c1] s = Conv(x, w1, b1)
            [r] r = Relu(s)
            [c2] h = Conv <pads=[1,1,1,1]> (r, w2)
            [t] t = Tanh(h)
            [c3] v = Conv(t, w3, b3)
            [a] a = Add(r, v)
            [e] e = Relu(a)
            [c4] y = Conv <pads=[1,1,1,1]> (e, w4)
        }""",
        w1=_TWINS[:, :3].reshape(8, 3, 1, 1), b1=_TWINS[:, 3], w2=(6, 8, 3, 3), w3=redundant((8, 6, 1, 1), mix=COPIES),
        b3=redundant((8,), mix=COPIES), w4=(4, 8, 3, 3),
    )  # fmt: skip
    exact(model)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("[c2] y = Gemm(h, w2)", {"w2": (8, 3)}),
        ("[c2] y = Gemm <alpha=0.5, beta=3.0, transB=1> (h, w2, b2)", {"w2": (3, 8), "b2": (3,)}),
        ("[c2] y = Gemm <alpha=0.5, beta=0.25> (h, w2, b2)", {"w2": (8, 3), "b2": np.float32(0.4)}),
        ("[c2] y = Gemm <alpha=2.0, beta=0.0> (h, w2, b2)", {"w2": (8, 3), "b2": (3,)}),
        ("[c2] y = Gemm <alpha=2.0, beta=0.5> (h, w2, b2)", {"w2": (8, 3), "b2": np.float32([[0.5]])}),
        ("[t] t = Transpose(h)\n[c2] y = Gemm <transA=1, alpha=2.0> (t, w2)", {"w2": (8, 3)}),
        ("[k] k = Identity(b2)\n[c2] y = Gemm <alpha=2.0, beta=0.5> (h, w2, k)", {"w2": (8, 3), "b2": (3,)}),
        ("[r] k = ReduceSum(x)\n[c2] y = Gemm <alpha=2.0, beta=0.5> (h, w2, k)", {"w2": (8, 3)}),
        ("[c2] y = MatMul(h, w2)", {"w2": (8, 3)}),
        ("[c2] u = MatMul(h, w2)\n[a] y = Add(u, b2)", {"w2": (8, 3), "b2": (3,)}),
        ("[c2] u = MatMul(h, w2)\n[a] y = Add(b2, u)", {"w2": (8, 3), "b2": (1, 3)}),
        ("[c2] u = MatMul(h, w2)\n[a] y = Add(u, b2)", {"w2": (8, 3), "b2": np.float32([0.3])}),
        ("[c2] u = MatMul(h, w2)\n[a] y = Add(u, b2)", {"w2": (8, 1), "b2": np.float32(0.3)}),
        ("[c2] u = MatMul(h, w2)\n[a] v = Add(u, b2)\n[m] y = Mul(v, u)", {"w2": (8, 3), "b2": (3,)}),
        ("[c2] u = MatMul(h, w2)\n[a] v = Add(u, b2)\n[m] m = MatMul(v, w3)\n[b] y = Add(m, b2)",
         {"w2": (8, 3), "b2": (3,), "w3": (3, 3)}),
        ("[t] t = Transpose(h)\n[c2] y = MatMul(w2, t)", {"w2": (3, 8)}),
        ("[k] k = Transpose(w2)\n[c2] y = MatMul(h, k)", {"w2": (3, 8)}),
        ("[k] k = Cast <to=1> (w2)\n[c2] y = MatMul(h, k)", {"w2": RNG.integers(-3, 4, (8, 3)).astype(np.float16)}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("shift", [0.0, 0.9])
def test_a_matrix_reads_mixtures_with_a_constant_difference(net, exact, text, weights, shift):
    both = _SHIFTED if shift else _BOTH
    model = net(
        f"""g (float[4,3] x) => (float[a,b] y) {{
            [c1] h = Gemm <transB=1> (x, w1, b1)
            {text}
        }}""",
        w1=np.ascontiguousarray(both[:, :3]), b1=np.ascontiguousarray(both[:, 3]), **weights,
    )  # fmt: skip
    # Corrected weights are rounded to the precision they are stored in.
    exact(model, tolerance=1e-2 if "Cast" in text else 1e-4)


def test_mixtures_of_positions_read_by_a_constant_on_the_left(net, exact):
    """Token mixing: tokens are units, and what passes (channels) is pruned in the same stroke."""
    model = net(
        """g (float[4,6,3] x) => (float[a,b,c] y) {
            [m0] e = MatMul(x, w0)
            [m1] h = MatMul(w1, e)
            [a] k = Add(h, b1)
            [m2] u = MatMul(w2, k)
            [m3] y = MatMul(u, w3)
        }""",
        w0=redundant((3, 8), axis=1), w1=(tokens := redundant((8, 7)))[:, :6], b1=tokens[:, 6:] + np.float32(
            0.7 * (np.arange(8) >= KEPT)[:, None]
        ), w2=(4, 8), w3=(8, 3),
    )  # fmt: skip
    # Channels: unit k of e is a mixture, and w1 and b1 (the same for all channels) keep it one up to a constant.
    exact(model, {"m1": range(KEPT)})


@pytest.mark.parametrize(
    "text",
    [
        "[c2] y = Conv(h, w2)",
        "[c2] y = Conv <strides=[2,1]> (h, w2, b2)",
        '[c2] y = Conv <auto_pad="VALID"> (h, w2)',
        "[c2] u = Conv(h, w2, b2)\n[c3] y = Conv(u, w3, b2)",
        "[k] k = Identity(b2)\n[c2] y = Conv(h, w2, k)",
        "[c2] y = ConvTranspose(h, w4)",
        "[c2] y = ConvTranspose <pads=[0,0,0,0]> (h, w4, b2)",
    ],
)
def test_a_constant_difference_goes_into_the_bias(net, exact, text):
    weights = {"w2": (4, 8, 2, 3), "b2": (4,), "w3": (4, 4, 1, 1), "w4": (8, 4, 1, 1)}
    exact(_between(net, text, _SHIFTED, **_used(weights, text)))


@pytest.mark.parametrize(
    ("text", "shape", "is_exact"),
    [
        ("Conv <group=1>", (4, 8, 3, 3), True),
        ("Conv <pads=[0,1,0,0]>", (4, 8, 3, 3), False),
        ("ConvTranspose <group=1>", (8, 4, 1, 1), True),
        ("ConvTranspose <group=1>", (8, 4, 2, 2), False),
        ("ConvTranspose <strides=[2,2]>", (8, 4, 1, 1), False),
    ],
)
def test_where_a_constant_in_is_a_constant_out(net, text, shape, is_exact):
    structure = analyse(_between(net, f"[c2] y = {text} (h, w2)", _BOTH, w2=shape)).structure
    (consumer,) = structure.prunable[0].consumers
    assert intercept_is_exact(consumer) is is_exact


def test_a_bias_that_the_caller_gives_is_followed_by_an_add(net, exact):
    model = net(
        """g (float[4,3,5,5] x, float[1,4] k) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [s] s = Squeeze(k, zero)
            [c2] y = Conv(h, w2, s)
        }""",
        w1=_SHIFTED[:, :3].reshape(8, 3, 1, 1), b1=np.ascontiguousarray(_SHIFTED[:, 3]), w2=(4, 8, 1, 1),
        zero=np.array([0]),
    )  # fmt: skip
    assert model.graph.input[1].name == "k"


def test_a_flattened_map_of_mixtures(net, exact):
    exact(_between(net, "[f] f = Flatten(h)\n[fc] u = Gemm(f, w2)\n[u] y = Unsqueeze(u, k)", _SHIFTED,
                   w2=(8 * 42, 3), k=np.array([2, 3])))  # fmt: skip


def test_a_map_flattened_channels_last(net, exact):
    text = "[t] t = Transpose <perm=[0,2,3,1]> (h)\n[f] f = Flatten(t)\n[fc] u = Gemm(f, w2)\n[u] y = Unsqueeze(u, k)"
    exact(_between(net, text, _BOTH, image="4,3,2,3", w2=(8 * 6, 3), k=np.array([2, 3])))


def test_a_weight_read_by_two_nodes_is_corrected_for_both(net, exact):
    model = net(
        """g (float[4,3,6,6] x, float[4,3,6,6] z) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [d1] k = Conv(z, w1, b1)
            [c2] u = Conv(h, w2)
            [d2] v = Conv(k, w2)
            [s] y = Sub(u, v)
        }""",
        w1=_SHIFTED[:, :3].reshape(8, 3, 1, 1), b1=np.ascontiguousarray(_SHIFTED[:, 3]), w2=(4, 8, 3, 3),
    )  # fmt: skip
    # The shift cancels in the difference; the mixtures do not.
    exact(model)


def test_mixtures_within_a_concatenation(net, exact):
    model = net(
        """g (float[4,3,6,6] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [c0] k = Conv(x, w0)
            [r] r = Relu(k)
            [cat] t = Concat <axis=1> (r, h)
            [c2] y = Conv(t, w2)
        }""",
        w1=_SHIFTED[:, :3].reshape(8, 3, 1, 1), b1=np.ascontiguousarray(_SHIFTED[:, 3]), w0=(4, 3, 1, 1),
        w2=(4, 12, 1, 1),
    )  # fmt: skip
    exact(model)


def test_constant_units_vanish_into_the_bias(net, exact):
    both = np.concatenate([_BOTH[:KEPT], np.float32([[0, 0, 0, 0.7], [0, 0, 0, -2.0], [0, 0, 0, 1.5]])])
    exact(_between(net, "[t] t = Softplus(h)\n[c2] y = Conv(t, w2)", both, w2=(4, 8, 2, 2)))


def test_whole_groups_go_without_a_correction(net):
    """Two of four groups of a grouped convolution are not read: they go whole, and nothing is left to correct."""
    w3 = np.zeros((3, 8, 1, 1), np.float32)
    w3[:, :4] = RNG.standard_normal((3, 4, 1, 1))
    model = net(
        """g (float[4,3,6,6] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [r] q = Reshape(h, grid)
            [s] s = Softmax <axis=2> (q)
            [m] m = Reshape(s, flat)
            [c2] u = Conv <group=4> (m, w2)
            [c3] y = Conv(u, w3)
        }""",
        w1=(12, 3, 1, 1), w2=(8, 3, 1, 1), w3=w3, grid=np.array([0, 4, 3, 6, 6]), flat=np.array([0, 12, 6, 6]),
    )  # fmt: skip
    analysis = analyse(model)
    plan = Plan(
        analysis.fingerprint, "by hand",
        tuple(PlannedGroup(g.name, g.size, (0, 1)) for g in analysis.structure.prunable if g.name == "c1"),
        RecoveryOptions(recovery="channel", ridge=0.0),
    )  # fmt: skip
    data = {"x": RNG.standard_normal((16, 3, 6, 6)).astype(np.float32)}
    pruned = apply(plan, model, data, Options(batch_size=2, threads=1)).model
    feeds = {"x": data["x"][:4]}
    assert relative_error(run(open_session(pruned), feeds)["y"], run(open_session(model), feeds)["y"]) < 1e-5


@pytest.mark.parametrize("bias", ["", "[b] y = Add(u, b2)"])
@pytest.mark.parametrize("left", [False, True])
def test_experts_read_mixtures_of_their_own(net, exact, bias, left):
    """Every matrix of a stack has a recovery of its own: the mixtures differ from expert to expert."""
    mixes = [RNG.standard_normal((SIZE - KEPT, KEPT)) for _ in range(3)]
    w1 = np.stack([redundant((8, 3), mix=mix) for mix in mixes])
    b1 = np.stack([redundant((8, 1), mix=mix) for mix in mixes])
    b1[:, KEPT:] += np.float32([[[0.9]], [[0.1]], [[-0.5]]])
    if not left:
        w1, b1 = w1.transpose(0, 2, 1).copy(), b1.transpose(0, 2, 1).copy()
    product, shapes = ("MatMul(w2, a)", ((3, 2, 8), (3, 2, 1))) if left else ("MatMul(a, w2)", ((3, 8, 2), (3, 1, 2)))
    out = "u" if bias else "y"
    model = net(
        f"""g (float[4,3,6] x) => (float[a,b,c,d] y) {{
            [s] s = {"Unsqueeze(x, one)" if left else "Transpose <perm=[0,2,1]> (x)"}
            {"[i] i = Identity(s)" if left else "[i] i = Unsqueeze(s, one)"}
            [c1] h = {"MatMul(w1, i)" if left else "MatMul(i, w1)"}
            [a] a = Add(h, b1)
            [c2] {out} = {product}
            {bias}
        }}""",
        w1=w1, b1=b1, w2=shapes[0], one=np.array([1]), **({"b2": shapes[1]} if bias else {}),
    )  # fmt: skip
    exact(model)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("[c2] y = com.microsoft.FusedMatMul <alpha=0.5> (h, w2)", {"w2": (8, 3)}),
        ("[c2] u = com.microsoft.FusedMatMul <alpha=0.5, transB=1> (h, w2)\n[a] y = Add(b2, u)",
         {"w2": (3, 8), "b2": (3,)}),
        ('[c2] y = com.microsoft.FusedGemm <activation="LeakyRelu", activation_alpha=0.5, alpha=0.5> (h, w2, b2)',
         {"w2": (8, 3), "b2": (3,)}),
        ('[r] k = ReduceMean(x)\n[c2] y = com.microsoft.FusedGemm <activation="Tanh", beta=0.5> (h, w2, k)',
         {"w2": (8, 3)}),
        ("[t] t = Transpose(h)\n[c2] y = Gemm <alpha=0.5> (w2, t)", {"w2": (3, 8)}),
        ("[t] t = Transpose(h)\n[c2] y = Gemm <alpha=0.5> (w2, t, b2)", {"w2": (3, 8), "b2": (3, 1)}),
    ],
)  # fmt: skip
def test_fused_products_and_constants_on_the_left_read_mixtures(net, exact, text, weights):
    model = net(
        f"""g (float[4,3] x) => (float[a,b] y) {{
            [c1] h = Gemm <transB=1> (x, w1, b1)
            {text}
        }}""",
        domains=', "com.microsoft" : 1',
        w1=np.ascontiguousarray(_SHIFTED[:, :3]), b1=np.ascontiguousarray(_SHIFTED[:, 3]), **weights,
    )  # fmt: skip
    exact(model)


def test_heads_of_an_einsum_read_mixtures(net, exact):
    """What heads hold is mixed over heads and channels alike; the removed channels are the same in all heads."""
    values = np.stack([redundant((3, 8), axis=1) for _ in range(2)], axis=1)
    model = net(
        """g (float[4,6,3] x) => (float[a,b,c] y) {
            [c1] h = Einsum <equation="bld,dhe->bhle"> (x, w1)
            [a] a = Add(h, b1)
            [c2] y = Einsum <equation="bhle,hed->bld"> (a, w2)
        }""",
        w1=values, b1=np.full((2, 1, 8), 0.3, np.float32), w2=(2, 8, 5),
    )  # fmt: skip
    exact(model, {"c1_matmul#2": range(KEPT)})


def test_experts_of_an_einsum_read_mixtures_of_their_own(net, exact):
    experts = np.stack([redundant((3, 8), axis=1, mix=RNG.standard_normal((3, 5))) for _ in range(2)])
    model = net(
        """g (float[4,3] x) => (float[a,b,c] y) {
            [c1] h = Einsum <equation="nd,edh->neh"> (x, w1)
            [c2] y = Einsum <equation="neh,ehd->ned"> (h, w2)
        }""",
        w1=experts, w2=(2, 8, 5),
    )  # fmt: skip
    exact(model, {"c1_matmul#2": range(KEPT)})


MS = ', "com.microsoft" : 1'


def _in_heads(heads: int, width: int) -> np.ndarray:
    """[width, heads x 8]: in every head the last channels are the same mixtures of its first."""
    return np.concatenate([redundant((width, SIZE), axis=1) for _ in range(heads)], axis=1)


def test_value_channels_of_a_fused_attention_are_mixtures(net, exact):
    """Rows of probabilities sum to one, so a constant difference stays one."""
    shift = np.tile(np.float32(0.7 * (np.arange(SIZE) >= KEPT)), 2)
    model = net(
        """g (float[4,6,3] x) => (float[a,b,c] y) {
            [att] o = com.microsoft.Attention <num_heads=2, qkv_hidden_sizes=[8,8,16]> (x, w, b)
            [out] y = MatMul(o, wo)
        }""",
        domains=MS, w=np.concatenate([RNG.standard_normal((3, 16)).astype(np.float32), _in_heads(2, 3)], axis=1),
        b=np.concatenate([RNG.standard_normal(16).astype(np.float32), shift]), wo=(16, 5),
    )  # fmt: skip
    exact(model, {"att#3": range(KEPT)})


def test_heads_of_a_fused_attention_are_twins(net, exact):
    """Heads 2 and 3 say what head 0 says, the last of them with another sign."""
    first = RNG.standard_normal((3, 2, 4)).astype(np.float32)
    twins, signed = first[:, [0, 1, 0, 0]], first[:, [0, 1, 0, 0]] * np.float32([1, 1, 1, -1])[:, None]
    model = net(
        """g (float[4,6,3] x) => (float[a,b,c] y) {
            [q] q = MatMul(x, wq)
            [k] k = MatMul(x, wk)
            [v] v = MatMul(x, wv)
            [att] o = com.microsoft.MultiHeadAttention <num_heads=4> (q, k, v)
            [out] y = MatMul(o, wo)
        }""",
        domains=MS, wq=twins.reshape(3, 16), wk=twins.reshape(3, 16), wv=signed.reshape(3, 16), wo=(16, 5),
    )  # fmt: skip
    exact(model, {"q": [0, 1]})


@pytest.mark.parametrize("mask", ["", ", m"])
def test_a_fused_attention_reads_mixtures(net, exact, mask):
    model = net(
        f"""g (float[4,6,3] x) => (float[a,b,c] y) {{
            [c1] h = MatMul(x, w1)
            [s] s = Add(h, b1)
            [att] y = com.microsoft.Attention <num_heads=2> (s, w, b{mask})
        }}""",
        domains=MS, w1=redundant((3, 8), axis=1), b1=np.float32(0.9 * (np.arange(8) >= KEPT)), w=(8, 12), b=(12,),
        **({"m": np.full(4, 5, np.int32)} if mask else {}),
    )  # fmt: skip
    exact(model)


def test_a_fused_conv_reads_mixtures_beside_a_sum(net, exact):
    """It has no bias where the correction needs one, and a fourth input behind."""
    model = net(
        """g (float[4,3,6,7] x, float[4,4,6,7] z) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [c2] y = com.microsoft.FusedConv <activation="Relu"> (h, w2, , z)
        }""",
        domains=MS, w1=_SHIFTED[:, :3].reshape(8, 3, 1, 1), b1=np.ascontiguousarray(_SHIFTED[:, 3]), w2=(4, 8, 1, 1),
    )  # fmt: skip
    exact(model)


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("[c2] u = Conv(r, w2, b2)", {"w2": (6, 8, 2, 2), "b2": (6,)}),
        ("[c2] u = Conv <strides=[1,1], dilations=[1,1]> (r, w2)", {"w2": (6, 8, 2, 2)}),
        ("[c2] v = Conv <group=2> (r, w2)\n[g] u = HardSwish(v)", {"w2": (6, 4, 2, 2)}),
        ("[c2] v = Conv(r, w2)\n[c3] u = Conv(v, w3, b3)", {"w2": (3, 8, 2, 2), "w3": (6, 3, 1, 1), "b3": (6,)}),
    ],
)
@pytest.mark.parametrize("stem", ["(x, ws)", "(x, ws, bs)"])
def test_a_branch_of_constants_goes_without_a_trace(net, exact, text, weights, stem):
    """The features do not depend on the input, so that their mean is all there is."""
    model = net(
        f"""g (float[4,3,6,7] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1, b1)
            [r] r = Relu(h)
            {text}
            [stem] s = Conv{stem}
            [t] t = Add(s, u)
            [q] q = Relu(t)
            [c4] y = Conv <pads=[1,1,1,1]> (q, w4)
        }}""",
        w1=np.zeros((8, 3, 1, 1), np.float32), b1=np.abs(RNG.standard_normal(8)).astype(np.float32) + 1,
        **_used({"ws": (6, 3, 2, 2), "bs": (6,)}, stem), **weights, w4=(2, 6, 3, 3),
    )  # fmt: skip
    name = "c1" if "group" not in text else "c1#2"
    exact(model, {name: ()})


def test_tokens_of_constants_go_without_a_trace(net, exact):
    model = net(
        """g (float[4,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [a1] a = Add(h, b1)
            [g1] r = Sigmoid(a)
            [m2] u = MatMul(r, w2)
            [m3] s = MatMul(x, w3)
            [t] t = Add(s, u)
            [q] q = Tanh(t)
            [m4] y = MatMul(q, w4)
        }""",
        w1=np.zeros((6, 8), np.float32), b1=(8,), w2=(8, 6), w3=(6, 6), w4=(6, 3),
    )  # fmt: skip
    exact(model, {"m1": ()})


def test_a_weight_that_is_contracted_along_both_axes_is_left_and_said_so(net):
    """The first of its readers loses nothing: the second is still to be told of."""
    model = net(
        """g (float[N,3] x, float[N,3,5] z) => (float[a,b] y, float[c,d,e] v) {
            [m1] u = MatMul(w2, z)
            [t1] t = Tanh(u)
            [m2] v = MatMul(w3, t)
            [c1] h = Gemm(x, w1)
            [r] r = Relu(h)
            [c2] y = Gemm(r, w2)
        }""",
        w1=(3, 8), w2=(8, 3), w3=(4, 8),
    )  # fmt: skip
    analysis = analyse(model)
    groups = tuple(PlannedGroup(g.name, g.size, tuple(range(KEPT))) for g in analysis.structure.prunable)
    plan = Plan(analysis.fingerprint, "by hand", groups, RecoveryOptions(recovery="channel", ridge=0.0))
    data = {"x": RNG.standard_normal((64, 3)), "z": RNG.standard_normal((64, 3, 5))}
    result = apply(plan, model, {name: values.astype(np.float32) for name, values in data.items()})
    assert any("'w2' is contracted along different axes" in warning for warning in result.warnings), result.warnings
