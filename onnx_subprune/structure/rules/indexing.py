"""Operators that address entries by tensors of indices: the axes addressed are frozen, the others pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import ONE, Dim, evaluate, fixed
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import IndexUse, label
from onnx_subprune.structure.rules.cutting import axis_at

__all__ = ["CONTRIB", "RULES"]


def gather_nd(node: gs.Node, ctx: Context) -> None:
    """Relate data [B.., K.., rest..], indices [B.., I.., k] and Y [B.., I.., rest..]; the k axes K are addressed."""
    data, indices = ctx.input(node, 0), ctx.input(node, 1)
    batch, count = int(node.attrs.get("batch_dims", 0)), _tuple_size(node, indices, ctx)
    for x, i in zip(data[:batch], indices[:batch], strict=False):
        ctx.unify(x, i, node)
    literal = node.inputs[1]
    if count == 1 and not batch and len(indices) == 2 and ctx.is_constant(literal):
        piece = axis_at(node, data[0], [int(i) for i in np.ravel(literal.values)], ctx)
        if piece is not None:
            ctx.unify(indices[0], piece, node)
            ctx.note(IndexUse(node, 1, data[0]))
            ctx.output(node, (indices[0], *data[1:]))
            return
    _address(node, data[batch : batch + count], ctx)
    ctx.output(node, (*indices[:-1], *data[batch + count :]))


def scatter_nd(node: gs.Node, ctx: Context) -> None:
    """Relate data [K.., rest..], indices [I.., k] and updates [I.., rest..]; the output is the data, overwritten."""
    data, indices, updates = (ctx.input(node, i) for i in range(3))
    count = _tuple_size(node, indices, ctx)
    _address(node, data[:count], ctx)
    places = len(indices) - 1
    ctx.same_rank(node, updates, (*indices[:-1], *data[count:]))
    for i, u in zip(indices[:places], updates[:places], strict=True):
        ctx.freeze(i, node, "lists positions along this axis")
        ctx.unify(i, u, node)
    for x, u in zip(data[count:], updates[places:], strict=True):
        ctx.unify(x, u, node)
    ctx.output(node, data)


def _tuple_size(node: gs.Node, indices: Sequence[Dim], ctx: Context) -> int:
    """Return how many axes an index addresses: the size of the last axis of the indices."""
    if not indices:
        raise NotUnderstood(f"{label(node)} addresses entries by a single number")
    last = indices[-1]
    if last.dynamic:
        raise NotUnderstood(f"{label(node)} addresses a number of axes that is known at run time only")
    ctx.freeze(last, node, "reads positions from this axis")
    return last.size


def _address(node: gs.Node, axes: Sequence[Dim], ctx: Context) -> None:
    for dim in axes:
        ctx.freeze(dim, node, "looks positions of this axis up by indices")


def gather_elements(node: gs.Node, ctx: Context) -> None:
    """Y[i, j] = data[indices[i, j], j]: all axes but one keep their places."""
    data, indices = ctx.input(node, 0), ctx.input(node, 1)
    _side_by_side(node, data, indices, ctx)
    ctx.output(node, indices)


def scatter_elements(node: gs.Node, ctx: Context) -> None:
    """Y[indices[i, j], j] = updates[i, j]: all axes but one keep their places."""
    data, indices, updates = (ctx.input(node, i) for i in range(3))
    axis = _side_by_side(node, data, indices, ctx)
    ctx.freeze(indices[axis], node, "lists positions along this axis")
    ctx.same_rank(node, indices, updates)
    for i, u in zip(indices, updates, strict=True):
        ctx.unify(i, u, node)
    ctx.output(node, data)


def _side_by_side(node: gs.Node, data: Sequence[Dim], indices: Sequence[Dim], ctx: Context) -> int:
    """Freeze the axis that is addressed and unify the others; indices may be fewer than there is data."""
    ctx.same_rank(node, data, indices)
    axis = ctx.axis(node, data, 0)
    ctx.freeze(data[axis], node, "looks positions of this axis up by indices")
    for position, (x, i) in enumerate(zip(data, indices, strict=True)):
        if position == axis or x.resolve() == i.resolve():
            continue
        if x.dynamic or i.dynamic or x.size != i.size:
            for dim in (x, i):
                ctx.freeze(dim, node, "may use only the first positions of this axis")
        else:
            ctx.unify(x, i, node)
    return axis


def cache_update(node: gs.Node, ctx: Context) -> None:
    """TensorScatter: entries of one axis of a cache are replaced by those of an update; all other axes are the same."""
    cache, update = ctx.input(node, 0), ctx.input(node, 1)
    ctx.same_rank(node, cache, update)
    axis = ctx.axis(node, cache, -2)
    for dim in (cache[axis], update[axis]):
        ctx.freeze(dim, node, "writes at places along this axis")
    for position, (dim, other) in enumerate(zip(cache, update, strict=True)):
        if position != axis and dim.resolve() != other.resolve():
            ctx.unify(dim, other, node)
    if ctx.has(node, 2):
        ctx.freeze(cache[0], node, "has a place for each entry of this axis")
    ctx.output(node, cache)


def one_hot(node: gs.Node, ctx: Context) -> None:
    """Insert an axis with one entry set, which the index counts along."""
    indices = ctx.input(node, 0)
    axis = ctx.axis(node, (*indices, ONE), -1)
    depth_input = node.inputs[1] if ctx.has(node, 1) else None
    if depth_input is not None and ctx.is_constant(depth_input) and np.size(depth_input.values) == 1:
        depth_axis = ctx.computed_axis(node, int(np.ravel(depth_input.values)[0]))
    else:
        depths = ctx.extent_list(node, 1)
        if len(depths) != 1:
            raise NotUnderstood(f"{label(node)} does not give one depth")
        (depth,) = depths
        ctx.pin([depth], node)
        size = fixed(depth)
        depth_axis = ctx.computed_axis(node, evaluate(depth, {}) if size is None else size, dynamic=size is None)
    ctx.output(node, (*indices[:axis], depth_axis, *indices[axis:]))


def compress(node: gs.Node, ctx: Context) -> None:
    """Keep the positions of one axis where a condition holds; how many is known at run time."""
    x = list(ctx.input(node, 0))
    if "axis" not in node.attrs:
        raise NotUnderstood(f"{label(node)} picks entries of all axes at once")
    axis = ctx.axis(node, x, 0)
    for dim in (x[axis], *ctx.input(node, 1)):
        ctx.freeze(dim, node, "picks single positions of this axis")
    x[axis] = ctx.computed_axis(node, x[axis].size, dynamic=True)
    ctx.output(node, x)


def non_zero(node: gs.Node, ctx: Context) -> None:
    """Give the positions of the entries that are not zero, [rank, how many]."""
    x = ctx.input(node, 0)
    for dim in x:
        ctx.freeze(dim, node, "returns positions that count along this axis")
    ctx.output(node, (ctx.computed_axis(node, len(x)), ctx.computed_axis(node, 1, dynamic=True)))


def triangle(node: gs.Node, ctx: Context) -> None:
    """Trilu: which entries stay depends on the places along the last two axes."""
    x = ctx.input(node, 0)
    for dim in x[-2:]:
        ctx.freeze(dim, node, "compares places along this axis")
    ctx.output(node, x)


def reverse_sequence(node: gs.Node, ctx: Context) -> None:
    """Turn the first entries of the time axis round, for each sample as many as its length says."""
    x = ctx.input(node, 0)
    (lengths,) = ctx.input(node, 1, rank=1)
    ctx.freeze(x[ctx.axis(node, x, 0, "time_axis")], node, "reverses this axis")
    batch = x[ctx.axis(node, x, 1, "batch_axis")]
    if batch.resolve() != lengths.resolve():
        ctx.unify(batch, lengths, node)
    ctx.output(node, x)


def suppression(node: gs.Node, ctx: Context) -> None:
    """NonMaxSuppression: the boxes chosen, as (sample, class, box), how many is known at run time."""
    for index in (0, 1):
        for dim in ctx.input(node, index):
            ctx.freeze(dim, node, "returns positions that count along this axis")
    ctx.output(node, (ctx.computed_axis(node, 1, dynamic=True), ctx.computed_axis(node, 3)))


RULES = {
    "GatherND": gather_nd,
    "ScatterND": scatter_nd,
    "GatherElements": gather_elements,
    **dict.fromkeys(("Scatter", "ScatterElements"), scatter_elements),
    "TensorScatter": cache_update,
    "OneHot": one_hot,
    "Compress": compress,
    "NonZero": non_zero,
    "Trilu": triangle,
    "ReverseSequence": reverse_sequence,
    "NonMaxSuppression": suppression,
}
CONTRIB = {"GatherND": gather_nd, "Trilu": triangle}
