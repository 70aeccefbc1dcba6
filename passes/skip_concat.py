"""Pick from one part of a Concat by reading that part itself.

Exporters stack the last states of all layers of a recurrent network, and the model uses the last. Where nothing
else reads the stack, it goes, and the layers are no longer held to one width.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import fresh_name, read_values
from onnx_subprune.structure import DEFAULT_DOMAINS

__all__ = ["SkipConcat"]

_STEPS = 4


class SkipConcat(Pass):
    """Rewire every Gather and Slice of constant positions that lie in one input of a Concat along the same axis.

    Args:
        overridable: initializers that are graph inputs too; they are not constant.

    """

    def __init__(self, overridable: Collection[str] = ()) -> None:
        self._overridable = frozenset(overridable)

    def run(self, graph: gs.Graph) -> bool:
        """Rewire one node after the other; a stack of stacks is seen through."""
        skipped = False
        for node in graph.nodes:
            while self._skip(graph, node):
                skipped = True
        return skipped

    def _skip(self, graph: gs.Graph, node: gs.Node) -> bool:
        joined = _concat_read(node)
        if joined is None:
            return False
        ends = np.cumsum(joined.sizes)
        places = self._places(node, joined.axis, joined.rank, int(ends[-1]))
        if places is None or not places.size:
            return False
        part = int(np.searchsorted(ends, places.min(), side="right"))
        if places.max() >= ends[part]:
            return False
        places = places - (ends[part] - joined.sizes[part])
        node.inputs[0] = joined.node.inputs[part]
        if node.op == "Gather":
            _set_constant(graph, node, 1, places)
        else:
            _set_constant(graph, node, 1, places[:1])
            _set_constant(graph, node, 2, places[-1:] + 1)
        return True

    def _places(self, node: gs.Node, axis: int, rank: int, size: int) -> np.ndarray | None:
        """The positions along the axis that are picked, none of them negative; None where they are not known."""
        if node.op == "Gather":
            indices = self._value(node, 1)
            known = indices is not None and int(node.attrs.get("axis", 0)) % rank == axis
            return np.where(indices < 0, indices + size, indices) if known and indices is not None else None
        values = [self._value(node, index) for index in (1, 2, 3)]
        starts, ends, axes = (None if value is None or value.shape != (1,) else int(value[0]) for value in values)
        if starts is None or ends is None or axes is None or axes % rank != axis or len(node.inputs) > _STEPS:
            return None
        return np.arange(size)[starts:ends]

    def _value(self, node: gs.Node, index: int) -> np.ndarray | None:
        if index >= len(node.inputs) or node.inputs[index].name in self._overridable:
            return None
        return read_values(node.inputs[index])


@dataclass(frozen=True)
class _Joined:
    """A Concat, and how long its parts are along its axis."""

    node: gs.Node
    axis: int
    rank: int
    sizes: tuple[int, ...]


def _concat_read(node: gs.Node) -> _Joined | None:
    """The Concat of parts of known sizes that a Gather or Slice reads."""
    if node.op not in ("Gather", "Slice") or node.domain not in DEFAULT_DOMAINS or len(node.inputs[0].inputs) != 1:
        return None
    joined = node.inputs[0].inputs[0]
    if joined.op != "Concat" or joined.domain not in DEFAULT_DOMAINS:
        return None
    shapes = [tensor.shape for tensor in joined.inputs if tensor.shape is not None]
    if len(shapes) < len(joined.inputs):
        return None
    axis = int(joined.attrs["axis"]) % len(shapes[0])
    sizes = tuple(size for shape in shapes if isinstance(size := shape[axis], int) and size > 0)
    return _Joined(joined, axis, len(shapes[0]), sizes) if len(sizes) == len(shapes) else None


def _set_constant(graph: gs.Graph, node: gs.Node, index: int, values: np.ndarray) -> None:
    old = node.inputs[index]
    node.inputs[index] = gs.Constant(fresh_name(graph, f"{old.name}_moved"), np.asarray(values, old.dtype))
