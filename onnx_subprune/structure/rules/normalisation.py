"""Normalisations: per-channel statistics carry the channels, statistics over an axis freeze it."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context, NotUnderstood, label
from onnx_subprune.structure.dims import ONE
from onnx_subprune.structure.rules.elementwise import broadcast

__all__ = ["RULES"]


def per_channel(node: gs.Node, ctx: Context) -> None:
    """BatchNormalization, InstanceNormalization: a parameter per channel, statistics of that channel alone."""
    if node.attrs.get("training_mode"):
        raise NotUnderstood(f"{label(node)} is in training mode")
    x = ctx.input(node, 0)
    for index in range(1, len(node.inputs)):
        (parameter,) = ctx.input(node, index)
        ctx.unify(parameter, x[1], node)
    if node.op == "InstanceNormalization":
        for dim in x[2:]:
            ctx.freeze(dim, node, "normalises over this axis")
    ctx.output(node, x)


def trailing(node: gs.Node, ctx: Context) -> None:
    """LayerNormalization, RMSNormalization: statistics over all axes from `axis` on."""
    x = ctx.input(node, 0)
    axis = int(node.attrs.get("axis", -1)) % len(x)
    for dim in x[axis:]:
        ctx.freeze(dim, node, "normalises over this axis")
    broadcast(node, [x, *(ctx.input(node, i) for i in range(1, len(node.inputs)) if ctx.has(node, i))], ctx)
    ctx.output(node, x)
    for index in range(1, len(node.outputs)):
        ctx.output(node, (*x[:axis], *(ONE for _ in x[axis:])), index)


def softmax(node: gs.Node, ctx: Context) -> None:
    """Softmax and its kin: one axis, or before opset 13 all axes from `axis` on."""
    x = ctx.input(node, 0)
    legacy = ctx.opset < 13
    axis = int(node.attrs.get("axis", 1 if legacy else -1)) % len(x)
    for dim in x[axis:] if legacy else x[axis : axis + 1]:
        ctx.freeze(dim, node, "normalises over this axis")
    ctx.output(node, x)


def across_channels(node: gs.Node, ctx: Context) -> None:
    """LRN: statistics over several channels of one position."""
    x = ctx.input(node, 0)
    ctx.freeze(x[1], node, "normalises over channels")
    ctx.output(node, x)


def group_norm(node: gs.Node, ctx: Context) -> None:
    """GroupNormalization: statistics over several channels and all positions."""
    x = ctx.input(node, 0)
    for dim in x[1:]:
        ctx.freeze(dim, node, "normalises over this axis")
    ctx.output(node, x)


def listed_axes(node: gs.Node, ctx: Context) -> None:
    """LpNormalization, MeanVarianceNormalization: the axes are attributes."""
    x = ctx.input(node, 0)
    default = [0, 2, 3] if node.op == "MeanVarianceNormalization" else [int(node.attrs.get("axis", -1))]
    for axis in node.attrs.get("axes", default):
        ctx.freeze(x[axis], node, "normalises over this axis")
    ctx.output(node, x)


RULES = {
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), per_channel),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), trailing),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), softmax),
    "GroupNormalization": group_norm,
    "LRN": across_channels,
    **dict.fromkeys(("LpNormalization", "MeanVarianceNormalization"), listed_axes),
}
