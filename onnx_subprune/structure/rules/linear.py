"""Convolutions: their weights produce one axis of channels and contract another.

A Conv whose channels come last in its activations has them last in its weight as well, [M, k.., C/G]: here it is seen
with the channels where Conv has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Dim, fresh, product
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import Consumer, MacTerm, Use, Weight, label
from onnx_subprune.structure.rules.elementwise import broadcast
from onnx_subprune.structure.rules.spatial import slide

__all__ = ["CONTRIB", "RULES"]


def conv(node: gs.Node, ctx: Context) -> None:
    """Relate X [N, G*a, ...], W [G*b, a, k...], B [G*b] and Y [N, G*b, ...] for G groups."""
    _convolve(node, ctx, ctx.input(node, 0), *_constant_weight(node, ctx))


def _convolve(
    node: gs.Node, ctx: Context, x: Sequence[Dim], weight: Weight, w: Sequence[Dim], *, bias: int = 2
) -> tuple[Dim, ...]:
    """Return the axes of Y, its channels where X [N, G*a, ...] has them."""
    group = _groups(node, w[0].size)
    _channels(w[0], group, node, ctx)
    ctx.same_rank(node, x, w)
    ctx.unify(x[1], product(group, w[1]), node)
    _pass_bias(node, bias, w[0], ctx)
    spatial = slide(node, x[2:], [dim.size for dim in w[2:]], ctx)
    y = (x[0], w[0], *spatial)
    ctx.output(node, y)
    _record(node, ctx, weight, produces=(0, w[0]), contracts=(1, w[1]), group=group)
    ctx.note(MacTerm(node, (*y, w[1], *w[2:])))
    return y


def fused_conv(node: gs.Node, ctx: Context) -> None:
    """FusedConv of ONNX Runtime: a Conv, a tensor Z added to it, and an activation."""
    conv(node, ctx)
    _add(node, ctx)


def _add(node: gs.Node, ctx: Context) -> None:
    """Relate Y with the tensor Z that is added to it, if there is one."""
    if ctx.has(node, 3):
        y = ctx.axes[node.outputs[0].name]
        ctx.output(node, broadcast(node, [y, ctx.input(node, 3)], ctx))


def conv_channels_last(node: gs.Node, ctx: Context) -> None:
    """NhwcConv, NhwcFusedConv of ONNX Runtime: X [N, ..., C], Y [N, ..., M]; W [M, k.., C/G], or as that of a Conv."""
    n, *space, channels = ctx.input(node, 0)
    weight, w = _constant_weight(node, ctx)
    if node.op == "NhwcConv":
        order = (0, len(w) - 1, *range(1, len(w) - 1))
        weight = replace(weight, perm=tuple(weight.perm[axis] for axis in order))
        w = tuple(w[axis] for axis in order)
    if w[1].size * int(node.attrs.get("group", 1)) != channels.size:
        raise NotUnderstood(f"{label(node)} has a weight of another layout than its input")
    y = _convolve(node, ctx, (n, channels, *space), weight, w)
    ctx.output(node, (y[0], *y[2:], y[1]))
    _add(node, ctx)


def deform_conv(node: gs.Node, ctx: Context) -> None:
    """Relate X, W, offsets [N, O*k*2, ...], B, mask [N, O*k, ...] and Y as a Conv that reads at computed places."""
    x, offset = ctx.input(node, 0), ctx.input(node, 2)
    y = _convolve(node, ctx, x, *_constant_weight(node, ctx), bias=3)
    ctx.same_rank(node, x, offset)
    places = [offset, ctx.input(node, 4)] if ctx.has(node, 4) else [offset]
    for axes in places:
        ctx.freeze(axes[1], node, "reads places from this axis")
        for dim, other in zip((y[0], *y[2:]), (axes[0], *axes[2:]), strict=True):
            ctx.freeze(other, node, "reads places along this axis")
            if dim.resolve() != other.resolve():
                ctx.unify(dim, other, node)
    for dim in x[2:]:
        ctx.freeze(dim, node, "reads at places along this axis")
    offsets = int(node.attrs.get("offset_group", 1))
    if offsets > 1:
        ctx.freeze(x[1], node, "has offsets of their own for parts of this axis")


def causal_conv(node: gs.Node, ctx: Context) -> None:
    """CausalConvWithState: a Conv of every channel apart, X [N, C, L], W [C, 1, k], B [C], states [N, C, k-1]."""
    last = bool(node.attrs.get("channels_last", 0))
    if node.attrs.get("state_window", 0) or node.attrs.get("ndim", 1) != 1:
        raise NotUnderstood(f"{label(node)} keeps states of several steps, or has several axes of space")
    x = ctx.input(node, 0, rank=3)
    channels, length = (x[2], x[1]) if last else (x[1], x[2])
    weight, w = _constant_weight(node, ctx)
    ctx.same_rank(node, x, w)
    ctx.unify(w[0], channels, node)
    ctx.use("carrier", node, 1, weight.constant, [(weight.perm[0], w[0])])
    _pass_bias(node, 2, channels, ctx)
    ctx.freeze(length, node, "slides a window along this axis")
    state = ctx.computed_axis(node, w[2].size - 1)
    states = (x[0], state, channels) if last else (x[0], channels, state)
    if ctx.has(node, 3):
        earlier = ctx.input(node, 3, rank=3)
        for dim, other in zip(earlier, states, strict=True):
            ctx.unify(dim, other, node)
    ctx.output(node, x)
    ctx.output(node, states, 1)
    ctx.note(MacTerm(node, (*x, w[2])))


def conv_transpose(node: gs.Node, ctx: Context) -> None:
    """Relate X [N, G*a, ...], W [G*a, b, k...], B [G*b] and Y [N, G*b, ...] for G groups."""
    x = ctx.input(node, 0)
    weight, w = _constant_weight(node, ctx)
    group = _groups(node, w[0].size)
    _channels(w[0], group, node, ctx)
    ctx.same_rank(node, x, w)
    ctx.unify(x[1], w[0], node)
    outputs = product(group, w[1])
    _pass_bias(node, 2, outputs, ctx)
    spatial = slide(node, x[2:], [dim.size for dim in w[2:]], ctx, transposed=True)
    ctx.output(node, (x[0], outputs, *spatial))
    _record(node, ctx, weight, produces=(1, w[1]), contracts=(0, w[0]), group=group)
    ctx.note(MacTerm(node, (x[0], w[0], *x[2:], w[1], *w[2:])))


def _constant_weight(node: gs.Node, ctx: Context) -> tuple[Weight, tuple[Dim, ...]]:
    known = ctx.weight(node, 1)
    if known is None:
        raise NotUnderstood(f"{label(node)} has a weight that is computed")
    if len(known[1]) < 2:
        raise NotUnderstood(f"{label(node)} has a weight of {len(known[1])} axes")
    for dim in known[1][1:-1] if node.op == "NhwcConv" else known[1][2:]:
        ctx.freeze(dim, node, "slides this axis as its kernel")
    return known


def _groups(node: gs.Node, channels: int) -> Dim:
    count = int(node.attrs.get("group", 1))
    if count < 1 or channels % count:
        raise NotUnderstood(f"{label(node)} has {count} groups over {channels} channels")
    return fresh(count)


def _channels(axis: Dim, group: Dim, node: gs.Node, ctx: Context) -> None:
    """Write the weight's first axis as group x channels per group, and keep the attribute `group` in step."""
    if group.factors:
        ctx.unify(axis, product(group, fresh(axis.size // group.size)), node)
        ctx.expect_size(node, "group", None, group)


def _pass_bias(node: gs.Node, index: int, channels: Dim, ctx: Context) -> None:
    if ctx.has(node, index):
        (bias,) = ctx.input(node, index, rank=1)
        ctx.unify(bias, channels, node)


def _record(
    node: gs.Node,
    ctx: Context,
    weight: Weight,
    *,
    produces: tuple[int, Dim],
    contracts: tuple[int, Dim],
    group: Dim,
) -> None:
    """Record what the axes of a weight are; a depthwise weight contracts nothing and only carries its channels."""
    (written, output_channels), (read, contracted) = produces, contracts
    transposed = node.op == "ConvTranspose"
    features = contracted if transposed else product(group, contracted)
    outputs = product(group, output_channels) if transposed else output_channels
    if group.factors and features.size == group.size:
        _record_depthwise(node, ctx, weight, group, outputs)
        return
    ctx.use("producer", node, 1, weight.constant, [(weight.perm[written], output_channels)])
    ctx.use("consumer", node, 1, weight.constant, [(weight.perm[read], contracted)])
    source, last = node.inputs[0].name, node.op in _CHANNELS_LAST
    axis = len(weight.perm) - 1 if last else 1
    ctx.note(Consumer(node, source, axis, features, outputs, weight, 1, group, _pads(node)))


def _record_depthwise(node: gs.Node, ctx: Context, weight: Weight, group: Dim, outputs: Dim) -> None:
    """The channels pass; the multiplier, if there is one, is produced by the axis that holds it."""
    multiplier = Dim(outputs.resolve().factors[len(group.resolve().factors) :])
    transposed = node.op == "ConvTranspose"
    channels = group if transposed else outputs
    produced = (weight.perm[1], multiplier) if transposed else (weight.perm[0], outputs)
    ctx.note(Use("carrier", node, 1, weight.constant, weight.perm[0], channels, part=group))
    ctx.note(Use("producer", node, 1, weight.constant, *produced, part=multiplier))


def _pads(node: gs.Node) -> bool:
    """Whether zeros may be read around the input; a deformed kernel reaches beyond it anywhere."""
    if node.op == "DeformConv":
        return True
    return any(node.attrs.get("pads", ())) or str(node.attrs.get("auto_pad", "NOTSET")) not in ("NOTSET", "VALID")


_CHANNELS_LAST = ("NhwcConv", "NhwcFusedConv")
RULES = {
    "Conv": conv,
    "ConvTranspose": conv_transpose,
    "DeformConv": deform_conv,
    "CausalConvWithState": causal_conv,
}
CONTRIB = {
    "FusedConv": fused_conv,
    "CausalConvWithState": causal_conv,
    **dict.fromkeys(_CHANNELS_LAST, conv_channels_last),
}
