"""Operators that make tensors of a given shape: their axes can follow whatever they meet."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Dim, Extent, Size, evaluate, fixed, fresh, monomial
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import label

__all__ = ["CONTRIB", "RULES", "counted", "sized"]


def constant_of_shape(node: gs.Node, ctx: Context) -> None:
    """ConstantOfShape: every entry is the same, so any of them may go."""
    extents = ctx.extent_list(node, 0)
    dims = [sized(extent, node, ctx) for extent in extents]
    for i, dim in enumerate(dims):
        ctx.expect_size(node, 0, i, dim)
    ctx.output(node, dims)


def sized(extent: Extent, node: gs.Node, ctx: Context) -> Dim:
    """Return an axis of copies, `extent` of them: that of the tensor which the size was taken from, or a new one."""
    if isinstance(extent, Size):
        return extent.dim
    ctx.pin([extent], node)
    return counted(extent)


def counted(extent: Extent) -> Dim:
    """Return an axis of `extent` entries that are related to no other axis, save for run-time sizes."""
    size, known = fixed(extent), monomial(extent)
    if size is not None:
        return fresh(size)
    if known is not None and known.static == 1:
        return Dim(known.dynamic)
    return fresh(max(1, evaluate(extent, {})), dynamic=True)


def count(node: gs.Node, ctx: Context) -> None:
    """Range: from 0 by 1, it has as many entries as its limit says; otherwise the axis is its own."""
    start, limit, step = (_scalar(node, index, ctx) for index in range(3))
    ctx.pin([extent for extent in (start, limit, step) if extent is not None], node)
    if start == 0 and step == 1 and isinstance(limit, Size):
        ctx.output(node, (limit.dim,))
        return
    if step == 0:
        raise NotUnderstood(f"{label(node)} counts by 0")
    sizes = [None if extent is None else fixed(extent) for extent in (start, limit, step)]
    if all(size is not None for size in sizes):
        ctx.output(node, (ctx.computed_axis(node, len(range(*(size or 0 for size in sizes)))),))
    else:
        ctx.output(node, (ctx.computed_axis(node, 1, dynamic=True),))


def _scalar(node: gs.Node, index: int, ctx: Context) -> Extent | None:
    values = ctx.extents_of(node.inputs[index]) if ctx.has(node, index) else None
    return values.ravel()[0] if values is not None and values.size else None


def drawn(node: gs.Node, ctx: Context) -> None:
    """RandomNormalLike, RandomUniformLike, Bernoulli, EyeLike: what an entry is depends on the size of the tensor."""
    x = ctx.input(node, 0)
    for dim in x:
        ctx.freeze(dim, node, "makes a tensor of this size")
    ctx.output(node, x)


RULES = {
    "ConstantOfShape": constant_of_shape,
    "Range": count,
    **dict.fromkeys(("RandomNormalLike", "RandomUniformLike", "Bernoulli", "EyeLike"), drawn),
}
CONTRIB = {"Range": count}
