"""Writing a GraphSurgeon graph as ONNX, guided by the graph message it came from.

For every graph (the main one and, recursively, each body) the nodes, initializers, inputs, outputs and value infos are
written from the `gs.Graph`; whatever has a counterpart in the message and was not changed is copied from there, so an
untouched graph gives an equal message.
"""

from __future__ import annotations

import bisect
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from operator import itemgetter

import onnx
import onnx_graphsurgeon as gs

from onnx_subprune.errors import InternalError
from onnx_subprune.model.attributes import same_constant, same_tensor, stored_tensor, write_attributes
from onnx_subprune.model.origin import Origin, node_key
from onnx_subprune.model.protos import assign, constant_tensor, graphs, is_external, sparse_if_smaller
from onnx_subprune.model.stored import Scratch
from onnx_subprune.model.values import Declared, decoded_shape, new_info, patched_info

__all__ = ["export_graph"]

_FIRST_IR_WITH_FREE_INITIALIZERS = 4
_NODE_EXTRAS = ("doc_string", "metadata_props", "device_configurations")


@dataclass(frozen=True)
class _Rules:
    """What holds for the whole model.

    Names that to_graph replaced, whether initializers need not be inputs, where larger new weights go, and the names
    of constants that the main graph stores for its bodies.
    """

    ambiguous_names: frozenset[str]
    free_initializers: bool
    scratch: Scratch | None
    shared: frozenset[str]


def export_graph(
    graph: gs.Graph,
    target: onnx.GraphProto,
    like: onnx.ModelProto,
    scratch: Scratch | None = None,
    shared: Collection[str] = (),
) -> None:
    """Write `graph` and its bodies into `target`, an empty message.

    Raises InternalError if two tensors of the graph share a name, which only a faulty pass can bring about.
    """
    names = Counter(node.name for inner in graphs(like.graph) for node in inner.node)
    ambiguous = frozenset(name for name, count in names.items() if count > 1 or not name)
    rules = _Rules(ambiguous, like.ir_version >= _FIRST_IR_WITH_FREE_INITIALIZERS, scratch, frozenset(shared))
    _Writer(graph, target, Origin(like.graph), {}, rules).write()


class _Writer:
    """Writes one graph; `outer` holds the constants that enclosing graphs store."""

    def __init__(
        self, graph: gs.Graph, target: onnx.GraphProto, origin: Origin, outer: dict[str, gs.Constant], rules: _Rules
    ) -> None:
        self.graph = graph
        self.target = target
        self.origin = origin
        self.outer = outer
        self.rules = rules
        self.constants = self._own_constants()
        self.variables = self._own_variables()
        self.references = _references(graph)

    def write(self) -> None:
        original = self.origin.graph
        if original.HasField("name") or self.graph.name:
            self.target.name = self.graph.name
        if original.HasField("doc_string"):
            self.target.doc_string = original.doc_string
        self.target.metadata_props.extend(original.metadata_props)
        self._write_nodes()
        self._write_initializers()
        self._write_inputs_and_outputs()
        self._write_value_infos()
        self._write_annotations()

    def _own_constants(self) -> dict[str, gs.Constant]:
        """Constants this graph stores: used here, or used only in a body but stored here originally or shared."""
        own: dict[str, gs.Constant] = {}
        for tensor in _used_constants(self.graph):
            if self._is_outer(tensor):
                continue
            if own.setdefault(tensor.name, tensor) is not tensor:
                raise InternalError(f"two constants of the graph are named '{tensor.name}': a pass must rename one")
        for body in self.graph.subgraphs(recursive=True):
            for tensor in _used_constants(body):
                here = self.origin.stores(tensor.name) or tensor.name in self.rules.shared
                if here and not self._is_outer(tensor):
                    own.setdefault(tensor.name, tensor)
        return own

    def _is_outer(self, tensor: gs.Constant) -> bool:
        """Whether an enclosing graph stores `tensor`; gs.Graph.copy() gives each body an object of its own for it."""
        outer = self.outer.get(tensor.name)
        if outer is None or outer is tensor:
            return outer is tensor
        if not same_constant(outer, tensor):
            raise InternalError(f"constant '{tensor.name}' of a body hides an outer one: a pass must rename it")
        return True

    def _own_variables(self) -> dict[str, gs.Tensor]:
        produced = [tensor for node in self.graph.nodes for tensor in node.outputs if tensor.name]
        own: dict[str, gs.Tensor] = {}
        for tensor in [*self.graph.inputs, *produced]:
            if tensor.name in own or tensor.name in self.constants:
                raise InternalError(f"two tensors of the graph are named '{tensor.name}': a pass must rename one")
            own[tensor.name] = tensor
        return own

    def _keeps(self, name: str) -> bool:
        """Whether a stored tensor that no node of the graph holds stays: unused before too, or used by name only."""
        if name in self.variables:
            return False
        return name in self.references or name not in self.origin.references

    # Nodes

    def _write_nodes(self) -> None:
        pending = self._constant_nodes()
        for position, node in enumerate(self.graph.nodes):
            while pending and pending[0][0] <= position:
                self.target.node.append(pending.pop(0)[1])
            self._write_node(node, self.target.node.add())
        self.target.node.extend(node for _, node in pending)

    def _write_node(self, node: gs.Node, target: onnx.NodeProto) -> None:
        target.input.extend(tensor.name for tensor in node.inputs)
        target.output.extend(tensor.name for tensor in node.outputs)
        original = self.origin.nodes.get(node_key(target.output, node.name), onnx.NodeProto())
        renamed = original.name in self.rules.ambiguous_names and bool(original.op_type)
        name = original.name if renamed else node.name
        if name or original.HasField("name"):
            target.name = name
        target.op_type = node.op
        if node.domain is not None:
            target.domain = node.domain
        _copy_fields(original, target, _NODE_EXTRAS)
        same_operator = (original.op_type, original.domain) == (node.op, node.domain or "")
        if same_operator:
            _copy_fields(original, target, ("overload",))
        write_attributes(node, target, original if same_operator else onnx.NodeProto(), self._write_body)

    def _write_body(self, graph: gs.Graph, target: onnx.GraphProto, original: onnx.GraphProto) -> None:
        target.SetInParent()
        # Only initializers of the main graph can stay in files.
        rules = replace(self.rules, scratch=None)
        _Writer(graph, target, Origin(original), {**self.outer, **self.constants}, rules).write()

    def _constant_nodes(self) -> list[tuple[int, onnx.NodeProto]]:
        """Constant nodes with the index of the graph's node each goes before, in order.

        A node that was there goes before the first node that followed it, and in any case before its first reader.
        """
        order = [self.origin.positions.get(_key(node), -1) for node in self.graph.nodes]
        latest = list(accumulate(order, max))
        first_reader = self._first_readers()
        placed: list[tuple[int, onnx.NodeProto]] = []
        for name, original in self.origin.constants.items():
            if (node := self._constant_node(name, original)) is not None:
                place = bisect.bisect_right(latest, self.origin.positions[name])
                placed.append((min(place, first_reader.get(name, place)), node))
        if not self.rules.free_initializers:
            new = [tensor for name, tensor in self.constants.items() if not self.origin.stores(name)]
            placed += [(0, _as_constant_node(tensor)) for tensor in new]
        return sorted(placed, key=itemgetter(0))

    def _constant_node(self, name: str, original: onnx.NodeProto) -> onnx.NodeProto | None:
        constant = self.constants.get(name)
        if constant is None:
            return original if self._keeps(name) else None
        stored = constant_tensor(original)
        if stored is not None and same_tensor(constant, stored):
            return original
        node = _as_constant_node(constant)
        _copy_fields(original, node, ("name", "domain", *_NODE_EXTRAS))
        return node

    def _first_readers(self) -> dict[str, int]:
        first: dict[str, int] = {}
        for position, node in enumerate(self.graph.nodes):
            for name in _node_references(node):
                first.setdefault(name, position)
        return first

    # Initializers

    def _write_initializers(self) -> None:
        for name, tensor in self.origin.initializers.items():
            self._write_initializer(name, tensor)
        for name, sparse in self.origin.sparse.items():
            constant = self.constants.get(name)
            unchanged = self._keeps(name) if constant is None else same_tensor(constant, sparse)
            if unchanged:
                self.target.sparse_initializer.add().CopyFrom(sparse)
            elif constant is not None:
                self._write_changed(self._stored(constant, sparse.values))
        if self.rules.free_initializers:
            new = [tensor for name, tensor in self.constants.items() if not self.origin.stores(name)]
            self.target.initializer.extend(self._stored(tensor) for tensor in new)

    def _write_changed(self, tensor: onnx.TensorProto) -> None:
        """Write what was stored sparsely, and has changed, in the smaller of both ways."""
        sparse = None if is_external(tensor) else sparse_if_smaller(tensor)
        if sparse is None:
            self.target.initializer.append(tensor)
        else:
            self.target.sparse_initializer.append(sparse)

    def _write_initializer(self, name: str, original: onnx.TensorProto) -> None:
        constant = self.constants.get(name)
        if constant is not None and not same_tensor(constant, original):
            self.target.initializer.append(self._stored(constant, original))
        elif constant is not None:
            self.target.initializer.add().CopyFrom(original)
        elif name in self.outer:
            # A copy of an outer weight: equal when the graph was imported, so stale as soon as that one changes.
            if same_tensor(self.outer[name], original):
                self.target.initializer.add().CopyFrom(original)
        elif self._keeps(name):
            self.target.initializer.add().CopyFrom(original)

    def _stored(self, constant: gs.Constant, original: onnx.TensorProto | None = None) -> onnx.TensorProto:
        return stored_tensor(constant, original, self.rules.scratch)

    # Values

    def _write_inputs_and_outputs(self) -> None:
        stored = {tensor.name for tensor in self.target.initializer}
        stored |= {tensor.values.name for tensor in self.target.sparse_initializer}
        inputs = {tensor.name: tensor for tensor in self.graph.inputs}
        given = _by_name(self.origin.graph.input)
        original = [value.name for value in self.origin.graph.input]
        kept = [name for name in original if name in inputs]
        if kept != list(inputs):
            original = [*inputs, *(name for name in original if name not in inputs)]
        for name in original:
            if name in inputs or name in stored:
                self._write_info(inputs.get(name, self.constants.get(name)), self.target.input.add(), name, given)
        handed_out = _by_name(self.origin.graph.output)
        for tensor in self.graph.outputs:
            self._write_info(tensor, self.target.output.add(), tensor.name, handed_out)

    def _write_value_infos(self) -> None:
        stored = {tensor.name for tensor in self.target.initializer}
        exists = set(self.variables) | set(self.constants) | stored
        for info in self.origin.graph.value_info:
            if info.name in exists or info.name not in self.origin.defined:
                tensor = self.variables.get(info.name, self.constants.get(info.name))
                patched_info(tensor, info, self._declared(info.name), self.target.value_info.add())
        interface = {tensor.name for tensor in [*self.graph.inputs, *self.graph.outputs]}
        for name, tensor in self.variables.items():
            if name not in interface and name not in self.origin.infos and tensor.dtype is not None:
                new_info(tensor, self.target.value_info.add(), self.origin.symbols)

    def _write_info(
        self,
        tensor: gs.Tensor | None,
        target: onnx.ValueInfoProto,
        name: str,
        originals: Mapping[str, onnx.ValueInfoProto],
    ) -> None:
        if name in originals:
            patched_info(tensor, originals[name], self._declared(name), target)
        elif tensor is not None:
            new_info(tensor, target)

    def _declared(self, name: str) -> list[Declared]:
        declared: list[Declared] = [
            (info.type.tensor_type.elem_type, decoded_shape(info)) for info in self.origin.infos.get(name, [])
        ]
        if name in self.origin.initializers:
            tensor = self.origin.initializers[name]
            declared.append((tensor.data_type, list(tensor.dims)))
        return declared

    def _write_annotations(self) -> None:
        exists = set(self.variables) | set(self.constants) | {tensor.name for tensor in self.target.initializer}
        for annotation in self.origin.graph.quantization_annotation:
            if annotation.tensor_name in exists or annotation.tensor_name not in self.origin.defined:
                self.target.quantization_annotation.add().CopyFrom(annotation)


def _by_name(infos: Iterable[onnx.ValueInfoProto]) -> dict[str, onnx.ValueInfoProto]:
    """Return the first message for each name."""
    named: dict[str, onnx.ValueInfoProto] = {}
    for info in infos:
        named.setdefault(info.name, info)
    return named


def _key(node: gs.Node) -> str:
    return node_key([tensor.name for tensor in node.outputs], node.name)


def _used_constants(graph: gs.Graph) -> Iterator[gs.Constant]:
    for node in graph.nodes:
        yield from (tensor for tensor in node.inputs if isinstance(tensor, gs.Constant))
    yield from (tensor for tensor in graph.outputs if isinstance(tensor, gs.Constant))


def _references(graph: gs.Graph) -> set[str]:
    names = {tensor.name for tensor in graph.outputs}
    for node in graph.nodes:
        names |= _node_references(node)
    return names - {""}


def _node_references(node: gs.Node) -> set[str]:
    names = {tensor.name for tensor in node.inputs}
    for body in node.subgraphs():
        names |= _references(body)
    return names


def _as_constant_node(constant: gs.Constant) -> onnx.NodeProto:
    node = onnx.NodeProto(op_type="Constant", output=[constant.name])
    node.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(stored_tensor(constant))
    return node


def _copy_fields(source: onnx.NodeProto, target: onnx.NodeProto, names: tuple[str, ...]) -> None:
    for field, value in source.ListFields():
        if field.name in names:
            assign(target, field.name, value)
