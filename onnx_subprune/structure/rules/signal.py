"""Fourier transforms: the axis that is transformed is frozen, and that of real and imaginary parts; the others pass."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import label

__all__ = ["RULES"]

_AXIS_IS_AN_INPUT = 20


def transform(node: gs.Node, ctx: Context) -> None:
    """DFT: X [.., n, .., 1 or 2] gives [.., m, .., 2 or 1], one side or both; m follows from n or is given."""
    x = list(ctx.input(node, 0))
    axis = ctx.counted(node, x, _axis(node, ctx))
    if axis == len(x) - 1:
        raise NotUnderstood(f"{label(node)} transforms the axis of real and imaginary parts")
    one_sided, inverse = bool(node.attrs.get("onesided", 0)), bool(node.attrs.get("inverse", 0))
    entries = _length(node, ctx)
    dim = x[axis]
    if entries is None:
        entries = 2 * (dim.size - 1) if one_sided and inverse else dim.size
    size = entries // 2 + 1 if one_sided and not inverse else entries
    for frozen in (dim, x[-1]):
        ctx.freeze(frozen, node, "transforms this axis")
    x[axis] = ctx.computed_axis(node, size, dynamic=dim.dynamic)
    x[-1] = ctx.computed_axis(node, 1 if one_sided and inverse else 2)
    ctx.output(node, x)


def _axis(node: gs.Node, ctx: Context) -> int:
    if ctx.opset < _AXIS_IS_AN_INPUT:
        return int(node.attrs.get("axis", 1))
    axes = ctx.ints(node, 2) if ctx.has(node, 2) else [-2]
    if len(axes) != 1:
        raise NotUnderstood(f"{label(node)} does not name one axis")
    return axes[0]


def _length(node: gs.Node, ctx: Context) -> int | None:
    """Return the length that the node is given; None where it is that of the axis."""
    if not ctx.has(node, 1):
        return None
    lengths = ctx.ints(node, 1)
    if len(lengths) != 1:
        raise NotUnderstood(f"{label(node)} does not give one length")
    return lengths[0]


RULES = {"DFT": transform}
