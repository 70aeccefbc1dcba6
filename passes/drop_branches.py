"""Put constants in the place of what computed with units that are all gone.

A linear map without features gives its bias everywhere, so a constant of its bias takes its place; `FoldCorrections`
has put the mean of the removed features into that bias before. A Concat leaves its empty pieces out. The nodes upstream
are dead then and go with `Tidy`; what follows from the constants is folded with `FoldConstants`.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import dead_nodes, drop_nodes, fresh_name, replace_uses, stored_input
from onnx_subprune.structure import Consumer, Keeps, Removal, Structure, keep_mask

__all__ = ["DropBranches"]


class DropBranches(Pass):
    """Replace the cut maps by constants and take empty pieces out of Concat and Split.

    Args:
        structure: of the very graph that the pass runs on; its constants are sliced already.
        keeps: for each Atom that loses units, bool [size].
        removal: what happens to the graph when Atoms lose all their units; asked for before the graph was edited.

    Attributes:
        constants: after the run, names of the constants put in, and of what may be folded from them.
        bypassed: after the run, names of nodes that hand their input on.

    """

    def __init__(self, structure: Structure, keeps: Keeps, removal: Removal) -> None:
        self._structure = structure
        self._keeps = keeps
        self._removal = removal
        self.constants: set[str] = set(removal.short)
        self.bypassed: set[str] = set()

    def requires(self, graph: gs.Graph) -> str | None:
        """The structure is of this graph, and the removal is possible."""
        return (
            self._removal.reason if graph is self._structure.graph else "the structure was inferred from another graph"
        )

    def run(self, graph: gs.Graph) -> bool:
        """Cut, then leave out empty pieces, then forget the shapes that were recorded of short tensors."""
        for consumer in self._removal.cut:
            self._cut(graph, consumer)
        for node in graph.nodes:
            if node.op == "Concat" and id(node) in self._removal.live:
                self._leave_out_inputs(node)
        # What read the empty outputs of a Split is dead by now.
        drop_nodes(graph, dead_nodes(graph))
        for node in graph.nodes:
            if node.op == "Split":
                self._leave_out_outputs(node)
        for name, tensor in graph.tensors().items():
            if name in self._removal.short and isinstance(tensor, gs.Variable):
                tensor.shape = None
        return bool(self._removal.live)

    def _cut(self, graph: gs.Graph, consumer: Consumer) -> None:
        # A correction may have put an Add behind the node: it adds to the constant.
        output = consumer.node.outputs[0]
        name = fresh_name(graph, f"{output.name}_mean")
        replace_uses(output, gs.Constant(name, self._value(consumer)))
        self.constants |= {name, output.name}

    def _value(self, consumer: Consumer) -> np.ndarray:
        """Return the bias, with one entry on all axes of the node's output but that of the channels."""
        node, count = consumer.node, int(keep_mask(consumer.outputs, self._keeps).sum())
        value = np.zeros(count, consumer.weight.dtype)
        if len(node.inputs) > 2 and not node.inputs[2].is_empty():
            bias = np.asarray(stored_input(node, 2).values)
            scale = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
            value = (bias * scale).astype(bias.dtype) + value
        rank = len(self._structure.records.axes[node.outputs[0].name])
        behind = {"Conv": rank - 2, "ConvTranspose": rank - 2, "MatMul": int(consumer.index == 0)}.get(node.op, 0)
        return value.reshape(*(1,) * (rank - value.ndim - behind), *value.shape, *(1,) * behind)

    def _leave_out_inputs(self, node: gs.Node) -> None:
        kept = [tensor for tensor in node.inputs if tensor.name not in self._removal.empty]
        if len(kept) < len(node.inputs):
            node.inputs.clear()
            node.inputs.extend(kept)
        if len(kept) == 1:
            self._hand_on(node)

    def _leave_out_outputs(self, node: gs.Node) -> None:
        """Sizes that are computed stay as they are: ONNX allows pieces of no entries."""
        stays = [tensor.name not in self._removal.empty for tensor in node.outputs]
        if all(stays):
            return
        if sum(stays) == 1:
            kept = node.outputs[stays.index(True)]
            node.outputs.clear()
            node.outputs.append(kept)
            while len(node.inputs) > 1:
                node.inputs.pop()
            self._hand_on(node)

    def _hand_on(self, node: gs.Node) -> None:
        node.op = "Identity"
        node.attrs.clear()
        self.bypassed.add(node.name)
