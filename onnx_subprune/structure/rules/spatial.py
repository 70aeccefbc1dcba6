"""Operators that slide over or resample spatial axes and leave the channel axis alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context, NotUnderstood, label
from onnx_subprune.structure.dims import ONE, Dim, fresh, product
from onnx_subprune.structure.extents import Size

__all__ = ["RULES", "slide"]


def slide(
    node: gs.Node, axes: Sequence[Dim], kernel: Sequence[int], ctx: Context, transposed: bool = False
) -> list[Dim]:
    """Return the output axes of a window sliding over `axes`, which are frozen: neighbours along them are mixed."""
    for dim in axes:
        ctx.freeze(dim, node, "slides a window along this axis")
    count = len(axes)
    stride = list(node.attrs.get("strides", [1] * count))
    dilation = list(node.attrs.get("dilations", [1] * count))
    pads = list(node.attrs.get("pads", [0] * 2 * count))
    auto = str(node.attrs.get("auto_pad", "NOTSET"))
    sizes = []
    for i, dim in enumerate(axes):
        window = dilation[i] * (kernel[i] - 1) + 1
        padding = pads[i] + pads[i + count]
        if transposed:
            size = _transposed_size(node, i, dim.size, stride[i], window, padding, auto)
        else:
            size = _slid_size(node, dim.size, stride[i], window, padding, auto)
        sizes.append(fresh(max(size, 1), dynamic=dim.dynamic))
    return sizes


def _slid_size(node: gs.Node, size: int, stride: int, window: int, padding: int, auto: str) -> int:
    if auto.startswith("SAME"):
        return math.ceil(size / stride)
    span = size + (0 if auto == "VALID" else padding) - window
    return (math.ceil(span / stride) if node.attrs.get("ceil_mode") else span // stride) + 1


def _transposed_size(node: gs.Node, i: int, size: int, stride: int, window: int, padding: int, auto: str) -> int:
    if "output_shape" in node.attrs:
        return int(node.attrs["output_shape"][i])
    if auto.startswith("SAME"):
        return size * stride
    extra = node.attrs.get("output_padding", [])
    return stride * (size - 1) + (extra[i] if extra else 0) + window - (0 if auto == "VALID" else padding)


def pool(node: gs.Node, ctx: Context) -> None:
    """MaxPool, AveragePool, LpPool: channels pass."""
    x = ctx.input(node, 0)
    y = (*x[:2], *slide(node, x[2:], node.attrs["kernel_shape"], ctx))
    for index in range(len(node.outputs)):
        ctx.output(node, y, index)
    if len(node.outputs) > 1:
        # MaxPool's second output holds flat positions over the channels as well.
        ctx.freeze(x[1], node, "returns positions that count over the channels")


def global_pool(node: gs.Node, ctx: Context) -> None:
    """One value per channel."""
    x = ctx.input(node, 0)
    for dim in x[2:]:
        ctx.freeze(dim, node, "pools over this axis")
    ctx.output(node, (*x[:2], *(ONE for _ in x[2:])))


def resize(node: gs.Node, ctx: Context) -> None:
    """Resize and Upsample: axes whose scale is 1 pass, the others are resampled."""
    x = ctx.input(node, 0)
    axes = [a % len(x) for a in node.attrs.get("axes", range(len(x)))]
    y = list(x)
    for position, axis in enumerate(axes):
        y[axis] = _resized(node, x[axis], position, len(axes), ctx)
    ctx.output(node, y)


def _resized(node: gs.Node, dim: Dim, position: int, count: int, ctx: Context) -> Dim:
    scales, sizes = _resize_inputs(node, ctx)
    if sizes is not None:
        values = ctx.extent_list(node, sizes)
        extent = values[position]
        if extent == Size(dim) or extent == dim.size:
            ctx.expect_size(node, sizes, position, dim)
            return dim
        ctx.freeze(dim, node, "resamples this axis")
        return fresh(extent, False) if isinstance(extent, int) else fresh(dim.size, True)
    if scales is None or len(scales) != count:
        raise NotUnderstood(f"{label(node)} has scales that are computed from data")
    if scales[position] == 1:
        return dim
    ctx.freeze(dim, node, "resamples this axis")
    return fresh(max(1, int(dim.size * scales[position])), dim.dynamic)


def _resize_inputs(node: gs.Node, ctx: Context) -> tuple[list[float] | None, int | None]:
    if ctx.has(node, 3):
        return None, 3
    if "scales" in node.attrs:
        return [float(s) for s in node.attrs["scales"]], None
    index = 2 if node.op == "Resize" and len(node.inputs) > 2 else 1
    tensor = node.inputs[index] if ctx.has(node, index) else None
    return ([float(s) for s in np.ravel(tensor.values)] if isinstance(tensor, gs.Constant) else None), None


def depth_to_space(node: gs.Node, ctx: Context) -> None:
    """[N, C*b*b, H, W] -> [N, C, H*b, W*b]: channels C may shrink, the b x b block may not."""
    n, c, h, w = ctx.input(node, 0)
    block = int(node.attrs["blocksize"])
    rows, columns, channels = fresh(block), fresh(block), fresh(c.size // block**2)
    order = (channels, rows, columns) if str(node.attrs.get("mode", "DCR")) == "CRD" else (rows, columns, channels)
    ctx.unify(c, product(*order), node)
    for dim in (rows, columns):
        ctx.freeze(dim, node, "moves this axis into space")
    ctx.output(node, (n, channels, product(h, rows), product(w, columns)))


def space_to_depth(node: gs.Node, ctx: Context) -> None:
    """[N, C, H*b, W*b] -> [N, b*b*C, H, W]."""
    n, c, h, w = ctx.input(node, 0)
    block = int(node.attrs["blocksize"])
    blocks = []
    for dim in (h, w):
        ctx.freeze(dim, node, "moves this axis into the channels")
        inner = fresh(block)
        ctx.freeze(inner, node, "moves this axis into the channels")
        blocks.append(inner)
    y = [fresh(max(1, dim.size // block), dim.dynamic) for dim in (h, w)]
    ctx.output(node, (n, product(*blocks, c), *y))


RULES = {
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), global_pool),
    **dict.fromkeys(("Resize", "Upsample"), resize),
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
