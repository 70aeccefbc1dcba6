"""The structure of a graph on a graph of its own, which passes may edit.

Nodes, tensors and the records that point at them are copied; order and wiring stay what they are. Shared are the values
of constants, which passes replace and never edit, and the terms of the algebra of axes: once a structure is complete,
nothing unifies or freezes them any more, and they know no graph.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar

import onnx_graphsurgeon as gs

from onnx_subprune.structure.records import Records

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = ["GraphCopy", "copied_records"]

# The fields of records that point into a graph, or at a record that does.
_POINTERS = ("node", "constant", "weight", "spread")
_Record = TypeVar("_Record", bound="DataclassInstance")


class GraphCopy:
    """A copy of a graph, and for everything that pointed into the graph its counterpart.

    Args:
        graph: of any depth: its wiring is followed without recursion; bodies are copied with it.

    Attributes:
        graph: the copy; only the values of constants are shared with the original.

    """

    def __init__(self, graph: gs.Graph) -> None:
        self._copies: dict[int, Any] = {}
        self._unwired: list[tuple[Any, Any]] = []
        self.graph = self._graph(graph)
        # Graph objects are compared by value: wires are copied as they are, past the lists that keep both ends in step.
        while self._unwired:
            original, copy = self._unwired.pop()
            copied = self._tensor if isinstance(original, gs.Node) else self.node
            for wires, others in ((copy.inputs, original.inputs), (copy.outputs, original.outputs)):
                list.extend(wires, [copied(other) for other in others])

    def node(self, node: gs.Node) -> gs.Node:
        """Return the copy of a node."""
        copy = self._copies.get(id(node))
        if copy is None:
            attributes = {name: self._attribute(value) for name, value in node.attrs.items()}
            copy = self._copies[id(node)] = gs.Node(node.op, node.name, attributes, domain=node.domain)
            self._unwired.append((node, copy))
        return copy

    def record(self, record: _Record) -> _Record:
        """Return a record of the graph as one of the copy; the same record gives the same one again."""
        copy = self._copies.get(id(record))
        if copy is None:
            held = {name: getattr(record, name) for name in _POINTERS if getattr(record, name, None) is not None}
            copy = replace(record, **{name: self._pointer(value) for name, value in held.items()})
            self._copies[id(record)] = copy
        return copy

    def records(self, records: Iterable[_Record]) -> list[_Record]:
        """Return the records of the copy, in the same order."""
        return [self.record(record) for record in records]

    def constant(self, constant: gs.Constant) -> gs.Constant:
        """Return the copy of a constant, which shares its values."""
        copy = self._tensor(constant)
        assert isinstance(copy, gs.Constant)
        return copy

    def _pointer(self, value: Any) -> Any:
        if isinstance(value, gs.Node):
            return self.node(value)
        return self._tensor(value) if isinstance(value, gs.Tensor) else self.record(value)

    def _graph(self, graph: gs.Graph) -> gs.Graph:
        nodes = [self.node(node) for node in graph.nodes]
        inputs, outputs = ([self._tensor(tensor) for tensor in ends] for ends in (graph.inputs, graph.outputs))
        copy = gs.Graph(
            nodes, inputs, outputs, graph.name, graph.doc_string, graph.opset, graph.import_domains,
            graph.producer_name, graph.producer_version, graph.functions, graph.ir_version,
        )  # fmt: skip
        copy.name_idx = graph.name_idx
        return copy

    def _tensor(self, tensor: gs.Tensor) -> gs.Tensor:
        copy = self._copies.get(id(tensor))
        if copy is None:
            copy = self._copies[id(tensor)] = _unwired_copy(tensor)
            self._unwired.append((tensor, copy))
        return copy

    def _attribute(self, value: Any) -> Any:
        if isinstance(value, gs.Graph):
            return self._graph(value)
        if isinstance(value, gs.Tensor):
            return self._tensor(value)
        return list(value) if isinstance(value, list) else value


def _unwired_copy(tensor: gs.Tensor) -> gs.Tensor:
    """Return a tensor like another, made and read by no node; a constant shares its values."""
    if isinstance(tensor, gs.Constant):
        return gs.Constant(tensor.name, tensor._values, tensor.data_location, tensor._export_dtype)
    assert isinstance(tensor, gs.Variable)
    shape = list(tensor.shape) if isinstance(tensor.shape, list) else tensor.shape
    return gs.Variable(tensor.name, tensor.dtype, shape, tensor.type)


def copied_records(records: Records, copies: GraphCopy) -> Records:
    """Return the records of a graph as records of its copy."""
    own = [(copies.node(node), index, axes) for node, index, axes in records.own.values()]
    return replace(
        records,
        axes=dict(records.axes),
        extents=dict(records.extents),
        tied={name: (copies.constant(constant), axes) for name, (constant, axes) in records.tied.items()},
        own={(id(node), index): (node, index, axes) for node, index, axes in own},
        uses=copies.records(records.uses),
        consumers=copies.records(records.consumers),
        contractions=copies.records(records.contractions),
        size_uses=copies.records(records.size_uses),
        defaults=copies.records(records.defaults),
        index_uses=copies.records(records.index_uses),
        squeezed=copies.records(records.squeezed),
        mac_terms=copies.records(records.mac_terms),
        statistics=copies.records(records.statistics),
        rule_errors=list(records.rule_errors),
        normalisations=copies.records(records.normalisations),
    )
