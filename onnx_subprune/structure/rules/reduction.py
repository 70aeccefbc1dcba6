"""Reductions and scans: the axis they run over is frozen, the others pass.

Two kinds of reductions do not freeze it: a sum over products of two activations is a contraction like that of a MatMul,
and the statistics of a normalisation may run over fewer units if the user asks. The latter are recognised by what
becomes of them, when the whole graph has been seen (`recognise.py`).
"""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import ONE, evaluate, fixed
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.normalisations import Statistic
from onnx_subprune.structure.records import Contraction, label

__all__ = ["RULES"]

REDUCE = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


def reduce(node: gs.Node, ctx: Context) -> None:
    """Reduce over the listed axes; without a list over all of them."""
    x = ctx.input(node, 0)
    listed = ctx.ints(node, 1, "axes") if "axes" in node.attrs or ctx.has(node, 1) else []
    axes = [ctx.counted(node, x, axis) for axis in listed]
    if not axes and not node.attrs.get("noop_with_empty_axes"):
        axes = list(range(len(x)))
    if not _sums_products(node, axes, ctx):
        ctx.reductions.append(Statistic(node, tuple((axis, x[axis]) for axis in axes)))
    _collapse(node, ctx, axes, bool(node.attrs.get("keepdims", 1)))


def _sums_products(node: gs.Node, axes: list[int], ctx: Context) -> bool:
    """Record sum(a * b) over one axis as the contraction of two activations that it is."""
    maker = node.inputs[0].inputs[0] if node.op == "ReduceSum" and node.inputs[0].inputs else None
    if maker is None or maker.op != "Mul" or len(axes) != 1 or maker.inputs[0] is maker.inputs[1]:
        return False
    if any(ctx.weight(maker, i) is not None for i in (0, 1)) or len(maker.outputs[0].outputs) != 1:
        return False
    dim, rank = ctx.input(node, 0)[axes[0]], len(ctx.input(node, 0))
    if dim.dynamic:
        return False
    sides = []
    for tensor in maker.inputs:
        own = ctx.axes[tensor.name]
        axis = axes[0] - rank + len(own)
        if axis < 0 or own[axis].resolve() != dim.resolve():
            return False
        sides.append((tensor.name, axis))
    ctx.note(Contraction(maker, (sides[0], sides[1]), dim))
    return True


def arg_reduce(node: gs.Node, ctx: Context) -> None:
    """ArgMax, ArgMin."""
    x = ctx.input(node, 0)
    axis = ctx.axis(node, x, 0)
    ctx.freeze(x[axis], node, "reduces over this axis")
    _collapse(node, ctx, [axis], bool(node.attrs.get("keepdims", 1)))


def _collapse(node: gs.Node, ctx: Context, axes: list[int], keep: bool) -> None:
    x = ctx.input(node, 0)
    y = [ONE if i in axes else dim for i, dim in enumerate(x)]
    ctx.output(node, y if keep else [dim for i, dim in enumerate(y) if i not in axes])


def cumulative(node: gs.Node, ctx: Context) -> None:
    """CumSum, CumProd: entries depend on those before them."""
    x = ctx.input(node, 0)
    axes = ctx.ints(node, 1)
    if len(axes) != 1:
        raise NotUnderstood(f"{label(node)} does not name one axis")
    ctx.freeze(x[ctx.counted(node, x, axes[0])], node, "accumulates along this axis")
    ctx.output(node, x)


def top_k(node: gs.Node, ctx: Context) -> None:
    """TopK: the chosen axis gets a new, unrelated length; one that is computed from data is not understood."""
    x = list(ctx.input(node, 0))
    axis = ctx.axis(node, x, -1)
    ctx.freeze(x[axis], node, "selects along this axis")
    extents = ctx.extent_list(node, 1, "k")
    if len(extents) != 1:
        raise NotUnderstood(f"{label(node)} does not give one number of entries")
    ctx.pin(extents, node)
    size = fixed(extents[0])
    x[axis] = ctx.computed_axis(node, evaluate(extents[0], {}) if size is None else size, dynamic=size is None)
    ctx.output(node, x)
    ctx.output(node, x, 1)


RULES = {
    **dict.fromkeys((f"Reduce{name}" for name in REDUCE), reduce),
    **dict.fromkeys(("ArgMax", "ArgMin"), arg_reduce),
    **dict.fromkeys(("CumSum", "CumProd"), cumulative),
    "TopK": top_k,
}
