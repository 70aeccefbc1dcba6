"""Shape arithmetic: operators on integer tensors whose entries are extents.

These rules run before the others. One returns the extents of the node's output, or None where the node is not shape
arithmetic, and the node is then treated like any other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Extent, Size, Unknown, apply
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import label

__all__ = ["SHAPE_RULES"]

Extents = np.ndarray
_Result = TypeVar("_Result")
_LIMIT, _SHORT = 1024, 16
_INTEGERS, _BOOL = (6, 7), 9


def shape(node: gs.Node, ctx: Context) -> Extents | None:
    """Shape: the sizes of the input's axes."""
    known = ctx.extents_of(node.inputs[0])
    if known is not None:
        # The shape of what is itself shape arithmetic never changes: how many sizes there are is no size.
        return _array(list(known.shape[slice(node.attrs.get("start", 0), node.attrs.get("end"))]))
    axes = ctx.input(node, 0)
    kept = axes[slice(node.attrs.get("start", 0), node.attrs.get("end"))]
    return _array([Size(dim) if any(True for _ in dim.atoms()) else dim.size for dim in kept])


def size(node: gs.Node, ctx: Context) -> Extents | None:
    """Size: the product of the sizes of the input's axes."""
    result: Extent = 1
    for dim in ctx.input(node, 0):
        result = Size(dim) if result == 1 else apply("Mul", result, Size(dim))
    return np.array(result, dtype=object)


def arithmetic(node: gs.Node, ctx: Context) -> Extents | None:
    """Add, Sub, Mul, Div, Mod, Equal, Max, Min, Where on integers."""
    inputs = _inputs(node, ctx)
    if inputs is None:
        return None
    arrays = _like_numpy(node, lambda: np.broadcast_arrays(*inputs))
    flat = [apply(node.op, *(a.ravel()[i] for a in arrays)) for i in range(arrays[0].size)]
    return _array(flat).reshape(arrays[0].shape)


def same(node: gs.Node, ctx: Context) -> Extents | None:
    """Cast to an integer type, Identity."""
    inputs = _inputs(node, ctx)
    if inputs is None:
        return None
    to = int(node.attrs["to"]) if node.op == "Cast" else _INTEGERS[0]
    if to == _BOOL and all(isinstance(value, int) for value in inputs[0].ravel()):
        return _array([int(value != 0) for value in inputs[0].ravel()]).reshape(inputs[0].shape)
    return inputs[0] if to in _INTEGERS else None


def multiplied(node: gs.Node, ctx: Context) -> Extents | None:
    """ReduceProd of a vector: the number of entries of some axes."""
    data = ctx.extents_of(node.inputs[0])
    if data is None or data.ndim != 1:
        return None
    result: Extent = 1
    for value in data:
        result = value if result == 1 else apply("Mul", result, value)
    return np.array([result] if node.attrs.get("keepdims", 1) else result, dtype=object)


def reshaped(node: gs.Node, ctx: Context) -> Extents | None:
    """Squeeze, Unsqueeze, Reshape, Transpose, Flatten: NumPy does the same to extents."""
    data = ctx.extents_of(node.inputs[0])
    if data is None:
        return None
    if node.op == "Transpose":
        return _like_numpy(node, lambda: data.transpose(node.attrs.get("perm")))
    if node.op == "Reshape":
        shape = ctx.ints(node, 1, "shape")
        return _like_numpy(node, lambda: data.reshape(shape))
    axes = tuple(ctx.ints(node, 1, "axes")) if "axes" in node.attrs or ctx.has(node, 1) else None
    if node.op == "Unsqueeze":
        return _like_numpy(node, lambda: np.expand_dims(data, axes or ()))
    return _like_numpy(node, lambda: data.squeeze(axes))


def gather(node: gs.Node, ctx: Context) -> Extents | None:
    """Gather with literal indices."""
    data = ctx.extents_of(node.inputs[0])
    indices = ctx.extents_of(node.inputs[1])
    if data is None or indices is None or not all(isinstance(i, int) for i in indices.ravel()):
        return None
    axis = int(node.attrs.get("axis", 0))
    picked = _like_numpy(node, lambda: np.take(data, indices.astype(np.int64), axis=axis))
    return picked if isinstance(picked, np.ndarray) else _array([picked]).reshape(())


def sliced(node: gs.Node, ctx: Context) -> Extents | None:
    """Slice with literal bounds."""
    data = ctx.extents_of(node.inputs[0])
    if data is None:
        return None
    starts, ends = ctx.ints(node, 1, "starts"), ctx.ints(node, 2, "ends")
    given = "axes" in node.attrs or ctx.has(node, 3)
    axes = ctx.ints(node, 3, "axes") if given else list(range(len(starts)))
    steps = ctx.ints(node, 4) if ctx.has(node, 4) else [1] * len(starts)
    if not len(axes) == len(starts) == len(ends) == len(steps) or 0 in steps:
        raise NotUnderstood(f"{label(node)} gives {len(starts)} starts, {len(ends)} ends and the steps {steps}")
    if not all(-data.ndim <= axis < data.ndim for axis in axes):
        raise NotUnderstood(f"{label(node)} names axes {axes} of a tensor of {data.ndim} axes")
    cut: list[Any] = [slice(None)] * data.ndim
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        # A negative step that runs past the first entry is spelt as a very negative end.
        cut[axis] = slice(start, None if step < 0 and end < -data.shape[axis] else end, step)
    result: Extents = data[tuple(cut)]
    return result


def concat(node: gs.Node, ctx: Context) -> Extents | None:
    """Concat of integer vectors, a shape among them; entries of the others may be computed in other ways."""
    pieces = [ctx.extents_of(tensor) for tensor in node.inputs]
    sizes = any(not isinstance(value, int) for array in pieces if array is not None for value in array.ravel())
    if sizes:
        pieces = [
            _unknown(tensor) if array is None else array for tensor, array in zip(node.inputs, pieces, strict=True)
        ]
    arrays = [array for array in pieces if array is not None]
    if len(arrays) < len(pieces) or not pieces:
        return None
    axis = int(ctx.required(node, "axis"))
    return _like_numpy(node, lambda: np.concatenate(arrays, axis=axis))


def _unknown(tensor: gs.Tensor) -> Extents | None:
    """Return the entries of a short integer vector as extents that nothing is known of."""
    if tensor.dtype not in (np.int64, np.int32) or tensor.shape is None or len(tensor.shape) != 1:
        return None
    length = tensor.shape[0]
    return _array([Unknown() for _ in range(length)]) if isinstance(length, int) and length <= _SHORT else None


def filled(node: gs.Node, ctx: Context) -> Extents | None:
    """ConstantOfShape with a literal shape and an integer value."""
    dims = ctx.extents_of(node.inputs[0])
    value = node.attrs.get("value")
    array = np.asarray(getattr(value, "values", value)) if value is not None else np.zeros(1, np.float32)
    if dims is None or array.dtype not in (np.int64, np.int32, np.bool_):
        return None
    sizes = [d for d in dims.ravel() if isinstance(d, int)]
    if len(sizes) != dims.size or np.prod(sizes) > _LIMIT:
        return None
    return np.full(sizes, int(array.ravel()[0]), dtype=object)


def _like_numpy(node: gs.Node, compute: Callable[[], _Result]) -> _Result:
    """Return what NumPy makes of sizes; NotUnderstood where it finds axes or shapes that do not fit."""
    try:
        return compute()
    except (ValueError, IndexError) as error:
        raise NotUnderstood(f"{label(node)} computes with sizes that do not fit ({error})") from error


def _inputs(node: gs.Node, ctx: Context) -> list[Extents] | None:
    arrays = [ctx.extents_of(tensor) for tensor in node.inputs]
    known = [a for a in arrays if a is not None]
    return known if known and len(known) == len(arrays) and all(a.size <= _LIMIT for a in known) else None


def _array(values: list[Extent]) -> Extents:
    result = np.empty(len(values), dtype=object)
    result[:] = values
    return result


SHAPE_RULES: dict[str, Callable[[gs.Node, Context], Extents | None]] = {
    "Shape": shape,
    "Size": size,
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "Mod", "Equal", "Max", "Min", "Where"), arithmetic),
    **dict.fromkeys(("Cast", "Identity"), same),
    **dict.fromkeys(("Squeeze", "Unsqueeze", "Reshape", "Transpose"), reshaped),
    "ReduceProd": multiplied,
    "Gather": gather,
    "Slice": sliced,
    "Concat": concat,
    "ConstantOfShape": filled,
}
