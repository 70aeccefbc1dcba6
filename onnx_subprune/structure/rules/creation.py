"""Operators that make tensors of a given shape: their axes can follow whatever they meet."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context
from onnx_subprune.structure.dims import Dim, fresh
from onnx_subprune.structure.extents import Extent, Size, evaluate, fixed

__all__ = ["RULES", "sized"]


def constant_of_shape(node: gs.Node, ctx: Context) -> None:
    """ConstantOfShape: every entry is the same, so any of them may go."""
    extents = ctx.extent_list(node, 0)
    dims = [sized(extent, node, ctx) for extent in extents]
    for i, dim in enumerate(dims):
        ctx.expect_size(node, 0, i, dim)
    ctx.output(node, dims)


def sized(extent: Extent, node: gs.Node, ctx: Context) -> Dim:
    """Return an axis of copies, `extent` of them: that of the tensor which the size was taken from, or a new one."""
    if isinstance(extent, Size):
        return extent.dim
    ctx.pin([extent], node)
    size = fixed(extent)
    return fresh(max(1, evaluate(extent, {})), dynamic=True) if size is None else fresh(size)


RULES = {"ConstantOfShape": constant_of_shape}
