"""Groups where networks are compared at some tensors alone: what these hold stays whole, and so does what none shows.

A group that no such tensor depends on could lose all its units and no comparison would tell: not the mask oracle, not
the measured losses. It is left whole.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Atom
from onnx_subprune.structure.records import Records, captured

__all__ = ["freeze_unseen"]

_UNSEEN = "no tensor that networks are compared at depends on it"


def freeze_unseen(graph: gs.Graph, records: Records, compared_at: Collection[str]) -> None:
    """Freeze the units that none of the tensors depends on.

    Args:
        graph: its nodes in topological order.
        records: of the graph, complete.
        compared_at: names of the tensors; where there are none nothing is frozen.

    """
    if not compared_at:
        return
    upstream = _upstream(graph, compared_at)
    readers = [(reader.node, reader.features) for reader in records.consumers]
    readers += [(reader.node, reader.features) for reader in records.contractions]
    seen: set[Atom] = set()
    for node, features in readers:
        if id(node) in upstream:
            seen.update(features.atoms())
    for use in records.uses:
        units = use.dim if use.part is None else use.part
        for atom in units.atoms() if use.role == "producer" else ():
            if atom not in seen and not atom.reasons:
                atom.reasons.append(_UNSEEN)


def _upstream(graph: gs.Graph, names: Collection[str]) -> set[int]:
    """Return the ids of the nodes that tensors depend on."""
    wanted, nodes = set(names), set[int]()
    for node in reversed(graph.nodes):
        if any(tensor.name in wanted for tensor in node.outputs):
            nodes.add(id(node))
            wanted.update(tensor.name for tensor in (*node.inputs, *captured(node)))
    return nodes
