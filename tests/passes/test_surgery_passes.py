"""Mask, fold, rewrite, shrink: what the passes refuse, and what they leave as it was."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import constant_values, to_graph, to_model
from onnx_subprune.passes import FoldCorrections, MaskConsumers, RewriteShapes, Shrink
from onnx_subprune.structure import Structure, infer
from onnx_subprune.subspace import Fit

TEXT = """g (float[2,3,5,5] x) => (float[a,b] y) {
    [c1] h = Conv(x, w1, b1)
    [r] r = Relu(h)
    [f] f = Reshape(r, k)
    [fc] y = Gemm(f, w2)
}"""


@pytest.fixture
def model(build, rng) -> onnx.ModelProto:
    model = build(
        TEXT, w1=rng.normal(size=(8, 3, 1, 1)).astype(np.float32), b1=np.ones(8, np.float32),
        w2=rng.normal(size=(200, 4)).astype(np.float32), k=np.array([2, 200]),
    )  # fmt: skip
    return onnx.shape_inference.infer_shapes(model)


def _structure(model: onnx.ModelProto) -> Structure:
    return infer(to_graph(model), {"x": (2, 3, 5, 5)})


def _fit(structure: Structure, intercept: float = 0.0) -> Fit:
    """The last four units stand for nothing but a constant."""
    intercepts = np.array([[0.0] * 4 + [intercept] * 4])
    return Fit((structure.consumers[1],), 1, np.arange(8)[None] < 4, (np.zeros((4, 4)),), intercepts, 0.0)


def test_everything_that_holds_a_unit_is_sliced(model):
    structure = _structure(model)
    keeps = {structure.prunable[0].atom: np.arange(8) % 2 == 0}
    assert RewriteShapes(structure, keeps)(structure.graph).modified
    assert Shrink(structure, keeps)(structure.graph).modified
    pruned = to_model(structure.graph, model)
    shapes = {t.name: tuple(t.dims) for t in pruned.graph.initializer}
    assert shapes["w1"] == (4, 3, 1, 1)
    assert shapes["b1"] == (4,)
    assert shapes["w2"] == (100, 4)
    values = {t.name: onnx.numpy_helper.to_array(t) for t in pruned.graph.initializer}
    np.testing.assert_array_equal(values["k_pruned"], [2, 100])
    dense = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    np.testing.assert_array_equal(values["w1"], dense["w1"][::2])
    np.testing.assert_array_equal(values["w2"].reshape(4, 25, 4), dense["w2"].reshape(8, 25, 4)[::2])
    known = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in pruned.graph.value_info}
    assert known == {"h": [2, 4, 5, 5], "r": [2, 4, 5, 5], "f": [2, 100]}


def test_removing_nothing_changes_nothing(model):
    structure = _structure(model)
    for surgery in (MaskConsumers, RewriteShapes, Shrink):
        assert not surgery(structure, {})(structure.graph).modified
    assert not FoldCorrections(structure, [])(structure.graph).modified
    assert to_model(structure.graph, model) == model


def test_a_mask_stands_before_the_consumer_only(model):
    structure = _structure(model)
    keeps = {structure.prunable[0].atom: np.arange(8) < 4}
    assert MaskConsumers(structure, keeps)(structure.graph).modified
    masked = to_model(structure.graph, model)
    assert [node.op_type for node in masked.graph.node] == ["Conv", "Relu", "Reshape", "Mul", "Gemm"]
    mask = next(onnx.numpy_helper.to_array(t) for t in masked.graph.initializer if t.name == "f_masked_mask")
    np.testing.assert_array_equal(mask, np.repeat(np.arange(8) < 4, 25)[None].astype(np.float32))


def test_a_correction_sets_removed_columns_to_zero_and_shifts_the_bias(model):
    structure = _structure(model)
    dense = np.array(structure.consumers[1].weight.view(constant_values))
    assert FoldCorrections(structure, [_fit(structure, 0.5)])(structure.graph).modified
    corrected = structure.consumers[1].weight.view(constant_values)
    np.testing.assert_array_equal(corrected[:100], dense[:100])
    assert not corrected[100:].any()
    bias = structure.consumers[1].node.inputs[2].values
    np.testing.assert_allclose(bias, 0.5 * dense[100:].sum(axis=0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize("surgery", [RewriteShapes, Shrink])
def test_a_structure_of_another_graph_is_refused(model, surgery):
    structure, other = _structure(model), to_graph(model)
    keeps = {structure.prunable[0].atom: np.arange(8) < 4}
    (refusal,) = surgery(structure, keeps)(other).refusals
    assert "another graph" in refusal
    assert to_model(other, model) == model


def test_a_group_that_all_depends_on_cannot_lose_all_its_units(model):
    structure = _structure(model)
    (refusal,) = Shrink(structure, {structure.prunable[0].atom: np.zeros(8, bool)})(structure.graph).refusals
    assert "nothing of graph output 'y' would depend on the inputs" in refusal


def test_corrections_are_refused_twice_and_elsewhere(model):
    structure = _structure(model)
    fit = _fit(structure)
    (twice,) = FoldCorrections(structure, [fit, fit])(structure.graph).refusals
    assert "two corrections" in twice
    (elsewhere,) = FoldCorrections(structure, [fit])(to_graph(model)).refusals
    assert "another graph" in elsewhere
    assert to_model(structure.graph, model) == model
