"""Constants and attributes of GraphSurgeon nodes as messages; unchanged ones keep their original encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import DTypeLike, NDArray
from onnx.numpy_helper import to_array
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnx_subprune.model.protos import dense
from onnx_subprune.model.stored import SMALLEST_PLACED, Scratch, StoredValues, is_placed, values_of

__all__ = ["onnx_type", "same_constant", "same_tensor", "stored_tensor", "write_attributes"]

_Attribute = onnx.AttributeProto
_READERS: dict[int, Callable[[onnx.AttributeProto], object]] = {
    _Attribute.FLOAT: lambda attribute: attribute.f,
    _Attribute.INT: lambda attribute: attribute.i,
    _Attribute.STRING: lambda attribute: attribute.s.decode(),
    _Attribute.FLOATS: lambda attribute: list(attribute.floats),
    _Attribute.INTS: lambda attribute: list(attribute.ints),
    _Attribute.STRINGS: lambda attribute: [text.decode() for text in attribute.strings],
}
_CASTS: dict[int, Callable[[Any], object]] = {
    _Attribute.FLOAT: float,
    _Attribute.INT: int,
    _Attribute.FLOATS: lambda values: [float(value) for value in values],
    _Attribute.INTS: lambda values: [int(value) for value in values],
}
_HELD = {*_READERS, _Attribute.TENSOR, _Attribute.GRAPH}


def onnx_type(dtype: DTypeLike | int) -> int:
    """Return the ONNX element type of a NumPy dtype, or of an element type itself.

    >>> onnx_type("float16") == onnx_type(np.float16) == onnx.TensorProto.FLOAT16
    True
    """
    return int(dtype) if isinstance(dtype, int) else int(onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))


def same_tensor(constant: gs.Constant, stored: onnx.TensorProto | onnx.SparseTensorProto) -> bool:
    """Whether `constant` still has the type, shape and values of `stored`."""
    values = constant._values
    if isinstance(values, LazyValues):
        return values.tensor is stored or bool(values.tensor == stored)
    if isinstance(stored, onnx.SparseTensorProto):
        return _same_array(_array(constant), dense(stored))
    if tuple(stored.dims) != values.shape or stored.data_type != onnx_type(constant.export_dtype):
        return False
    return _same_array(_array(constant), StoredValues(stored).load() if is_placed(stored) else to_array(stored))


def same_constant(left: gs.Constant, right: gs.Constant) -> bool:
    """Whether two constants have the same type, shape and values."""
    return left._values is right._values or _same_array(_array(left), _array(right))


def _same_array(left: NDArray[Any], right: NDArray[Any]) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype != object:
        # Bytes, because NaN must count as equal and -0.0 must not be taken for 0.0.
        left, right = (array.reshape(-1).view(np.uint8) for array in (left, right))
    return bool(np.array_equal(left, right))


def _array(constant: gs.Constant) -> NDArray[Any]:
    values = values_of(constant._values)
    wanted = onnx.helper.tensor_dtype_to_np_dtype(onnx_type(constant.export_dtype))
    return values if values.dtype == wanted else values.astype(wanted)


def stored_tensor(
    constant: gs.Constant, original: onnx.TensorProto | None = None, scratch: Scratch | None = None
) -> onnx.TensorProto:
    """Return `constant` as a message of its own name with the documentation of `original`, a large one in `scratch`."""
    tensor = _message(constant, scratch)
    if original is not None and original.HasField("doc_string"):
        tensor.doc_string = original.doc_string
    if original is not None:
        tensor.metadata_props.extend(original.metadata_props)
    return tensor


def _message(constant: gs.Constant, scratch: Scratch | None) -> onnx.TensorProto:
    placed = constant._values.placed if isinstance(constant._values, StoredValues) else None
    if scratch is None or placed is None:
        array = _array(constant)
        if scratch is not None and array.nbytes >= SMALLEST_PLACED and array.dtype != object:
            return scratch.put(array, constant.name)
        return onnx.numpy_helper.from_array(array, constant.name)
    tensor = onnx.TensorProto()
    tensor.CopyFrom(placed)
    tensor.ClearField("doc_string")
    del tensor.metadata_props[:]
    tensor.name = constant.name
    return tensor


def write_attributes(
    node: gs.Node, target: onnx.NodeProto, original: onnx.NodeProto, write_body: Callable[..., None]
) -> None:
    """Write the attributes of `node` into `target`, in the order of `original` (an empty message where there is none).

    Attributes that GraphSurgeon cannot hold come from `original`. `write_body(graph, message, original message)` writes
    the graph of a control-flow node.
    """
    known = {attribute.name: attribute for attribute in original.attribute}
    for name in [*known, *(name for name in node.attrs if name not in known)]:
        if name in node.attrs:
            _write(name, node.attrs[name], target.attribute.add(), known.get(name, _Attribute()), write_body)
        elif not _is_held(known[name]):
            target.attribute.add().CopyFrom(known[name])


def _is_held(attribute: onnx.AttributeProto) -> bool:
    """Whether GraphSurgeon imports an attribute of this kind."""
    try:
        _READERS.get(attribute.type, bool)(attribute)
    except UnicodeDecodeError:
        return False
    return attribute.type in _HELD


def _write(
    name: str,
    value: object,
    target: onnx.AttributeProto,
    original: onnx.AttributeProto,
    write_body: Callable[..., None],
) -> None:
    if isinstance(value, gs.Graph):
        target.name, target.type = name, _Attribute.GRAPH
        write_body(value, target.g, original.g)
    elif _unchanged(value, original):
        target.CopyFrom(original)
        return
    elif isinstance(value, gs.Constant):
        target.name, target.type = name, _Attribute.TENSOR
        target.t.CopyFrom(stored_tensor(value, original.t))
    else:
        target.CopyFrom(_plain(name, value, original.type))
    if original.HasField("doc_string"):
        target.doc_string = original.doc_string


def _unchanged(value: object, original: onnx.AttributeProto) -> bool:
    if isinstance(value, gs.Constant):
        return original.type == _Attribute.TENSOR and same_tensor(value, original.t)
    if original.type not in _READERS or not _is_held(original):
        return False
    return bool(_python(value) == _READERS[original.type](original))


def _python(value: object) -> object:
    if isinstance(value, np.ndarray | np.generic):
        plain: object = value.tolist()
        return plain
    if isinstance(value, type | np.dtype):
        return onnx_type(value)
    return list(value) if isinstance(value, tuple) else value


def _plain(name: str, value: object, kind: int) -> onnx.AttributeProto:
    plain = _python(value)
    if kind in _CASTS:
        plain = _CASTS[kind](plain)
    elif kind == _Attribute.UNDEFINED and plain == []:
        kind = _Attribute.INTS  # the only kind of list that operators take empty
    return onnx.helper.make_attribute(name, plain, attr_type=kind or None)
