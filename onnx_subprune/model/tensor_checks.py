"""Checks of stored tensors: each returns what is wrong, or None. No values are decoded."""

from __future__ import annotations

import math
from collections.abc import Iterator

import onnx

from onnx_subprune.model.protos import graphs, is_external, tensor_bytes

__all__ = ["LARGEST_DENSE", "size_error", "sparse_error", "sparse_tensors", "tensor_error", "type_error"]

LARGEST_DENSE = 1 << 28
"""Elements that a sparse tensor, or a tensor computed from constants, may stand for: 1 GiB of float32."""

_TYPES = frozenset(onnx.TensorProto.DataType.values())
_FIELDS = {
    **dict.fromkeys(("FLOAT",), "float_data"),
    **dict.fromkeys(("DOUBLE",), "double_data"),
    **dict.fromkeys(("INT64",), "int64_data"),
    **dict.fromkeys(("UINT32", "UINT64"), "uint64_data"),
    **dict.fromkeys(("INT32", "INT16", "INT8", "UINT16", "UINT8", "BOOL", "FLOAT16", "BFLOAT16"), "int32_data"),
    **dict.fromkeys(("STRING",), "string_data"),
}
_FIELD_OF_TYPE = {onnx.TensorProto.DataType.Value(name): field for name, field in _FIELDS.items()}


def tensor_error(tensor: onnx.TensorProto) -> str | None:
    """Return what is wrong with a stored tensor: its type, its dims, or the amount of data.

    >>> tensor_error(onnx.TensorProto(name="w", data_type=1, dims=[2], raw_data=bytes(8)))
    >>> tensor_error(onnx.TensorProto(name="w", data_type=1, dims=[3], raw_data=bytes(8)))
    "tensor 'w' of shape [3] must have 12 bytes of data, found 8: the file is damaged, export it anew"
    """
    name = f"tensor '{tensor.name}'"
    if tensor.data_type not in _TYPES:
        return f"{name} must have an element type of ONNX, found number {tensor.data_type}: export it anew"
    if any(dim < 0 for dim in tensor.dims):
        return f"{name} must have sizes of 0 or more, found {list(tensor.dims)}: export it anew"
    if tensor.HasField("segment"):
        return f"{name} must be stored whole, found a segment of it: export it without segments"
    if is_external(tensor):
        return None
    return _amount_error(tensor)


def _amount_error(tensor: onnx.TensorProto) -> str | None:
    label = f"tensor '{tensor.name}' of shape {list(tensor.dims)}"
    advice = "the file is damaged, export it anew"
    if tensor.HasField("raw_data"):
        expected, found, unit = tensor_bytes(tensor), len(tensor.raw_data), "bytes"
        if tensor.data_type in (onnx.TensorProto.STRING, onnx.TensorProto.UNDEFINED):
            return None
    elif tensor.data_type in _FIELD_OF_TYPE:
        expected, found, unit = math.prod(tensor.dims), len(getattr(tensor, _FIELD_OF_TYPE[tensor.data_type])), "values"
    else:
        return None
    return None if found == expected else f"{label} must have {expected} {unit} of data, found {found}: {advice}"


def sparse_tensors(model: onnx.ModelProto) -> Iterator[onnx.SparseTensorProto]:
    """Yield the sparse tensors of the main graph, of bodies and of their attributes."""
    for graph in graphs(model.graph):
        yield from graph.sparse_initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("sparse_tensor"):
                    yield attribute.sparse_tensor


def sparse_error(sparse: onnx.SparseTensorProto) -> str | None:
    """Return what is wrong with a sparse tensor: the size it stands for, or how its indices are given."""
    name, dims = f"sparse tensor '{sparse.values.name}'", list(sparse.dims)
    if any(dim < 0 for dim in dims) or math.prod(dims) > LARGEST_DENSE:
        return f"{name} must stand for at most {LARGEST_DENSE} values, found shape {dims}: store it smaller"
    count = math.prod(sparse.values.dims)
    if list(sparse.indices.dims) not in ([count], [count, len(dims)]):
        return (
            f"{name} must have one index for each of its {count} values, "
            f"found indices of shape {list(sparse.indices.dims)}: export it anew"
        )
    return None


def type_error(value: onnx.ValueInfoProto) -> str | None:
    """Return what is wrong with the element type of an input or output."""
    kind = value.type.tensor_type.elem_type
    if value.type.HasField("tensor_type") and kind not in _TYPES:
        return f"'{value.name}' must have an element type of ONNX, found number {kind}: export it anew"
    return None


def size_error(value: onnx.ValueInfoProto) -> str | None:
    """Return what is wrong with the sizes of an input: nobody could feed what it asks for.

    >>> x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 1 << 20, 1 << 20])
    >>> size_error(x)
    "input 'x' must take at most 268435456 values in a sample, found sizes [1048576, 1048576]: declare them open"
    """
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim if dim.dim_value > 0]
    if math.prod(sizes) <= LARGEST_DENSE:
        return None
    return (
        f"input '{value.name}' must take at most {LARGEST_DENSE} values in a sample, found sizes {sizes}: "
        "declare them open"
    )
