"""Fewer spellings of the same function: what happens to a model before its structure is inferred."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_subprune import passes
from onnx_subprune.model import Scratch, scopes_of
from onnx_subprune.model.compared_models import seeded
from onnx_subprune.network.hoisting import Hoisted, Trial, hoist, still_hoisted
from onnx_subprune.network.named_outputs import opened, written
from onnx_subprune.network.observed_shapes import observe
from onnx_subprune.structure import Structure, infer

__all__ = ["Normalised", "infer_structure", "normalise"]

_logger = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Normalised:
    """A model with fewer spellings of the same function.

    Attributes:
        model: with the same inputs and outputs.
        refusals: for each pass that was left out, and each branch that was not hoisted, its name and why.
        observed: sizes in one run of what operators give that nobody knows, by tensor.
        hoisted: branches that stand in the main graph; None where none do.

    """

    model: onnx.ModelProto
    refusals: tuple[str, ...]
    observed: Shapes = field(default_factory=dict)
    hoisted: Hoisted | None = None


def normalise(
    model: onnx.ModelProto,
    shapes: Shapes,
    scratch: Scratch | None = None,
    sample: Mapping[str, np.ndarray] | None = None,
    *,
    compared_at: Sequence[str] = (),
    trials: Sequence[Trial] = (),
) -> Normalised:
    """Write the same function with fewer spellings; the model itself stays as it is.

    Functions are inlined, constants and BatchNormalization folded, Einsum becomes MatMul, the branches of Ifs that hold
    weights are hoisted into the main graph, and stacked projections are cut into their parts.

    Args:
        model: as it was given.
        shapes: the size of every input.
        scratch: where new weights go of a model whose weights stay in files.
        sample: values of inputs, by name; made up where missing.
        compared_at: names of tensors that the result has as well, with the same values.
        trials: inputs on which a branch has to run to be hoisted.

    """
    # Networks that are compared draw the same numbers; the result is given its own seeds back.
    inlined = seeded(passes.inline_functions(model))
    inferred = _with_inferred_shapes(inlined)
    infos, observed = observe(inferred, shapes, sample or {})
    if infos:
        inlined = _declaring(inlined, infos)
        inferred = _with_inferred_shapes(inlined)
    graph = opened(inferred, compared_at)
    constant = passes.overridable_initializers(inlined)
    fold = passes.FoldConstants(constant)
    inline = passes.InlineBranches(constant)
    early = passes.Sequence(fold, inline, fold)(graph)
    graph, refusals = _with_known_branches(graph, inlined, constant, scratch, compared_at)
    hoisted = None
    if passes.weighted_branches(graph):
        passes.name_apart(graph)
        outputs = list(graph.outputs)
        whole = written(graph, inlined, scratch)
        graph.outputs = outputs
        hoisted = hoist(graph, whole, trials)
        passes.Sequence(inline, fold)(graph)
    result = passes.Sequence(
        passes.ExpandEinsum(constant),
        passes.FoldBatchNorm(constant),
        passes.SkipConcat(constant),
        passes.NameStates(constant),
        passes.Tidy(),
    )(graph)
    may_be_stacked = passes.has_candidates(graph)
    if hoisted is not None:
        hoisted = still_hoisted(hoisted, graph)
    normalised = written(graph, inlined, scratch)
    left = () if hoisted is None else hoisted.left
    refusals = tuple(dict.fromkeys((*early.refusals, *refusals, *left, *result.refusals)))
    if not may_be_stacked:
        return Normalised(normalised, refusals, observed, hoisted)
    unpacked = _unpack_projections(normalised, {**shapes, **observed}, scratch, compared_at)
    return replace(unpacked, refusals=(*refusals, *unpacked.refusals), observed=observed, hoisted=hoisted)


def _with_known_branches(
    graph: gs.Graph,
    like: onnx.ModelProto,
    constant: Collection[str],
    scratch: Scratch | None,
    compared_at: Sequence[str],
) -> tuple[gs.Graph, tuple[str, ...]]:
    """Inline branches whose conditions ask for sizes that follow from constants folded, or branches inlined, before.

    An exporter writes `x.squeeze(-1)` as an If on the size of x, and the paddings before it as programs.
    """
    refusals: tuple[str, ...] = ()
    while any(node.op == "If" for node in graph.nodes):
        graph = opened(_with_inferred_shapes(written(graph, like, scratch)), compared_at)
        result = passes.InlineBranches(constant)(graph)
        refusals = (*refusals, *result.refusals)
        if not result.modified:
            break
        refusals = (*refusals, *passes.FoldConstants(constant)(graph).refusals)
    return graph, refusals


def _declaring(model: onnx.ModelProto, infos: Sequence[onnx.ValueInfoProto]) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.value_info.extend(infos)
    return copy


def _unpack_projections(
    model: onnx.ModelProto, shapes: Shapes, scratch: Scratch | None, compared_at: Sequence[str]
) -> Normalised:
    """Cut stacked projections into their parts; the structure says which rows belong to which part."""
    structure = infer_structure(model, shapes, compared_at=compared_at)
    result = passes.UnpackProjections(structure)(structure.graph)
    return Normalised(written(structure.graph, model, scratch) if result.modified else model, result.refusals)


def infer_structure(
    model: onnx.ModelProto, shapes: Shapes, *, prune_normalised: bool = False, compared_at: Sequence[str] = ()
) -> Structure:
    """Return the groups and consumers of a normalised model.

    Args:
        model: that `normalise` returned.
        shapes: the size of every input, and of what was observed.
        prune_normalised: whether axes that a normalisation takes statistics over may shrink.
        compared_at: names of tensors that networks are compared at; they are outputs of the structure's graph.

    """
    overridable = passes.overridable_initializers(model)
    inferred = _with_inferred_shapes(model)
    graph = opened(inferred, compared_at)
    scopes = scopes_of(model, graph)
    return infer(
        graph,
        dict(shapes),
        overridable,
        prune_normalised=prune_normalised,
        compared_at=compared_at,
        scopes=scopes,
    )


def _with_inferred_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the shapes that ONNX can infer; rules need them only behind operators without a rule."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        _logger.info("shape inference gave up (%s); operators without a rule will block more", error)
        return model
