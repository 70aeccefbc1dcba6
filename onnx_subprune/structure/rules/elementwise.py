"""Elementwise operators: aligned axes keep the same indices; a constant per channel is a carrier."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context, NotUnderstood, label
from onnx_subprune.structure.dims import ONE, Dim, fresh

__all__ = ["RULES", "broadcast"]

UNARY = (
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Cast Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish "
    "Identity IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus "
    "Softsign Sqrt Swish Tan Tanh ThresholdedRelu"
).split()
VARIADIC = (
    "Add And BitShift BitwiseAnd BitwiseOr BitwiseXor Div Equal Greater GreaterOrEqual Less LessOrEqual Max Mean Min "
    "Mod Mul Or Pow PRelu Sub Sum Where Xor"
).split()


def broadcast(node: gs.Node, inputs: Sequence[tuple[Dim, ...]], ctx: Context) -> tuple[Dim, ...]:
    """Return the axes of the inputs broadcast together (NumPy's rules); aligned axes are unified."""
    rank = max(len(axes) for axes in inputs)
    padded = [(ONE,) * (rank - len(axes)) + tuple(axes) for axes in inputs]
    return tuple(_meet(node, [axes[i] for axes in padded], ctx) for i in range(rank))


def _meet(node: gs.Node, dims: Sequence[Dim], ctx: Context) -> Dim:
    wide = [dim for dim in dims if dim.dynamic or dim.size != 1]
    if not wide:
        return ONE
    static = [dim for dim in wide if not dim.dynamic]
    if len(static) not in (0, len(wide)):
        # A size known at run time only meets a known one: it may be 1 (broadcast) or equal; neither is certain.
        for dim in wide:
            ctx.freeze(dim, node, "meets an axis whose size is known at run time only")
        return static[0]
    first = wide[0]
    for other in wide[1:]:
        if first.dynamic and first.resolve() != other.resolve():
            return fresh(max(first.size, other.size), dynamic=True)
        ctx.unify(first, other, node)
    return first


def unary(node: gs.Node, ctx: Context) -> None:
    """Pass the axes of the first input on; further inputs (Clip's bounds) are scalars."""
    for index in range(1, len(node.inputs)):
        if ctx.has(node, index) and any(dim.size != 1 for dim in ctx.input(node, index)):
            raise NotUnderstood(f"{label(node)} takes a parameter that is not a scalar")
    ctx.output(node, ctx.input(node, 0))


def variadic(node: gs.Node, ctx: Context) -> None:
    """Broadcast all inputs."""
    ctx.output(node, broadcast(node, [ctx.input(node, i) for i in range(len(node.inputs))], ctx))


def dropout(node: gs.Node, ctx: Context) -> None:
    """Data and mask keep the axes."""
    axes = ctx.input(node, 0)
    ctx.output(node, axes)
    ctx.output(node, axes, 1)


RULES = {
    **dict.fromkeys(UNARY, unary),
    "Clip": unary,
    **dict.fromkeys(VARIADIC, variadic),
    "Dropout": dropout,
}
