"""Operators over space that the steps on maps do not use: other pools, sampling, regions, shapes made from nothing."""

from __future__ import annotations

import random

import numpy as np
from onnx import helper

from generator.network import MS, WIDEST, Network


def pooled(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    if min(h, w) < 2 or (dice.random() < 0.3 and net.opset < 22):
        net.keep(net.add("GlobalLpPool" if net.opset < 22 else "GlobalMaxPool", [net.positive(x)], (n, c, 1, 1)))
        return
    shape = (n, c, h - 1, w - 1)
    op = dice.choice(["LpPool", "AveragePool", "MaxPool"])
    net.keep(net.add(op, [net.positive(x)], shape, kernel_shape=[2, 2]))


def reduced(net: Network, dice: random.Random) -> None:
    """The reductions that the steps on maps leave out."""
    x, shape = net.pick(dice)
    axes = dice.choice([[2], [3], [2, 3], [1]])
    op = dice.choice(["ReduceL1", "ReduceLogSum", "ReduceLogSumExp", "ReduceMin", "ReduceProd", "ReduceSum",
                      "ReduceSumSquare"])  # fmt: skip
    y = net.positive(x) if op == "ReduceLogSum" else net.small(x)
    net.keep(net.add(op, [y], tuple(1 if i in axes else s for i, s in enumerate(shape)), axes=axes))


def resized(net: Network, dice: random.Random) -> None:
    """Resize to sizes, literal or computed, or linearly by scales."""
    x, (n, c, h, w) = net.pick(dice)
    if h * w > 40:
        return
    form = dice.choice(["literal", "computed", "linear"])
    if form == "linear":
        scales = net.const(np.float32([1, 1, 2, 2]))
        net.keep(net.add("Resize", [x, "", scales], (n, c, 2 * h, 2 * w), mode="linear"))
        return
    if form == "literal" and not net.dynamic:
        sizes = net.ints([n, c, h + 1, w])
    else:
        lead = net.add("Slice", [net.add("Shape", [x], (4,)), net.ints([0]), net.ints([2])], (2,))
        sizes = net.add("Concat", [lead, net.ints([h + 1, w])], (4,), axis=0)
    net.keep(net.add("Resize", [x, "", "", sizes], (n, c, h + 1, w), mode="nearest"))


def reflected(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    if min(h, w) < 2:
        return
    pads = net.ints([0, 0, 1, 0, 0, 0, 0, 1])
    net.keep(net.add("Pad", [x, pads], (n, c, h + 1, w + 1), mode=dice.choice(["reflect", "edge"])))


def fused_conv(net: Network, dice: random.Random) -> None:
    """FusedConv: an activation, and at times a sum before it."""
    x, (n, c, h, w) = net.pick(dice)
    added = dice.random() < 0.5
    group = c if dice.random() < 0.3 else 1
    out = c if added or group > 1 else dice.randint(2, 8)
    inputs = [x, net.weight((out, c // group, 3, 3), dice, 9 * c // group)]
    inputs += [net.weight((out,), dice)] if added or dice.random() < 0.5 else []
    inputs += [x] if added else []
    y = net.add("FusedConv", inputs, (n, out, h, w), pads=[1] * 4, group=group, activation="Relu", domain=MS)
    net.keep(y)


def sampled(net: Network, dice: random.Random) -> None:
    """GridSample at places that a layer computes, or that AffineGrid makes of a literal turn."""
    x, (n, c, h, w) = net.pick(dice)
    if net.unknown == "NHW":
        return
    if net.opset >= 20 and dice.random() < 0.5:
        batch = net.add("Slice", [net.add("Shape", [x], (4,)), net.ints([0]), net.ints([1])], (1,))
        turn = net.const(np.float32([[[0.8, 0.3, 0.1], [-0.3, 0.8, 0.0]]]))
        lead = net.add("Concat", [batch, net.ints([2, 3])], (3,), axis=0)
        theta = net.add("Expand", [turn, lead], (n, 2, 3))
        size = net.add("Concat", [batch, net.ints([c, 4, 5])], (4,), axis=0)
        grid = net.add("AffineGrid", [theta, size], (n, 4, 5, 2))
        shape = (n, c, 4, 5)
    else:
        places = net.add("Conv", [x, net.weight((2, c, 1, 1), dice, c)], (n, 2, h, w))
        grid = net.add("Transpose", [net.small(places)], (n, h, w, 2), perm=[0, 2, 3, 1])
        shape = (n, c, h, w)
    mode = "bilinear" if net.opset < 20 else "linear"
    net.keep(net.add("GridSample", [x, grid], shape, mode=mode, padding_mode="border", align_corners=1))


def regions(net: Network, dice: random.Random) -> None:
    """One region of the first sample, read as an image and added to all."""
    x, (n, c, h, w) = net.pick(dice)
    if min(h, w) < 3 or net.unknown == "NHW" or net.opset >= 22:  # ONNX Runtime has no kernels
        return
    if dice.random() < 0.5:
        boxes, owner = net.const(np.float32([[0, 0, 2, 2]])), net.const(np.array([0], np.int64))
        part = net.add("RoiAlign", [x, boxes, owner], (1, c, 2, 2), output_height=2, output_width=2, sampling_ratio=2)
    else:
        boxes = net.const(np.float32([[0, 0, 0, 2, 2]]))
        part = net.add("MaxRoiPool", [x, boxes], (1, c, 2, 2), pooled_shape=[2, 2])
    mean = net.add("ReduceMean", [part], (1, c, 1, 1), axes=[2, 3])
    net.keep(net.add("Add", [x, mean], (n, c, h, w)))


def unfolded(net: Network, dice: random.Random) -> None:
    """Col2Im: columns of 2 x 2 blocks become an image."""
    x, (n, c, h, w) = net.pick(dice)
    if c % 4 or h * w != 36 or net.opset < 18 or net.unknown == "NHW":
        return
    columns = net.add("Reshape", [x, net.ints([0, c, 36])], (n, c, 36))
    net.keep(net.add("Col2Im", [columns, net.ints([7, 7]), net.ints([2, 2])], (n, c // 4, 7, 7)))


def made(net: Network, dice: random.Random) -> None:
    """Shapes filled with one number, counted, or with a diagonal; the number of channels may come from a Shape."""
    x, (n, c, h, w) = net.pick(dice)
    form = dice.choice(["filled", "counted", "diagonal"])
    if form == "filled":
        value = helper.make_tensor("v", 1, [1], [0.5])
        whole = net.add("ConstantOfShape", [net.add("Shape", [x], (4,))], (n, c, h, w), value=value)
        if 2 * c <= WIDEST and dice.random() < 0.5:
            net.keep(net.add("Concat", [x, whole], (n, 2 * c, h, w), axis=1))
        else:
            net.keep(net.add("Add", [x, whole], (n, c, h, w)))
    elif form == "counted":
        axis = dice.choice([1, 3])
        size = net.add("Gather", [net.add("Shape", [x], (4,)), net.const(np.int64(axis))], (), axis=0)
        count = net.add("Range", [net.const(np.int64(0)), size, net.const(np.int64(1))], ((c, h, w)[axis - 1],))
        number = net.same("Mul", net.same("Cast", count, to=1), net.const(np.float32(0.1)))
        if axis == 1:
            number = net.add("Reshape", [number, net.ints([-1, 1, 1])], (c, 1, 1))
        net.keep(net.add("Add", [x, number], (n, c, h, w)))
    else:
        eye = net.add("EyeLike", [net.weight((h, w), dice)], (h, w), dtype=1)
        net.keep(net.add("Mul", [x, eye], (n, c, h, w)))


STEPS = (pooled, reduced, resized, reflected, fused_conv, sampled, regions, unfolded, made)
