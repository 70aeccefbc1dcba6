"""Sizes that are computed from Shape: halves, groups, products and broadcasts as exporters write them."""

from __future__ import annotations

import random

import numpy as np
from onnx import numpy_helper

from generator.network import WIDEST, Network, divisors


def _size(net: Network, x: str, axis: int, dice: random.Random) -> str:
    """Return the size of an axis as int64 [1]."""
    shape = net.add("Shape", [x], (len(net.shapes[x]),))
    if dice.random() < 0.5:
        scalar = net.add("Gather", [shape, net.const(np.int64(axis))], (), axis=0)
        return net.add("Unsqueeze", [scalar, net.ints([0])], (1,))
    return net.add("Slice", [shape, net.ints([axis]), net.ints([axis + 1])], (1,))


def halves(net: Network, dice: random.Random) -> None:
    """A gate over two halves whose bounds are the number of channels divided by two."""
    x, (n, c, h, w) = net.pick(dice)
    if c % 2:
        return
    size = _size(net, x, 1, dice)
    middle = net.add("Div", [size, net.ints([2])], (1,))
    if dice.random() < 0.3:
        middle = net.add("Div", [net.add("Add", [size, net.ints([1])], (1,)), net.ints([2])], (1,))
    end = dice.choice([size, net.ints([2**63 - 1]), net.add("Mul", [middle, net.ints([2])], (1,))])
    axes = net.ints([1])
    first = net.add("Slice", [x, net.ints([0]), middle, axes], (n, c // 2, h, w))
    second = net.add("Slice", [x, middle, end, axes], (n, c // 2, h, w))
    net.keep(net.same("Mul", first, net.same("Sigmoid", second)))


def grouped(net: Network, dice: random.Random) -> None:
    """A channel shuffle whose sizes are computed, some of them by division."""
    x, (n, c, h, w) = net.pick(dice)
    groups = dice.choice(divisors(c))
    sizes = [_size(net, x, axis, dice) for axis in range(4)]
    inner = net.add("Div", [sizes[1], net.ints([groups])], (1,))
    parts = [sizes[0], net.ints([groups]), inner, dice.choice([sizes[2], net.ints([-1])]), sizes[3]]
    grid = net.add("Reshape", [x, net.add("Concat", parts, (5,), axis=0)], (n, groups, c // groups, h, w))
    turned = net.add("Transpose", [grid], (n, c // groups, groups, h, w), perm=[0, 2, 1, 3, 4])
    whole = dice.choice([sizes[1], net.add("Mul", [inner, net.ints([groups])], (1,))])
    target = net.add("Concat", [sizes[0], whole, sizes[2], sizes[3]], (4,), axis=0)
    net.keep(net.add("Reshape", [turned, target], (n, c, h, w)))


def merged(net: Network, dice: random.Random) -> None:
    """Channels and lines become one axis, by a product of sizes, and go back at times."""
    x, (n, c, h, w) = net.pick(dice)
    if c * h > WIDEST:
        return
    sizes = [_size(net, x, axis, dice) for axis in range(4)]
    both = net.add("Mul", [sizes[1], sizes[2]], (1,))
    flat = net.add("Reshape", [x, net.add("Concat", [sizes[0], both, sizes[3]], (3,), axis=0)], (n, c * h, w))
    if dice.random() < 0.5:
        y = net.same("Tanh", flat)
        net.keep(net.add("Reshape", [y, net.add("Concat", sizes, (4,), axis=0)], (n, c, h, w)))
    else:
        net.keep(net.add("Unsqueeze", [flat, net.ints([3])], (n, c * h, w, 1)))


def spread(net: Network, dice: random.Random) -> None:
    """Expand as TorchScript writes it: where a size asked for is -1, that of the tensor stays."""
    x, (n, c, h, w) = net.pick(dice)
    mean = net.add("GlobalAveragePool", [x], (n, c, 1, 1))
    sizes = [_size(net, x, axis, dice) for axis in range(4)]
    wanted = net.add("Concat", [sizes[0], dice.choice([sizes[1], net.ints([-1])]), sizes[2], sizes[3]], (4,), axis=0)
    ones = net.add("ConstantOfShape", [net.ints([4])], (4,), value=numpy_helper.from_array(np.array([1], np.int64)))
    minus = net.add("Mul", [ones, net.const(np.int64(-1))], (4,))
    target = net.add("Where", [net.add("Equal", [wanted, minus], (4,)), ones, wanted], (4,))
    net.keep(net.add("Mul", [x, net.add("Expand", [mean, target], (n, c, h, w))], (n, c, h, w)))


def scaled(net: Network, dice: random.Random) -> None:
    """Divided by a number that follows from the width: it stays what it was."""
    x, shape = net.pick(dice)
    size = net.add("Cast", [_size(net, x, dice.choice([1, 2]), dice)], (1,), to=1)
    root = net.add("Sqrt", [size], (1,)) if dice.random() < 0.7 else size
    net.keep(net.add(dice.choice(["Div", "Mul"]), [x, root], shape))


STEPS = (halves, grouped, merged, spread, scaled)
