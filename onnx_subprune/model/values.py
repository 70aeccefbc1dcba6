"""Value infos: the type and shape a GraphSurgeon tensor carries, written over what the original message said."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import onnx
import onnx_graphsurgeon as gs

from onnx_subprune.model.attributes import onnx_type

__all__ = ["Declared", "decoded_shape", "new_info", "patched_info"]

_Dim = int | str | None
Declared = tuple[int, list[_Dim] | list[int] | None]
"""An element type of ONNX and a shape, as one message gives them for a tensor."""

# How the shape inference of ONNX calls sizes that it does not know.
_MADE_UP = "unk__"


def decoded_shape(info: onnx.ValueInfoProto) -> list[_Dim] | None:
    """Return the dims of a tensor's value info as GraphSurgeon reads them; None if it gives no shape."""
    if not info.type.tensor_type.HasField("shape"):
        return None
    return [_decoded(dim) for dim in info.type.tensor_type.shape.dim]


def _decoded(dim: onnx.TensorShapeProto.Dimension) -> _Dim:
    if dim.HasField("dim_param"):
        return str(dim.dim_param)
    return int(dim.dim_value) if dim.HasField("dim_value") else None


def new_info(tensor: gs.Tensor, target: onnx.ValueInfoProto, symbols: Collection[str] = ()) -> None:
    """Write what `tensor` itself says, but for symbols that shape inference made up and are none of `symbols`.

    A made-up name for the batch that the input calls N says that the two differ, and runtimes that believe it do not
    fuse what they could: to them a size without a name is whatever they infer.
    """
    target.name = tensor.name
    if tensor.dtype is not None:
        target.type.tensor_type.elem_type = onnx_type(tensor.dtype)
    if tensor.shape is None:
        _write_shape(None, target)
    else:
        _write_shape([None if _made_up(size) and size not in symbols else size for size in tensor.shape], target)


def _made_up(size: _Dim) -> bool:
    return isinstance(size, str) and size.startswith(_MADE_UP)


def patched_info(
    tensor: gs.Tensor | None,
    original: onnx.ValueInfoProto,
    declared: Sequence[Declared],
    target: onnx.ValueInfoProto,
) -> None:
    """Copy `original`, then write what `tensor` says differently.

    `declared` holds every element type and shape that the original graph gives for this tensor: messages that disagree
    (one names a dim, another does not) stay as they are unless the tensor agrees with none of them.
    """
    target.CopyFrom(original)
    if tensor is None or original.type.WhichOneof("value") not in (None, "tensor_type"):
        return
    if tensor.dtype is not None and onnx_type(tensor.dtype) not in [kind for kind, _ in declared]:
        target.type.tensor_type.elem_type = onnx_type(tensor.dtype)
    shape = None if tensor.shape is None else list(tensor.shape)
    if shape not in [dims for _, dims in declared]:
        _write_shape(shape, target)


def _write_shape(shape: Sequence[_Dim] | None, target: onnx.ValueInfoProto) -> None:
    message = target.type.tensor_type
    if shape is None:
        message.ClearField("shape")
        return
    if len(message.shape.dim) != len(shape):
        message.ClearField("shape")
    message.shape.SetInParent()
    for index, value in enumerate(shape):
        dim = message.shape.dim[index] if index < len(message.shape.dim) else message.shape.dim.add()
        _write_dim(value, dim)


def _write_dim(value: _Dim, dim: onnx.TensorShapeProto.Dimension) -> None:
    if isinstance(value, str):
        dim.dim_param = value
    elif value is not None and value >= 0:
        dim.dim_value = int(value)
    else:
        dim.ClearField("value")
