"""Set units to zero where consumers read them: the reference that a pruned model is compared with.

A network whose removed units are masked at every consumer computes exactly what the shrunk network computes without
recovery. The pass changes no weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.structure import Atom, Consumer, Structure, keep_mask

__all__ = ["MaskConsumers"]


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
        taken = {name for part in (graph, *graph.subgraphs(recursive=True)) for name in part.tensors()}
        before: dict[int, gs.Node] = {}
        for consumer in self._structure.consumers:
            mask = keep_mask(consumer.features, self._keeps)
            if not mask.all():
                shape = [1] * len(self._structure.context.axes[consumer.source])
                shape[consumer.axis] = mask.size
                before[id(consumer.node)] = _masked(consumer, mask.reshape(shape), taken)
        graph.nodes = [new for node in graph.nodes for new in (before.get(id(node)), node) if new is not None]
        return bool(before)


def _masked(consumer: Consumer, mask: np.ndarray, taken: set[str]) -> gs.Node:
    """Return a Mul of what the consumer reads, which the consumer reads from now on."""
    node, index, dtype = consumer.node, 1 - consumer.index, consumer.weight.dtype
    tensor = node.inputs[index]
    stem = f"{tensor.name}_masked"
    name = next(name for name in (stem, *(f"{stem}_{i}" for i in range(1, len(taken) + 2))) if name not in taken)
    taken.add(name)
    output = gs.Variable(name, dtype=dtype, shape=tensor.shape)
    factor = gs.Constant(f"{name}_mask", mask.astype(dtype))
    node.inputs[index] = output
    return gs.Node("Mul", name=f"{name}_mul", inputs=[tensor, factor], outputs=[output])
