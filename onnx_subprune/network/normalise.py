"""Fewer spellings of the same function: what happens to a model before its structure is inferred."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx

from onnx_subprune import passes
from onnx_subprune.errors import ModelError
from onnx_subprune.model import Scratch, to_graph, to_model
from onnx_subprune.model.compared_models import seeded
from onnx_subprune.model.protos import ONNX_DOMAINS, graphs
from onnx_subprune.network.hoisting import Hoisted, Trial, hoist
from onnx_subprune.structure import QUANTISED, Structure, infer

__all__ = ["Normalised", "check_float", "infer_structure", "normalise"]

_logger = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]


def check_float(model: onnx.ModelProto) -> None:
    """Refuse a quantised model: its integer weights cannot be corrected, and their scales were fitted to all units.

    Args:
        model: as it was given.

    Raises:
        ModelError: a node of the model, of a body or of a function quantises, or computes with integers.

    """
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    domains = [("" if node.domain in ONNX_DOMAINS else node.domain, node.op_type) for node in nodes]
    quantised = Counter(op for domain, op in domains if (domain, op) in QUANTISED)
    if quantised:
        listed = ", ".join(f"{count} {op}" for op, count in quantised.most_common(3))
        raise ModelError(f"expected a float model, found quantised nodes ({listed}); prune before quantising")


@dataclass(frozen=True, eq=False)
class Normalised:
    """A model with fewer spellings of the same function.

    Attributes:
        model: of the same inputs and outputs.
        refusals: for each pass that was left out, and each branch that was not hoisted, its name and why.
        hoisted: branches that stand in the main graph; None where none do.

    """

    model: onnx.ModelProto
    refusals: tuple[str, ...]
    hoisted: Hoisted | None = None


def normalise(
    model: onnx.ModelProto, shapes: Shapes, scratch: Scratch | None = None, trials: Sequence[Trial] = ()
) -> Normalised:
    """Write the same function with fewer spellings; the model itself stays as it is.

    Functions are inlined, constants and BatchNormalization folded, Einsum becomes MatMul, the branches of Ifs that hold
    weights are hoisted into the main graph, and stacked projections are cut into their parts.

    Args:
        model: as it was given.
        shapes: the size of every input.
        scratch: where new weights go of a model whose weights stay in files.
        trials: inputs on which a branch has to run to be hoisted.

    """
    # Networks that are compared draw the same numbers; the result is given its own seeds back.
    inlined = seeded(passes.inline_functions(model))
    graph = to_graph(_with_inferred_shapes(inlined))
    constant = passes.overridable_initializers(inlined)
    fold = passes.FoldConstants(constant)
    inline = passes.InlineBranches(constant)
    known = passes.Sequence(fold, inline, fold)(graph)
    hoisted = None
    if passes.weighted_branches(graph):
        hoisted = hoist(graph, to_model(graph, inlined, scratch), trials)
        known = passes.Sequence(inline, fold)(graph)
    result = passes.Sequence(
        passes.ExpandEinsum(constant),
        passes.FoldBatchNorm(constant),
        passes.SkipConcat(constant),
        passes.NameStates(constant),
        passes.Tidy(),
    )(graph)
    may_be_stacked = passes.has_candidates(graph)
    normalised = to_model(graph, inlined, scratch)
    left = () if hoisted is None else hoisted.left
    refusals = tuple(dict.fromkeys((*known.refusals, *left, *result.refusals)))
    if not may_be_stacked:
        return Normalised(normalised, refusals, hoisted)
    unpacked = _unpack_projections(normalised, shapes, scratch)
    return Normalised(unpacked.model, (*refusals, *unpacked.refusals), hoisted)


def _unpack_projections(model: onnx.ModelProto, shapes: Shapes, scratch: Scratch | None) -> Normalised:
    """Cut stacked projections into their parts; the structure says which rows belong to which part."""
    structure = infer_structure(model, shapes)
    result = passes.UnpackProjections(structure)(structure.graph)
    return Normalised(to_model(structure.graph, model, scratch) if result.modified else model, result.refusals)


def infer_structure(model: onnx.ModelProto, shapes: Shapes, *, prune_normalised: bool = False) -> Structure:
    """Return the groups and consumers of a normalised model.

    Args:
        model: that `normalise` returned.
        shapes: the size of every input.
        prune_normalised: whether axes that a normalisation takes statistics over may shrink.

    """
    overridable = passes.overridable_initializers(model)
    return infer(to_graph(_with_inferred_shapes(model)), dict(shapes), overridable, prune_normalised=prune_normalised)


def _with_inferred_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the shapes that ONNX can infer; rules need them only behind operators without a rule."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        _logger.info("shape inference gave up (%s); operators without a rule will block more", error)
        return model
