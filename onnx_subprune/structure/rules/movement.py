"""Operators that move, join or repeat axes without arithmetic: Transpose, Squeeze, Flatten, Expand, Tile, Concat."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import ONE, Dim, Extent, Size, concat, covers, fresh, in_step, product
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import Squeezed, label
from onnx_subprune.structure.rules.creation import counted, sized

__all__ = ["CONTRIB", "RULES"]


def transpose(node: gs.Node, ctx: Context) -> None:
    """Permute the axes."""
    x = ctx.input(node, 0)
    perm = node.attrs.get("perm") or range(len(x))[::-1]
    if sorted(perm) != list(range(len(x))):
        raise NotUnderstood(f"{label(node)} permutes {len(x)} axes by {list(perm)}")
    ctx.output(node, [x[i] for i in perm])


def squeeze(node: gs.Node, ctx: Context) -> None:
    """Drop axes of one entry: those listed or, without a list, all of them."""
    x = ctx.input(node, 0)
    if "axes" in node.attrs or ctx.has(node, 1):
        axes = [ctx.counted(node, x, axis) for axis in ctx.ints(node, 1, "axes")]
    elif any(dim.dynamic for dim in x):
        raise NotUnderstood(f"{label(node)} drops the axes that have one entry at run time")
    else:
        axes = [i for i, dim in enumerate(x) if dim.size == 1]
        ctx.note(Squeezed(node, tuple(axes)))
    for axis in axes:
        ctx.freeze(x[axis], node, "drops this axis")
    ctx.output(node, [dim for i, dim in enumerate(x) if i not in axes])


def unsqueeze(node: gs.Node, ctx: Context) -> None:
    """Insert axes of one entry."""
    x = ctx.input(node, 0)
    axes = ctx.ints(node, 1, "axes")
    rank = len(x) + len(axes)
    places = {ctx.counted(node, (ONE,) * rank, axis) for axis in axes}
    if len(places) != len(axes):
        raise NotUnderstood(f"{label(node)} inserts one axis twice")
    rest = iter(x)
    ctx.output(node, [ONE if i in places else next(rest) for i in range(rank)])


def flatten(node: gs.Node, ctx: Context) -> None:
    """Two axes: the products of those before and from `axis` on."""
    x = ctx.input(node, 0)
    axis = int(node.attrs.get("axis", 1))
    if not -len(x) <= axis <= len(x):
        raise NotUnderstood(f"{label(node)} names axis {axis} of a tensor of {len(x)} axes")
    axis += len(x) if axis < 0 else 0
    ctx.output(node, (product(*x[:axis]), product(*x[axis:])))


def expand(node: gs.Node, ctx: Context) -> None:
    """Broadcast to a shape."""
    x = ctx.input(node, 0)
    shape = ctx.extent_list(node, 1)
    rank = max(len(x), len(shape))
    y = [ONE] * (rank - len(x)) + list(x)
    offset = rank - len(shape)
    for i, extent in enumerate(shape):
        dim = y[offset + i]
        if dim.dynamic and not in_step(extent, Size(dim)) and extent != 1:
            y[offset + i] = _spread(node, dim, extent, ctx)
        elif dim.size == 1 and not dim.dynamic:
            y[offset + i] = sized(extent, node, ctx)
            ctx.expect_size(node, 1, i, y[offset + i])
        elif extent != 1:
            ctx.expect_size(node, 1, i, dim)
    ctx.output(node, y)


def _spread(node: gs.Node, dim: Dim, extent: Extent, ctx: Context) -> Dim:
    """Return an axis that may have one entry at run time and be repeated, or have as many as the shape asks for."""
    asked = sized(extent, node, ctx)
    for wide, narrow in ((dim, asked), (asked, dim)):
        if covers(wide, narrow):
            return wide
    for axis in (dim, asked):
        ctx.freeze(axis, node, "broadcasts this axis at run time")
    return fresh(max(dim.size, asked.size), dynamic=True, covers=(dim, asked)) if asked.dynamic else asked


def tile(node: gs.Node, ctx: Context) -> None:
    """Repeat axes: repetitions x axis."""
    x = ctx.input(node, 0)
    y: list[Dim] = []
    repeats = ctx.extent_list(node, 1)
    if len(repeats) != len(x):
        raise NotUnderstood(f"{label(node)} gives {len(repeats)} repetitions for {len(x)} axes")
    for i, (dim, repeat) in enumerate(zip(x, repeats, strict=True)):
        ctx.hold(node, 1, i, repeat)
        times = counted(repeat)
        ctx.freeze(times, node, "repeats along this axis")
        y.append(product(times, dim))
    ctx.output(node, y)


def concat_rule(node: gs.Node, ctx: Context) -> None:
    """Join along one axis; the others are unified."""
    if not node.inputs:
        raise NotUnderstood(f"{label(node)} has no input")
    inputs = [ctx.input(node, i) for i in range(len(node.inputs))]
    first = inputs[0]
    ctx.same_rank(node, *inputs)
    ctx.required(node, "axis")
    axis = ctx.axis(node, first, 0)
    for other in inputs[1:]:
        for i, dim in enumerate(other):
            if i != axis:
                ctx.unify(first[i], dim, node)
    y = list(first)
    parts = [axes[axis] for axes in inputs]
    y[axis] = concat(*([part for part in parts if part.size or part.dynamic] or parts[:1]))
    ctx.output(node, y)


RULES = {
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Flatten": flatten,
    "Expand": expand,
    "Tile": tile,
    "Concat": concat_rule,
}
CONTRIB = {"ExpandDims": unsqueeze}
