"""Convolutions: their weights produce one axis of channels and contract another."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Dim, fresh, product
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import Consumer, MacTerm, Use, Weight, label
from onnx_subprune.structure.rules.elementwise import broadcast
from onnx_subprune.structure.rules.spatial import slide

__all__ = ["CONTRIB", "RULES"]


def conv(node: gs.Node, ctx: Context) -> None:
    """Relate X [N, G*a, ...], W [G*b, a, k...], B [G*b] and Y [N, G*b, ...] for G groups."""
    x = ctx.input(node, 0)
    weight, w = _constant_weight(node, ctx)
    group = _groups(node, w[0].size)
    _channels(w[0], group, node, ctx)
    features = product(group, w[1])
    ctx.same_rank(node, x, w)
    ctx.unify(x[1], features, node)
    _pass_bias(node, 2, w[0], ctx)
    spatial = slide(node, x[2:], [dim.size for dim in w[2:]], ctx)
    y = (x[0], w[0], *spatial)
    ctx.output(node, y)
    _record(node, ctx, weight, produces=(0, w[0]), contracts=(1, w[1]), group=group)
    ctx.note(MacTerm(node, (*y, w[1], *w[2:])))


def fused_conv(node: gs.Node, ctx: Context) -> None:
    """FusedConv of ONNX Runtime: a Conv, a tensor Z added to it, and an activation."""
    conv(node, ctx)
    if ctx.has(node, 3):
        y = ctx.axes[node.outputs[0].name]
        ctx.output(node, broadcast(node, [y, ctx.input(node, 3)], ctx))


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
    for dim in known[1][2:]:
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
    source = node.inputs[0].name
    ctx.note(Consumer(node, source, 1, features, outputs, weight, 1, group, _pads(node)))


def _record_depthwise(node: gs.Node, ctx: Context, weight: Weight, group: Dim, outputs: Dim) -> None:
    """The channels pass; the multiplier, if there is one, is produced by the axis that holds it."""
    multiplier = Dim(outputs.resolve().factors[len(group.resolve().factors) :])
    transposed = node.op == "ConvTranspose"
    channels = group if transposed else outputs
    produced = (weight.perm[1], multiplier) if transposed else (weight.perm[0], outputs)
    ctx.note(Use("carrier", node, 1, weight.constant, weight.perm[0], channels, part=group))
    ctx.note(Use("producer", node, 1, weight.constant, *produced, part=multiplier))


def _pads(node: gs.Node) -> bool:
    return any(node.attrs.get("pads", ())) or str(node.attrs.get("auto_pad", "NOTSET")) not in ("NOTSET", "VALID")


RULES = {"Conv": conv, "ConvTranspose": conv_transpose}
CONTRIB = {"FusedConv": fused_conv}
