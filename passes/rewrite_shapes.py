"""Bring the integers of a graph in step with the units that are left: reshape targets, slice bounds, group counts.

Every such integer was recorded with the size that it has to equal. Sizes computed at run time (Shape, Gather, Mul ...)
follow by themselves and are left alone; where the chain would give another value than is needed, only the entries that
differ are replaced.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import fresh_name
from onnx_subprune.structure import Atom, SizeUse, Structure, evaluate

__all__ = ["RewriteShapes"]


class RewriteShapes(Pass):
    """Rewrite shape constants and size attributes for the units in `keeps`.

    Args:
        structure: of the very graph that the pass runs on.
        keeps: for each Atom that loses units, bool [size].

    """

    def __init__(self, structure: Structure, keeps: Mapping[Atom, np.ndarray]) -> None:
        self._structure = structure
        self._keeps = keeps

    def requires(self, graph: gs.Graph) -> str | None:
        """The structure is of this graph."""
        return None if graph is self._structure.graph else "the structure was inferred from another graph"

    def run(self, graph: gs.Graph) -> bool:
        """Rewrite node by node, each input at once."""
        changes: dict[tuple[int, int | str], list[tuple[SizeUse, int]]] = {}
        for use in self._structure.context.size_uses:
            wanted = evaluate(use.expected, self._keeps)
            if wanted != self._present(use):
                changes.setdefault((id(use.node), use.where), []).append((use, wanted))
        for edits in changes.values():
            node, where = edits[0][0].node, edits[0][0].where
            values = {use.position: wanted for use, wanted in edits}
            if isinstance(where, str):
                _set_attribute(node, where, values)
            else:
                self._set_input(graph, node, where, values)
        return bool(changes)

    def _present(self, use: SizeUse) -> int:
        """Return the value that the integer takes after pruning if nothing is rewritten."""
        if isinstance(use.where, str):
            value = use.node.attrs[use.where]
            return int(value if use.position is None else value[use.position])
        extents = self._structure.context.extents_of(use.node.inputs[use.where])
        assert extents is not None, "a size use is recorded only for integers that are known"
        return evaluate(extents.ravel()[use.position], self._keeps)

    @staticmethod
    def _set_input(graph: gs.Graph, node: gs.Node, index: int, values: Mapping[int | None, int]) -> None:
        tensor = node.inputs[index]
        name = fresh_name(graph, f"{tensor.name}_pruned")
        if isinstance(tensor, gs.Constant):
            array = np.array(tensor.values)
            for position, value in values.items():
                array.ravel()[position] = value
            node.inputs[index] = gs.Constant(name, array)
            return
        node.inputs[index] = _patched(graph, node, tensor, name, values)


def _patched(
    graph: gs.Graph, node: gs.Node, tensor: gs.Variable, name: str, values: Mapping[int | None, int]
) -> gs.Variable:
    """Replace single entries of a computed vector: Where(is fixed, fixed value, computed value)."""
    length = max(int(p or 0) for p in values) + 1
    if tensor.shape and isinstance(tensor.shape[0], int):
        length = tensor.shape[0]
    fixed, chosen = np.zeros(length, np.int64), np.zeros(length, bool)
    for position, value in values.items():
        fixed[position or 0], chosen[position or 0] = value, True
    output = gs.Variable(name, dtype=np.int64, shape=[length])
    inputs = [gs.Constant(f"{name}_mask", chosen), gs.Constant(f"{name}_value", fixed), tensor]
    where = gs.Node("Where", name=f"{name}_where", inputs=inputs, outputs=[output])
    graph.nodes.insert(next(i for i, n in enumerate(graph.nodes) if n is node), where)
    return output


def _set_attribute(node: gs.Node, name: str, values: Mapping[int | None, int]) -> None:
    if None in values:
        node.attrs[name] = values[None]
        return
    array = list(node.attrs[name])
    for position, value in values.items():
        array[position or 0] = value
    node.attrs[name] = array
