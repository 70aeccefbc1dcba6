"""Between ONNX and GraphSurgeon without loss.

`to_graph` gives passes a `gs.Graph` in which every constant is a `gs.Constant` and every node has a name of its own;
`to_model` writes the graph back under guidance of the model it came from, so that all GraphSurgeon does not hold
(documentation, metadata, annotations, functions, unused initializers ...) is there again. Where nothing was changed the
result equals the model, message for message.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import count

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from onnx_subprune.errors import ModelError
from onnx_subprune.model.domains import import_domains
from onnx_subprune.model.export import export_graph
from onnx_subprune.model.protos import (
    ONNX_DOMAINS,
    assign,
    bodies,
    constant_tensor,
    graphs,
    is_external,
    one_line,
    tensors,
)
from onnx_subprune.model.stored import Scratch, StoredValues, is_placed

__all__ = ["quiet", "to_graph", "to_model"]

_SILENT = 100
_Stored = onnx.TensorProto | onnx.SparseTensorProto


def to_graph(model: onnx.ModelProto) -> gs.Graph:
    """Import a model; Constant nodes become constants, nodes without a name of their own are given one.

    Args:
        model: its weights are shared until a pass replaces them. Local functions stay in it, and nodes that call them
            are nodes like any other.

    Raises:
        ModelError: the import would not be faithful.

    """
    _refuse(model)
    with quiet():
        try:
            graph = gs.import_onnx(_importable(model))
        except (gs.OnnxGraphSurgeonException, KeyError, ValueError, TypeError, AttributeError) as error:
            raise ModelError(
                f"the model cannot be taken apart: {one_line(error)}; check it with onnx.checker"
            ) from error
        graph.functions = []
        for inner in _all_graphs(graph):
            inner.import_domains = [onnx.helper.make_opsetid(o.domain, o.version) for o in model.opset_import]
            _normalise_tensors(inner)
            _lower_constant_nodes(inner)
    _check_links(graph, {})
    _name_nodes(graph)
    return graph


def to_model(
    graph: gs.Graph, like: onnx.ModelProto, scratch: Scratch | None = None, *, shared: Collection[str] = ()
) -> onnx.ModelProto:
    """Export a graph, restoring from the model it was imported from what the graph does not hold.

    Nodes are matched by the name of their first output. Initializers and value infos follow the graph: what it no
    longer uses is gone, what `like` did not use either is kept.

    Args:
        graph: as passes left it.
        like: the model it was imported from.
        scratch: where larger new weights go; None to hold them in the message.
        shared: names of constants that bodies read and the main graph is to store, once for all of them.

    Raises:
        InternalError: two tensors of the graph share a name.

    """
    model = onnx.ModelProto()
    for field, value in like.ListFields():
        if field.name not in ("graph", "opset_import"):
            assign(model, field.name, value)
    model.opset_import.extend(like.opset_import)
    with quiet():
        export_graph(graph, model.graph, like, scratch, shared)
    import_domains(model)
    return model


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence GraphSurgeon for a while: it prints its log on stdout, where the command line's result goes."""
    with G_LOGGER.suppress(_SILENT):
        yield


def _refuse(model: onnx.ModelProto) -> None:
    """Raise ModelError for what neither the graph nor a later export could carry."""
    for tensor in tensors(model):
        if is_external(tensor) and not is_placed(tensor):
            raise ModelError(f"tensor '{tensor.name}' is in an external file that is not loaded: use load_model(path)")
    for graph in graphs(model.graph):
        for node in graph.node:
            _refuse_attributes(node)
    _refuse_shadowing(model.graph, {})


def _refuse_attributes(node: onnx.NodeProto) -> None:
    for attribute in node.attribute:
        where = f"attribute '{attribute.name}' of node '{node.name or node.op_type}'"
        if attribute.type == onnx.AttributeProto.UNDEFINED:
            raise ModelError(f"{where} has no type (IR version 1): export the model anew")
        if attribute.type == onnx.AttributeProto.GRAPHS:
            raise ModelError(f"{where} holds a list of graphs, which is not supported: only single graphs are")


def _refuse_shadowing(graph: onnx.GraphProto, outer: dict[str, _Stored | None]) -> None:
    """A body may repeat an outer initializer only as an equal copy: both become one tensor of the graph."""
    own: dict[str, _Stored | None] = {tensor.name: tensor for tensor in graph.initializer}
    own |= {tensor.values.name: tensor for tensor in graph.sparse_initializer}
    for name, tensor in own.items():
        if name in outer and tensor != outer[name]:
            raise ModelError(
                f"initializer '{name}' of graph '{graph.name}' hides a tensor outside: give it its own name"
            )
    visible = outer | {value.name: None for value in graph.input} | own
    for node in graph.node:
        for body in bodies(node):
            _refuse_shadowing(body, visible)
        visible |= dict.fromkeys(node.output)


def _importable(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return `model` itself, or a copy without the attributes GraphSurgeon cannot decode: text that is not UTF-8."""
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    if not any(_undecodable(node) for node in nodes):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.functions[:]
    for graph in graphs(copy.graph):
        for node in graph.node:
            for attribute in _undecodable(node):
                node.attribute.remove(attribute)
    return copy


def _undecodable(node: onnx.NodeProto) -> list[onnx.AttributeProto]:
    return [attribute for attribute in node.attribute if not all(map(_is_text, (attribute.s, *attribute.strings)))]


def _is_text(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _all_graphs(graph: gs.Graph) -> list[gs.Graph]:
    return [graph, *graph.subgraphs(recursive=True)]


def _normalise_tensors(graph: gs.Graph) -> None:
    attributes = [value for node in graph.nodes for value in node.attrs.values() if isinstance(value, gs.Constant)]
    for tensor in [*graph.tensors().values(), *attributes]:
        if isinstance(tensor, gs.Constant):
            if isinstance(tensor._values, LazyValues) and not isinstance(tensor._values, StoredValues):
                tensor.values = StoredValues(tensor._values.tensor)
        elif isinstance(tensor, gs.Variable):
            _normalise_type(tensor)


def _normalise_type(tensor: gs.Variable) -> None:
    """Note the element type as NumPy's, where GraphSurgeon noted ONNX's number of it."""
    noted: object = tensor.dtype
    if tensor.type != "tensor_type" or noted == onnx.TensorProto.UNDEFINED:
        # A sequence, an optional or a map: GraphSurgeon notes a wrong element type and no shape.
        tensor.dtype, tensor.shape = None, None
    elif isinstance(noted, int):
        tensor.dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(noted))


def _lower_constant_nodes(graph: gs.Graph) -> None:
    kept = []
    for node in graph.nodes:
        stored = _stored_constant(node)
        if stored is None:
            kept.append(node)
            continue
        output = node.outputs[0]
        node.outputs.clear()
        output.to_constant(StoredValues(stored))
    graph.nodes = kept


def _stored_constant(node: gs.Node) -> onnx.TensorProto | None:
    if node.op != "Constant" or len(node.attrs) != 1 or (node.domain or "") not in ONNX_DOMAINS:
        return None
    ((name, value),) = node.attrs.items()
    if isinstance(value, gs.Constant):
        stored = value._values.tensor if isinstance(value._values, LazyValues) else None
        return stored if isinstance(stored, onnx.TensorProto) else None
    if name not in ("value_float", "value_floats", "value_int", "value_ints"):
        return None
    kind = onnx.AttributeProto.AttributeType.Value(name.removeprefix("value_").upper())
    proto = onnx.NodeProto(op_type="Constant", attribute=[onnx.helper.make_attribute(name, value, attr_type=kind)])
    return constant_tensor(proto)


def _check_links(graph: gs.Graph, outer: dict[str, gs.Tensor]) -> None:
    """Every name that a body reads from outside must be the outer tensor itself, or passes would not see the use."""
    visible = {**outer, **graph.tensors()}
    for node in graph.nodes:
        for body in node.subgraphs():
            for name, tensor in body._foreign_tensors().items():
                if name in visible and visible[name] is not tensor:
                    raise ModelError(
                        f"node '{node.name or node.op}' reads '{name}' in a body before it is produced: "
                        "sort the nodes topologically"
                    )
            _check_links(body, visible)


def _name_nodes(graph: gs.Graph) -> None:
    """Give nodes without a name, and all but the first of those that share one, a name that no other node has."""
    nodes = [node for inner in _all_graphs(graph) for node in inner.nodes]
    taken, seen = {node.name for node in nodes}, set[str]()
    numbers: defaultdict[str, Iterator[int]] = defaultdict(count)
    for index, node in enumerate(nodes):
        if node.name and node.name not in seen:
            seen.add(node.name)
            continue
        stem = node.name or f"{node.op}_{index}"
        # Names are never free again, so each stem goes on counting where it stopped.
        candidates = (f"{stem}_{number}" if number else stem for number in numbers[stem])
        node.name = next(name for name in candidates if name not in taken)
        taken.add(node.name)
