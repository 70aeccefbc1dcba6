"""Set units to zero where consumers read them: the reference that a pruned model is compared with.

A network whose removed units are masked at every consumer computes exactly what the shrunk network computes without
recovery. The pass changes no weight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import float_type, fresh_name
from onnx_subprune.structure import RECURRENT, Atom, Consumer, Contraction, Dim, Structure, keep_mask

__all__ = ["MaskConsumers"]

_Contracting = TypeVar("_Contracting", Consumer, Contraction)


@dataclass(frozen=True)
class _Reading:
    """A node that contracts the axis `axis` of its input `index`, and the dtype it reads it in (None: the tensor's).

    A recurrent layer cannot be kept from reading its own states: in their place the columns of its R [D, G*H, H] are
    masked, where the two axes before count the directions.
    """

    node: gs.Node
    index: int
    shape: tuple[int, ...]
    features: Dim
    dtype: np.dtype | None


class MaskConsumers(Pass):
    """Multiply what each consumer reads by the keep mask of its features.

    Args:
        structure: of the very graph that the pass runs on.
        keeps: for each Atom that loses units, bool [size].

    """

    def __init__(self, structure: Structure, keeps: Mapping[Atom, np.ndarray]) -> None:
        self._structure = structure
        self._keeps = keeps

    def _readings(self) -> Iterator[_Reading]:
        """Yield contracted tensors that lose units; of the two sides of a product it is enough to mask the first."""
        for consumer in self._losing(self._structure.consumers):
            node, features, dtype = consumer.node, consumer.features, consumer.weight.dtype
            if consumer.recurrence:
                yield _Reading(node, consumer.index, (consumer.blocks.size, 1, -1), features, dtype)
            else:
                shape = self._mask_shape(consumer.source, (*consumer.stack, consumer.axis))
                yield _Reading(node, 0 if node.op in RECURRENT else 1 - consumer.index, shape, features, dtype)
        for pair in self._losing(self._structure.contractions):
            source, axis = pair.sides[0]
            yield _Reading(pair.node, 0, self._mask_shape(source, (axis,)), pair.features, None)

    def _losing(self, contracting: Sequence[_Contracting]) -> Iterator[_Contracting]:
        """Yield those that lose features; the others may read a constant, which has no axes of its own."""
        return (reader for reader in contracting if not keep_mask(reader.features, self._keeps).all())

    def _mask_shape(self, source: str, axes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of a mask along these axes that broadcasts against a tensor."""
        whole = self._structure.records.axes[source]
        return tuple(dim.size if i in axes else 1 for i, dim in enumerate(whole))

    def run(self, graph: gs.Graph) -> bool:
        """Insert a Mul before every consumer that reads a removed unit."""
        before: dict[int, list[gs.Node]] = {}
        for reading in self._readings():
            mask = keep_mask(reading.features, self._keeps).reshape(reading.shape)
            before.setdefault(id(reading.node), []).append(_masked(graph, reading, mask))
        graph.nodes = [new for node in graph.nodes for new in (*before.get(id(node), ()), node)]
        return bool(before)


def _masked(graph: gs.Graph, reading: _Reading, mask: np.ndarray) -> gs.Node:
    """Return a Mul of an input, which the node reads from now on."""
    node, index = reading.node, reading.index
    tensor = node.inputs[index]
    dtype = reading.dtype if reading.dtype is not None else float_type(tensor)
    name = fresh_name(graph, f"{tensor.name}_masked")
    output = gs.Variable(name, dtype=dtype, shape=tensor.shape)
    factor = gs.Constant(fresh_name(graph, f"{name}_mask"), mask.astype(dtype))
    node.inputs[index] = output
    return gs.Node("Mul", name=f"{name}_mul", inputs=[tensor, factor], outputs=[output])
