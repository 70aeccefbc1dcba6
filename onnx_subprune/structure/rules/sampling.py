"""Operators that resample space at computed places: channels pass, space is frozen."""

from __future__ import annotations

import math

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import evaluate, fixed, fresh, product
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import label

__all__ = ["CONTRIB", "RULES"]


def grid_sample(node: gs.Node, ctx: Context) -> None:
    """Relate X [N, C, in..], the grid [N, out.., rank] and Y [N, C, out..]."""
    x, grid = ctx.input(node, 0), ctx.input(node, 1)
    ctx.same_rank(node, x, grid)
    if x[0].resolve() != grid[0].resolve():
        ctx.unify(x[0], grid[0], node)
    for dim in (*x[2:], grid[-1]):
        ctx.freeze(dim, node, "samples at places along this axis")
    ctx.output(node, (*x[:2], *grid[1:-1]))


def affine_grid(node: gs.Node, ctx: Context) -> None:
    """Make the grid [N, out.., rank] of a transform theta [N, rank, rank + 1]; the sizes wanted are N, C, out.."""
    theta = ctx.input(node, 0, rank=3)
    for dim in theta:
        ctx.freeze(dim, node, "computes places from this axis")
    wanted = ctx.extent_list(node, 1)
    ctx.pin(wanted, node)
    space = [ctx.computed_axis(node, evaluate(size, {}), dynamic=fixed(size) is None) for size in wanted[2:]]
    ctx.output(node, (theta[0], *space, ctx.computed_axis(node, theta[1].size)))


def regions(node: gs.Node, ctx: Context) -> None:
    """RoiAlign, MaxRoiPool: X [N, C, H, W] and R regions give [R, C, h, w]."""
    x, rois = ctx.input(node, 0, rank=4), ctx.input(node, 1, rank=2)
    if ctx.has(node, 2):
        (samples,) = ctx.input(node, 2, rank=1)
        if samples.resolve() != rois[0].resolve():
            ctx.unify(rois[0], samples, node)
    for dim in (x[0], *x[2:], rois[1]):
        ctx.freeze(dim, node, "looks regions up along this axis")
    sizes = node.attrs.get("pooled_shape") or [node.attrs.get(f"output_{side}", 1) for side in ("height", "width")]
    ctx.output(node, (rois[0], x[1], *(ctx.computed_axis(node, int(size)) for size in sizes)))


def crops(node: gs.Node, ctx: Context) -> None:
    """CropAndResize: X [N, C, H, W], R regions, each with the sample it is of, and a size give [R, C, h, w]."""
    x, rois, samples = ctx.input(node, 0, rank=4), ctx.input(node, 1, rank=2), ctx.input(node, 2, rank=1)
    if samples[0].resolve() != rois[0].resolve():
        ctx.unify(rois[0], samples[0], node)
    for dim in (x[0], *x[2:], rois[1]):
        ctx.freeze(dim, node, "looks regions up along this axis")
    sizes = ctx.ints(node, 3)
    if len(sizes) != len(x) - 2:
        raise NotUnderstood(f"{label(node)} gives {len(sizes)} sizes for 2 axes")
    ctx.output(node, (rois[0], x[1], *(ctx.computed_axis(node, size) for size in sizes)))


def column_to_image(node: gs.Node, ctx: Context) -> None:
    """Col2Im: [N, C * block, L] -> [N, C, image..]; channels pass, the entries of a block and their places do not."""
    n, columns, places = ctx.input(node, 0, rank=3)
    image, block = ctx.ints(node, 1), ctx.ints(node, 2)
    entries = math.prod(block)
    if entries < 1 or columns.size % entries:
        raise NotUnderstood(f"{label(node)} cuts {columns.size} channels to blocks of {block}")
    channels, inner = fresh(columns.size // entries), fresh(entries)
    ctx.unify(columns, product(channels, inner), node)
    for dim in (inner, places):
        ctx.freeze(dim, node, "lays this axis out in space")
    ctx.output(node, (n, channels, *(ctx.computed_axis(node, size) for size in image)))


RULES = {
    "GridSample": grid_sample,
    "AffineGrid": affine_grid,
    **dict.fromkeys(("RoiAlign", "MaxRoiPool"), regions),
    "Col2Im": column_to_image,
}
CONTRIB = {"CropAndResize": crops, "GridSample": grid_sample}
