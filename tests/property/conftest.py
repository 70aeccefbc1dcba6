"""Random networks of the operators that have rules, as a hypothesis strategy."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
BATCH = 2
WIDEST, LARGEST = 48, 6000


class Network:
    """A network under construction: tensors [batch, channels, height, width] to go on from."""

    def __init__(self, unknown: str) -> None:
        self.unknown = unknown
        self.dynamic = bool(unknown)
        self.rng = np.random.default_rng(0)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.shapes: dict[str, Shape] = {"x": (BATCH, 4, 6, 6)}
        self.maps = ["x"]

    def add(self, op: str, inputs: list[str], shape: Shape, outputs: int = 1, **attributes: object) -> str:
        names = [f"t{len(self.shapes) + i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, name=f"n{len(self.nodes)}_{op}", **attributes))
        for name in names:
            self.shapes[name] = shape
        return names[0]

    def keep(self, name: str) -> None:
        self.maps.append(name)

    def weight(self, shape: Shape, dice: random.Random, fan: int = 1, share: bool = True) -> str:
        same = [name for name, value in self.weights.items() if value.shape == shape and value.dtype == np.float32]
        if share and same and dice.random() < 0.15:
            return dice.choice(same)
        name = f"w{len(self.weights)}"
        self.weights[name] = (self.rng.standard_normal(shape) / math.sqrt(fan)).astype(np.float32)
        return name

    def ints(self, values: list[int]) -> str:
        name = f"k{len(self.weights)}"
        self.weights[name] = np.array(values, np.int64)
        return name

    def pick(self, dice: random.Random) -> tuple[str, Shape]:
        name = dice.choice(self.maps[-3:] if dice.random() < 0.7 else self.maps)
        return name, self.shapes[name]

    def partner(self, dice: random.Random, fits: Callable[[Shape], bool]) -> str | None:
        found = [name for name in self.maps if fits(self.shapes[name])]
        return dice.choice(found) if found else None

    def batch(self, source: str, dice: random.Random, rest: list[int]) -> str:
        """Return the target of a Reshape whose first axis is the batch, as a literal, a copy or computed."""
        forms = ["zero", "computed"] + (["literal"] if not self.dynamic else [])
        forms += ["free"] if -1 not in rest else []
        form = dice.choice(forms)
        if form == "computed":
            shape = self.add("Shape", [source], (4,))
            size = self.add("Gather", [shape, self.ints([0])], (1,), axis=0)
            return self.add("Concat", [size, self.ints(rest)], (1 + len(rest),), axis=0)
        return self.ints([{"zero": 0, "literal": BATCH, "free": -1}[form], *rest])

    def reshape(self, source: str, shape: Shape, dice: random.Random) -> str:
        rest = list(shape[1:])
        if dice.random() < 0.4:
            rest[dice.randrange(len(rest))] = -1
        return self.add("Reshape", [source, self.batch(source, dice, rest)], shape)


def _divisors(n: int) -> list[int]:
    return [d for d in range(1, n + 1) if n % d == 0]


def conv(net: Network, dice: random.Random) -> None:
    x, (n, c, h, w) = net.pick(dice)
    group = dice.choice(_divisors(c)) if dice.random() < 0.5 else 1
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
    group = dice.choice(_divisors(c)) if dice.random() < 0.5 else 1
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
    a = dice.choice(_divisors(c))
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
    first = dice.choice(_divisors(total))
    second = dice.choice(_divisors(total // first))
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


def attend(net: Network, dice: random.Random) -> None:
    """Multi-head attention over the rows, with weights of its own or one that is stored transposed."""
    x, (n, c, h, _) = net.pick(dice)
    rows = net.add("Squeeze", [net.add("ReduceMean", [x], (n, c, h, 1), axes=[3]), net.ints([3])], (n, c, h))
    tokens = net.add("Transpose", [rows], (n, h, c), perm=[0, 2, 1])
    heads, d = dice.choice([(2, 3), (3, 2), (1, 4)])
    parts = []
    for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
        weight = net.weight((c, heads * d), dice, c)
        if dice.random() < 0.3:
            weight = net.add("Transpose", [net.weight((heads * d, c), dice, c)], (c, heads * d))
        flat = net.add("MatMul", [tokens, weight], (n, h, heads * d))
        grid = net.add("Reshape", [flat, net.ints([0, 0, heads, dice.choice([d, -1])])], (n, h, heads, d))
        parts.append(net.add("Transpose", [grid], tuple((n, h, heads, d)[i] for i in perm), perm=perm))
    scores = net.add("Softmax", [net.add("MatMul", parts[:2], (n, heads, h, h))], (n, heads, h, h), axis=-1)
    mixed = net.add("MatMul", [scores, parts[2]], (n, heads, h, d))
    back = net.add("Transpose", [mixed], (n, heads, d, h), perm=[0, 1, 3, 2])
    merged = net.add("Reshape", [back, net.ints([0, -1, h, 1])], (n, heads * d, h, 1))
    net.keep(merged)


def recur(net: Network, dice: random.Random) -> None:
    """A recurrent layer down the rows; its states, or the last of them, are the new channels."""
    x, (n, c, h, _) = net.pick(dice)
    rows = net.add("Squeeze", [net.add("ReduceMean", [x], (n, c, h, 1), axes=[3]), net.ints([3])], (n, c, h))
    steps = net.add("Transpose", [rows], (h, n, c), perm=[2, 0, 1])
    op, units, ways = dice.choice(["LSTM", "GRU", "RNN"]), dice.randint(2, 6), dice.choice([1, 2])
    gates = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * units
    inputs = [steps, net.weight((ways, gates, c), dice, c), net.weight((ways, gates, units), dice, units)]
    inputs += [net.weight((ways, 2 * gates), dice)] if dice.random() < 0.7 else []
    direction = "bidirectional" if ways == 2 else dice.choice(["forward", "reverse"])
    more = {"linear_before_reset": dice.choice([0, 1])} if op == "GRU" else {}
    states = net.add(op, inputs, (h, ways, n, units), outputs=2, hidden_size=units, direction=direction, **more)
    if dice.random() < 0.6:
        grid = net.add("Transpose", [states], (n, ways, units, h), perm=[2, 1, 3, 0])
        net.keep(net.add("Reshape", [grid, net.ints([0, -1, h, 1])], (n, ways * units, h, 1)))
        return
    last = net.add("Transpose", [net.nodes[-1].output[1]], (n, ways, units), perm=[1, 0, 2])
    net.keep(net.add("Reshape", [last, net.ints([0, -1, 1, 1])], (n, ways * units, 1, 1)))


def _sizes(net: Network, dice: random.Random, source: str, wanted: list[tuple[int, int | None]]) -> str:
    """Return the target of a Reshape; each size is a literal or read from an axis of `source`: (size, axis or None)."""
    shape = net.add("Shape", [source], (len(net.shapes[source]),))
    parts, free = [], dice.random() < 0.6
    for size, axis in wanted:
        if axis is not None:
            parts.append(net.add("Gather", [shape, net.ints([axis])], (1,), axis=0))
        elif free:
            parts.append(net.ints([-1]))
        else:
            parts.append(net.ints([size]))
        free = free and axis is not None
    return net.add("Concat", parts, (len(parts),), axis=0)


def _repeated(net: Network, dice: random.Random, keys: str, times: int) -> str:
    """Repeat the heads of keys or values [n, heads, h, d] for the queries that share them."""
    n, heads, h, d = net.shapes[keys]
    wide = (n, heads, times, h, d)
    form = dice.choice(["expand", "tile", "concat"])
    if form == "concat":
        return net.add("Concat", [keys] * times, (n, heads * times, h, d), axis=1)
    if form == "tile" and dice.random() < 0.5:
        return net.add("Tile", [keys, net.ints([1, times, 1, 1])], (n, heads * times, h, d))
    slot = net.add("Unsqueeze", [keys, net.ints([2])], (n, heads, 1, h, d))
    if form == "tile":
        spread = net.add("Tile", [slot, net.ints([1, 1, times, 1, 1])], wide)
    else:
        target = _sizes(net, dice, keys, [(n, 0), (heads, 1)])
        lead = net.add("Concat", [target, net.ints([times, 1, 1])], (5,), axis=0)
        spread = net.add("Expand", [slot, lead], wide)
    target = _sizes(net, dice, keys, [(n, 0), (heads * times, None), (h, 2), (d, 3)])
    return net.add("Reshape", [spread, target], (n, heads * times, h, d))


def _masked(net: Network, dice: random.Random, scores: str) -> str:
    """Add a mask that may have the batch or one entry, made from the scores themselves or constant."""
    n, heads, h, _ = net.shapes[scores]
    kind = dice.choice(["none", "own", "last", "constant"])
    if kind == "none":
        return scores
    if kind == "constant":
        return net.add("Add", [scores, net.weight((1, 1, h, h), dice)], (n, heads, h, h))
    axes = [1] if kind == "own" else [0, 1]
    mask = net.add(
        "ReduceMean", [scores], tuple(1 if i in axes else s for i, s in enumerate((n, heads, h, h))), axes=axes
    )
    return net.add("Add", [mask, scores], (n, heads, h, h))


def attend_as_exported(net: Network, dice: random.Random) -> None:
    """Attention as language models are exported: sizes from Shape, shared keys and values, a scale from the width."""
    x, (n, c, h, _) = net.pick(dice)
    rows = net.add("Squeeze", [net.add("ReduceMean", [x], (n, c, h, 1), axes=[3]), net.ints([3])], (n, c, h))
    tokens = net.add("Transpose", [rows], (n, h, c), perm=[0, 2, 1])
    shared, times, d = dice.choice([(2, 2, 2), (2, 1, 3), (1, 3, 2), (3, 2, 1)])
    parts = []
    for heads in (shared * times, shared, shared):
        flat = net.add("MatMul", [tokens, net.weight((c, heads * d), dice, c)], (n, h, heads * d))
        target = _sizes(net, dice, dice.choice([tokens, flat]), [(n, 0), (h, 1), (heads, None), (d, None)])
        grid = net.add("Reshape", [flat, target], (n, h, heads, d))
        turned = net.add("Transpose", [grid], (n, heads, h, d), perm=[0, 2, 1, 3])
        parts.append(_repeated(net, dice, turned, times) if heads == shared and times > 1 else turned)
    query, key, value = parts
    heads = shared * times
    if dice.random() < 0.6:
        shape = net.add("Shape", [query], (4,))
        width = net.add("Gather", [shape, net.ints([3])], (1,), axis=0)
        scale = net.add("Sqrt", [net.add("Cast", [width], (1,), to=TensorProto.FLOAT)], (1,))
        query = net.add("Div", [query, scale], (n, heads, h, d))
    key = net.add("Transpose", [key], (n, heads, d, h), perm=[0, 1, 3, 2])
    scores = _masked(net, dice, net.add("MatMul", [query, key], (n, heads, h, h)))
    scores = net.add("Softmax", [scores], (n, heads, h, h), axis=-1)
    mixed = net.add(
        "Transpose", [net.add("MatMul", [scores, value], (n, heads, h, d))], (n, h, heads, d), perm=[0, 2, 1, 3]
    )
    target = _sizes(net, dice, dice.choice([tokens, mixed]), [(n, 0), (h, 1), (heads * d, None)])
    merged = net.add("Reshape", [mixed, target], (n, h, heads * d))
    back = net.add("Transpose", [merged], (n, heads * d, h), perm=[0, 2, 1])
    net.keep(net.add("Unsqueeze", [back, net.ints([3])], (n, heads * d, h, 1)))


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
    any_shape, squeeze, spread, into_space, barrier, attend, attend_as_exported, bound, recur, recur,
)  # fmt: skip


def finish(net: Network, dice: random.Random) -> onnx.ModelProto:
    """Read the last maps by a layer each and give the results out."""
    outputs = []
    for name in dict.fromkeys([net.maps[-1], dice.choice(net.maps), dice.choice(net.maps)]):
        n, c, h, w = net.shapes[name]
        if dice.random() < 0.5:
            pooled = net.add("GlobalAveragePool", [name], (n, c, 1, 1))
            flat = net.add("Flatten", [pooled], (n, c))
        else:
            flat = net.add("Flatten", [name], (n, c * h * w))
        width = net.shapes[flat][1]
        outputs.append(net.add("Gemm", [flat, net.weight((width, 3), dice, width), net.weight((3,), dice)], (n, 3)))
    first, *rest = ((name if name in net.unknown else size) for name, size in zip("NCHW", net.shapes["x"], strict=True))
    graph = helper.make_graph(
        net.nodes,
        "random",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, *rest])],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, [first, 3]) for name in outputs],
        [numpy_helper.from_array(value, name) for name, value in net.weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


@st.composite
def networks(draw: st.DrawFn, most: int = 16) -> onnx.ModelProto:
    steps = draw(st.lists(st.sampled_from(STEPS), min_size=4, max_size=most))
    salt = draw(st.integers(0, 2**32))
    net = Network(draw(st.sampled_from(["", "N", "NHW"])))
    conv(net, random.Random(f"{salt}/first"))
    for number, step in enumerate(steps):
        step(net, random.Random(f"{salt}/{number}"))
        net.maps = [m for m in net.maps if net.shapes[m][1] <= WIDEST and math.prod(net.shapes[m]) <= LARGEST]
    return finish(net, random.Random(f"{salt}/last"))


@pytest.fixture(scope="session")
def random_networks() -> Callable[..., st.SearchStrategy[onnx.ModelProto]]:
    """`random_networks(most=16)`: a strategy for checked models of up to so many steps on [2 or N, 4, 6 or H, 6 or W].

    Where H and W are symbols the networks still hold literals that are right for 6 only.
    """
    return networks
