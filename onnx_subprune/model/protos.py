"""Reading ONNX protobuf messages: walks over nested graphs, sizes of tensors, and values as NumPy arrays.

Nothing here changes a message. A walk visits the bodies of control-flow nodes too, because a weight of the main
graph may be used only there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import EncodeError
from numpy.typing import NDArray

__all__ = [
    "ONNX_DOMAINS",
    "PROTOBUF_LIMIT",
    "assign",
    "bodies",
    "constant_tensor",
    "dense",
    "estimated_bytes",
    "graphs",
    "is_external",
    "one_line",
    "references",
    "serialised",
    "sparse_if_smaller",
    "tensor_bytes",
    "tensors",
]

PROTOBUF_LIMIT = 2**31 - 1
"""Bytes that one serialised protobuf message may have."""

ONNX_DOMAINS = ("", "ai.onnx")

_BITS_BELOW_A_BYTE = {"INT4": 4, "UINT4": 4, "FLOAT4E2M1": 4, "INT2": 2, "UINT2": 2}
_SUB_BYTE = {
    number: _BITS_BELOW_A_BYTE[name] for name, number in onnx.TensorProto.DataType.items() if name in _BITS_BELOW_A_BYTE
}


def assign(message: Any, name: str, value: Any) -> None:
    """Set the field `name` of a message to `value`, whether it is a scalar, a message or a list of them."""
    if isinstance(value, str | bytes | int | float):
        setattr(message, name, value)
    elif hasattr(value, "CopyFrom"):
        getattr(message, name).CopyFrom(value)
    else:
        getattr(message, name).extend(value)


def one_line(error: object, limit: int = 300) -> str:
    r"""Return an exception's text on one line, cut at `limit` characters.

    >>> one_line(ValueError("no such\n  node"))
    'no such node'
    >>> one_line("a long text", limit=8)
    'a lon...'
    """
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 3] + "..."


def bodies(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """Yield the graphs held in a node's attributes."""
    for attribute in node.attribute:
        if attribute.type == onnx.AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == onnx.AttributeProto.GRAPHS:
            yield from attribute.graphs


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield `graph` and, depth first, all graphs nested in it."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def references(graph: onnx.GraphProto) -> set[str]:
    """Return the names read by the nodes of `graph` and its bodies, or handed out as outputs.

    Args:
        graph: its nodes' bodies are walked through too.

    """
    names: set[str] = set()
    for inner in graphs(graph):
        names.update(value.name for value in inner.output)
        for node in inner.node:
            names.update(node.input)
    names.discard("")
    return names


def tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every stored tensor: initializers (the parts of sparse ones) and node attributes, in functions too."""
    for graph in graphs(model.graph):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        yield from _attribute_tensors(graph.node)
    for function in model.functions:
        yield from _attribute_tensors(function.node)
        for node in function.node:
            for body in bodies(node):
                for graph in graphs(body):
                    yield from graph.initializer
                    yield from _attribute_tensors(graph.node)


def _attribute_tensors(nodes: Iterable[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors
            if attribute.HasField("sparse_tensor"):
                yield from (attribute.sparse_tensor.values, attribute.sparse_tensor.indices)


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the values are in a file that is not loaded."""
    return bool(tensor.data_location == onnx.TensorProto.EXTERNAL)


def tensor_bytes(tensor: onnx.TensorProto) -> int:
    """Return the bytes of a tensor's values as raw data; strings count by their length."""
    if tensor.data_type == onnx.TensorProto.STRING:
        return sum(len(text) for text in tensor.string_data)
    if tensor.data_type == onnx.TensorProto.UNDEFINED:
        return 0
    count = int(math.prod(tensor.dims))
    if tensor.data_type in _SUB_BYTE:
        return -(-count * int(_SUB_BYTE[tensor.data_type]) // 8)
    return count * int(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)).itemsize)


def serialised(model: onnx.ModelProto) -> bytes | None:
    """Return the model as bytes, always the same for the same model; None if it is too large for one message."""
    if _weight_bytes(model) > PROTOBUF_LIMIT:
        return None
    try:
        return bytes(model.SerializeToString(deterministic=True))
    except EncodeError:
        return None


def estimated_bytes(model: onnx.ModelProto) -> int:
    """Return the model's serialised size with its external data; of one too large for one message, its weights'."""
    inside, outside = _weight_bytes(model), _weight_bytes(model, external=True)
    if inside > PROTOBUF_LIMIT:
        return inside + outside
    try:
        return int(model.ByteSize()) + outside
    except EncodeError:
        return inside + outside


def _weight_bytes(model: onnx.ModelProto, *, external: bool = False) -> int:
    stored = (tensor for tensor in tensors(model) if is_external(tensor) == external)
    return sum(tensor_bytes(tensor) for tensor in stored)


def dense(sparse: onnx.SparseTensorProto) -> NDArray[Any]:
    """Return the dense array of a sparse tensor; its indices are linear, or one row of coordinates per value.

    Args:
        sparse: values [n], with indices [n] or [n, rank].

    >>> values = onnx.numpy_helper.from_array(np.array([2.0, 3.0], np.float32))
    >>> indices = onnx.numpy_helper.from_array(np.array([0, 3]))
    >>> dense(onnx.helper.make_sparse_tensor(values, indices, [2, 2])).tolist()
    [[2.0, 0.0], [0.0, 3.0]]

    """
    values = onnx.numpy_helper.to_array(sparse.values)
    indices = onnx.numpy_helper.to_array(sparse.indices)
    result = np.zeros(tuple(sparse.dims), dtype=values.dtype)
    if indices.ndim == 1:
        result.reshape(-1)[indices] = values
    else:
        result[tuple(indices.T)] = values
    return result


def sparse_if_smaller(tensor: onnx.TensorProto) -> onnx.SparseTensorProto | None:
    """Return a tensor by its values other than zero and their linear indices; None where that is not smaller.

    Args:
        tensor: of numbers.

    >>> values = np.zeros((4, 4), np.float32)
    >>> values[1, 2] = 5
    >>> sparse_if_smaller(onnx.numpy_helper.from_array(values, "w")).indices.int64_data
    [6]
    >>> sparse_if_smaller(onnx.numpy_helper.from_array(values + 1, "w")) is None
    True

    """
    values = onnx.numpy_helper.to_array(tensor)
    indices = np.flatnonzero(values)
    if indices.size * (values.itemsize + indices.itemsize) >= values.nbytes:
        return None
    kept = onnx.numpy_helper.from_array(values.ravel()[indices], tensor.name)
    kept.doc_string = tensor.doc_string
    places = onnx.helper.make_tensor("", onnx.TensorProto.INT64, indices.shape, indices)
    return onnx.helper.make_sparse_tensor(kept, places, list(tensor.dims))


def constant_tensor(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the tensor a Constant node stands for; None if it is no Constant node or holds text or sparse values."""
    if node.op_type != "Constant" or node.domain not in ONNX_DOMAINS or len(node.attribute) != 1:
        return None
    attribute = node.attribute[0]
    if attribute.name == "value":
        return attribute.t
    if attribute.name in ("value_float", "value_floats"):
        value = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        return onnx.numpy_helper.from_array(np.array(value, dtype=np.float32))
    if attribute.name in ("value_int", "value_ints"):
        value = attribute.i if attribute.name == "value_int" else list(attribute.ints)
        return onnx.numpy_helper.from_array(np.array(value, dtype=np.int64))
    return None
