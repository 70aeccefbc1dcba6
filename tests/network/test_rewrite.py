"""Networks out of a plan: shrunk, masked, factorised; the analysis itself is not used up."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from onnx_subprune.model import constant_values
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.rewrite import dense_copy, factorised, references, restructured, shrink
from onnx_subprune.network.verify import disagreement
from onnx_subprune.plan import Plan
from onnx_subprune.structure import Layer, layers_of
from onnx_subprune.subspace import Factors


def exact_factors(layer: Layer) -> Factors:
    """W = U (S V): nothing is lost at full rank."""
    left, scales, right = np.linalg.svd(layer.matrix(constant_values), full_matrices=False)
    return Factors(scales[:, None] * right, left, np.zeros(layer.outputs))


def test_both_sides_of_the_oracle_agree(
    model: onnx.ModelProto, samples: dict[str, np.ndarray], plan_at_random: Callable[..., Plan]
) -> None:
    analysis = analyse(model)
    plan = plan_at_random(analysis)
    shrunk, masked = references(analysis, plan)
    assert disagreement(shrunk, masked, samples) < 1e-5
    assert disagreement(shrunk, model, samples) > 1e-2
    assert [tensor.dims[:] for tensor in shrunk.graph.initializer if tensor.name == "w2"] == [[4, 2]]


def test_the_structure_of_the_analysis_stays_whole(model: onnx.ModelProto, plan_at_random: Callable[..., Plan]) -> None:
    analysis = analyse(model)
    plan = plan_at_random(analysis)
    first, second = (references(analysis, plan)[0] for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
    structure = restructured(analysis)
    shrink(analysis.normalised, structure, plan.keeps(structure))
    assert [group.size for group in analysis.structure.prunable] == [8, 5]
    weight = next(node for node in analysis.structure.graph.nodes if node.name == "second").inputs[1]
    assert tuple(weight.shape) == (8, 5)


def test_without_a_removal_the_network_computes_the_same(
    model: onnx.ModelProto, samples: dict[str, np.ndarray]
) -> None:
    analysis = analyse(model)
    structure = restructured(analysis)
    assert disagreement(shrink(analysis.normalised, structure, {}), model, samples) < 1e-6


def test_consumers_get_biases_of_their_own(model: onnx.ModelProto) -> None:
    analysis = analyse(model)
    structure = restructured(analysis)
    consumer = next(consumer for consumer in structure.consumers if consumer.name == "last")
    written = shrink(analysis.normalised, structure, {}, biased=[consumer])
    last = next(node for node in written.graph.node if node.name == "last")
    (bias,) = (tensor for tensor in written.graph.initializer if tensor.name == last.input[2])
    assert np.array_equal(onnx.numpy_helper.to_array(bias), np.ones(3, np.float32))


def test_a_copy_of_the_dense_model_may_be_changed(model: onnx.ModelProto) -> None:
    analysis = analyse(model)
    copy = dense_copy(analysis)
    assert copy == model
    copy.graph.node[0].name = "other"
    assert model.graph.node[0].name == "first"


def test_layers_become_two_nodes_each(model: onnx.ModelProto, samples: dict[str, np.ndarray]) -> None:
    analysis = analyse(model)
    names = [layer.name for layer in layers_of(analysis.structure)[0] if layer.name != "last"]
    assert names == ["first", "second"]
    written = factorised(analysis, dict.fromkeys(names, exact_factors))
    assert len(written.graph.node) == len(model.graph.node) + 2
    assert disagreement(written, model, samples) < 1e-5
