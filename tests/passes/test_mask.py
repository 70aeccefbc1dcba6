"""Masks stand where units are read, and give what NumPy gives with the removed units left out."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.model import to_model
from onnx_subprune.passes import MaskConsumers

FORWARD = """g (float[5,4] x) => (float[5,3] y) {
    [m1] h = MatMul(x, w1)
    [r] r = Relu(h)
    [m2] y = MatMul(r, w2)
}"""


def test_removed_units_do_not_count(build, structured, draw, outputs):
    w1, w2 = draw(4, 6), draw(6, 3)
    model = build(FORWARD, w1=w1, w2=w2)
    structure = structured(model)
    keep = np.array([True, False, True, True, False, True])
    assert MaskConsumers(structure, {structure.prunable[0].atom: keep})(structure.graph).modified
    x = draw(5, 4, seed=3)
    (y,) = outputs(to_model(structure.graph, model), x=x)
    np.testing.assert_allclose(y, np.maximum(x @ w1, 0)[:, keep] @ w2[keep], rtol=1e-5, atol=1e-6)


def test_of_two_sides_of_a_product_one_is_masked(build, structured, draw, outputs):
    """Channels of queries and keys go in pairs."""
    text = """g (float[5,4] x) => (float[5,5] y) {
        [q] q = MatMul(x, wq)
        [k] k = MatMul(x, wk)
        [t] t = Transpose <perm=[1,0]> (k)
        [s] y = MatMul(q, t)
    }"""
    wq, wk = draw(4, 6, seed=1), draw(4, 6, seed=2)
    model = build(text, wq=wq, wk=wk)
    structure = structured(model)
    keep = np.arange(6) < 4
    MaskConsumers(structure, {structure.prunable[0].atom: keep})(structure.graph)
    masked = to_model(structure.graph, model)
    assert [node.op_type for node in masked.graph.node].count("Mul") == 1
    x = draw(5, 4, seed=3)
    (y,) = outputs(masked, x=x)
    np.testing.assert_allclose(y, (x @ wq)[:, keep] @ (x @ wk)[:, keep].T, rtol=1e-5, atol=1e-6)


def test_consumers_that_lose_nothing_are_left_alone(build, structured, draw, outputs):
    text = """g (float[5,4] x) => (float[5,3] y) {
        [m1] h = MatMul(x, w1)
        [m2] i = MatMul(h, w2)
        [m3] y = MatMul(i, w3)
    }"""
    model = build(text, w1=draw(4, 6), w2=draw(6, 5), w3=draw(5, 3))
    structure = structured(model)
    atoms = {group.name: group.atom for group in structure.prunable}
    MaskConsumers(structure, {atoms["m2"]: np.arange(5) < 2, atoms["m1"]: np.ones(6, bool)})(structure.graph)
    masked = to_model(structure.graph, model)
    assert [node.op_type for node in masked.graph.node] == ["MatMul", "MatMul", "Mul", "MatMul"]


def test_two_readers_are_masked_each(build, structured, draw, outputs):
    text = """g (float[5,4] x) => (float[5,3] y, float[5,2] z) {
        [m1] h = MatMul(x, w1)
        [m2] y = MatMul(h, w2)
        [m3] z = MatMul(h, w3)
    }"""
    model = build(text, w1=draw(4, 6), w2=draw(6, 3), w3=draw(6, 2))
    structure = structured(model)
    MaskConsumers(structure, {structure.prunable[0].atom: np.arange(6) < 2})(structure.graph)
    masked = to_model(structure.graph, model)
    made = {node.output[0] for node in masked.graph.node if node.op_type == "Mul"}
    assert len(made) == 2
    assert all(node.input[0] in made for node in masked.graph.node if node.name in ("m2", "m3"))


def test_columns_of_a_recurrence_are_masked(build, structured, draw, outputs):
    """A layer reads its own states inside: the columns of R are masked in their place."""
    text = """g (float[4,2,5] x) => (float[4,1,2,3] y) {
        [rnn] s = RNN <hidden_size=6> (x, W, R)
        [m] y = MatMul(s, w)
    }"""
    model = build(text, W=draw(1, 6, 5), R=draw(1, 6, 6), w=draw(6, 3))
    structure = structured(model)
    MaskConsumers(structure, {structure.prunable[0].atom: np.arange(6) < 4})(structure.graph)
    (layer,) = (node for node in structure.graph.nodes if node.op == "RNN")
    mask = layer.inputs[2].inputs[0].inputs[1].values
    assert mask.shape == (1, 1, 6)
    np.testing.assert_array_equal(mask.ravel(), np.arange(6) < 4)


@pytest.mark.parametrize("opset", [13, 17])
def test_features_of_one_unit_share_its_mask(build, structured, draw, outputs, opset):
    """Behind a Flatten a channel has a feature for each position."""
    text = """g (float[2,3,2,2] x) => (float[2,4] y) {
        [c] h = Conv(x, w1)
        [f] f = Flatten(h)
        [m] y = MatMul(f, w2)
    }"""
    model = build(text, opset=opset, w1=draw(5, 3, 1, 1), w2=draw(20, 4))
    structure = structured(model)
    MaskConsumers(structure, {structure.prunable[0].atom: np.arange(5) != 1})(structure.graph)
    (mask,) = (node.inputs[1].values for node in structure.graph.nodes if node.op == "Mul")
    np.testing.assert_array_equal(mask.ravel(), np.repeat(np.arange(5) != 1, 4))
