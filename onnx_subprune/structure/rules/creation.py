"""Operators that make tensors of a given shape: their axes can follow whatever they meet."""

from __future__ import annotations

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context
from onnx_subprune.structure.dims import Dim, fresh
from onnx_subprune.structure.extents import Extent, Size

__all__ = ["RULES"]


def constant_of_shape(node: gs.Node, ctx: Context) -> None:
    """ConstantOfShape: every entry is the same, so any of them may go."""
    dims = [_dim(extent) for extent in ctx.extent_list(node, 0)]
    for i, dim in enumerate(dims):
        ctx.expect_size(node, 0, i, dim)
    ctx.output(node, dims)


def _dim(extent: Extent) -> Dim:
    if isinstance(extent, Size):
        return extent.dim
    return fresh(extent) if isinstance(extent, int) else fresh(1, dynamic=True)


RULES = {"ConstantOfShape": constant_of_shape}
