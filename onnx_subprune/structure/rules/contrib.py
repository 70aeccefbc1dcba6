"""Operators that ONNX Runtime fuses from several: activations with a bias, normalisations with a sum."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import ONE, Dim, fresh, product
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import label
from onnx_subprune.structure.rules.elementwise import broadcast, unary, variadic
from onnx_subprune.structure.rules.normalisation import note_statistics, trailing

__all__ = ["CONTRIB", "RULES"]


def skip_norm(node: gs.Node, ctx: Context) -> None:
    """SkipLayerNormalization: input [B, S, C] or [S, C], skip of that shape or for all of a batch, vectors [C].

    Output 3 is the sum. The kernel takes no other broadcast, so axes whose size is known at run time only are equal.
    """
    x, skip = ctx.input(node, 0), ctx.input(node, 1)
    ctx.same_rank(node, x[-2:], skip[-2:], (ONE, ONE))
    for dim, other in zip(reversed(x[-2:]), reversed(skip[-2:]), strict=True):
        ctx.unify(dim, other, node)
    if len(x) == len(skip) == 3 and not (x[0].dynamic or skip[0].dynamic or skip[0].size == 1):
        ctx.unify(x[0], skip[0], node)
    for index in range(2, len(node.inputs)):
        if ctx.has(node, index):
            ctx.unify(ctx.input(node, index, rank=1)[0], x[-1], node)
    ctx.output(node, x)
    for index in (1, 2):
        ctx.output(node, (*x[:-1], ONE), index)
    ctx.output(node, x, 3)
    if any(tensor.outputs for tensor in node.outputs[1:3]):
        ctx.freeze(x[-1], node, "gives its statistics over this axis back")
    centred = node.op == "SkipLayerNormalization"
    note_statistics(node, ctx, x, [len(x) - 1], centred=centred, scale=2, shift=3 if centred else None)


def embed_norm(node: gs.Node, ctx: Context) -> None:
    """EmbedLayerNormalization: ids [B, S], tables [rows, C], gamma and beta [C]; output 2 is the sum."""
    batch, sequence = ctx.input(node, 0, rank=2)
    tables = [index for index in (2, 3, 4) if ctx.has(node, index)]
    if not tables:
        raise NotUnderstood(f"{label(node)} has no table")
    width = _table(node, tables[0], ctx)
    for index in tables[1:]:
        ctx.unify(_table(node, index, ctx), width, node)
    for index in (5, 6):
        (parameter,) = ctx.input(node, index, rank=1)
        ctx.unify(parameter, width, node)
    axes = (batch, sequence, width)
    ctx.freeze(width, node, "normalises over this axis")
    ctx.output(node, axes)
    ctx.output(node, (batch,), 1)
    ctx.output(node, axes, 2)


def _table(node: gs.Node, index: int, ctx: Context) -> Dim:
    """Return the axis that a table of embeddings makes; its rows are looked up."""
    known = ctx.weight(node, index)
    if known is None:
        rows, width = ctx.input(node, index, rank=2)
    else:
        weight, table = known
        if len(table) != 2:
            raise NotUnderstood(f"{label(node)} has a table of {len(table)} axes, where 2 are expected")
        rows, width = table
        ctx.use("producer", node, index, weight.constant, [(weight.perm[1], width)])
    ctx.freeze(rows, node, "looks positions of this axis up by computed indices")
    return width


def split_gelu(node: gs.Node, ctx: Context) -> None:
    """BiasSplitGelu: of X + bias [.., 2 x C] the first half times the Gelu of the second; both lose the same units."""
    x = ctx.input(node, 0)
    (bias,) = ctx.input(node, 1, rank=1)
    if x[-1].size % 2:
        raise NotUnderstood(f"{label(node)} halves an axis of {x[-1].size}")
    halves, channels = fresh(2), fresh(x[-1].size // 2)
    ctx.freeze(halves, node, "halves this axis")
    ctx.unify(x[-1], product(halves, channels), node)
    ctx.unify(bias, x[-1], node)
    ctx.output(node, (*x[:-1], channels))


def complex_product(node: gs.Node, ctx: Context) -> None:
    """ComplexMul, ComplexMulConj: the last axis holds real and imaginary parts in turn."""
    operands = [ctx.input(node, index) for index in (0, 1)]
    for axes in operands:
        ctx.freeze(axes[-1], node, "multiplies pairs along this axis")
    ctx.output(node, broadcast(node, operands, ctx))


def attention_gate(node: gs.Node, ctx: Context) -> None:
    """LinearAttentionGate: a and b [B, T, H], a bias and a factor for each head; a decay and a rate of [B, T, H]."""
    a = ctx.input(node, 0)
    ctx.output(node, broadcast(node, [a, ctx.input(node, 1), ctx.input(node, 2)], ctx))
    if ctx.has(node, 3):
        ctx.output(node, ctx.input(node, 3), 1)


# ONNX Runtime copies tensors between devices by the last two; it still has the others of ONNX before its version 1.
RULES = {
    "SimplifiedLayerNormalization": trailing,
    **dict.fromkeys(("Affine", "ParametricSoftplus", "ScaledTanh", "MemcpyFromHost", "MemcpyToHost"), unary),
}
CONTRIB = {
    **dict.fromkeys(("Gelu", "QuickGelu", "ScaledSiLU"), unary),
    **dict.fromkeys(("BiasAdd", "BiasGelu", "FastGelu", "GatedAdd"), variadic),
    "BiasSplitGelu": split_gelu,
    **dict.fromkeys(("ComplexMul", "ComplexMulConj"), complex_product),
    "LinearAttentionGate": attention_gate,
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), skip_norm),
    "EmbedLayerNormalization": embed_norm,
}
