"""Operators that ONNX Runtime fuses from several: activations with a bias, normalisations with a sum."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context
from onnx_subprune.structure.dims import ONE, Dim
from onnx_subprune.structure.rules.elementwise import broadcast, unary, variadic
from onnx_subprune.structure.rules.normalisation import trailing

__all__ = ["CONTRIB", "RULES"]


def skip_norm(node: gs.Node, ctx: Context) -> None:
    """SkipLayerNormalization: the sum of input, skip and bias, normalised over its last axis; output 3 is the sum."""
    given = [index for index in range(len(node.inputs)) if ctx.has(node, index)]
    total = broadcast(node, [ctx.input(node, index) for index in given], ctx)
    _give_normalised(node, ctx, total)
    ctx.output(node, total, 3)


def embed_norm(node: gs.Node, ctx: Context) -> None:
    """EmbedLayerNormalization: ids [B, S], tables [rows, C], gamma and beta [C]; output 2 is the sum."""
    batch, sequence = ctx.input(node, 0)
    tables = [index for index in (2, 3, 4) if ctx.has(node, index)]
    width = _table(node, tables[0], ctx)
    for index in tables[1:]:
        ctx.unify(_table(node, index, ctx), width, node)
    for index in (5, 6):
        (parameter,) = ctx.input(node, index)
        ctx.unify(parameter, width, node)
    axes = (batch, sequence, width)
    _give_normalised(node, ctx, axes)
    ctx.output(node, (batch,), 1)
    ctx.output(node, axes, 2)


def _table(node: gs.Node, index: int, ctx: Context) -> Dim:
    """Return the axis that a table of embeddings makes; its rows are looked up."""
    known = ctx.weight(node, index)
    if known is None:
        rows, width = ctx.input(node, index)
    else:
        weight, (rows, width) = known
        ctx.use("producer", node, index, weight.constant, [(weight.perm[1], width)])
    ctx.freeze(rows, node, "looks positions of this axis up by computed indices")
    return width


def _give_normalised(node: gs.Node, ctx: Context, axes: tuple[Dim, ...]) -> None:
    """Set the first output of a node that normalises its last axis, and the mean and deviation where it gives them."""
    ctx.freeze(axes[-1], node, "normalises over this axis")
    ctx.output(node, axes)
    if node.op.startswith("Skip"):
        for index in (1, 2):
            ctx.output(node, (*axes[:-1], ONE), index)


RULES = {"SimplifiedLayerNormalization": trailing}
CONTRIB = {
    **dict.fromkeys(("Gelu", "QuickGelu"), unary),
    **dict.fromkeys(("BiasGelu", "FastGelu"), variadic),
    **dict.fromkeys(("SkipLayerNormalization", "SkipSimplifiedLayerNormalization"), skip_norm),
    "EmbedLayerNormalization": embed_norm,
}
