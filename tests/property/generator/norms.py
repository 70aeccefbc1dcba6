"""Normalisations: as operators, fused with the sum before them, and written out."""

from __future__ import annotations

import random

import numpy as np

from generator.linear import numbers
from generator.network import MS, Network, divisors

EPSILON = 0.01


def _epsilon(net: Network) -> str:
    return net.const(np.float32(EPSILON))


def _stream(net: Network, dice: random.Random) -> str:
    """Return rows to normalise: some there are, or mostly new ones, whose channels nothing has frozen yet."""
    x, _ = net.pick_rows(dice)
    return net.project(x, dice.randint(4, 10), dice) if dice.random() < 0.7 else x


def _read(net: Network, y: str, dice: random.Random) -> None:
    """Keep normalised rows, or mostly what a layer makes of them."""
    net.keep(net.project(y, dice.randint(2, 8), dice) if dice.random() < 0.7 else y)


def layer(net: Network, dice: random.Random) -> None:
    """LayerNormalization, RMSNormalization and ONNX Runtime's name for it."""
    x = _stream(net, dice)
    n, s, c = net.shapes[x]
    op = dice.choice(["LayerNormalization", "SimplifiedLayerNormalization"] + ["RMSNormalization"] * (net.opset >= 23))
    inputs = [x, net.weight((c,), dice)]
    inputs += [net.weight((c,), dice)] if op == "LayerNormalization" and dice.random() < 0.7 else []
    _read(net, net.add(op, inputs, (n, s, c), epsilon=EPSILON, axis=-1), dice)


def sum_and_layer(net: Network, dice: random.Random) -> None:
    """The sum of a stream and a branch, normalised in one operator that may give the sum out, too."""
    x = _stream(net, dice)
    n, s, c = net.shapes[x]
    branch = net.project(net.same("Tanh", net.project(x, dice.randint(2, 6), dice)), c, dice)
    simple = dice.random() < 0.5
    op = "SkipSimplifiedLayerNormalization" if simple else "SkipLayerNormalization"
    inputs = [x, branch, net.weight((c,), dice)]
    inputs += [] if simple else [net.weight((c,), dice)]
    inputs += [net.weight((c,), dice)] if dice.random() < 0.5 else []
    more = dice.random() < 0.5
    y = net.add(op, inputs, (n, s, c), outputs=4 if more else 1, epsilon=EPSILON, domain=MS)
    if more:
        net.nodes[-1].output[1] = net.nodes[-1].output[2] = ""
        net.rows.append(net.last(3, (n, s, c)))
    _read(net, y, dice)


def embedded(net: Network, dice: random.Random) -> None:
    """EmbedLayerNormalization: ids, positions and segments looked up, summed and normalised."""
    n, c = net.shapes["x"][0], dice.randint(3, 8)
    ids, s = numbers(net, dice, 5)
    ids = net.same("Cast", ids, to=6)
    segments = dice.random() < 0.5
    kind = net.same("Mod", ids, net.const(np.int32(2))) if segments else ""
    tables = [net.weight((5, c), dice), net.weight((9, c), dice), net.weight((2, c), dice) if segments else ""]
    inputs = [ids, kind, *tables, net.weight((c,), dice), net.weight((c,), dice)]
    _read(net, net.add("EmbedLayerNormalization", inputs, (n, s, c), outputs=2, epsilon=EPSILON, domain=MS), dice)


def _mean_of_squares(net: Network, d: str, dice: random.Random) -> str:
    n, s, _ = net.shapes[d]
    square = net.same("Pow", d, net.const(np.float32(2))) if dice.random() < 0.5 else net.same("Mul", d, d)
    return net.add("ReduceMean", [square], (n, s, 1), axes=[-1])


def _divided(net: Network, d: str, mean: str, dice: random.Random) -> str:
    total = net.same("Add", mean, _epsilon(net))
    form = dice.choice(["div", "reciprocal", "power"])
    if form == "power":
        return net.same("Mul", d, net.same("Pow", total, net.const(np.float32(-0.5))))
    root = net.same("Sqrt", total)
    return net.same("Div", d, root) if form == "div" else net.same("Mul", d, net.same("Reciprocal", root))


def written_out(net: Network, dice: random.Random) -> None:
    """LayerNorm, RMSNorm and division by a norm, from arithmetic."""
    x = _stream(net, dice)
    n, s, c = net.shapes[x]
    form = dice.choice(["layer", "rms", "l2", "l1"])
    if form == "l2":
        norm = net.add("ReduceL2", [x], (n, s, 1), axes=[-1])
        y = net.same("Div", x, net.same("Max", norm, net.const(np.float32(0.1))))
    elif form == "l1":
        norm = net.add("ReduceL1", [x], (n, s, 1), axes=[-1])
        y = net.same("Div", x, net.same("Add", norm, net.const(np.float32(0.1))))
    else:
        if form == "layer":
            x = net.same("Sub", x, net.add("ReduceMean", [x], (n, s, 1), axes=[-1]))
        y = _divided(net, x, _mean_of_squares(net, x, dice), dice)
    y = net.same("Mul", y, net.weight((c,), dice))
    _read(net, net.same("Add", y, net.weight((c,), dice)) if dice.random() < 0.5 else y, dice)


def norm(net: Network, dice: random.Random) -> None:
    """LpNormalization and MeanVarianceNormalization, whose inputs are kept away from zero."""
    x, shape = net.pick(dice)
    if dice.random() < 0.6:
        axis = dice.choice([1, 1, 2, -1])
        net.keep(net.same("LpNormalization", net.positive(x), axis=axis, p=dice.choice([1, 2])))
        return
    if min(shape[1:]) < 2:
        return
    ramp = net.const(np.linspace(-3, 3, shape[1], dtype=np.float32).reshape(-1, 1, 1))
    net.keep(net.same("MeanVarianceNormalization", net.same("Add", net.small(x), ramp), axes=[1]))


def per_channel(net: Network, dice: random.Random) -> None:
    """InstanceNormalization, alone or as the GroupNorm it stands for, and GroupNormalization itself."""
    x, (n, c, h, w) = net.pick(dice)
    if dice.random() < 0.6:
        width = dice.choice([4, 6, 8])
        x, c = net.add("Conv", [x, net.weight((width, c, 1, 1), dice, c)], (n, width, h, w)), width
    form = dice.choice(["instance", "written", "group"])
    groups = dice.choice(divisors(c))
    if form == "group" and net.opset >= 21:
        inputs = [x, net.weight((c,), dice), net.weight((c,), dice)]
        net.keep(net.same("GroupNormalization", *inputs, num_groups=groups, epsilon=EPSILON))
    elif form == "written":
        grid = net.add("Reshape", [x, net.ints([0, groups, -1])], (n, groups, c // groups * h * w))
        ones, zeros = net.const(np.ones(groups, np.float32)), net.const(np.zeros(groups, np.float32))
        flat = net.same("InstanceNormalization", grid, ones, zeros, epsilon=EPSILON)
        back = net.add("Reshape", [flat, net.add("Shape", [x], (4,))], (n, c, h, w))
        scaled = net.same("Mul", back, net.weight((c, 1, 1), dice))
        net.keep(net.same("Add", scaled, net.weight((c, 1, 1), dice)))
    else:
        inputs = [x, net.weight((c,), dice), net.weight((c,), dice)]
        net.keep(net.same("InstanceNormalization", *inputs, epsilon=EPSILON))


def across(net: Network, dice: random.Random) -> None:
    """LRN over channels, and Softmax over the axis of channels or another."""
    x, _ = net.pick(dice)
    if dice.random() < 0.3:
        net.keep(net.same("LRN", x, size=3))
    else:
        net.keep(net.same(dice.choice(["Softmax", "LogSoftmax"]), x, axis=dice.choice([1, 2, 3, -1])))


def spatial_attention(net: Network, dice: random.Random) -> None:
    """The mean and the largest over channels, side by side for a Conv that gates all of them."""
    x, (n, c, h, w) = net.pick(dice)
    both = [net.add(op, [x], (n, 1, h, w), axes=[1]) for op in ("ReduceMean", dice.choice(["ReduceMax", "ReduceMin"]))]
    pair = net.add("Concat", both, (n, 2, h, w), axis=1)
    gate = net.add("Conv", [pair, net.weight((1, 2, 3, 3), dice, 18)], (n, 1, h, w), pads=[1] * 4)
    net.keep(net.add("Mul", [x, net.same("Sigmoid", gate)], (n, c, h, w)))


STEPS = (
    layer,
    layer,
    sum_and_layer,
    embedded,
    written_out,
    written_out,
    norm,
    per_channel,
    per_channel,
    across,
    spatial_attention,
)
