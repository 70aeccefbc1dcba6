"""Move the nodes of both branches of an If in front of it, so that one graph holds all weights.

What comes of it computes the same, but runs both branches. It is the form in which networks are analysed, calibrated
and recovered; `SinkBranches` moves the nodes back before anything is written. A branch that would fail where it is not
taken is not hoisted: whoever uses this pass has to try it.

Weights that both branches store under one name, with equal values, become one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

import onnx_graphsurgeon as gs

from onnx_subprune.model.attributes import same_constant
from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import fresh_name, is_sorted, replace_uses
from onnx_subprune.structure import BRANCHES, DEFAULT_DOMAINS, Place, branch_of, handed_out, is_float

__all__ = ["Branch", "HoistBranches", "weighted_branches"]

Branch = tuple[str, str]
"""A branch: the name of its If, and `then_branch` or `else_branch`."""

_WEIGHTED = ("Conv", "ConvTranspose", "FusedConv", "FusedGemm", "FusedMatMul", "GRU", "Gemm", "LSTM", "MatMul", "RNN")


def weighted_branches(graph: gs.Graph) -> list[Branch]:
    """Return the branches of the main graph's Ifs that hold weights, or stand beside one that does.

    Args:
        graph: bodies within bodies count as part of the outer ones.

    """
    return [(str(node.name), branch) for node in graph.nodes if _holds_weights(node) for branch in BRANCHES]


class HoistBranches(Pass):
    """Hoist the branches of all Ifs that hold weights, and of those within them.

    Args:
        chosen: the branches of the main graph to hoist.
        overridable: initializers that are graph inputs too; they are not constant.

    Attributes:
        origins: where every tensor of the main graph was made before, by its name.

    """

    def __init__(self, chosen: Collection[Branch], overridable: Collection[str] = ()) -> None:
        self._chosen = frozenset(chosen)
        self._overridable = frozenset(overridable)
        self.origins: dict[str, Place] = {}

    def requires(self, graph: gs.Graph) -> str | None:
        """The nodes stand in topological order; those of a branch go in front of their If."""
        return None if is_sorted(graph) else "the nodes are not in topological order; sort them first"

    def run(self, graph: gs.Graph) -> bool:
        """Hoist branch after branch, the outer ones first."""
        self.origins = dict.fromkeys(graph.tensors(), ())
        modified, index = False, 0
        while index < len(graph.nodes):
            node = graph.nodes[index]
            hoisted = self._hoisted(graph, node) if _is_if(node) and _holds_weights(node) else []
            graph.nodes = [*graph.nodes[:index], *hoisted, *graph.nodes[index:]]
            modified |= bool(hoisted)
            # What was hoisted may hold branches itself: it is looked at next.
            index += 0 if hoisted else 1
        return modified

    def _hoisted(self, graph: gs.Graph, node: gs.Node) -> list[gs.Node]:
        """Take the nodes of the branches of an If."""
        hoisted: list[gs.Node] = []
        outer = self.origins[branch_of(node, "")[0]]
        for branch in BRANCHES:
            chosen = bool(outer) or (node.name, branch) in self._chosen
            if chosen and handed_out(node.attrs[branch]) is None:
                nodes = self._hoist(graph, node.attrs[branch])
                place = (*outer, branch_of(node, branch))
                self.origins |= {tensor.name: place for inner in nodes for tensor in inner.outputs if tensor.name}
                hoisted += nodes
        return hoisted

    def _hoist(self, graph: gs.Graph, body: gs.Graph) -> list[gs.Node]:
        """Take the nodes of a body, which then hands out what they make."""
        outer = {id(tensor) for tensor in graph.tensors().values()}
        own = {id(tensor): tensor for tensor in body.tensors().values() if id(tensor) not in outer}
        nodes = list(body.nodes)
        results = self._merged(graph, list(body.outputs), own)
        self._rename(graph, own)
        for tensor in own.values():
            _forget_symbols(tensor)
        for place, result in enumerate(results):
            if isinstance(result, gs.Constant):
                # As an output of a node it has axes like any other tensor.
                made = gs.Variable(fresh_name(graph, f"{result.name}_handed_out"), result.dtype, result.shape)
                nodes.append(_identity(result, made))
                results[place] = made
        outputs: list[gs.Variable] = [
            gs.Variable(fresh_name(graph, f"{result.name}_chosen"), result.dtype) for result in results
        ]
        body.nodes = [_identity(result, output) for result, output in zip(results, outputs, strict=True)]
        body.outputs = list(outputs)
        return nodes

    def _merged(self, graph: gs.Graph, results: list[gs.Tensor], own: dict[int, gs.Tensor]) -> list[gs.Tensor]:
        """Put constants of the main graph in the place of equal ones of their name; returns the body's outputs."""
        known = graph.tensors()
        for constant in [tensor for tensor in own.values() if isinstance(tensor, gs.Constant)]:
            other = known.get(constant.name)
            if not isinstance(other, gs.Constant) or other.name in self._overridable:
                continue
            if same_constant(constant, other):
                replace_uses(constant, other)
                results = [other if tensor is constant else tensor for tensor in results]
                del own[id(constant)]
        return results

    @staticmethod
    def _rename(graph: gs.Graph, own: dict[int, gs.Tensor]) -> None:
        """Give the tensors of a branch names that nothing else has; the other branch may use the same ones."""
        parts = (graph, *graph.subgraphs(recursive=True))
        taken = {tensor.name for part in parts for tensor in part.tensors().values() if id(tensor) not in own}
        for tensor in own.values():
            if tensor.name in taken:
                tensor.name = fresh_name(graph, f"{tensor.name}_hoisted")
            taken.add(tensor.name)


def _is_if(node: gs.Node) -> bool:
    return node.op == "If" and node.domain in DEFAULT_DOMAINS


def _holds_weights(node: gs.Node) -> bool:
    return _is_if(node) and any(_reads_weight(inner) for inner in _nodes_within(node))


def _nodes_within(node: gs.Node) -> Iterator[gs.Node]:
    """Yield the nodes of the branches, and of branches within them; bodies of loops are left out."""
    for branch in BRANCHES:
        for inner in node.attrs[branch].nodes:
            yield inner
            if _is_if(inner):
                yield from _nodes_within(inner)


def _reads_weight(node: gs.Node) -> bool:
    return node.op in _WEIGHTED and any(_is_weight(tensor) for tensor in node.inputs)


def _is_weight(tensor: gs.Tensor) -> bool:
    """Whether a tensor is a stored weight, perhaps cast or transposed on its way."""
    while not isinstance(tensor, gs.Constant):
        if len(tensor.inputs) != 1 or tensor.inputs[0].op not in ("Cast", "Identity", "Transpose"):
            return False
        tensor = tensor.inputs[0].inputs[0]
    return tensor.dtype is not None and is_float(tensor.dtype) and len(tensor.shape) > 1


def _forget_symbols(tensor: gs.Tensor) -> None:
    """A name of a size means within a body what it means there."""
    if isinstance(tensor, gs.Variable) and tensor.shape is not None:
        tensor.shape = [size if isinstance(size, int) else None for size in tensor.shape]


def _identity(source: gs.Tensor, output: gs.Variable) -> gs.Node:
    return gs.Node("Identity", f"{output.name}_identity", inputs=[source], outputs=[output])
