"""Set units to zero where consumers read them: the reference that a pruned model is compared with.

A network whose removed units are masked at every consumer computes exactly what the shrunk network computes without
recovery. The pass changes no weight.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import fresh_name
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
        modified = False
        for consumer in self._structure.consumers:
            mask = keep_mask(consumer.features, self._keeps)
            if not mask.all():
                _insert(graph, consumer, mask, len(self._structure.context.axes[consumer.source]))
                modified = True
        return modified


def _insert(graph: gs.Graph, consumer: Consumer, mask: np.ndarray, rank: int) -> None:
    node, index = consumer.node, 1 - consumer.index
    tensor = node.inputs[index]
    shape = [1] * rank
    shape[consumer.axis] = mask.size
    name = fresh_name(graph, f"{tensor.name}_masked")
    output = gs.Variable(name, dtype=consumer.weight.dtype, shape=tensor.shape)
    factor = gs.Constant(f"{name}_mask", mask.astype(consumer.weight.dtype).reshape(shape))
    mul = gs.Node("Mul", name=f"{name}_mul", inputs=[tensor, factor], outputs=[output])
    graph.nodes.insert(next(i for i, n in enumerate(graph.nodes) if n is node), mul)
    node.inputs[index] = output
