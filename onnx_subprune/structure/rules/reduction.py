"""Reductions and scans: the axis they run over is frozen, the others pass."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context
from onnx_subprune.structure.dims import ONE
from onnx_subprune.structure.extents import evaluate, fixed

__all__ = ["RULES"]

REDUCE = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


def reduce(node: gs.Node, ctx: Context) -> None:
    """Reduce over the listed axes; without a list over all of them."""
    x = ctx.input(node, 0)
    listed = ctx.ints(node, 1, "axes") if "axes" in node.attrs or ctx.has(node, 1) else []
    axes = [a % len(x) for a in listed]
    if not axes and not node.attrs.get("noop_with_empty_axes"):
        axes = list(range(len(x)))
    _collapse(node, ctx, axes, bool(node.attrs.get("keepdims", 1)))


def arg_reduce(node: gs.Node, ctx: Context) -> None:
    """ArgMax, ArgMin."""
    rank = len(ctx.input(node, 0))
    _collapse(node, ctx, [int(node.attrs.get("axis", 0)) % rank], bool(node.attrs.get("keepdims", 1)))


def _collapse(node: gs.Node, ctx: Context, axes: list[int], keep: bool) -> None:
    x = ctx.input(node, 0)
    for axis in axes:
        ctx.freeze(x[axis], node, "reduces over this axis")
    y = [ONE if i in axes else dim for i, dim in enumerate(x)]
    ctx.output(node, y if keep else [dim for i, dim in enumerate(y) if i not in axes])


def cumulative(node: gs.Node, ctx: Context) -> None:
    """CumSum: entries depend on those before them."""
    x = ctx.input(node, 0)
    ctx.freeze(x[ctx.ints(node, 1)[0]], node, "accumulates along this axis")
    ctx.output(node, x)


def top_k(node: gs.Node, ctx: Context) -> None:
    """TopK: the chosen axis gets a new, unrelated length; one that is computed from data is not understood."""
    x = list(ctx.input(node, 0))
    axis = int(node.attrs.get("axis", -1)) % len(x)
    ctx.freeze(x[axis], node, "selects along this axis")
    extents = ctx.extent_list(node, 1, "k")
    ctx.pin(extents, node)
    size = fixed(extents[0])
    x[axis] = ctx.made(node, evaluate(extents[0], {}) if size is None else size, dynamic=size is None)
    ctx.output(node, x)
    ctx.output(node, x, 1)


RULES = {
    **dict.fromkeys((f"Reduce{name}" for name in REDUCE), reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), arg_reduce),
    "CumSum": cumulative,
    "TopK": top_k,
}
