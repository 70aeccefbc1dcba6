"""Operators that slide over or resample spatial axes and leave the channel axis alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import ONE, Dim, Size, Unknown, evaluate, fixed, fresh, in_step, product
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import label

__all__ = ["CONTRIB", "RULES", "slide"]


@dataclass(frozen=True)
class _Window:
    """How a kernel slides over one axis; `span` is the kernel's reach with its dilation."""

    span: int
    stride: int
    before: int
    after: int
    auto: str

    @property
    def pointwise(self) -> bool:
        """Whether each position is seen alone."""
        return (self.span, self.before, self.after) == (1, 0, 0)

    def over(self, size: int, ceil: bool) -> int:
        """Return the number of positions on an axis of `size` entries."""
        if self.auto.startswith("SAME"):
            return -(-size // self.stride)
        before, after = (0, 0) if self.auto == "VALID" else (self.before, self.after)
        room = size + before + after - self.span
        count = (-(-room // self.stride) if ceil else room // self.stride) + 1
        # A window may not start in the padding behind the last entry.
        return count - 1 if ceil and (count - 1) * self.stride >= size + before else count

    def under(self, size: int, extra: int) -> int:
        """Return the entries that a transposed kernel makes of `size`."""
        if self.auto.startswith("SAME"):
            return size * self.stride
        padding = 0 if self.auto == "VALID" else self.before + self.after
        return self.stride * (size - 1) + extra + self.span - padding


def slide(
    node: gs.Node, axes: Sequence[Dim], kernel: Sequence[int], ctx: Context, *, transposed: bool = False
) -> list[Dim]:
    """Return the output axes of a window sliding over `axes`, which are frozen where neighbours are mixed."""
    result = []
    for i, (dim, window) in enumerate(zip(axes, _windows(node, kernel), strict=True)):
        size = _slid_size(node, i, dim.size, window, transposed)
        # At stride 1 the size changes by a constant: where that is zero, it is the same axis at any size.
        same = window.stride == 1 and size == dim.size and "output_shape" not in node.attrs
        if not (same and window.pointwise):
            ctx.freeze(dim, node, "slides a window along this axis")
        result.append(dim if same else ctx.computed_axis(node, size, dynamic=dim.dynamic))
    return result


def _slid_size(node: gs.Node, i: int, size: int, window: _Window, transposed: bool) -> int:
    if not transposed:
        return window.over(size, bool(node.attrs.get("ceil_mode", 0)))
    if "output_shape" in node.attrs:
        return int(node.attrs["output_shape"][i])
    padding = node.attrs.get("output_padding")
    return window.under(size, int(padding[i]) if padding else 0)


def _windows(node: gs.Node, kernel: Sequence[int]) -> list[_Window]:
    count = len(kernel)
    lengths = (("strides", count), ("dilations", count), ("pads", 2 * count), ("output_padding", count))
    for name, length in (*lengths, ("output_shape", count)):
        if name in node.attrs and len(node.attrs[name]) != length:
            raise NotUnderstood(f"{label(node)} has {len(node.attrs[name])} '{name}' for {count} axes")
    if min(node.attrs.get("strides", (1,)), default=1) < 1:
        raise NotUnderstood(f"{label(node)} slides by {min(node.attrs['strides'])}")
    strides = node.attrs.get("strides", [1] * count)
    dilations = node.attrs.get("dilations", [1] * count)
    pads = node.attrs.get("pads", [0] * 2 * count)
    auto = str(node.attrs.get("auto_pad", "NOTSET"))
    return [
        _Window(dilations[i] * (kernel[i] - 1) + 1, strides[i], pads[i], pads[i + count], auto) for i in range(count)
    ]


def pool(node: gs.Node, ctx: Context) -> None:
    """MaxPool, AveragePool, LpPool: channels pass."""
    x = ctx.input(node, 0)
    kernel = ctx.required(node, "kernel_shape")
    ctx.same_rank(node, x, (ONE, ONE, *(ONE for _ in kernel)))
    y = (*x[:2], *slide(node, x[2:], kernel, ctx))
    for index in range(len(node.outputs)):
        ctx.output(node, y, index)
    if len(node.outputs) > 1 and node.outputs[1].name:
        # MaxPool's second output holds flat positions, over samples and channels as well; MaxUnpool counts as it does.
        read_back = all(reader.op == "MaxUnpool" for reader in node.outputs[1].outputs)
        for dim in (x[0], *x[2:]) if read_back else x:
            ctx.freeze(dim, node, "returns positions that count over this axis")


def pool_channels_last(node: gs.Node, ctx: Context) -> None:
    """NhwcMaxPool: channels, the last axis, pass."""
    x, kernel = ctx.input(node, 0), ctx.required(node, "kernel_shape")
    ctx.same_rank(node, x, (ONE, ONE, *(ONE for _ in kernel)))
    ctx.output(node, (x[0], *slide(node, x[1:-1], kernel, ctx), x[-1]))


def unfold(node: gs.Node, ctx: Context) -> None:
    """UnfoldTensor: windows of one axis, their entries on a new last one."""
    x = list(ctx.input(node, 0))
    axis = ctx.axis(node, x, -1, "dim")
    size, step = ctx.count(node, "size"), int(node.attrs.get("step", 1))
    ctx.freeze(x[axis], node, "slides a window along this axis")
    count = (x[axis].size - size) // step + 1 if step > 0 else 0
    x[axis] = ctx.computed_axis(node, count, dynamic=x[axis].dynamic)
    ctx.output(node, (*x, ctx.computed_axis(node, size)))


def unpool(node: gs.Node, ctx: Context) -> None:
    """MaxUnpool: X and the positions of a MaxPool [N, C, ...] give a tensor of the shape that the MaxPool read.

    Positions count over all axes. Where channels go from the MaxPool and from here alike, both count without them.
    """
    x, positions = ctx.input(node, 0), ctx.input(node, 1)
    maker = node.inputs[1].inputs[0] if len(node.inputs[1].inputs) == 1 else None
    if maker is None or maker.op != "MaxPool" or len(x) < 2:
        raise NotUnderstood(f"{label(node)} reads positions that no MaxPool gives")
    source = ctx.input(maker, 0)
    ctx.same_rank(node, x, positions, source)
    for dim, other in zip(x, positions, strict=True):
        if dim.resolve() != other.resolve():
            ctx.unify(dim, other, node)
    _expect_source(node, source, ctx)
    ctx.output(node, (*x[:2], *source[2:]))


def _expect_source(node: gs.Node, source: Sequence[Dim], ctx: Context) -> None:
    """Make sure that a MaxUnpool gives the shape that the MaxPool counted over."""
    kernel = ctx.required(node, "kernel_shape")
    if ctx.has(node, 2):
        asked = ctx.extent_list(node, 2)
        same = len(asked) == len(source) and all(
            in_step(extent, Size(dim)) or (not dim.dynamic and extent == dim.size)
            for extent, dim in zip(asked, source, strict=False)
        )
        if same:
            for position, dim in enumerate(source):
                ctx.expect_size(node, 2, position, dim)
    else:
        small = ctx.input(node, 0)[2:]
        sizes = [window.under(dim.size, 0) for dim, window in zip(small, _windows(node, kernel), strict=True)]
        same = not any(dim.dynamic for dim in source[2:]) and sizes == [dim.size for dim in source[2:]]
    if not same:
        raise NotUnderstood(f"{label(node)} spreads positions over another shape than the one that MaxPool read")


def global_pool(node: gs.Node, ctx: Context) -> None:
    """One value per channel."""
    x = ctx.input(node, 0)
    for dim in x[2:]:
        ctx.freeze(dim, node, "pools over this axis")
    ctx.output(node, (*x[:2], *(ONE for _ in x[2:])))


def resize(node: gs.Node, ctx: Context) -> None:
    """Resize and Upsample: axes whose scale is 1 pass, the others are resampled."""
    x = ctx.input(node, 0)
    if str(node.attrs.get("keep_aspect_ratio_policy", "stretch")) != "stretch":
        raise NotUnderstood(f"{label(node)} derives its sizes from an aspect ratio")
    if str(node.attrs.get("coordinate_transformation_mode", "")) == "tf_crop_and_resize":
        raise NotUnderstood(f"{label(node)} crops every axis")
    axes = [ctx.counted(node, x, axis) for axis in node.attrs.get("axes", range(len(x)))]
    y = list(x)
    scales, sizes = _resize_inputs(node, ctx)
    if sizes is None and (scales is None or len(scales) != len(axes)):
        raise NotUnderstood(f"{label(node)} has scales that are computed from data")
    for position, axis in enumerate(axes):
        if sizes is not None:
            y[axis] = _resized_to(node, x[axis], sizes, position, ctx)
        elif scales is not None and scales[position] != 1:
            ctx.freeze(x[axis], node, "resamples this axis")
            y[axis] = ctx.computed_axis(node, int(x[axis].size * scales[position]), dynamic=x[axis].dynamic)
    ctx.output(node, y)


def _resized_to(node: gs.Node, dim: Dim, index: int, position: int, ctx: Context) -> Dim:
    extents = ctx.extent_list(node, index)
    if position >= len(extents):
        raise NotUnderstood(f"{label(node)} gives {len(extents)} sizes, too few for its axes")
    extent = extents[position]
    if in_step(extent, Size(dim)) or (not dim.dynamic and extent == dim.size):
        ctx.expect_size(node, index, position, dim)
        return dim
    ctx.freeze(dim, node, "resamples this axis")
    ctx.pin([extent], node)
    size = fixed(extent)
    if size is None:
        return ctx.computed_axis(node, dim.size if isinstance(extent, Unknown) else evaluate(extent, {}), dynamic=True)
    return ctx.computed_axis(node, size)


def _resize_inputs(node: gs.Node, ctx: Context) -> tuple[list[float] | None, int | None]:
    if ctx.has(node, 3):
        return None, 3
    if "scales" in node.attrs:
        return [float(s) for s in node.attrs["scales"]], None
    index = 2 if node.op == "Resize" and len(node.inputs) > 2 else 1
    scales = node.inputs[index] if ctx.has(node, index) else None
    if scales is None or not ctx.is_constant(scales):
        return None, None
    return [float(s) for s in np.ravel(scales.values)], None


def depth_to_space(node: gs.Node, ctx: Context) -> None:
    """[N, C*b*b, H, W] -> [N, C, H*b, W*b]: channels C may shrink, the b x b block may not."""
    n, c, h, w = ctx.input(node, 0, rank=4)
    block = ctx.count(node, "blocksize")
    rows, columns, channels = fresh(block), fresh(block), fresh(c.size // block**2)
    order = (channels, rows, columns) if str(node.attrs.get("mode", "DCR")) == "CRD" else (rows, columns, channels)
    ctx.unify(c, product(*order), node)
    for dim in (rows, columns):
        ctx.freeze(dim, node, "moves this axis into space")
    ctx.output(node, (n, channels, product(h, rows), product(w, columns)))


def space_to_depth(node: gs.Node, ctx: Context) -> None:
    """[N, C, H*b, W*b] -> [N, b*b*C, H, W]."""
    n, c, h, w = ctx.input(node, 0, rank=4)
    block = ctx.count(node, "blocksize")
    blocks = []
    for dim in (h, w):
        ctx.freeze(dim, node, "moves this axis into the channels")
        inner = fresh(block)
        ctx.freeze(inner, node, "moves this axis into the channels")
        blocks.append(inner)
    y = [ctx.computed_axis(node, dim.size // block, dynamic=dim.dynamic) for dim in (h, w)]
    ctx.output(node, (n, product(*blocks, c), *y))


RULES = {
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool"), pool),
    **dict.fromkeys(("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"), global_pool),
    "MaxUnpool": unpool,
    **dict.fromkeys(("Resize", "Upsample"), resize),
    "DepthToSpace": depth_to_space,
    "SpaceToDepth": space_to_depth,
}
CONTRIB = {"NhwcMaxPool": pool_channels_last, "UnfoldTensor": unfold}
