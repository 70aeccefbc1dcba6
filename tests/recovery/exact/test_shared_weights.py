"""One weight with several readers: one fit over the rows of all of them, written once."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.model import array_of, input_specs, open_session, run
from onnx_subprune.recovery.exact import Networks, Refit, Settings, refit
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import find_linears
from onnx_subprune.recovery.exact.steps import steps_of

KEPT, SIZE = 5, 8
RNG = np.random.default_rng(5)


def _mixtures(*shape: int, shift: float = 0.0) -> np.ndarray:
    """Random weights [SIZE, ...] whose last rows are mixtures of the first, plus `shift`."""
    first = RNG.standard_normal((KEPT, *shape)) / 2
    mix = RNG.standard_normal((SIZE - KEPT, KEPT)) / 2
    return np.concatenate([first, np.tensordot(mix, first, axes=1) + shift]).astype(np.float32)


def _whole(name: str, value: np.ndarray) -> np.ndarray:
    return value


def _damaged(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rng = np.random.default_rng(2)
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            values = array_of(tensor)
            noise = 0.3 * rng.standard_normal(values.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array((values + noise).astype(values.dtype), tensor.name))
    return copy


def _refit(dense: onnx.ModelProto, damaged: onnx.ModelProto, data: Any, **settings: Any) -> Refit:
    opened = open_data(data, input_specs(dense))
    return refit(Networks(dense, damaged, _whole), opened, Settings(threads=1, batch_size=8, **settings))


HEADS = """g (float[N,3,10,10] x, float[N,3,5,5] z) => (float[a,b,c,d] y, float[e,f,k,l] v) {
    [c1] h = Conv(x, w1, b1)
    [d1] k = Conv(z, w1, b1)
    [c2] p = Conv <pads=[1,1,1,1]> (h, w2BIAS)
    [d2] q = Conv <pads=[1,1,1,1]> (k, w2OTHER)
    [r1] y = Relu(p)
    [r2] v = Relu(q)
}"""
SIAMESE = """g (float[N,6] x, float[N,6] z) => (float[a,b] y) {
    [g1] h = Gemm(x, w1, b1)
    [t1] t = Tanh(h)
    [g2] p = Gemm <alpha=0.5> (h, w2BIAS)
    [d1] k = Gemm(z, w1, b1)
    [d2] q = Gemm <alpha=0.5> (k, w2OTHER)
    [s] y = Sub(p, q)
}"""
BIASES = {
    "none": ("", "", {}),
    "shared": (", b2", ", b2", {"b2": (4,)}),
    "apart": (", b2", ", b3", {"b2": (4,), "b3": (4,)}),
}


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("biases", BIASES)
def test_a_head_over_two_maps_of_different_sizes(net, pruned, distance, biases, one_pass):
    bias, other, weights = BIASES[biases]
    both = _mixtures(4)
    model = net(
        HEADS.replace("N", "4").replace("BIAS", bias).replace("OTHER", other),
        w1=both[:, :3].reshape(SIZE, 3, 1, 1), b1=np.ascontiguousarray(both[:, 3]), w2=(4, SIZE, 3, 3), **weights,
    )  # fmt: skip
    kept = {"c1": range(KEPT)}
    assert distance(model, pruned(model, kept, recovery="none").model) > 3e-2
    found = pruned(model, kept, one_pass=one_pass)
    assert distance(model, found.model) < 1e-5
    assert {"c2", "d2"} <= {layer.name for layer in found.fit.layers}
    assert not [text for text in found.warnings if "keeps" in text]
    readers = [node for node in found.model.graph.node if node.name in ("c2", "d2")]
    assert readers[0].input[1] == readers[1].input[1]


@pytest.mark.parametrize("biases", BIASES)
def test_siamese_encoders(net, pruned, distance, biases):
    bias, other, weights = BIASES[biases]
    both = _mixtures(7)
    model = net(
        SIAMESE.replace("N", "4").replace("BIAS", bias).replace("OTHER", other),
        w1=np.ascontiguousarray(both[:, :6].T), b1=np.ascontiguousarray(both[:, 6]), w2=(SIZE, 4), **weights,
    )  # fmt: skip
    kept = {"g1": range(KEPT)}
    assert distance(model, pruned(model, kept, recovery="none").model) > 3e-2
    found = pruned(model, kept)
    assert distance(model, found.model) < 1e-5
    assert {"g2", "d2"} <= {layer.name for layer in found.fit.layers}


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("biases", BIASES)
@pytest.mark.parametrize("text", [HEADS, SIAMESE], ids=["heads", "siamese"])
def test_a_shared_weight_and_its_biases_are_repaired(net, draw, distance, text, biases, sequential):
    bias, other, weights = BIASES[biases]
    shapes = {"w1": (SIZE, 3, 1, 1), "w2": (4, SIZE, 3, 3)} if text == HEADS else {"w1": (6, SIZE), "w2": (SIZE, 4)}
    model = net(text.replace("BIAS", bias).replace("OTHER", other), **shapes, b1=(SIZE,), **weights)
    damaged = _damaged(model, "w1", "b1", "w2", *weights)
    found = _refit(model, damaged, draw(model, 60), sequential=sequential)
    assert not found.left
    assert distance(model, damaged, draw(model, 4, 3)) > 0.1
    assert distance(model, found.model, draw(model, 4, 3)) < 1e-4
    # Where there was no bias, the readers share a new one.
    assert len(found.model.graph.initializer) == len(model.graph.initializer) + (biases == "none")


@pytest.mark.parametrize("sequential", [True, False])
def test_products_whose_biases_are_added_behind_them(net, draw, distance, sequential):
    model = net(
        """g (float[N,5,6] x, float[N,3,6] z) => (float[a,b,c] y, float[e,f,k] v) {
            [m1] p = MatMul(x, w)
            [a1] y = Add(p, b)
            [m2] q = MatMul(z, w)
            [a2] v = Add(b, q)
        }""",
        w=(6, 4), b=(4,),
    )  # fmt: skip
    found = _refit(model, _damaged(model, "w", "b"), draw(model, 60), sequential=sequential)
    assert not found.left
    assert distance(model, found.model, draw(model, 4, 3)) < 1e-5


def test_a_block_that_is_applied_over_and_over_reads_the_dense_network(net, draw):
    """Its second reader reads what the first gives: no order of fits could serve both on the pruned network."""
    model = net(
        """g (float[N,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w)
            [t] t = Tanh(h)
            [m2] y = MatMul(t, w)
        }""",
        w=(6, 6),
    )  # fmt: skip
    linears, _ = find_linears(model)
    (step,) = steps_of(model, linears, Surroundings(model, model), Settings())
    assert step.shared
    assert step.beside
    found = _refit(model, _damaged(model, "w"), draw(model, 60))
    assert not found.left
    stored = {tensor.name: array_of(tensor) for tensor in found.model.graph.initializer}
    assert stored["w"] == pytest.approx(array_of(model.graph.initializer[0]), abs=1e-4)


@pytest.mark.parametrize("sequential", [True, False])
def test_a_block_of_several_layers_that_is_applied_twice(net, draw, distance, sequential):
    """What the first layer reads is read by the second too, in a later step, when the dense network is far ahead."""
    model = net(
        """g (float[N,6] x) => (float[a,b] y) {
            [m0] h = MatMul(x, u)
            [q1] q = MatMul(h, wq)
            [k1] k = MatMul(h, wk)
            [p1] p = Mul(q, k)
            [o1] o = MatMul(p, wo)
            [q2] r = MatMul(o, wq)
            [k2] l = MatMul(o, wk)
            [p2] s = Mul(r, l)
            [o2] y = MatMul(s, wo)
        }""",
        u=(6, 6), wq=(6, 6), wk=(6, 6), wo=(6, 6),
    )  # fmt: skip
    found = _refit(model, _damaged(model, "wq", "wk", "wo"), draw(model, 80), sequential=sequential)
    assert not found.left
    assert len(found.layers) == 7
    assert distance(model, found.model, draw(model, 4, 3)) < 1e-3


def test_two_weights_that_read_each_other(net, draw, distance):
    model = net(
        """g (float[N,6] x, float[N,6] z) => (float[a,b] y, float[c,d] v) {
            [a1] h = MatMul(x, w1)
            [a2] y = MatMul(h, w2)
            [b2] k = MatMul(z, w2)
            [b1] v = MatMul(k, w1)
        }""",
        w1=(6, 6), w2=(6, 6),
    )  # fmt: skip
    linears, _ = find_linears(model)
    steps = steps_of(model, linears, Surroundings(model, model), Settings())
    assert [(step.linears[0].name, step.beside) for step in steps] == [("a1", True), ("a2", False)]
    found = _refit(model, _damaged(model, "w1", "w2"), draw(model, 60))
    assert distance(model, found.model, draw(model, 4, 3)) < 1e-4


def test_a_step_waits_for_all_that_its_readers_read(net):
    """The second encoder begins with a layer of its own, which comes after the first reader in the graph."""
    model = net(
        """g (float[N,6] x, float[N,5] z) => (float[a,b] y, float[c,d] v) {
            [m1] y = MatMul(x, w)
            [m2] k = MatMul(z, u)
            [m3] v = MatMul(k, w)
        }""",
        w=(6, 6), u=(5, 6),
    )  # fmt: skip
    linears, _ = find_linears(model)
    steps = steps_of(model, linears, Surroundings(model, model), Settings())
    assert [[linear.name for linear in step.linears] for step in steps] == [["m2"], ["m1", "m3"]]
    assert not any(step.beside for step in steps)


def test_a_joint_fit_is_better_than_that_of_the_channels(net, pruned, draw):
    """No channel can be told from others at the same place, but from its neighbours: a fit on patches sees that."""
    rng = np.random.default_rng(3)
    model = net(
        """g (float[4,3,12,12] x, float[4,3,7,7] z) => (float[a,b,c,d] y, float[e,f,k,l] v) {
            [c1] h = Conv <pads=[1,1,1,1]> (x, w1)
            [d1] k = Conv <pads=[1,1,1,1]> (z, w1)
            [r1] i = Relu(h)
            [r2] j = Relu(k)
            [c2] y = Conv <pads=[1,1,1,1]> (i, w2)
            [d2] v = Conv <pads=[1,1,1,1]> (j, w2)
        }""",
        w1=(SIZE, 3, 3, 3), w2=(4, SIZE, 3, 3),
    )  # fmt: skip
    smooth = {name: np.cumsum(values, axis=3) / 3 for name, values in draw(model, 64).items()}
    unseen = {name: np.cumsum(rng.standard_normal(values.shape), axis=3)[:4].astype(np.float32) / 3
              for name, values in smooth.items()}  # fmt: skip
    errors = {}
    for recovery in ("channel", "exact"):
        found = pruned(model, {"c1": range(KEPT)}, smooth, recovery=recovery)
        errors[recovery] = _missed(model, found.model, unseen)
    assert errors["exact"] < 0.8 * errors["channel"]


def _missed(model: onnx.ModelProto, other: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> float:
    expected, found = (run(open_session(each, threads=1), feeds) for each in (model, other))
    return float(
        sum(np.square(found[name] - expected[name]).sum() for name in expected)
        / sum(np.square(value).sum() for value in expected.values())
    )
