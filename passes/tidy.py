"""Clear away what other passes left behind: dead nodes, nodes that do nothing, and disorder.

Only what a pass of ours put into the graph is judged for doing nothing: such nodes are named to this pass. The user's
own Identity, Pad and Slice nodes stay, and so do graph inputs and outputs. Constants need no clearing: a graph holds
those that a node reads.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import (
    dead_nodes,
    drop_nodes,
    is_sorted,
    protected_names,
    read_values,
    replace_uses,
    sort_nodes,
)

__all__ = ["Tidy"]


class Tidy(Pass):
    """Remove dead nodes and, among the named nodes, no-ops; sort the rest topologically (stable).

    Args:
        introduced: names of nodes that may go where they do nothing: Identity, a Pad by zero, a Slice that keeps all.
        spare: names of dead nodes to keep (those that were dead in the user's model, to lose nothing of it).

    """

    def __init__(self, introduced: Collection[str] = (), spare: Collection[str] = ()) -> None:
        self._introduced = frozenset(introduced)
        self._spare = frozenset(spare)

    def ensures(self, graph: gs.Graph) -> str | None:
        """The nodes are sorted, and the dead ones are gone."""
        if not is_sorted(graph):
            return "the nodes are not in topological order"
        dead = next(iter(dead_nodes(graph, self._spare)), None)
        return None if dead is None else f"dead node '{dead.name}' is still there"

    def run(self, graph: gs.Graph) -> bool:
        """Bypass, remove, sort."""
        idle = self._bypass_idle(graph)
        dead = dead_nodes(graph, self._spare)
        drop_nodes(graph, dead)
        moved = sort_nodes(graph)
        return bool(idle or dead) or moved

    def _bypass_idle(self, graph: gs.Graph) -> bool:
        """Connect the input of every idle node to the readers of its output, unless that name must stay."""
        protected = protected_names(graph)
        named = [node for node in graph.nodes if node.name in self._introduced and not node.domain]
        idle = [node for node in named if _is_idle(node) and node.outputs[0].name not in protected]
        for node in idle:
            replace_uses(node.outputs[0], node.inputs[0])
        drop_nodes(graph, idle)
        return bool(idle)


def _is_idle(node: gs.Node) -> bool:
    return node.op in _IDLE and _IDLE[node.op](node)


def _pads_nothing(node: gs.Node) -> bool:
    pads = node.attrs["pads"] if "pads" in node.attrs else _constant_input(node, 1)
    return pads is not None and not np.any(pads)


def _keeps_everything(node: gs.Node) -> bool:
    """Whether a Slice starts at 0, steps by 1 and ends past the end of every axis it names."""
    starts, ends, steps = (_constant_input(node, index) for index in (1, 2, 4))
    if starts is None or ends is None or np.any(starts):
        return False
    if _has_input(node, 4) and (steps is None or np.any(steps != 1)):
        return False
    sizes = _sliced_sizes(node, len(ends))
    return sizes is not None and all(end >= size for end, size in zip(ends, sizes, strict=True))


def _sliced_sizes(node: gs.Node, count: int) -> list[int] | None:
    """Size of each axis a Slice names; an unknown size counts as the largest index ONNX can write, 2^31 - 1."""
    shape = node.inputs[0].shape
    axes = _constant_input(node, 3) if _has_input(node, 3) else np.arange(count)
    if axes is None:
        return None
    sizes = [None if shape is None else shape[int(axis)] for axis in axes]
    return [size if isinstance(size, int) and size >= 0 else 2**31 - 1 for size in sizes]


def _has_input(node: gs.Node, index: int) -> bool:
    return len(node.inputs) > index and bool(node.inputs[index].name)


def _constant_input(node: gs.Node, index: int) -> np.ndarray | None:
    return read_values(node.inputs[index]) if _has_input(node, index) else None


_IDLE: dict[str, Callable[[gs.Node], bool]] = {
    "Identity": lambda _: True,
    "Pad": _pads_nothing,
    "Slice": _keeps_everything,
}
