"""Normalisations: per-channel statistics carry the channels, statistics over an axis freeze it."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import ONE, Dim, fresh, product
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.normalisations import Normalisation
from onnx_subprune.structure.records import label
from onnx_subprune.structure.rules.elementwise import broadcast

__all__ = ["CONTRIB", "RULES", "note_statistics", "trailing"]

_SCALES_CHANNELS = 21


def per_channel(node: gs.Node, ctx: Context) -> None:
    """BatchNormalization, InstanceNormalization: a parameter per channel, statistics of that channel alone."""
    if node.attrs.get("training_mode"):
        raise NotUnderstood(f"{label(node)} is in training mode")
    x = _with_channels(node, ctx)
    for index in range(1, len(node.inputs)):
        (parameter,) = ctx.input(node, index, rank=1)
        ctx.unify(parameter, x[1], node)
    ctx.output(node, x)
    if node.op == "InstanceNormalization":
        # GroupNorm is written as this operator over [N, groups, channels of the group x positions].
        note_statistics(node, ctx, x, range(2, len(x)), centred=True, scale=1, shift=2)


def trailing(node: gs.Node, ctx: Context) -> None:
    """LayerNormalization, RMSNormalization: statistics over all axes from `axis` on."""
    x = ctx.input(node, 0)
    axis = ctx.axis(node, x, -1)
    broadcast(node, [x, *(ctx.input(node, i) for i in range(1, len(node.inputs)) if ctx.has(node, i))], ctx)
    ctx.output(node, x)
    for index in range(1, len(node.outputs)):
        ctx.output(node, (*x[:axis], *(ONE for _ in x[axis:])), index)
    if any(tensor.outputs for tensor in node.outputs[1:]):
        for dim in x[axis:]:
            ctx.freeze(dim, node, "gives its statistics over this axis back")
    note_statistics(node, ctx, x, range(axis, len(x)), centred=node.op == "LayerNormalization", scale=1, shift=2)


def softmax(node: gs.Node, ctx: Context) -> None:
    """Softmax and its kin: one axis, or before opset 13 all axes from `axis` on."""
    x = ctx.input(node, 0)
    legacy = ctx.opset < 13
    axis = ctx.axis(node, x, 1 if legacy and len(x) > 1 else -1)
    for dim in x[axis:] if legacy else x[axis : axis + 1]:
        ctx.freeze(dim, node, "normalises over this axis")
    ctx.output(node, x)


def across_channels(node: gs.Node, ctx: Context) -> None:
    """LRN: statistics over several channels of one position."""
    x = _with_channels(node, ctx)
    ctx.freeze(x[1], node, "normalises over channels")
    ctx.output(node, x)


def group_norm(node: gs.Node, ctx: Context) -> None:
    """GroupNormalization: statistics over the channels of a group and all positions; groups may go as a whole."""
    if ctx.opset < _SCALES_CHANNELS:
        raise NotUnderstood(f"{label(node)} has one scale for each group, a form that ONNX withdrew")
    x = _with_channels(node, ctx)
    groups = ctx.count(node, "num_groups")
    group, inner = fresh(groups), fresh(x[1].size // groups)
    ctx.unify(x[1], product(group, inner), node)
    ctx.expect_size(node, "num_groups", None, group)
    for index in (1, 2):
        (parameter,) = ctx.input(node, index, rank=1)
        ctx.unify(parameter, x[1], node)
    ctx.output(node, x)
    ctx.normalise(node, {1: inner, **dict(enumerate(x[2:], 2))})
    if ctx.prune_normalised:
        why = "each of its groups has its own"
        ctx.note(
            Normalisation(node, node.op, node.outputs[0].name, 1, inner, centred=True, pooled=True, unrestored=why)
        )


def runtime_group_norm(node: gs.Node, ctx: Context) -> None:
    """GroupNorm, SkipGroupNorm of ONNX Runtime: X [N, ..., C] (or [N, C, ...]), gamma and beta [C]; groups may go.

    SkipGroupNorm normalises X + skip + bias, which it gives out as well; the skip is like X, [N, 1, 1, C] or [N, C].
    """
    x = _with_channels(node, ctx)
    place = len(x) - 1 if node.attrs.get("channels_last", 1) else 1
    groups = ctx.count(node, "groups")
    group, inner = fresh(groups), fresh(x[place].size // groups)
    ctx.unify(x[place], product(group, inner), node)
    ctx.expect_size(node, "groups", None, group)
    vectors = [1, 2, *([4] if ctx.has(node, 4) else [])]
    for index in vectors:
        (parameter,) = ctx.input(node, index, rank=1)
        ctx.unify(parameter, x[place], node)
    if node.op == "SkipGroupNorm":
        skip = ctx.input(node, 3)
        if len(skip) == len(x):
            broadcast(node, [tuple(x), skip], ctx)
        else:
            ctx.same_rank(node, skip, x[:2])
            for dim, other in zip(skip, (x[0], x[place]), strict=True):
                if dim.resolve() != other.resolve():
                    ctx.unify(dim, other, node)
    for dim in (inner, *(dim for axis, dim in enumerate(x) if axis not in (0, place))):
        ctx.freeze(dim, node, "normalises over this axis")
    ctx.output(node, x)
    ctx.output(node, x, 1)


def gated_norm(node: gs.Node, ctx: Context) -> None:
    """GatedRMSNorm: X and gate [.., heads x C], scale [C]; heads may go."""
    x = ctx.input(node, 0)
    (scale,) = ctx.input(node, 1, rank=1)
    if x[-1].size % scale.size:
        raise NotUnderstood(f"{label(node)} cuts {x[-1].size} channels to heads of {scale.size}")
    channels = fresh(scale.size)
    ctx.unify(scale, channels, node)
    ctx.unify(x[-1], product(fresh(x[-1].size // scale.size), channels), node)
    ctx.freeze(channels, node, "normalises over this axis")
    ctx.output(node, broadcast(node, [x, ctx.input(node, 2)], ctx))


def biased_softmax(node: gs.Node, ctx: Context) -> None:
    """BiasSoftmax: over all axes from `axis` on, of X and a bias that is broadcast to it."""
    x = ctx.input(node, 0)
    for dim in x[ctx.axis(node, x, 1) :]:
        ctx.freeze(dim, node, "normalises over this axis")
    for dim in ctx.input(node, 1):
        ctx.freeze(dim, node, "adds what is normalised along this axis")
    ctx.output(node, x)


def lp_norm(node: gs.Node, ctx: Context) -> None:
    """LpNormalization: divided by a norm over one axis."""
    x = ctx.input(node, 0)
    ctx.output(node, x)
    note_statistics(node, ctx, x, [ctx.axis(node, x, -1)], centred=False)


def mean_variance(node: gs.Node, ctx: Context) -> None:
    """MeanVarianceNormalization: the axes are an attribute.

    Its variance is the difference of two means, which for a few units is rounding error: never over fewer.
    """
    x = ctx.input(node, 0)
    for axis in node.attrs.get("axes", [0, 2, 3]):
        ctx.freeze(x[ctx.counted(node, x, axis)], node, "normalises over this axis")
    ctx.output(node, x)


def _with_channels(node: gs.Node, ctx: Context) -> Sequence[Dim]:
    """Return the axes of the first input; the second axis holds the channels."""
    x = ctx.input(node, 0)
    if len(x) < 2:
        raise NotUnderstood(f"{label(node)} reads a tensor of {len(x)} axes, which has no channels")
    return x


def note_statistics(
    node: gs.Node,
    ctx: Context,
    x: Sequence[Dim],
    axes: Sequence[int],
    *,
    centred: bool,
    scale: int | None = None,
    shift: int | None = None,
) -> None:
    """Note the statistics that an operator takes over `axes`, and where its scale and shift are."""
    ctx.normalise(node, {axis: x[axis] for axis in axes})
    if axes and ctx.prune_normalised and not node.outputs[0].is_empty():
        axis = max(axes, key=lambda i: any(not atom.reasons for atom in x[i].atoms()))
        ctx.note(
            Normalisation(
                node, node.op, node.outputs[0].name, axis, x[axis],
                centred=centred, averaged=node.op != "LpNormalization", pooled=len(axes) > 1, scale=scale, shift=shift,
            )
        )  # fmt: skip


RULES = {
    **dict.fromkeys(("BatchNormalization", "InstanceNormalization"), per_channel),
    **dict.fromkeys(("LayerNormalization", "RMSNormalization"), trailing),
    **dict.fromkeys(("Softmax", "LogSoftmax", "Hardmax"), softmax),
    "GroupNormalization": group_norm,
    "LRN": across_channels,
    "LpNormalization": lp_norm,
    "MeanVarianceNormalization": mean_variance,
}
CONTRIB = {
    **dict.fromkeys(("GroupNorm", "SkipGroupNorm"), runtime_group_norm),
    "GatedRMSNorm": gated_norm,
    "BiasSoftmax": biased_softmax,
}
