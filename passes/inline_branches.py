"""Put the branch of an If that always runs in the place of the If.

The condition is known where it is constant, or where it asks for ranks and sizes that the graph fixes (a scripted
module asks `x.dim() == 2`). Pruning does not change which branch was meant: a size that is asked for is that of the
dense network. Branches inside branches come to light one after the other.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.fold_constants import evaluate
from onnx_subprune.passes.wiring import fresh_name, is_sorted, read_values
from onnx_subprune.structure import DEFAULT_DOMAINS

__all__ = ["InlineBranches"]

_ASKS = frozenset(
    {
        *("Add", "And", "Cast", "Concat", "Div", "Equal", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less"),
        *("LessOrEqual", "Max", "Min", "Mod", "Mul", "Not", "Or", "ReduceProd", "Reshape", "Slice", "Squeeze", "Sub"),
        *("Unsqueeze", "Where", "Xor"),
    }
)
_LARGEST = 1024


class InlineBranches(Pass):
    """Inline every If of the main graph whose condition is known.

    Args:
        overridable: initializers that are graph inputs too; they are not constant.

    """

    def __init__(self, overridable: Collection[str] = ()) -> None:
        self._overridable = frozenset(overridable)

    def requires(self, graph: gs.Graph) -> str | None:
        """The nodes stand in topological order; those of a branch take the place of its If."""
        return None if is_sorted(graph) else "the nodes are not in topological order; sort them first"

    def run(self, graph: gs.Graph) -> bool:
        """Inline until no known condition is left."""
        modified, index = False, 0
        while index < len(graph.nodes):
            node = graph.nodes[index]
            condition = self._condition(node, graph.opset)
            if condition is None:
                index += 1
                continue
            branch = node.attrs["then_branch" if condition else "else_branch"]
            # The branch may begin with an If itself: the same place is looked at again.
            graph.nodes = [*graph.nodes[:index], *_inlined(graph, node, branch), *graph.nodes[index + 1 :]]
            modified = True
        return modified

    def _condition(self, node: gs.Node, opset: int) -> bool | None:
        if node.op != "If" or node.domain not in DEFAULT_DOMAINS:
            return None
        value = self._known(node.inputs[0], opset)
        return bool(value.ravel()[0]) if value is not None and value.size == 1 else None

    def _known(self, tensor: gs.Tensor, opset: int) -> np.ndarray | None:
        """The value of a tensor that follows from constants, ranks and fixed sizes; None if it does not."""
        if isinstance(tensor, gs.Constant):
            return None if tensor.name in self._overridable else read_values(tensor)
        maker = tensor.inputs[0] if len(tensor.inputs) == 1 else None
        if maker is None or maker.domain not in DEFAULT_DOMAINS:
            return None
        if maker.op in ("Shape", "Size"):
            return _measured(maker)
        if maker.op == "Gather" and isinstance(maker.inputs[0], gs.Variable):
            picked = self._picked_size(maker, opset)
            if picked is not None:
                return picked
        feeds = {operand.name: self._known(operand, opset) for operand in maker.inputs if operand.name}
        values = {name: value for name, value in feeds.items() if value is not None and value.size <= _LARGEST}
        if maker.op not in _ASKS or len(values) < len(feeds):
            return None
        results = evaluate(maker, values, opset, lambda _: True)
        return None if results is None else results[0]

    def _picked_size(self, node: gs.Node, opset: int) -> np.ndarray | None:
        """One size of a shape whose others are known at run time only."""
        source = node.inputs[0].inputs[0] if len(node.inputs[0].inputs) == 1 else None
        if source is None or source.op != "Shape" or source.attrs or source.inputs[0].shape is None:
            return None
        index, shape = self._known(node.inputs[1], opset), source.inputs[0].shape
        if index is None or not all(-len(shape) <= int(i) < len(shape) for i in index.ravel()):
            return None
        sizes = [shape[int(i)] for i in index.ravel()]
        return np.array(sizes, np.int64).reshape(index.shape) if all(map(_is_size, sizes)) else None


def _measured(node: gs.Node) -> np.ndarray | None:
    """The shape of a tensor, or its size, where it is fixed."""
    shape = node.inputs[0].shape
    if shape is None or not all(map(_is_size, shape)):
        return None
    if node.op == "Size":
        return np.array(np.prod(np.array(shape, np.int64)))
    start, end = int(node.attrs.get("start", 0)), node.attrs.get("end")
    return np.array(shape, np.int64)[start:end]


def _is_size(size: object) -> bool:
    return isinstance(size, int) and size >= 0


def _inlined(graph: gs.Graph, node: gs.Node, branch: gs.Graph) -> list[gs.Node]:
    """The nodes of a branch, then one Identity for each output of its If, which is disconnected."""
    nodes, results, outputs = list(branch.nodes), list(branch.outputs), list(node.outputs)
    outer = {id(tensor) for tensor in graph.tensors().values()}
    own = [tensor for tensor in branch.tensors().values() if id(tensor) not in outer]
    node.inputs.clear()
    node.outputs.clear()
    node.attrs.clear()
    _rename(graph, own)
    for target, result in zip(outputs, results, strict=True):
        if target.name:
            nodes.append(gs.Node("Identity", f"{target.name}_inlined", inputs=[result], outputs=[target]))
    return nodes


def _rename(graph: gs.Graph, own: list[gs.Tensor]) -> None:
    """Give the tensors of a branch names that nothing else has; another branch may use the same ones."""
    own_ids = {id(tensor) for tensor in own}
    parts = (graph, *graph.subgraphs(recursive=True))
    taken = {tensor.name for part in parts for tensor in part.tensors().values() if id(tensor) not in own_ids}
    for tensor in own:
        if tensor.name in taken:
            tensor.name = fresh_name(graph, f"{tensor.name}_inlined")
        taken.add(tensor.name)
