"""New networks out of a model taken apart: cut down to a plan, masked by it, or with layers factorised."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import numpy as np
import onnx

from onnx_subprune import passes
from onnx_subprune.model import Scratch
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.named_outputs import written
from onnx_subprune.plan import Plan
from onnx_subprune.structure import Atom, Consumer, Layer, Normalisation, Removal, Structure, emptied
from onnx_subprune.subspace import Correction, Factors, Rescaling, corrected

__all__ = ["dense_copy", "factorised", "pruned_bare", "references", "restructured", "shrink"]

Keeps: TypeAlias = Mapping[Atom, np.ndarray]


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
    """Fold corrections in and remove units; the graph of `structure` is used up.

    Args:
        normalised: the network.
        structure: its structure, with a graph that may be edited (`restructured`).
        keeps: for each Atom that loses units, bool [size].
        fits: corrections of consumers, folded into their weights and biases.
        rescalings: factor and offset of the normalisations that lose units.
        biased: consumers that are given biases of ones, where there are no corrections to bring them.
        scratch: where large weights go of a model whose weights stay in files.

    """
    # The graph must still be as its rules saw it: the passes edit it, and the removal of branches is read off it.
    removal = structure.branches.removal(emptied(keeps))
    structure.branches.close()
    store = passes.in_memory if scratch is None else scratch.keep
    passes.Mandatory(
        passes.FoldCorrections(structure, fits, store),
        passes.GiveBiases(structure, biased),
        passes.RescaleNormalised(structure, rescalings or {}),
        passes.RewriteShapes(structure, keeps),
        passes.Shrink(structure, keeps, store),
        passes.DropStates(),
    )(structure.graph)
    if removal.gone:
        _drop_branches(normalised, structure, keeps, removal)
    passes.Mandatory(passes.Tidy())(structure.graph)
    return written(structure.graph, normalised, scratch)


def _drop_branches(normalised: onnx.ModelProto, structure: Structure, keeps: Keeps, removal: Removal) -> None:
    """Put constants in the place of branches that are gone, and move these as far upstream as is exact."""
    drop = passes.DropBranches(structure, keeps, removal)
    passes.Mandatory(drop)(structure.graph)
    passes.Mandatory(
        passes.Tidy(drop.bypassed),
        passes.FoldConstants(passes.overridable_initializers(normalised)),
        passes.AbsorbConstants(structure, keeps, drop.constants, removal.short),
    )(structure.graph)


def dense_copy(analysis: Analysis) -> onnx.ModelProto:
    """Return a copy of the model as it was given.

    Args:
        analysis: of the model.

    """
    model = onnx.ModelProto()
    model.CopyFrom(analysis.model)
    return model


def restructured(analysis: Analysis) -> Structure:
    """Return the structure of the normalised network with a graph of its own, which may be edited.

    Args:
        analysis: of the network.

    """
    return analysis.structure.copy()


def references(analysis: Analysis, plan: Plan) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Return the network shrunk without recovery, and the dense one with the same units masked: they must agree.

    Args:
        analysis: of the dense network.
        plan: says which units are removed.

    Raises:
        PlanError: the plan does not fit the network.

    """
    bare, masked = restructured(analysis), restructured(analysis)
    shrunk = shrink(analysis.normalised, bare, plan.keeps(bare), scratch=analysis.scratch)
    keeps = plan.keeps(masked)
    passes.Mandatory(passes.MaskConsumers(masked, keeps), passes.MaskStatistics(masked, keeps))(masked.graph)
    return shrunk, written(masked.graph, analysis.normalised, analysis.scratch)


def pruned_bare(analysis: Analysis, widths: Mapping[str, int], *, biased: bool) -> onnx.ModelProto:
    """Return the network with the first units of every group: what any network of these widths costs and takes.

    Args:
        analysis: of the dense network.
        widths: units that groups keep, by name; the others stay whole.
        biased: whether it has the biases that recovery adds, of ones.

    """
    bare = restructured(analysis)
    keeps = {
        group.atom: np.arange(group.size) < widths[group.name]
        for group in bare.prunable
        if widths.get(group.name, group.size) < group.size
    }
    given = corrected(bare, keeps) if biased else []
    return shrink(analysis.normalised, bare, keeps, biased=given, scratch=analysis.scratch)


def factorised(analysis: Analysis, factors: Mapping[str, Callable[[Layer], Factors]]) -> onnx.ModelProto:
    """Return the network with layers written as two; the structure of `analysis` stays whole.

    Args:
        analysis: of the dense network.
        factors: by the name of a layer's node, from the layer to the two matrices in its place.

    """
    structure = restructured(analysis)
    store = passes.in_memory if analysis.scratch is None else analysis.scratch.keep
    passes.Mandatory(passes.LowRank(structure, factors, store), passes.Tidy())(structure.graph)
    return written(structure.graph, analysis.normalised, analysis.scratch)
