"""Questions about, and small edits of, the wiring of a GraphSurgeon graph that several passes share.

A *body* is a graph held by an attribute of a node (If, Loop, Scan). Bodies read tensors of the graphs around them by
name, so every question here counts their uses too.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property
from typing import Any, TypeGuard

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnx_subprune.errors import InternalError
from onnx_subprune.model import overridable_initializers, values_of
from onnx_subprune.structure import is_float

__all__ = [
    "dead_nodes",
    "defect",
    "drop_nodes",
    "float_type",
    "fresh_name",
    "in_memory",
    "is_number",
    "is_readable",
    "is_sorted",
    "names_known",
    "overridable_initializers",
    "place_of",
    "protected_names",
    "read_values",
    "replace_uses",
    "sort_nodes",
    "stored_input",
]


def protected_names(graph: gs.Graph) -> frozenset[str]:
    """Names that must keep their tensor: the inputs and outputs of the graph and the outputs of its bodies."""
    names = {tensor.name for tensor in (*graph.inputs, *graph.outputs)}
    for node in graph.nodes:
        for body in (inner for held in _bodies(node) for inner in _with_bodies(held)):
            names.update(tensor.name for tensor in body.outputs)
    return frozenset(names)


def is_readable(tensor: gs.Tensor) -> TypeGuard[gs.Constant]:
    """Whether the tensor is a dense constant of numbers that can be computed with: not float8, 4-bit or strings."""
    if not isinstance(tensor, gs.Constant) or _is_sparse(tensor):
        return False
    return is_number(np.dtype(tensor.dtype))


def is_number(dtype: np.dtype[Any]) -> bool:
    """Whether NumPy computes with the type; it takes bfloat16 for no number, though it does."""
    return dtype.kind in "biuf" or is_float(dtype)


def stored_input(node: gs.Node, index: int) -> gs.Constant:
    """Return the constant that a node reads; InternalError where it reads none, which the caller has ruled out."""
    tensor = node.inputs[index]
    if not isinstance(tensor, gs.Constant):
        raise InternalError(f"expected a constant as input {index} of {node.op} '{node.name}', found '{tensor.name}'")
    return tensor


def read_values(tensor: gs.Tensor) -> np.ndarray | None:
    """The array of a readable constant, else None. Lazy weights stay lazy: the tensor does not keep the array."""
    if not is_readable(tensor):
        return None
    return values_of(tensor._values)


def in_memory(values: np.ndarray) -> np.ndarray:
    """Return the values that a constant is to hold: the argument itself. `Scratch.keep` is the other choice.

    Args:
        values: of any shape and type.

    """
    return values


def float_type(tensor: gs.Tensor) -> np.dtype[Any]:
    """Return the element type of an activation; where it is not recorded, that of the floats it is computed from."""
    pending, seen = deque([tensor]), {tensor.name}
    while pending:
        reached = pending.popleft()
        dtype: np.dtype[Any] | None = None if reached.dtype is None else np.dtype(reached.dtype)
        if dtype is not None and dtype.kind == "f":
            return dtype
        for source in (source for node in reached.inputs for source in node.inputs):
            if source.name not in seen:
                seen.add(source.name)
                pending.append(source)
    return np.dtype(np.float32)


def fresh_name(graph: gs.Graph, stem: str) -> str:
    """`stem`, or `stem_1`, `stem_2`, ...: the first that no tensor of the graph or of its bodies has.

    While `names_known` is open, a name is also given once only, so that the graph need not be read again.
    """
    known = _known.get()
    taken = known.taken if known is not None and known.graph is graph else _names(graph)
    name, count = stem, 0
    while name in taken:
        count += 1
        name = f"{stem}_{count}"
    taken.add(name)
    return name


class _Known:
    """The names of a graph, read when they are first asked for."""

    def __init__(self, graph: gs.Graph) -> None:
        self.graph = graph

    @cached_property
    def taken(self) -> set[str]:
        return _names(self.graph)


_known: ContextVar[_Known | None] = ContextVar("_known", default=None)


def place_of(graph: gs.Graph, node: gs.Node) -> int:
    """The index of a node among the nodes of `graph`, where others can be put before or behind it."""
    return next(index for index, other in enumerate(graph.nodes) if other is node)


@contextmanager
def names_known(graph: gs.Graph) -> Iterator[None]:
    """Read the names of `graph` once for all calls of `fresh_name` in this block, which must name all new tensors."""
    token = _known.set(_Known(graph))
    try:
        yield
    finally:
        _known.reset(token)


def _names(graph: gs.Graph) -> set[str]:
    return {tensor.name for part in _with_bodies(graph) for tensor in _tensors(part)}


def replace_uses(old: gs.Tensor, new: gs.Tensor) -> None:
    """Make every node that reads `old`, in bodies too, read `new`; graph outputs are not touched."""
    for node in list(old.outputs):
        for index, tensor in enumerate(node.inputs):
            if tensor is old:
                node.inputs[index] = new


def drop_nodes(graph: gs.Graph, nodes: Collection[gs.Node]) -> None:
    """Disconnect these nodes and take them out of the graph."""
    gone = {id(node) for node in nodes}
    for node in nodes:
        node.inputs.clear()
        node.outputs.clear()
    graph.nodes = [node for node in graph.nodes if id(node) not in gone]


def dead_nodes(graph: gs.Graph, spare: Collection[str] = ()) -> list[gs.Node]:
    """Nodes that neither a graph output nor a node named in `spare` needs, in their order."""
    producers = {tensor.name: node for node in graph.nodes for tensor in node.outputs if tensor.name}
    spared = [node for node in graph.nodes if node.name in spare]
    alive = {id(node) for node in spared}
    pending = [tensor.name for tensor in graph.outputs]
    pending += [name for node in spared for name in _used_names(node)]
    while pending:
        node = producers.get(pending.pop())
        if node is not None and id(node) not in alive:
            alive.add(id(node))
            pending.extend(_used_names(node))
    return [node for node in graph.nodes if id(node) not in alive]


def sort_nodes(graph: gs.Graph) -> bool:
    """Put the nodes into topological order; returns whether anything moved.

    Stable: among the nodes that are ready the one that stood first comes first, so a sorted graph stays as it is.

    Raises:
        InternalError: the graph has a cycle.

    """
    needs = _dependencies(graph)
    feeds: list[list[int]] = [[] for _ in needs]
    for index, sources in enumerate(needs):
        for source in sources:
            feeds[source].append(index)
    ready = [index for index, sources in enumerate(needs) if not sources]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for follower in feeds[index]:
            needs[follower].discard(index)
            if not needs[follower]:
                heapq.heappush(ready, follower)
    if len(order) < len(needs):
        stuck = next(node.name for node, sources in zip(graph.nodes, needs, strict=True) if sources)
        raise InternalError(f"expected a graph without cycles, found one at node '{stuck}'; please report this")
    moved = order != sorted(order)
    graph.nodes = [graph.nodes[index] for index in order]
    return moved


def is_sorted(graph: gs.Graph) -> bool:
    """Whether every node stands after the nodes that make its inputs."""
    return all(source < index for index, sources in enumerate(_dependencies(graph)) for source in sources)


def defect(graph: gs.Graph) -> str | None:
    """What makes the wiring invalid (a tensor made twice, or read but never made), or None."""
    parts = list(_with_bodies(graph))
    known = {tensor.name for part in parts for tensor in part.inputs}
    for part in parts:
        outputs: set[str] = set()
        for node in part.nodes:
            for name in (tensor.name for tensor in node.outputs if tensor.name):
                if name in outputs:
                    return f"two nodes make tensor '{name}'"
                outputs.add(name)
        known |= outputs
    for part in parts:
        for tensor in (*(tensor for node in part.nodes for tensor in node.inputs), *part.outputs):
            if tensor.name and not isinstance(tensor, gs.Constant) and tensor.name not in known:
                return f"nothing makes tensor '{tensor.name}'"
    return None


def _is_sparse(tensor: gs.Constant) -> bool:
    """Whether the values are stored sparsely; reading them would make a dense tensor of them."""
    values = tensor._values
    return isinstance(values, LazyValues) and isinstance(values.tensor, onnx.SparseTensorProto)


def _with_bodies(graph: gs.Graph) -> Iterator[gs.Graph]:
    yield graph
    for node in graph.nodes:
        for body in _bodies(node):
            yield from _with_bodies(body)


def _bodies(node: gs.Node) -> list[gs.Graph]:
    """Return the graphs that a node holds itself; most hold none, and are asked often."""
    return [value for value in node.attrs.values() if isinstance(value, gs.Graph)] if node.attrs else []


def _tensors(graph: gs.Graph) -> Iterator[gs.Tensor]:
    yield from graph.inputs
    yield from graph.outputs
    for node in graph.nodes:
        yield from node.inputs
        yield from node.outputs


def _used_names(node: gs.Node) -> Iterator[str]:
    """Names the node reads, those its bodies read or hand out included; what a body makes itself is its own affair."""
    yield from (tensor.name for tensor in node.inputs)
    bodies = [inner for body in _bodies(node) for inner in _with_bodies(body)]
    if not bodies:
        return
    inner_names = {tensor.name for body in bodies for inner in body.nodes for tensor in inner.outputs}
    inner_names |= {tensor.name for body in bodies for tensor in body.inputs}
    outer = (tensor for body in bodies for tensor in _tensors(body) if tensor.name not in inner_names)
    # A constant of a body is made nowhere, and may have the name of what the graph around it makes later.
    yield from (tensor.name for tensor in outer if not isinstance(tensor, gs.Constant))


def _dependencies(graph: gs.Graph) -> list[set[int]]:
    """For each node the indices of the nodes that must stand before it."""
    made_by = {tensor.name: index for index, node in enumerate(graph.nodes) for tensor in node.outputs if tensor.name}
    return [{made_by[name] for name in _used_names(node) if name in made_by} for node in graph.nodes]
