"""Whether a model can be worked with at all, asked before anything is decoded, expanded or run.

Whoever made the file may have damaged it, or means harm. Each check is short, reads the message alone and returns one
line: the expectation, the finding, the remedy. What ONNX Runtime takes is not refused.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

import onnx

from onnx_subprune.errors import ModelError
from onnx_subprune.model.custom_operators import custom_ops
from onnx_subprune.model.expansion_checks import constants_error, functions_error
from onnx_subprune.model.graph_checks import NODE_CHECKS, idle_error, label, names_error, order_error
from onnx_subprune.model.protos import ONNX_DOMAINS, bodies, graphs, tensors
from onnx_subprune.model.tensor_checks import size_error, sparse_error, sparse_tensors, tensor_error, type_error

__all__ = ["validate"]

# ONNX Runtime imports its own domains where a model forgets to.
_VALUES = ("f", "i", "s", "t", "g", "tp", "sparse_tensor", "floats", "ints", "strings", "tensors", "graphs")
"""Fields of an attribute that hold its value, in the order of their numbers."""
_NEWEST = 2**31 - 1
_IMPORTED = ("ai.onnx.", "com.microsoft", "com.ms.", "org.pytorch.aten")


def validate(model: onnx.ModelProto, name: object) -> None:
    """Refuse a model that is broken, or that a few bytes make huge.

    Args:
        model: as it was read, its external data not yet loaded.
        name: how messages name the model: its path.

    Raises:
        ModelError: with the first fault found.

    """
    fault = text_error(model) or next(_faults(model), None)
    if fault is not None:
        raise ModelError(f"model '{name}' is broken: {fault}")


def text_error(message: Any) -> str | None:
    """Return where a name or another text of a message is not UTF-8; data of tensors is not looked at.

    Args:
        message: a model, or a part of it.

    """
    text = next((text for text in _texts(message) if isinstance(text, bytes)), None)
    return None if text is None else f"names must be UTF-8, found {text[:40]!r}: export it anew"


def _texts(message: Any) -> Iterator[str | bytes]:
    """All texts of a message; protobuf gives those that are not UTF-8 as bytes."""
    if isinstance(message, onnx.TensorProto):  # ListFields would copy its data
        yield from (message.name, message.doc_string)
        for entry in (*message.external_data, *message.metadata_props):
            yield from (entry.key, entry.value)
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from _texts(part)
        elif field.type == field.TYPE_STRING:
            yield from [value] if isinstance(value, str | bytes) else value


def _faults(model: onnx.ModelProto) -> Iterator[str]:
    yield from _each(map(tensor_error, tensors(model)))
    yield from _each(map(sparse_error, sparse_tensors(model)))
    yield from _each(map(type_error, (*model.graph.input, *model.graph.output)))
    yield from _each(map(size_error, model.graph.input))
    yield from _domains(model)
    yield from _attributes(model.graph)
    yield from _wiring(model.graph)
    yield from _nodes(model)
    yield from _each([functions_error(model), idle_error(model.graph)])
    yield from _each(constants_error(graph.node, graph.initializer) for graph in graphs(model.graph))
    yield from _each(constants_error(function.node) for function in model.functions)


def _each(faults: Iterable[str | None]) -> Iterator[str]:
    return (fault for fault in faults if fault is not None)


def _domains(model: onnx.ModelProto) -> Iterator[str]:
    yield from _each(map(_version_error, model.opset_import))
    if custom_ops():
        # ONNX Runtime imports the domains of their libraries, and says itself which operators it does not know.
        return
    own = {function.domain for function in model.functions}
    for function in model.functions:
        yield from _each(map(_version_error, function.opset_import))
        yield from _domain_faults(function.node, own.union(entry.domain for entry in function.opset_import))
    imported = own.union(entry.domain for entry in model.opset_import)
    for graph in graphs(model.graph):
        yield from _domain_faults(graph.node, imported)


def _version_error(entry: onnx.OperatorSetIdProto) -> str | None:
    # Of other sets than ONNX's, exporters leave the version out.
    least = 1 if entry.domain in ONNX_DOMAINS else 0
    if least <= entry.version <= _NEWEST:
        return None
    return f"operator set '{entry.domain}' must have a version from {least} on, found {entry.version}: export it anew"


def _domain_faults(nodes: Iterable[onnx.NodeProto], imported: Collection[str]) -> Iterator[str]:
    onnx_is_imported = any(domain in imported for domain in ONNX_DOMAINS)
    for node in nodes:
        domain = node.domain
        foreign = domain not in imported and not domain.startswith(_IMPORTED)
        if not onnx_is_imported if domain in ONNX_DOMAINS else foreign:
            yield f"{label(node)} must be of an imported operator set, found domain '{domain}': import its opset"


def _attributes(graph: onnx.GraphProto) -> Iterator[str]:
    for inner in graphs(graph):
        for node in inner.node:
            for attribute in node.attribute:
                where = f"attribute '{attribute.name}' of {label(node)}"
                if attribute.ref_attr_name:
                    yield (
                        f"{where} must have a value, found a reference to '{attribute.ref_attr_name}', which only "
                        "functions may hold: export it anew"
                    )
                kinds = [field.name for field, _ in attribute.ListFields() if field.name in _VALUES]
                if len(kinds) > 1:
                    yield f"{where} must have one value, found fields {', '.join(kinds)}: export it anew"


def _wiring(graph: onnx.GraphProto, around: frozenset[str] = frozenset()) -> Iterator[str]:
    yield from _each([names_error(graph, around=around), order_error(graph)])
    visible = around.union(
        (value.name for value in graph.input),
        (tensor.name for tensor in graph.initializer),
        (sparse.values.name for sparse in graph.sparse_initializer),
        (name for node in graph.node for name in node.output),
    )
    for node in graph.node:
        for body in bodies(node):
            yield from _wiring(body, visible)


def _nodes(model: onnx.ModelProto) -> Iterator[str]:
    opset = max((entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS), default=0)
    functions = {(function.domain, function.name) for function in model.functions}
    for graph in graphs(model.graph):
        shapes = {tensor.name: tuple(tensor.dims) for tensor in (*model.graph.initializer, *graph.initializer)}
        yield from _node_faults(graph.node, opset, shapes, functions)
    for function in model.functions:
        own = max((entry.version for entry in function.opset_import if entry.domain in ONNX_DOMAINS), default=opset)
        yield from _node_faults(function.node, own, {}, functions)


def _node_faults(
    nodes: Sequence[onnx.NodeProto], opset: int, shapes: dict[str, tuple[int, ...]], functions: set[tuple[str, str]]
) -> Iterator[str]:
    for node in nodes:
        if (node.domain, node.op_type) not in functions:
            yield from _each(check(node, opset, shapes) for check in NODE_CHECKS)
