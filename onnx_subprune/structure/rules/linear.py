"""Linear maps: Conv, ConvTranspose, Gemm, MatMul. Their weights produce one axis and contract another."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Consumer, Context, Contraction, MacTerm, NotUnderstood, Use, Weight, label
from onnx_subprune.structure.dims import ONE, Dim, fresh, product
from onnx_subprune.structure.rules.elementwise import broadcast
from onnx_subprune.structure.rules.spatial import slide

__all__ = ["RULES"]


def conv(node: gs.Node, ctx: Context) -> None:
    """Relate X [N, G*a, ...], W [G*b, a, k...], B [G*b] and Y [N, G*b, ...] for G groups."""
    x = ctx.input(node, 0)
    weight, w = _constant_weight(node, ctx)
    group = _groups(node, w[0].size)
    _channels(w[0], group, node, ctx)
    features = product(group, w[1])
    ctx.unify(x[1], features, node)
    _pass_bias(node, 2, w[0], ctx)
    spatial = slide(node, x[2:], [dim.size for dim in w[2:]], ctx)
    y = (x[0], w[0], *spatial)
    ctx.output(node, y)
    _record(node, ctx, weight, produces=(0, w[0]), contracts=(1, w[1]), group=group)
    ctx.mac_terms.append(MacTerm(node, (*y, w[1], *w[2:])))


def conv_transpose(node: gs.Node, ctx: Context) -> None:
    """Relate X [N, G*a, ...], W [G*a, b, k...], B [G*b] and Y [N, G*b, ...] for G groups."""
    x = ctx.input(node, 0)
    weight, w = _constant_weight(node, ctx)
    group = _groups(node, w[0].size)
    _channels(w[0], group, node, ctx)
    ctx.unify(x[1], w[0], node)
    outputs = product(group, w[1])
    _pass_bias(node, 2, outputs, ctx)
    spatial = slide(node, x[2:], [dim.size for dim in w[2:]], ctx, transposed=True)
    ctx.output(node, (x[0], outputs, *spatial))
    _record(node, ctx, weight, produces=(1, w[1]), contracts=(0, w[0]), group=group)
    ctx.mac_terms.append(MacTerm(node, (x[0], w[0], *x[2:], w[1], *w[2:])))


def gemm(node: gs.Node, ctx: Context) -> None:
    """Relate A' [M, K], B' [K, N], C and Y [M, N], where ' is the transposition asked for."""
    known = [ctx.weight(node, 0), ctx.weight(node, 1)]
    if known[0] is not None or known[1] is None:
        raise NotUnderstood(f"{label(node)} has no constant as its second input")
    a = ctx.input(node, 0)
    rows, inner = (a[1], a[0]) if node.attrs.get("transA") else (a[0], a[1])
    weight, b = known[1]
    k, n = (1, 0) if node.attrs.get("transB") else (0, 1)
    ctx.unify(inner, b[k], node)
    y = (rows, b[n])
    if ctx.has(node, 2):
        broadcast(node, [ctx.input(node, 2), y], ctx)
    ctx.output(node, y)
    axis = 0 if node.attrs.get("transA") else 1
    _record(node, ctx, weight, produces=(n, b[n]), contracts=(k, b[k]), index=1, axis=axis)
    ctx.mac_terms.append(MacTerm(node, (rows, b[k], b[n])))


def matmul(node: gs.Node, ctx: Context) -> None:
    """Relate A [..., M, K], B [..., K, N] and Y [..., M, N]; either side may be a constant of rank 2."""
    left, right = ctx.weight(node, 0), ctx.weight(node, 1)
    if right is not None and left is None and len(right[1]) == 2:
        _matmul_constant(node, ctx, right, 1)
    elif left is not None and right is None and len(left[1]) == 2:
        _matmul_constant(node, ctx, left, 0)
    else:
        _matmul_activations(node, ctx)


def _matmul_constant(node: gs.Node, ctx: Context, known: tuple[Weight, tuple[Dim, ...]], index: int) -> None:
    weight, w = known
    x = ctx.input(node, 1 - index)
    if len(x) < 2:
        raise NotUnderstood(f"{label(node)} multiplies a vector")
    contracted, produced = (0, 1) if index == 1 else (1, 0)
    axis = len(x) - 1 if index == 1 else len(x) - 2
    ctx.unify(x[axis], w[contracted], node)
    y = list(x)
    y[axis] = w[produced]
    ctx.output(node, y)
    _record(
        node,
        ctx,
        weight,
        produces=(produced, w[produced]),
        contracts=(contracted, w[contracted]),
        index=index,
        axis=axis,
    )
    ctx.mac_terms.append(MacTerm(node, (*x, w[produced])))


def _matmul_activations(node: gs.Node, ctx: Context) -> None:
    a, b = ctx.input(node, 0), ctx.input(node, 1)
    if len(a) < 2 or len(b) < 2:
        raise NotUnderstood(f"{label(node)} multiplies a vector")
    batch = broadcast(node, [a[:-2], b[:-2]], ctx) if max(len(a), len(b)) > 2 else ()
    if any(ctx.weight(node, index) is not None for index in (0, 1)):
        for dim in (a[-1], b[-2]):
            ctx.freeze(dim, node, "contracts this axis with a stack of constants")
    ctx.unify(a[-1], b[-2], node)
    sides = ((node.inputs[0].name, len(a) - 1), (node.inputs[1].name, len(b) - 2))
    ctx.contractions.append(Contraction(node, sides, a[-1]))
    y = (*batch, a[-2], b[-1])
    ctx.output(node, y)
    ctx.mac_terms.append(MacTerm(node, (*y, a[-1])))


def _constant_weight(node: gs.Node, ctx: Context) -> tuple[Weight, tuple[Dim, ...]]:
    known = ctx.weight(node, 1)
    if known is None:
        raise NotUnderstood(f"{label(node)} has a weight that is computed")
    for dim in known[1][2:]:
        ctx.freeze(dim, node, "slides this axis as its kernel")
    return known


def _groups(node: gs.Node, channels: int) -> Dim:
    count = int(node.attrs.get("group", 1))
    if count > 1 and channels % count:
        raise NotUnderstood(f"{label(node)} has {count} groups over {channels} channels")
    return fresh(count)


def _channels(axis: Dim, group: Dim, node: gs.Node, ctx: Context) -> None:
    """Write the weight's first axis as group x channels per group, and keep the attribute `group` in step."""
    if group.factors:
        ctx.unify(axis, product(group, fresh(axis.size // group.size)), node)
        ctx.expect_size(node, "group", None, group)


def _pass_bias(node: gs.Node, index: int, channels: Dim, ctx: Context) -> None:
    if ctx.has(node, index):
        (bias,) = ctx.input(node, index)
        ctx.unify(bias, channels, node)


def _record(
    node: gs.Node,
    ctx: Context,
    weight: Weight,
    *,
    produces: tuple[int, Dim],
    contracts: tuple[int, Dim],
    group: Dim = ONE,
    index: int = 1,
    axis: int = 1,
) -> None:
    """Record what the axes of a weight are; a depthwise weight contracts nothing and only carries its channels."""
    (written, made), (read, contracted) = produces, contracts
    transposed = node.op == "ConvTranspose"
    features = contracted if transposed else product(group, contracted)
    outputs = product(group, made) if transposed else made
    if group.factors and features.size == group.size:
        _record_depthwise(node, ctx, weight, group, outputs)
        return
    ctx.use("producer", node, index, weight.constant, [(weight.perm[written], made)])
    ctx.use("consumer", node, index, weight.constant, [(weight.perm[read], contracted)])
    source = node.inputs[1 - index].name
    ctx.consumers.append(Consumer(node, source, axis, features, outputs, weight, index, group, _pads(node)))


def _record_depthwise(node: gs.Node, ctx: Context, weight: Weight, group: Dim, outputs: Dim) -> None:
    """The channels pass; the multiplier, if there is one, is produced by the axis that holds it."""
    multiplier = Dim(outputs.resolve().factors[len(group.resolve().factors) :])
    transposed = node.op == "ConvTranspose"
    channels = group if transposed else outputs
    made = (weight.perm[1], multiplier) if transposed else (weight.perm[0], outputs)
    ctx.uses.append(Use("carrier", node, 1, weight.constant, weight.perm[0], channels, part=group))
    ctx.uses.append(Use("producer", node, 1, weight.constant, *made, part=multiplier))


def _pads(node: gs.Node) -> bool:
    return any(node.attrs.get("pads", ())) or str(node.attrs.get("auto_pad", "NOTSET")) not in ("NOTSET", "VALID")


RULES = {"Conv": conv, "ConvTranspose": conv_transpose, "Gemm": gemm, "MatMul": matmul}
