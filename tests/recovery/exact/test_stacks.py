"""Stacks of matrices: the experts of a mixture, each with rows of its own."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.model import array_of, input_specs
from onnx_subprune.recovery.exact import Networks, Settings, refit
from onnx_subprune.recovery.exact.linear_layers import find_linears
from onnx_subprune.recovery.exact.rows import Values, rows_of

KEPT, SIZE = 5, 8
RNG = np.random.default_rng(2)
EXPERTS = """g (float[4,2,6,3] x) => (float[a,b,c,d] y) {
    [m1] h = MatMul(x, w1)
    [m2] k = MatMul(h, w2)
    TAIL
}"""


def _mixtures(count: int, features: int) -> np.ndarray:
    """`count` matrices [features, SIZE], the last columns of each mixtures of its first, by weights of its own."""
    first = RNG.standard_normal((count, features, KEPT)) / 2
    mix = RNG.standard_normal((count, KEPT, SIZE - KEPT)) / 2
    return np.concatenate([first, first @ mix], axis=2).astype(np.float32)


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("tail", ["[n] y = Tanh(k)", "[a] e = Add(k, b)\n[n] y = Tanh(e)"])
def test_experts_that_read_mixtures(net, pruned, distance, tail, one_pass):
    weights = {"b": (2, 1, 4)} if "b)" in tail else {}
    model = net(EXPERTS.replace("TAIL", tail), w1=_mixtures(2, 3), w2=(2, SIZE, 4), **weights)
    kept = {"m1": range(KEPT)}
    assert distance(model, pruned(model, kept, recovery="none").model) > 3e-2
    found = pruned(model, kept, one_pass=one_pass)
    assert distance(model, found.model) < 1e-5
    assert {"m1", "m2"} <= {layer.name for layer in found.fit.layers}
    assert not [text for text in found.warnings if "keeps" in text]


@pytest.mark.parametrize("shape", ["4,2,6,3", "4,1,6,3", "6,3"])
def test_a_damaged_stack_is_repaired(net, draw, distance, shape):
    """The matrices read parts of their own, or all the same."""
    axes = "a,b,c" if shape == "6,3" else "a,b,c,d"
    text = f"g (float[{shape}] x) => (float[{axes}] y) {{ [m] k = MatMul(x, w)\n[a] y = Add(k, b) }}"
    model = net(text, w=(2, 3, 5), b=(2, 1, 5))
    noise = 0.3 * RNG.standard_normal((2, 3, 5)).astype(np.float32)
    damaged = net(text, w=array_of(model.graph.initializer[0]) + noise, b=np.zeros((2, 1, 5), np.float32))
    rows = [draw(model, int(shape.split(",")[0]), seed) for seed in range(30)]
    networks = Networks(model, damaged, lambda _, value: value)
    found = refit(networks, open_data(rows, input_specs(model)), Settings(threads=1))
    assert not found.left
    assert distance(model, found.model) < 1e-5


def test_rows_of_each_matrix_are_its_own(net):
    model = net("g (float[4,2,6,3] x) => (float[a,b,c,d] y) { [m] y = MatMul(x, w) }", w=(2, 3, 5))
    (linear,), _ = find_linears(model)
    weight = array_of(model.graph.initializer[0])
    x = RNG.standard_normal((4, 2, 6, 3)).astype(np.float32)
    values = Values(x, [x @ weight], samples=4)
    rows = rows_of([linear], values, None, weight.shape, 1000, normalised=False, rng=RNG)
    assert not isinstance(rows, str)
    assert rows.x.shape == (2, 24, 3)
    np.testing.assert_allclose(rows.x @ linear.matrices(weight).transpose(0, 2, 1), rows.parts[0], rtol=1e-4, atol=1e-5)


def test_a_target_that_is_not_of_the_stack_is_told(net):
    model = net("g (float[4,2,6,3] x) => (float[a,b,c,d] y) { [m] y = MatMul(x, w) }", w=(2, 3, 5))
    (linear,), _ = find_linears(model)
    values = Values(np.zeros((4, 2, 6, 3), np.float32), [np.zeros((4, 3, 6, 5), np.float32)], samples=4)
    reason = rows_of([linear], values, None, (2, 3, 5), 1000, normalised=False, rng=RNG)
    assert reason == "its target of shape (4, 3, 6, 5) does not fit its input of shape (4, 2, 6, 3)"
