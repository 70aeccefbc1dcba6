"""A structure that was copied gives what a fresh inference gives, byte for byte, and the original is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

from onnx_subprune.model import to_graph, to_model
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.network.rewrite import shrink
from onnx_subprune.passes import overridable_initializers
from onnx_subprune.plan import Plan
from onnx_subprune.structure import Structure, infer

SKELETONS = Path(__file__).resolve().parent / "skeletons"
# Streams, concatenations, stacked projections, computed shapes, recurrence, bodies, written-out normalisations.
NETWORKS = (
    "densenet_ts17",
    "detr_ts17",
    "efficientvit_ts17",
    "gpt2_ts17",
    "keras_transformer_tf17",
    "lstm_seq2seq_ts17",
    "mobilenet_v3_small_dynamo18",
    "resnest_ts17",
)


def _inferred(analysis: Analysis) -> Structure:
    """Return the structure of the normalised network, worked out once more."""
    shaped = onnx.shape_inference.infer_shapes(analysis.normalised, data_prop=True)
    return infer(to_graph(shaped), analysis.input_shapes, overridable_initializers(analysis.normalised))


def _without_branches(plan: Plan, structure: Structure) -> dict[Any, Any]:
    """Return masks that leave out the first branch that may go as a whole."""
    keeps = plan.keeps(structure)
    if structure.removable:
        atom = structure.removable[0].atom
        keeps[atom] = keeps[atom] & False
    return keeps


def _bytes(analysis: Analysis, structure: Structure, plan: Plan) -> bytes:
    shrunk = shrink(analysis.normalised, structure, _without_branches(plan, structure))
    return bytes(shrunk.SerializeToString(deterministic=True))


@pytest.mark.parametrize("name", NETWORKS)
def test_copies_shrink_to_the_bytes_of_a_fresh_inference(
    name: str, entries: dict[str, Any], zoo_library: ModuleType, plan_at_random: Callable[..., Plan]
) -> None:
    model = zoo_library.refill(zoo_library.read_skeleton(SKELETONS / f"{name}.onnx.xz"))
    analysis = analyse(model, entries[name].shapes(0))
    plan = plan_at_random(analysis)
    assert plan.removes
    expected = _bytes(analysis, _inferred(analysis), plan)
    before = to_model(analysis.structure.graph, analysis.normalised).SerializeToString(deterministic=True)
    assert _bytes(analysis, analysis.structure.copy(), plan) == expected
    assert _bytes(analysis, analysis.structure.copy().copy(), plan) == expected
    assert to_model(analysis.structure.graph, analysis.normalised).SerializeToString(deterministic=True) == before
    assert _bytes(analysis, analysis.structure, plan) == expected
