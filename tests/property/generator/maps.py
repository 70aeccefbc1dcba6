"""Steps over maps: convolutions, what lies between them, and what moves their axes."""

from __future__ import annotations

import random

import numpy as np

from generator.network import WIDEST, Network, divisors


def conv(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    group = dice.choice(divisors(c)) if dice.random() < 0.5 else 1
    out = group * (dice.randint(1, max(1, min(3, 12 // group))) if group > 1 else dice.randint(3, 10))
    k = dice.choice([1, 1, 3])
    stride = dice.choice([1, 1, 2]) if min(h, w) > 2 else 1
    inputs = [x, net.weight((out, c // group, k, k), dice, c // group * k * k)]
    inputs += [net.weight((out,), dice)] if dice.random() < 0.6 else []
    size = [(s + 2 * (k // 2) - k) // stride + 1 for s in (h, w)]
    net.keep(net.add("Conv", inputs, (n, out, *size), group=group, pads=[k // 2] * 4, strides=[stride] * 2))


def conv_transpose(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    if h * w > 40:
        return
    group = dice.choice(divisors(c)) if dice.random() < 0.5 else 1
    each = dice.randint(1, 3) if group > 1 else dice.randint(1, 8)
    inputs = [x, net.weight((c, each, 2, 2), dice, c // group)]
    inputs += [net.weight((group * each,), dice)] if dice.random() < 0.5 else []
    net.keep(net.add("ConvTranspose", inputs, (n, group * each, 2 * h, 2 * w), group=group, strides=[2, 2]))


def normalise(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    parameters = [net.weight((shape[1],), dice, share=False) for _ in range(4)]
    net.weights[parameters[3]] = np.abs(net.weights[parameters[3]]) + np.float32(0.5)
    net.keep(net.add("BatchNormalization", [x, *parameters], shape))


def function(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    net.keep(net.add(dice.choice(["Relu", "Sigmoid", "Tanh", "Neg", "Identity", "Softplus", "Abs"]), [x], shape))


def constant(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    shape = dice.choice([(c, 1, 1), (1, c, 1, 1), (), (c, h, w), (w,), (1, 1, h, w)])
    value = net.weight(shape, dice)
    inputs = [x, value] if dice.random() < 0.5 else [value, x]
    net.keep(net.add(dice.choice(["Add", "Mul", "Sub", "Max"]), inputs, (n, c, h, w)))


def combine(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    other = net.partner(dice, lambda s: len(s) == 4 and all(a in (1, b) for a, b in zip(s, shape, strict=True)))
    if other is not None:
        net.keep(net.add(dice.choice(["Add", "Add", "Mul", "Sub", "Min"]), [x, other], shape))


def residual(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    c = shape[1]
    inner = dice.randint(2, 8)
    a = net.add("Conv", [x, net.weight((inner, c, 1, 1), dice, c)], (shape[0], inner, *shape[2:]))
    b = net.add("Tanh", [a], net.shapes[a])
    d = net.add("Conv", [b, net.weight((c, inner, 1, 1), dice, inner)], shape)
    net.keep(net.add("Add", [x, d], shape))


def excite(net: Network, dice: random.Random) -> None:
    """Squeeze and excitation: a gate per channel, computed from the means."""
    x, shape = net.pick(dice)
    n, c = shape[:2]
    inner = dice.randint(1, 4)
    pooled = net.add("GlobalAveragePool", [x], (n, c, 1, 1))
    low = net.add("Conv", [pooled, net.weight((inner, c, 1, 1), dice, c), net.weight((inner,), dice)], (n, inner, 1, 1))
    bent = net.add("Relu", [low], net.shapes[low])
    high = net.add("Conv", [bent, net.weight((c, inner, 1, 1), dice, inner), net.weight((c,), dice)], (n, c, 1, 1))
    net.keep(net.add("Mul", [x, net.add("Sigmoid", [high], (n, c, 1, 1))], shape))


def paths(net: Network, dice: random.Random) -> None:
    """Several convolutions side by side, joined."""
    x, (n, c, h, w) = net.pick(dice)
    widths = [dice.randint(1, 5) for _ in range(dice.randint(2, 3))]
    pieces = [net.add("Conv", [x, net.weight((o, c, 1, 1), dice, c)], (n, o, h, w)) for o in widths]
    pieces = [net.add("Relu", [p], net.shapes[p]) if dice.random() < 0.5 else p for p in pieces]
    net.keep(net.add("Concat", pieces, (n, sum(widths), h, w), axis=1))


def concat(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    axis = dice.choice([1, 1, 1, 2, 3])
    base = (n, c, h, w)
    other = net.partner(dice, lambda s: all(a == b for i, (a, b) in enumerate(zip(s, base, strict=True)) if i != axis))
    if other is not None:
        shape = tuple(a + (net.shapes[other][i] if i == axis else 0) for i, a in enumerate(base))
        net.keep(net.add("Concat", [x, other], shape, axis=dice.choice([axis, axis - 4])))


def split(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    if c < 2:
        return
    first = net.add
    if c % 2 == 0 and dice.random() < 0.4:
        name = first("Split", [x], (n, c // 2, h, w), outputs=2, axis=1)
        sizes = [c // 2, c // 2]
    else:
        cut = dice.randint(1, c - 1)
        sizes = [cut, c - cut]
        name = first("Split", [x, net.ints(sizes)], (n, cut, h, w), outputs=2, axis=1)
    second = net.nodes[-1].output[1]
    net.shapes[second] = (n, sizes[1], h, w)
    net.keep(name)
    net.keep(second)


def piece(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    axis = dice.choice([1, 1, 1, 2, 3])
    size = shape[axis]
    low = dice.randrange(size)
    high = dice.randint(low + 1, size)
    taken = tuple(high - low if i == axis else s for i, s in enumerate(shape))
    if dice.random() < 0.3:
        indices = [i - size if dice.random() < 0.3 else i for i in range(low, high)]
        net.keep(net.add("Gather", [x, net.ints(indices)], taken, axis=axis))
        return
    start = low - size if dice.random() < 0.3 else low
    end = (
        high
        if high < size and dice.random() < 0.6
        else (high - size if high < size else dice.choice([size, 2**63 - 1]))
    )
    net.keep(net.add("Slice", [x, net.ints([start]), net.ints([end]), net.ints([axis])], taken))


def pad(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    before = [0, dice.randint(0, 2), dice.randint(0, 1), 0]
    after = [0, dice.randint(0, 2), 0, dice.randint(0, 1)]
    grown = tuple(s + a + b for s, a, b in zip(shape, before, after, strict=True))
    net.keep(net.add("Pad", [x, net.ints(before + after)], grown))


def pool(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    if dice.random() < 0.4 or min(h, w) < 2:
        net.keep(net.add(dice.choice(["GlobalAveragePool", "GlobalMaxPool"]), [x], (n, c, 1, 1)))
        return
    shape = (n, c, (h - 2) // 2 + 1, (w - 2) // 2 + 1)
    op = dice.choice(["MaxPool", "AveragePool"])
    net.keep(net.add(op, [x], shape, kernel_shape=[2, 2], strides=[2, 2]))


def reduce(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    axes = dice.choice([[2], [3], [2, 3], [-1], [2], [1]])
    shape = tuple(1 if i in [a % 4 for a in axes] else s for i, s in enumerate((n, c, h, w)))
    net.keep(net.add(dice.choice(["ReduceMean", "ReduceMax", "ReduceL2"]), [x], shape, axes=axes))


def resize(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    if h * w > 40:
        return
    name = f"w{len(net.weights)}"
    net.weights[name] = np.array([1, 1, 2, 1], np.float32)
    net.keep(net.add("Resize", [x, "", name], (n, c, 2 * h, w), mode="nearest"))


def channels_last(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    turned = net.add("Transpose", [x], (n, h, w, c), perm=[0, 2, 3, 1])
    out = dice.randint(2, 8)
    product = net.add("MatMul", [turned, net.weight((c, out), dice, c)], (n, h, w, out))
    if dice.random() < 0.5:
        product = net.add("Add", [product, net.weight((out,), dice)], (n, h, w, out))
    net.keep(net.add("Transpose", [product], (n, out, h, w), perm=[0, 3, 1, 2]))


def mix_positions(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    out = dice.randint(1, 6)
    if dice.random() < 0.5:
        net.keep(net.add("MatMul", [x, net.weight((w, out), dice, w)], (n, c, h, out)))
    else:
        net.keep(net.add("MatMul", [net.weight((out, h), dice, h), x], (n, c, out, w)))


def regroup(net: Network, dice: random.Random) -> None:
    """Split the channels into a grid, turn it, and merge it again; a channel shuffle among them."""
    x, (n, c, h, w) = net.pick(dice)
    a = dice.choice(divisors(c))
    shape = (n, a, c // a, h, w)
    order = dice.choice([[0, 2, 1, 3, 4], [0, 1, 2, 3, 4], [0, 1, 3, 2, 4], [0, 3, 2, 1, 4]])
    grid = net.reshape(x, shape, dice)
    turned_shape = tuple(shape[i] for i in order)
    turned = net.add("Transpose", [grid], turned_shape, perm=order)
    merged = (n, turned_shape[1] * turned_shape[2], *turned_shape[3:])
    if dice.random() < 0.2:
        merged = (n, turned_shape[1], turned_shape[2] * turned_shape[3], turned_shape[4])
    net.keep(net.reshape(turned, merged, dice))


def any_shape(net: Network, dice: random.Random) -> None:
    """Reshape to sizes that may or may not respect the channels."""
    x, (n, c, h, w) = net.pick(dice)
    total = c * h * w
    first = dice.choice(divisors(total))
    second = dice.choice(divisors(total // first))
    if first <= WIDEST:
        net.keep(net.reshape(x, (n, first, second, total // first // second), dice))


def squeeze(net: Network, dice: random.Random) -> None:
    x, (n, c, h, _) = net.pick(dice)
    pooled = net.add("ReduceMean", [x], (n, c, h, 1), axes=[3])
    axes = [] if dice.random() < 0.4 and not net.dynamic and 1 not in (c, h) else [net.ints([3])]
    flat = net.add("Squeeze", [pooled, *axes], (n, c, h))
    net.keep(net.add("Unsqueeze", [flat, net.ints([dice.choice([3, -1])])], (n, c, h, 1)))


def spread(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    mean = net.add("GlobalAveragePool", [x], (n, c, 1, 1))
    form = dice.choice(["shape", "literal", "tile"])
    if form == "shape":
        net.keep(net.add("Expand", [mean, net.add("Shape", [x], (4,))], (n, c, h, w)))
    elif form == "literal":
        net.keep(net.add("Expand", [mean, net.ints([1, dice.choice([1, c]), h, w])], (n, c, h, w)))
    elif 2 * c <= WIDEST:
        net.keep(net.add("Tile", [x, net.ints([1, 2, 1, 1])], (n, 2 * c, h, w)))


def into_space(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    if c % 4 == 0 and h * w <= 40 and dice.random() < 0.6:
        net.keep(net.add("DepthToSpace", [x], (n, c // 4, 2 * h, 2 * w), blocksize=2, mode=dice.choice(["DCR", "CRD"])))
    elif h % 2 == 0 and w % 2 == 0 and 4 * c <= WIDEST:
        net.keep(net.add("SpaceToDepth", [x], (n, 4 * c, h // 2, w // 2), blocksize=2))


def bound(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    low = net.weight((), dice)
    if dice.random() < 0.5:
        net.keep(net.add("Clip", [x, "", low], shape))
    else:
        net.keep(net.add("Where", [net.add("Greater", [x, low], shape), x, low], shape))


def barrier(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    net.keep(net.add("Softmax", [x], shape, axis=dice.choice([1, 2, -1])))


STEPS = (
    conv, conv, conv, conv_transpose, normalise, function, function, constant, combine, combine, residual, residual,
    excite, paths, concat, split, piece, pad, pool, reduce, resize, channels_last, mix_positions, regroup, regroup,
    any_shape, squeeze, spread, into_space, barrier, bound,
)  # fmt: skip
