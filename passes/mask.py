"""Set units to zero where consumers read them: the reference that a pruned model is compared with.

A network whose removed units are masked at every consumer computes exactly what the shrunk network computes without
recovery. The pass changes no weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import float_type, fresh_name
from onnx_subprune.structure import RECURRENT, Atom, Consumer, Contraction, Structure, keep_mask

__all__ = ["MaskConsumers", "Reading", "losing_readings"]

_Contracting = TypeVar("_Contracting", Consumer, Contraction)


@dataclass(frozen=True)
class Reading:
    """A node that contracts axes of its input `index`, some of whose units go.

    A recurrent layer cannot be kept from reading its own states: in their place the columns of its R [D, G*H, H] are
    masked, where the two axes before count the directions.

    Attributes:
        node: that contracts.
        index: of the input.
        mask: bool, which units stay; it broadcasts against the input.
        dtype: that the input is read in; None for the tensor's own.

    """

    node: gs.Node
    index: int
    mask: NDArray[np.bool_]
    dtype: np.dtype[Any] | None


class MaskConsumers(Pass):
    """Multiply what each consumer reads by the keep mask of its features.

    Args:
        structure: of the very graph that the pass runs on.
        keeps: for each Atom that loses units, bool [size].

    """

    def __init__(self, structure: Structure, keeps: Mapping[Atom, np.ndarray]) -> None:
        self._structure = structure
        self._keeps = keeps

    def run(self, graph: gs.Graph) -> bool:
        """Insert a Mul before every consumer that reads a removed unit."""
        before: dict[int, list[gs.Node]] = {}
        records = self._structure.records
        for reading in losing_readings(self._structure, self._keeps, records.consumers, records.contractions):
            before.setdefault(id(reading.node), []).append(_masked(graph, reading))
        graph.nodes = [new for node in graph.nodes for new in (*before.get(id(node), ()), node)]
        return bool(before)


def losing_readings(
    structure: Structure,
    keeps: Mapping[Atom, np.ndarray],
    consumers: Iterable[Consumer],
    contractions: Iterable[Contraction],
) -> Iterator[Reading]:
    """Yield where units are read that go; of the two sides of a product it is enough to mask the first.

    Args:
        structure: of the graph.
        keeps: for each Atom that loses units, bool [size].
        consumers: linear maps of the graph.
        contractions: products of two activations of the graph.

    """
    for consumer in _losing(consumers, keeps):
        node, features, dtype = consumer.node, consumer.features, consumer.weight.dtype
        if consumer.recurrence:
            shape: tuple[int, ...] = (consumer.blocks.size, 1, -1)
            yield Reading(node, consumer.index, keep_mask(features, keeps).reshape(shape), dtype)
        else:
            shape = _mask_shape(structure, consumer.source, (*consumer.stack, consumer.axis))
            index = 0 if node.op in RECURRENT else 1 - consumer.index
            yield Reading(node, index, keep_mask(features, keeps).reshape(shape), dtype)
    for pair in _losing(contractions, keeps):
        source, axis = pair.sides[0]
        shape = _mask_shape(structure, source, (axis,))
        yield Reading(pair.node, 0, keep_mask(pair.features, keeps).reshape(shape), None)


def _losing(contracting: Iterable[_Contracting], keeps: Mapping[Atom, np.ndarray]) -> Iterator[_Contracting]:
    """Yield those that lose features; the others may read a constant, which has no axes of its own."""
    return (reader for reader in contracting if not keep_mask(reader.features, keeps).all())


def _mask_shape(structure: Structure, source: str, axes: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape of a mask along these axes that broadcasts against a tensor."""
    return tuple(dim.size if i in axes else 1 for i, dim in enumerate(structure.records.axes[source]))


def _masked(graph: gs.Graph, reading: Reading) -> gs.Node:
    """Return a Mul of an input, which the node reads from now on."""
    node, index = reading.node, reading.index
    tensor = node.inputs[index]
    dtype = reading.dtype if reading.dtype is not None else float_type(tensor)
    name = fresh_name(graph, f"{tensor.name}_masked")
    output = gs.Variable(name, dtype=dtype, shape=tensor.shape)
    factor = gs.Constant(fresh_name(graph, f"{name}_mask"), reading.mask.astype(dtype))
    node.inputs[index] = output
    return gs.Node("Mul", name=f"{name}_mul", inputs=[tensor, factor], outputs=[output])
