"""Rarer operators of ONNX and ONNX Runtime: reading at computed places, spectra, gates, other forms of common ones."""

from __future__ import annotations

import random

import numpy as np

from generator.elementwise import exact
from generator.network import MS, Network


def deformed(net: Network, dice: random.Random) -> None:
    """DeformConv whose offsets, and at times a mask, a Conv computes."""
    x, (n, c, h, w) = net.pick(dice)
    if net.opset < 19:
        return
    places = net.add("Conv", [x, net.weight((18, c, 3, 3), dice, 9 * c)], (n, 18, h, w), pads=[1] * 4)
    group = 2 if c % 2 == 0 and dice.random() < 0.4 else 1
    out = group * dice.randint(1, 4)
    inputs = [x, net.weight((out, c // group, 3, 3), dice, 9 * c // group), net.small(places)]
    inputs += [net.weight((out,), dice)] if dice.random() < 0.5 else [""]
    if dice.random() < 0.5:
        mask = net.add("Conv", [x, net.weight((9, c, 1, 1), dice, c)], (n, 9, h, w))
        inputs.append(net.same("Sigmoid", mask))
    net.keep(net.add("DeformConv", inputs, (n, out, h, w), pads=[1] * 4, group=group))


def unpooled(net: Network, dice: random.Random) -> None:
    """MaxUnpool at positions of a MaxPool over what no sum lies before."""
    x, (n, c, h, w) = net.pick(dice)
    if h % 2 or w % 2 or net.unknown == "NHW":
        return
    e, _ = exact(net, dice, (n, c, h, w))
    small = (n, c, h // 2, w // 2)
    whole = net.add("Mul", [e, net.weight((h, w), dice)], (n, c, h, w))
    twos = {"kernel_shape": [2, 2], "strides": [2, 2]}
    net.add("MaxPool", [whole], small, outputs=2, **twos)
    positions = net.last(1, small)
    values = net.add("AveragePool", [x], small, **twos)
    net.keep(net.add("MaxUnpool", [values, positions], (n, c, h, w), **twos))


def centred(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    if net.opset >= 18:
        sizes = net.ints([h + 1, max(1, w - 1)])
        net.keep(net.add("CenterCropPad", [x, sizes], (n, c, h + 1, max(1, w - 1)), axes=[2, 3]))


def spectrum(net: Network, dice: random.Random) -> None:
    """The mean of real and imaginary parts of a transform over lines."""
    x, (n, c, h, w) = net.pick(dice)
    one_sided = dice.choice([0, 1])
    real = net.add("Unsqueeze", [x, net.ints([4])], (n, c, h, w, 1))
    lines = h // 2 + 1 if one_sided else h
    axis, more = ([], {"axis": 2}) if net.opset < 20 else (["", net.const(np.int64(2))], {})
    both = net.add("DFT", [real, *axis], (n, c, lines, w, 2), onesided=one_sided, **more)
    net.keep(net.add("ReduceMean", [both], (n, c, lines, w), axes=[4], keepdims=0))


def written(net: Network, dice: random.Random) -> None:
    """TensorScatter of the mean of all rows to the first place."""
    x, (n, s, c) = net.pick_rows(dice)
    if net.opset >= 24:
        mean = net.add("ReduceMean", [x], (n, 1, c), axes=[1])
        net.keep(net.add("TensorScatter", [x, mean], (n, s, c)))


def other_forms(net: Network, dice: random.Random) -> None:
    """Operators of ONNX that ONNX Runtime has a form of its own of, from before ONNX had them."""
    x, (n, c, h, w) = net.pick(dice)
    form = dice.choice(["Pad", "ExpandDims", "Trilu", "GatherND", "GridSample", "CropAndResize"])
    if form == "Pad":
        pads = [net.ints([0, 0, 1, 0, 0, 0, 0, 1]), net.const(np.float32([0]))]
        net.keep(net.add("Pad", [x, *pads], (n, c, h + 1, w + 1), domain=MS))
    elif form == "ExpandDims":
        wide = net.add("ExpandDims", [x, net.const(np.array(2, np.int32))], (n, c, 1, h, w), domain=MS)
        net.keep(net.add("Squeeze", [wide, net.ints([2])], (n, c, h, w)))
    elif form == "Trilu":
        net.keep(net.same("Trilu", x, domain=MS))
    elif form == "GatherND":
        front = net.add("Transpose", [x], (h, w, n, c), perm=[2, 3, 0, 1])
        taken = net.add("GatherND", [front, net.ints([[0, 0], [h - 1, w - 1]])], (2, n, c), domain=MS)  # type: ignore[list-item]
        net.keep(net.add("Unsqueeze", [net.add("Transpose", [taken], (n, c, 2), perm=[1, 2, 0]), net.ints([3])],
                         (n, c, 2, 1)))  # fmt: skip
    elif net.unknown != "NHW":
        places = net.add("Conv", [x, net.weight((2, c, 1, 1), dice, c)], (n, 2, h, w))
        if form == "GridSample":
            grid = net.add("Transpose", [net.small(places)], (n, h, w, 2), perm=[0, 2, 3, 1])
            net.keep(net.add("GridSample", [x, grid], (n, c, h, w), padding_mode="border", domain=MS))
        else:
            boxes = [net.const(np.float32([[0.1, 0, 0.9, 0.8]])), net.const(np.array([0], np.int32))]
            part = net.add("CropAndResize", [x, *boxes, net.const(np.array([2, 2], np.int32))], (1, c, 2, 2), domain=MS)
            mean = net.add("ReduceMean", [part], (1, c, 1, 1), axes=[2, 3])
            net.keep(net.add("Add", [x, mean], (n, c, h, w)))


def gates(net: Network, dice: random.Random) -> None:
    """Gates of recent language models: elementwise, for every head, or in a norm of heads."""
    x, (n, s, c) = net.pick_rows(dice)
    form = dice.choice(["ScaledSiLU", "GatedAdd", "LinearAttentionGate", "GatedRMSNorm"])
    if form == "ScaledSiLU":
        net.keep(net.same(form, x, alpha=0.7, domain=MS))
    elif form == "GatedAdd":
        net.keep(net.same(form, x, net.same("Tanh", x), net.project(x, 1, dice), domain=MS))
    elif form == "LinearAttentionGate":
        heads = dice.randint(2, 4)
        inputs = [net.project(x, heads, dice), net.weight((heads,), dice), net.weight((heads,), dice)]
        net.add(form, [*inputs, net.project(x, heads, dice)], (n, s, heads), outputs=2, domain=MS)
        rate = net.last(1, (n, s, heads))
        net.keep(net.same("Mul", net.same("Tanh", str(net.nodes[-1].output[0])), rate))
    else:
        heads, size = dice.choice([(2, 3), (3, 2)])
        parts = [net.project(x, heads * size, dice) for _ in range(2)]
        y = net.same(form, parts[0], net.weight((size,), dice), parts[1], epsilon=0.05, domain=MS)
        net.keep(net.project(y, c, dice))


def causal(net: Network, dice: random.Random) -> None:
    """A Conv over earlier rows, each channel by itself; windows of rows."""
    x, (n, s, c) = net.pick_rows(dice)
    if dice.random() < 0.5:
        inputs = [x, net.weight((c, 1, 3), dice, 3), net.weight((c,), dice)]
        net.keep(net.add("CausalConvWithState", inputs, (n, s, c), 2, channels_last=1, activation="silu", domain=MS))
    elif s >= 3 and net.unknown != "NHW":
        windows = net.add("UnfoldTensor", [x], (n, s - 2, c, 3), dim=1, size=3, step=1, domain=MS)
        net.keep(net.add("ReduceMean", [windows], (n, s - 2, c), axes=[3], keepdims=0))


def product(net: Network, dice: random.Random) -> None:
    x, (n, s, c) = net.pick_rows(dice)
    out, turned = dice.randint(2, 8), dice.choice([0, 1])
    weight = net.weight((out, c) if turned else (c, out), dice, c)
    net.keep(net.add("TransposeMatMul", [x, weight], (n, s, out), transB=turned, alpha=0.5, domain=MS))


STEPS = (deformed, unpooled, centred, spectrum, written, other_forms, gates, causal, product)
