"""A model taken apart and put together again: normalised, its structure inferred, and shrunk or masked by a plan."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import onnx

from onnx_subprune import passes
from onnx_subprune.errors import ModelError
from onnx_subprune.formatting import count, html_table
from onnx_subprune.model import (
    Scratch,
    concrete_shapes,
    fingerprint,
    has_placed,
    input_specs,
    load_model,
    to_graph,
    to_model,
)
from onnx_subprune.model.protos import ONNX_DOMAINS, graphs
from onnx_subprune.plan import Plan
from onnx_subprune.structure import QUANTISED, Atom, Consumer, Layer, Normalisation, Removal, Structure, emptied, infer
from onnx_subprune.subspace import Correction, Factors, Rescaling

__all__ = [
    "Analysis",
    "ModelSource",
    "analyse",
    "check_float",
    "factorised",
    "references",
    "restructured",
    "shrink",
]

_logger = logging.getLogger(__name__)

ModelSource: TypeAlias = str | os.PathLike[str] | onnx.ModelProto
Keeps: TypeAlias = Mapping[Atom, np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class Analysis:
    """A model taken apart: what can be pruned, what cannot and why.

    Attributes:
        model: the model as it was given.
        normalised: the same function with constants and BatchNormalization folded, functions inlined.
        structure: groups and consumers of `normalised`.
        input_shapes: the sizes that MACs are counted with.
        fingerprint: of `model`.
        prune_normalised: whether axes that a normalisation takes statistics over may shrink.
        scratch: where new weights of a model go whose weights stay in files; they are gone with this object.

    """

    model: onnx.ModelProto
    normalised: onnx.ModelProto
    structure: Structure
    input_shapes: dict[str, tuple[int, ...]]
    fingerprint: str
    prune_normalised: bool = False
    scratch: Scratch | None = None

    def __repr__(self) -> str:
        found = self.structure
        units = sum(group.size for group in found.prunable)
        return (
            f"<Analysis {self.fingerprint[:12]}: {len(found.prunable)} of {len(found.groups)} groups can be pruned, "
            f"{units:,} units; {count(found.macs({}))} MACs>"
        )

    def _repr_html_(self) -> str:
        free = [
            (g.name, str(g.size), count(g.macs), ", ".join(dict.fromkeys(consumer.name for consumer in g.consumers)))
            for g in self.structure.prunable
        ]
        frozen = [(g.name, str(g.size), count(g.macs), g.reasons[0]) for g in self.structure.frozen]
        tables = (("consumers", free, "Can be pruned"), ("why", frozen, "Frozen"))
        return "".join(html_table(("group", "units", "MACs", last), rows, title) for last, rows, title in tables)


def analyse(
    model: ModelSource, input_shapes: Mapping[str, Sequence[int]] | None = None, *, prune_normalised: bool = False
) -> Analysis:
    """Take a model apart.

    Args:
        model: a path or a loaded model.
        input_shapes: sizes of dynamic inputs to count multiply-accumulates with; 1 where not given.
        prune_normalised: whether axes that a normalisation takes statistics over may shrink.

    Raises:
        ModelError: the model cannot be read.
        OptionError: `input_shapes` does not fit the inputs.

    """
    proto = model if isinstance(model, onnx.ModelProto) else load_model(model, resident=False)
    scratch = Scratch() if has_placed(proto) else None
    shapes = concrete_shapes(input_specs(proto), input_shapes)
    normalised = _unpack(_normalise(proto, scratch), shapes, scratch)
    structure = _structure(normalised, shapes, prune_normalised)
    return Analysis(proto, normalised, structure, shapes, fingerprint(proto), prune_normalised, scratch)


def check_float(model: onnx.ModelProto) -> None:
    """Refuse a quantised model: its integer weights cannot be corrected, and their scales were fitted to all units.

    Raises:
        ModelError: a node of the model, of a body or of a function quantises, or computes with integers.

    """
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    domains = [("" if node.domain in ONNX_DOMAINS else node.domain, node.op_type) for node in nodes]
    found = Counter(op for domain, op in domains if (domain, op) in QUANTISED)
    if found:
        listed = ", ".join(f"{count} {op}" for op, count in found.most_common(3))
        raise ModelError(f"expected a float model, found quantised nodes ({listed}); prune before quantising")


def _normalise(model: onnx.ModelProto, scratch: Scratch | None) -> onnx.ModelProto:
    """Write the same function with fewer spellings; the model itself stays as it is."""
    inlined = passes.inline_functions(model)
    graph = to_graph(_with_shapes(inlined))
    constant = passes.overridable_initializers(inlined)
    fold = passes.FoldConstants(constant)
    passes.Sequence(
        fold,
        passes.InlineBranches(constant),
        fold,
        passes.ExpandEinsum(constant),
        passes.FoldBatchNorm(constant),
        passes.SkipConcat(constant),
        passes.NameStates(constant),
        passes.Tidy(),
    )(graph)
    return to_model(graph, inlined, scratch)


def _unpack(model: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], scratch: Scratch | None) -> onnx.ModelProto:
    """Cut stacked projections into their parts; what belongs to which is read off the structure."""
    if not passes.has_candidates(to_graph(model)):
        return model
    structure = _structure(model, shapes)
    result = passes.UnpackProjections(structure)(structure.graph)
    return to_model(structure.graph, model, scratch) if result.modified else model


def _structure(
    normalised: onnx.ModelProto, shapes: dict[str, tuple[int, ...]], prune_normalised: bool = False
) -> Structure:
    overridable = passes.overridable_initializers(normalised)
    return infer(to_graph(_with_shapes(normalised)), shapes, overridable, prune_normalised=prune_normalised)


def _with_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model with the shapes that ONNX can infer; rules need them only behind operators without a rule."""
    try:
        return onnx.shape_inference.infer_shapes(model, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        _logger.info("shape inference gave up (%s); operators without a rule will block more", error)
        return model


def shrink(
    normalised: onnx.ModelProto,
    structure: Structure,
    keeps: Keeps,
    fits: Sequence[Correction] = (),
    rescalings: Mapping[Normalisation, Rescaling] | None = None,
    *,
    biased: Sequence[Consumer] = (),
    scratch: Scratch | None = None,
) -> onnx.ModelProto:
    """Fold the corrections in and remove the units, large weights in `scratch`; the graph of `structure` is used up.

    The consumers that are `biased` are given biases of ones, where there are no corrections to bring them.
    """
    # What goes with a branch is read off the graph as its rules saw it, before any pass edits it.
    removal = structure.branches.removal(emptied(keeps))
    structure.branches.close()
    store = passes.in_memory if scratch is None else scratch.keep
    passes.Sequence(
        passes.FoldCorrections(structure, fits, store),
        passes.GiveBiases(structure, biased),
        passes.RescaleNormalised(structure, rescalings or {}),
        passes.RewriteShapes(structure, keeps),
        passes.Shrink(structure, keeps, store),
        passes.DropStates(),
    )(structure.graph)
    if removal.gone:
        _drop_branches(normalised, structure, keeps, removal)
    passes.Tidy()(structure.graph)
    return to_model(structure.graph, normalised, scratch)


def _drop_branches(normalised: onnx.ModelProto, structure: Structure, keeps: Keeps, removal: Removal) -> None:
    """Put constants in the place of branches that are gone, and move these as far upstream as is exact."""
    drop = passes.DropBranches(structure, keeps, removal)
    drop(structure.graph)
    passes.Sequence(
        passes.Tidy(drop.bypassed),
        passes.FoldConstants(passes.overridable_initializers(normalised)),
        passes.AbsorbConstants(structure, keeps, drop.constants, removal.short),
    )(structure.graph)


def restructured(analysis: Analysis) -> Structure:
    """Return the structure of the normalised network with a graph of its own, which may be edited."""
    return analysis.structure.copy()


def references(analysis: Analysis, plan: Plan) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return the model shrunk without recovery, and the dense one with the same units masked: they must agree."""
    bare, masked = restructured(analysis), restructured(analysis)
    shrunk = shrink(analysis.normalised, bare, plan.keeps(bare), scratch=analysis.scratch)
    keeps = plan.keeps(masked)
    passes.Sequence(passes.MaskConsumers(masked, keeps), passes.MaskStatistics(masked, keeps))(masked.graph)
    return shrunk, to_model(masked.graph, analysis.normalised, analysis.scratch)


def factorised(analysis: Analysis, factors: Mapping[str, Callable[[Layer], Factors]]) -> onnx.ModelProto:
    """Return the network with these layers, by node name, written as two; the structure of `analysis` stays whole."""
    structure = _structure(analysis.normalised, analysis.input_shapes, analysis.prune_normalised)
    store = passes.in_memory if analysis.scratch is None else analysis.scratch.keep
    passes.Sequence(passes.LowRank(structure, factors, store), passes.Tidy())(structure.graph)
    return to_model(structure.graph, analysis.normalised, analysis.scratch)
