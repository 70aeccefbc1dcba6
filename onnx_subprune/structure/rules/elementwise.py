"""Elementwise operators: aligned axes keep the same indices; a constant per channel is a carrier."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import ONE, Dim, covers, fresh
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import label

__all__ = ["ELEMENTWISE", "RULES", "UNARY", "VARIADIC", "broadcast"]

# fmt: off
UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitCast", "BitwiseNot", "Cast", "Ceil", "Celu", "Clip",
    "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign",
    "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
)
VARIADIC = (
    "Add", "And", "BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater", "GreaterOrEqual",
    "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)
# fmt: on
ELEMENTWISE = frozenset((*UNARY, *VARIADIC))


def broadcast(node: gs.Node, inputs: Sequence[tuple[Dim, ...]], ctx: Context) -> tuple[Dim, ...]:
    """Return the axes of the inputs broadcast together (NumPy's rules); aligned axes are unified."""
    rank = max(len(axes) for axes in inputs)
    padded = [(ONE,) * (rank - len(axes)) + tuple(axes) for axes in inputs]
    return tuple(_broadcast_dim(node, [axes[i] for axes in padded], ctx) for i in range(rank))


def _broadcast_dim(node: gs.Node, dims: Sequence[Dim], ctx: Context) -> Dim:
    wide = [dim for dim in dims if dim.factors and (dim.dynamic or dim.size != 1)]
    if not wide:
        return ONE
    if any(dim.dynamic for dim in wide):
        return _meet_at_run_time(node, wide, ctx)
    for other in wide[1:]:
        ctx.unify(wide[0], other, node)
    return wide[0]


def _meet_at_run_time(node: gs.Node, dims: Sequence[Dim], ctx: Context) -> Dim:
    """Axes of unknown size may be 1 (broadcast) or equal; only certain knowledge is kept."""
    widest = next((dim for dim in dims if all(covers(dim, other) for other in dims)), None)
    if widest is not None:
        return widest.resolve()
    static = [dim for dim in dims if not dim.dynamic]
    first = static[0] if static else dims[0]
    if all(_surely_wide(dim) for dim in dims):
        for other in dims:
            ctx.unify(first, other, node)
        return first
    for dim in dims:
        ctx.freeze(dim, node, "meets an axis whose size is known at run time only")
    return first if static else fresh(max(dim.size for dim in dims), dynamic=True, covers=tuple(dims))


def _surely_wide(dim: Dim) -> bool:
    """Whether the axis cannot have a single entry: a static factor is part of it."""
    return any(not factor.dynamic for factor in dim.resolve().factors)


def unary(node: gs.Node, ctx: Context) -> None:
    """Pass the axes of the first input on; further inputs (Clip's bounds) are scalars."""
    for index in range(1, len(node.inputs)):
        if ctx.has(node, index) and any(dim.size != 1 for dim in ctx.input(node, index)):
            raise NotUnderstood(f"{label(node)} takes a parameter that is not a scalar")
    ctx.output(node, ctx.input(node, 0))


def variadic(node: gs.Node, ctx: Context) -> None:
    """Broadcast all inputs."""
    if node.attrs.get("broadcast"):
        raise NotUnderstood(f"{label(node)} broadcasts in the way of opset 6")
    if not node.inputs:
        raise NotUnderstood(f"{label(node)} has no input")
    ctx.output(node, broadcast(node, [ctx.input(node, i) for i in range(len(node.inputs))], ctx))


def dropout(node: gs.Node, ctx: Context) -> None:
    """Data and mask keep the axes."""
    axes = ctx.input(node, 0)
    ctx.output(node, axes)
    ctx.output(node, axes, 1)


def cast_like(node: gs.Node, ctx: Context) -> None:
    """Of the second input only the type matters."""
    ctx.output(node, ctx.input(node, 0))


RULES = {
    **dict.fromkeys(UNARY, unary),
    **dict.fromkeys(VARIADIC, variadic),
    "SwiGLU": variadic,
    "Dropout": dropout,
    "CastLike": cast_like,
}
