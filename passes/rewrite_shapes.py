"""Bring the integers of a graph in step with the units that are left: reshape targets, slice bounds, group counts.

Every such integer was recorded with the size that it has to equal. Sizes computed at run time (Shape, Gather, Mul ...)
follow by themselves and are left alone; where the chain would give another value than is needed, only the entries that
differ are replaced: by a number, or where a run-time size is part of them by a fixed multiple of what the chain gives.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.size_vectors import Edit, SizeVectors
from onnx_subprune.passes.wiring import fresh_name, stored_input
from onnx_subprune.structure import Atom, IndexUse, SizeUse, Squeezed, Structure, dims_of, evaluate, fixed, keep_mask

__all__ = ["RewriteShapes"]

_SQUEEZE_TAKES_AXES_AS_INPUT = 13


class RewriteShapes(Pass):
    """Rewrite shape constants and size attributes for the units in `keeps`.

    Args:
        structure: of the very graph that the pass runs on.
        keeps: for each Atom that loses units, bool [size].

    """

    def __init__(self, structure: Structure, keeps: Mapping[Atom, np.ndarray]) -> None:
        self._structure = structure
        self._keeps = keeps
        self._vectors = SizeVectors(structure.graph, structure.records.extents)

    def requires(self, graph: gs.Graph) -> str | None:
        """The structure is of this graph."""
        return None if graph is self._structure.graph else "the structure was inferred from another graph"

    def run(self, graph: gs.Graph) -> bool:
        """Rewrite node by node, each input at once."""
        for default in self._structure.records.defaults:
            if not keep_mask(default.dim, self._keeps).all():
                default.node.attrs[default.name] = default.value
        changes: dict[tuple[int, int | str], list[tuple[SizeUse, Edit]]] = {}
        for use in self._structure.records.size_uses:
            wanted, computed = evaluate(use.expected, self._keeps), evaluate(use.present, self._keeps)
            # Where nothing is left of a run-time size, the node goes with the branch that it is part of.
            differs = wanted != computed and (computed or fixed(use.expected) is not None)
            if self._loses(use) if use.inferred else differs:
                changes.setdefault((id(use.node), use.where), []).append((use, _edit(use, wanted, computed)))
        for edits in changes.values():
            node, where = edits[0][0].node, edits[0][0].where
            values = {use.position: edit for use, edit in edits}
            if isinstance(where, str):
                _set_attribute(node, where, _numbers(values))
            else:
                self._set_input(graph, node, where, values)
        renumbered = [self._renumber(graph, use) for use in self._structure.records.index_uses]
        named = [_name_axes(graph, use) for use in self._structure.records.squeezed]
        return bool(changes) or any(renumbered) or any(named)

    def _loses(self, use: SizeUse) -> bool:
        """Whether a size that a Reshape can infer depends on units that go; the nominal sizes may hide it."""
        dims = (*dims_of(use.expected), *dims_of(use.present))
        return any(not keep_mask(dim, self._keeps).all() for dim in dims)

    def _renumber(self, graph: gs.Graph, use: IndexUse) -> bool:
        """Count positions among the entries that stay; positions of entries that go are sliced off later."""
        mask = keep_mask(use.dim, self._keeps)
        if mask.all():
            return False
        indices = np.asarray(stored_input(use.node, use.index).values)
        places = np.asarray((np.cumsum(mask) - 1)[indices % mask.size].clip(0), indices.dtype)
        name = fresh_name(graph, f"{use.node.inputs[use.index].name}_pruned")
        use.node.inputs[use.index] = gs.Constant(name, places)
        return True

    def _set_input(self, graph: gs.Graph, node: gs.Node, index: int, values: Mapping[int | None, Edit]) -> None:
        tensor = node.inputs[index]
        if isinstance(tensor, gs.Constant):
            array = np.array(tensor.values)
            for position, value in _numbers(values).items():
                array.ravel()[position or 0] = value
            node.inputs[index] = gs.Constant(fresh_name(graph, f"{tensor.name}_pruned"), array)
            return
        edits = {position or 0: edit for position, edit in values.items()}
        node.inputs[index] = self._vectors.edited(tensor, edits)


def _edit(use: SizeUse, wanted: int, computed: int) -> Edit:
    """Return what to write where `wanted` entries are needed at the nominal sizes and `found` would be given."""
    if use.inferred:
        return -1
    return Fraction(wanted, computed) if fixed(use.expected) is None else wanted


def _numbers(values: Mapping[int | None, Edit]) -> dict[int | None, int]:
    """Return edits of the entries written in the graph, which are numbers: nothing is computed there."""
    return {position: int(value) for position, value in values.items()}


def _name_axes(graph: gs.Graph, use: Squeezed) -> bool:
    """List the axes that a Squeeze drops, for an axis pruned to one entry must not be dropped with them."""
    if graph.opset < _SQUEEZE_TAKES_AXES_AS_INPUT:
        use.node.attrs["axes"] = list(use.axes)
    else:
        while len(use.node.inputs) > 1:
            use.node.inputs.pop()
        use.node.inputs.append(gs.Constant(fresh_name(graph, f"{use.node.name}_axes"), np.array(use.axes, np.int64)))
    return True


def _set_attribute(node: gs.Node, name: str, values: Mapping[int | None, int]) -> None:
    if None in values:
        node.attrs[name] = values[None]
        return
    array = list(node.attrs[name])
    for position, value in values.items():
        array[position or 0] = value
    node.attrs[name] = array
