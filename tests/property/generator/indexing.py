"""Operators that address entries by positions, literal or computed, and scans along an axis."""

from __future__ import annotations

import random

import numpy as np
from onnx import TensorProto

from generator.elementwise import exact
from generator.network import Network, divisors


def gather_nd(net: Network, dice: random.Random) -> None:
    """GatherND over the channels, turned to the front, or over positions of each sample."""
    x, (n, c, h, w) = net.pick(dice)
    if dice.random() < 0.5:
        count = dice.randint(1, c)
        start = dice.randint(0, c - count)
        places = list(range(start, start + count)) if dice.random() < 0.7 else [dice.randrange(c) for _ in range(count)]
        front = net.add("Transpose", [x], (c, n, h, w), perm=[1, 0, 2, 3])
        taken = net.add("GatherND", [front, net.ints(places_column(places))], (count, n, h, w))
        net.keep(net.add("Transpose", [taken], (n, count, h, w), perm=[1, 0, 2, 3]))
        return
    last = net.add("Transpose", [x], (h, w, n, c), perm=[2, 3, 0, 1])
    places = net.const(np.array([[0, 0], [h - 1, w - 1]], np.int64))
    taken = net.add("GatherND", [last, places], (2, n, c))
    turned = net.add("Transpose", [taken], (n, c, 2), perm=[1, 2, 0])
    net.keep(net.add("Unsqueeze", [turned, net.ints([3])], (n, c, 2, 1)))


def places_column(places: list[int]) -> list[list[int]]:
    return [[place] for place in places]


def picked(net: Network, dice: random.Random) -> None:
    """Gather of channels in any order, of one channel, or of computed places."""
    x, (n, c, h, w) = net.pick(dice)
    form = dice.choice(["runs", "any", "one", "repeat", "grid", "computed"])
    if form == "one":
        plane = net.add("Gather", [x, net.const(np.int64(dice.randrange(c)))], (n, h, w), axis=1)
        net.keep(net.add("Unsqueeze", [plane, net.ints([1])], (n, 1, h, w)))
        return
    if form == "computed":
        order = net.add("TopK", [net.weight((c,), dice, share=False), net.ints([c])], (c,), outputs=2)
        _ = order
        net.keep(net.add("Gather", [x, net.last(1, (c,))], (n, c, h, w), axis=1))
        return
    if form == "runs":
        cut = dice.randint(0, c)
        places = [*range(cut, c), *range(cut)]
    elif form == "grid":
        groups = dice.choice(divisors(c))
        grid = np.arange(c).reshape(groups, -1)
        places = dice.choice([grid.T.ravel(), grid.T[0], np.repeat(grid.T.ravel(), 2)]).tolist()
    elif form == "repeat":
        places = dice.choice([sorted([*range(c)] * 2), [*range(c)] * 2])
    else:
        places = [dice.randrange(c) for _ in range(dice.randint(1, c))]
    net.keep(net.add("Gather", [x, net.ints(places)], (n, len(places), h, w), axis=1))


def _places(net: Network, shape: tuple[int, ...], axis: int, count: int, dice: random.Random) -> str:
    """Return literal positions along an axis, without repetition, and all of the other axes."""
    order = list(range(shape[axis]))
    dice.shuffle(order)
    view = [1] * len(shape)
    view[axis] = count
    whole = [count if i == axis else s for i, s in enumerate(shape)]
    grid = np.broadcast_to(np.array(order[:count], np.int64).reshape(view), whole)
    literal = net.const(np.ascontiguousarray(grid[:1]))
    if not net.dynamic:
        return net.const(np.ascontiguousarray(grid))
    batch = net.add("Slice", [net.add("Shape", ["x"], (4,)), net.ints([0]), net.ints([1])], (1,))
    target = net.add("Concat", [batch, net.ints(whole[1:])], (len(shape),), axis=0)
    return net.add("Expand", [literal, target], tuple(whole))


def elements(net: Network, dice: random.Random) -> None:
    """GatherElements and ScatterElements along one axis."""
    if net.unknown == "NHW":
        return
    x, shape = net.pick(dice)
    axis = dice.choice([1, 2, 3])
    count = dice.randint(1, shape[axis])
    whole = tuple(count if i == axis else s for i, s in enumerate(shape))
    places = _places(net, shape, axis, count, dice)
    picked_ = net.add("GatherElements", [x, places], whole, axis=axis)
    if dice.random() < 0.5:
        net.keep(picked_)
        return
    net.keep(net.add("ScatterElements", [x, places, net.same("Tanh", picked_)], shape, axis=axis))


def overwritten(net: Network, dice: random.Random) -> None:
    """ScatterND over channels in front, by constants or by what was there."""
    x, (n, c, h, w) = net.pick(dice)
    front = net.add("Transpose", [x], (c, n, h, w), perm=[1, 0, 2, 3])
    count = dice.randint(1, c)
    places = net.ints(places_column(dice.sample(range(c), count)))
    updates = net.add("GatherND", [front, places], (count, n, h, w))
    result = net.same("ScatterND", front, places, net.same("Tanh", updates))
    net.keep(net.add("Transpose", [result], (n, c, h, w), perm=[1, 0, 2, 3]))


def scan(net: Network, dice: random.Random) -> None:
    """CumSum, TopK, Trilu, ReverseSequence over rows."""
    x, (n, s, c) = net.pick_rows(dice)
    form = dice.choice(["sum", "top", "triangle", "reverse"])
    if form == "sum":
        y = net.same("Mul", x, net.const(np.float32(0.3)))
        net.keep(net.same("CumSum", y, net.const(np.int64(dice.choice([1, 2])))))
    elif form == "top":
        axis = dice.choice([1, 2])
        if net.unknown == "NHW" and axis == 1:
            return
        count = dice.randint(1, (s, c)[axis - 1])
        shape = (n, count, c) if axis == 1 else (n, s, count)
        net.keep(net.add("TopK", [x, net.ints([count])], shape, outputs=2, axis=axis))
    elif form == "triangle":
        net.keep(net.same("Trilu", x, net.const(np.int64(0)), upper=dice.choice([0, 1])))
    else:
        size = net.add("Slice", [net.add("Shape", [x], (3,)), net.ints([0]), net.ints([1])], (1,))
        lengths = net.add("Expand", [net.ints([min(2, s)]), size], (n,))
        net.keep(net.same("ReverseSequence", x, lengths, batch_axis=0, time_axis=1))


def arguments(net: Network, dice: random.Random) -> None:
    """ArgMax, ArgMin and Hardmax of what no sum was rounded in."""
    x, shape = net.pick(dice)
    e, eshape = exact(net, dice, shape)
    if dice.random() < 0.3:
        net.keep(net.add("Mul", [x, net.same("Hardmax", e, axis=dice.choice([1, 2]))], shape))
        return
    axis = dice.choice([1, 2, 3])
    whole = tuple(1 if i == axis else s for i, s in enumerate(eshape))
    found = net.add(dice.choice(["ArgMax", "ArgMin"]), [e], whole, axis=axis, keepdims=1)
    factor = net.add("Mul", [net.add("Cast", [found], whole, to=TensorProto.FLOAT), net.const(np.float32(0.2))], whole)
    net.keep(net.add("Add", [x, factor], shape))


def compressed(net: Network, dice: random.Random) -> None:
    """Compress and NonZero: how many positions are left is known at run time only."""
    x, (n, c, h, w) = net.pick(dice)
    if net.unknown == "NHW":
        return
    axis = dice.choice([1, 2])
    size = (c, h)[axis - 1]
    if dice.random() < 0.5:
        chosen = [i for i in range(size) if i == 0 or dice.random() < 0.6]
        flags = net.const(np.array([i in chosen for i in range(size)]))
        shape = (n, len(chosen), h, w) if axis == 1 else (n, c, len(chosen), w)
        y = net.add("Compress", [x, flags], shape, axis=axis)
    else:
        marks = net.add("Greater", [net.weight((size,), dice), net.const(np.float32(-9))], (size,))
        places = net.add("Reshape", [net.add("NonZero", [marks], (1, size)), net.ints([-1])], (size,))
        y = net.add("Gather", [x, places], (n, c, h, w), axis=axis)
    if axis == 1:
        # Nothing may tell from here on how many channels there are.
        y = net.add("ReduceMean", [y], (n, 1, *net.shapes[y][2:]), axes=[1])
    net.keep(y)


STEPS = (gather_nd, picked, elements, overwritten, scan, arguments, compressed)
