"""Give a network units that are copies of others: those can be removed without a trace."""

from __future__ import annotations

import random

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_subprune.model import to_model
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.structure import Atom, Dim, Group


def with_twins(analysis: Analysis, dice: random.Random) -> tuple[onnx.ModelProto, str, tuple[int, ...]] | None:
    """Return a network with copied units in one group, its name, and the units to keep; None where no group will do.

    The units of a product of two activations are no good: there is no weight behind them that could be corrected.
    """
    structure = analysis.structure
    fit = [g for g in structure.prunable if g.size > 1 and g.consumers and not g.contractions]
    if not fit:
        return None
    group = dice.choice(fit)
    kept = sorted(dice.sample(range(group.size), dice.randint(1, group.size - 1)))
    source = np.array([unit if unit in kept else dice.choice(kept) for unit in range(group.size)])
    graph = structure.graph
    made: dict[tuple[str, bytes], gs.Constant] = {}
    for node in graph.nodes:
        for index in range(len(node.inputs)):
            axes = structure.constant_axes(node, index)
            if axes is not None:
                _copy(node, index, axes, group, source, made)
    return to_model(graph, analysis.normalised), group.name, tuple(kept)


def _copy(
    node: gs.Node,
    index: int,
    axes: tuple[Dim, ...],
    group: Group,
    source: np.ndarray,
    made: dict[tuple[str, bytes], gs.Constant],
) -> None:
    """Overwrite the entries of a constant that belong to a copied unit; what was tied stays so where it can."""
    constant = node.inputs[index]
    values = np.asarray(constant.values)
    for axis, dim in enumerate(axes):
        if group.atom in dim.atoms():
            values = values.take(_sources(dim, group.atom, source), axis=axis)
    if not np.array_equal(values, constant.values):
        name = f"{constant.name}_copied_{len(made)}"
        key = (constant.name, values.tobytes())
        node.inputs[index] = made.setdefault(key, gs.Constant(name, np.ascontiguousarray(values)))


def _sources(dim: Dim, atom: Atom, source: np.ndarray) -> np.ndarray:
    """Return for each entry of an axis the one that it is copied from: the same place of the unit copied from.

    An axis may hold the units twice (all pairs of them): then it is the entry of both units copied from.
    """
    index = np.zeros(1, np.int64)
    for factor in dim.resolve().factors:
        if isinstance(factor, Atom):
            part = source if factor is atom else np.arange(factor.size)
        else:
            starts = np.cumsum([0, *(each.size for each in factor.parts)])
            pieces = [_sources(each, atom, source) for each in factor.parts]
            part = np.concatenate([start + piece for start, piece in zip(starts, pieces, strict=False)])
        index = (index[:, None] * factor.size + part).ravel()
    return index
