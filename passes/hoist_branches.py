"""Move the nodes of both branches of an If in front of it, so that one graph holds all weights.

What comes of it computes the same, but runs both branches. It is the form in which networks are analysed, calibrated
and recovered; `SinkBranches` moves the nodes back before anything is written. A branch that would fail where it is not
taken is not hoisted: whoever uses this pass has to try it.

Weights that both branches store under one name, with equal values, become one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import onnx_graphsurgeon as gs

from onnx_subprune.model.attributes import same_constant
from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import fresh_name, is_sorted, replace_uses
from onnx_subprune.structure import BRANCHES, DEFAULT_DOMAINS, Place, branch_of, handed_out, is_float

__all__ = ["Branch", "HoistBranches", "name_apart", "weighted_branches"]

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
        left: dict[int, list[str]] = {}
        index = 0
        while index < len(graph.nodes):
            node = graph.nodes[index]
            branches = left.setdefault(id(node), self._branches(node) if id(node) not in left else [])
            if not branches:
                index += 1
                continue
            nodes = self._hoist(graph, node, branches.pop(0))
            # What was hoisted may hold branches itself: it is looked at next, and the other branch of this If after it.
            graph.nodes = [*graph.nodes[:index], *nodes, *graph.nodes[index:]]
        return bool(set(self.origins.values()) - {()})

    def _branches(self, node: gs.Node) -> list[str]:
        """Return the branches of a node that are to be hoisted."""
        if not _holds_weights(node):
            return []
        within = bool(self.origins[branch_of(node, "")[0]])
        return [
            branch
            for branch in BRANCHES
            if (within or (node.name, branch) in self._chosen) and handed_out(node.attrs[branch]) is None
        ]

    def _hoist(self, graph: gs.Graph, node: gs.Node, branch: str) -> list[gs.Node]:
        """Take the nodes of a branch, and remember where they ran."""
        step = branch_of(node, branch)
        other = next(node.attrs[name] for name in BRANCHES if name != branch)
        nodes = self._emptied(graph, node.attrs[branch], other)
        place = (*self.origins[step[0]], step)
        self.origins |= {tensor.name: place for inner in nodes for tensor in inner.outputs if tensor.name}
        return nodes

    def _emptied(self, graph: gs.Graph, body: gs.Graph, other: gs.Graph) -> list[gs.Node]:
        """Take the nodes of a body, which then hands out what they make."""
        outer = {id(tensor) for tensor in graph.tensors().values()}
        own = {id(tensor): tensor for tensor in body.tensors().values() if id(tensor) not in outer}
        nodes = list(body.nodes)
        results = self._merged(graph, list(body.outputs), own)
        self._rename(graph, own, other)
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
    def _rename(graph: gs.Graph, own: dict[int, gs.Tensor], other: gs.Graph) -> None:
        """Give the tensors of a branch names that nothing else has, but for weights that the other branch has too."""
        parts = (graph, *graph.subgraphs(recursive=True))
        equal = {id(tensor) for tensor in other.tensors().values() if _is_among(tensor, own.values())}
        foreign = [t for part in parts for t in part.tensors().values() if id(t) not in own and id(t) not in equal]
        taken = {tensor.name for tensor in foreign}
        for tensor in own.values():
            if tensor.name in taken:
                tensor.name = fresh_name(graph, f"{tensor.name}_hoisted")
            taken.add(tensor.name)


def name_apart(graph: gs.Graph) -> None:
    """Rename the variables of bodies whose names other graphs have as well, so that a name says which is meant.

    Args:
        graph: with its bodies; it is edited.

    """
    owners: dict[str, int] = {}
    for part in (graph, *graph.subgraphs(recursive=True)):
        for tensor in list(part.tensors().values()):
            if owners.setdefault(tensor.name, id(tensor)) != id(tensor) and isinstance(tensor, gs.Variable):
                tensor.name = fresh_name(graph, f"{tensor.name}_apart")
                owners[tensor.name] = id(tensor)


def _is_among(tensor: gs.Tensor, others: Iterable[gs.Tensor]) -> bool:
    """Whether an equal constant of the same name is among others."""
    constants = [other for other in others if isinstance(other, gs.Constant) and other.name == tensor.name]
    return isinstance(tensor, gs.Constant) and any(same_constant(tensor, other) for other in constants)


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
