"""Matrix products in all their forms, over rows: MatMul, Gemm, Einsum, stacks of constants, tables, gated layers."""

from __future__ import annotations

import random

import numpy as np
from onnx import TensorProto

from generator.elementwise import exact
from generator.network import MS, Network, Shape, divisors


def _biased(net: Network, x: str, dice: random.Random) -> str:
    width = net.shapes[x][-1]
    bias = net.weight(dice.choice([(width,), (1, width), (1,), ()]), dice)
    return net.add("Add", [x, bias] if dice.random() < 0.5 else [bias, x], net.shapes[x])


def product(net: Network, dice: random.Random) -> None:
    """A MatMul of rows, its weight stored as it is, transposed, or on the left of the turned rows."""
    x, (n, s, c) = net.pick_rows(dice)
    width = dice.randint(2, 10)
    form = dice.choice(["plain", "turned", "left", "cast"])
    if form == "turned":
        weight = net.add("Transpose", [net.weight((width, c), dice, c)], (c, width), perm=[1, 0])
        y = net.add("MatMul", [x, weight], (n, s, width))
    elif form == "left":
        turned = net.add("Transpose", [x], (n, c, s), perm=[0, 2, 1])
        y = net.add("MatMul", [net.weight((width, c), dice, c), turned], (n, width, s))
        y = net.add("Transpose", [y], (n, s, width), perm=[0, 2, 1])
    elif form == "cast":
        weight = net.same("Cast", net.weight((c, width), dice, c), to=TensorProto.DOUBLE)
        wide = net.same("Cast", x, to=TensorProto.DOUBLE)
        y = net.same("Cast", net.add("MatMul", [wide, weight], (n, s, width)), to=TensorProto.FLOAT)
    else:
        y = net.project(x, width, dice)
    net.keep(_biased(net, y, dice) if dice.random() < 0.5 else y)


def general(net: Network, dice: random.Random) -> None:
    """Gemm over rows laid in one axis, with either operand transposed and a third of any shape."""
    x, (n, s, c) = net.pick_rows(dice)
    a, b, width = dice.choice([0, 1]), dice.choice([0, 1]), dice.randint(2, 8)
    if dice.random() < 0.5:
        flat = net.add("Flatten", [x], (n * s, c), axis=dice.choice([2, -1]))
    else:
        flat = net.add("Reshape", [x, net.ints([-1, c])], (n * s, c))
    if a:
        flat = net.add("Transpose", [flat], (c, n * s), perm=[1, 0])
    inputs = [flat, net.weight((width, c) if b else (c, width), dice, c)]
    third: list[Shape] = [(width,), (1, width), (1,), (), (1, 1)]
    inputs += [net.weight(dice.choice(third), dice)] if dice.random() < 0.7 else []
    attributes = {"alpha": dice.choice([1.0, 0.5]), "beta": dice.choice([1.0, 2.0])} if dice.random() < 0.5 else {}
    if dice.random() < 0.3:
        attributes |= {"activation": dice.choice(["Relu", "Tanh"])}
        y = net.add("FusedGemm", inputs, (n * s, width), transA=a, transB=b, domain=MS, **attributes)
    else:
        y = net.add("Gemm", inputs, (n * s, width), transA=a, transB=b, **attributes)
    if net.dynamic:
        shape = net.add("Shape", [x], (3,))
        lead = net.add("Slice", [shape, net.ints([0]), net.ints([2])], (2,))
        target = net.add("Concat", [lead, net.ints([dice.choice([width, -1])])], (3,), axis=0)
    else:
        target = net.ints([n, s, width])
    net.keep(net.add("Reshape", [y, target], (n, s, width)))


def fused_product(net: Network, dice: random.Random) -> None:
    """FusedMatMul: a factor, and either side transposed."""
    x, (n, s, c) = net.pick_rows(dice)
    width, a, b = dice.randint(2, 8), dice.choice([0, 1]), dice.choice([0, 1])
    left = net.add("Transpose", [x], (n, c, s), perm=[0, 2, 1]) if a else x
    weight = net.weight((width, c) if b else (c, width), dice, c)
    net.keep(net.add("FusedMatMul", [left, weight], (n, s, width), transA=a, transB=b, alpha=0.7, domain=MS))


def experts(net: Network, dice: random.Random) -> None:
    """A stack of weights: one for each head, or all of them for the same rows."""
    x, (n, s, c) = net.pick_rows(dice)
    many, width = dice.choice([2, 3]), dice.randint(2, 5)
    if dice.random() < 0.5:
        own = net.project(x, many * width, dice)
        grid = net.add("Reshape", [own, net.ints([0, -1, many, width])], (n, s, many, width))
        wide = net.add("Transpose", [grid], (n, many, s, width), perm=[0, 2, 1, 3])
    else:
        wide, width = net.add("Unsqueeze", [x, net.ints([1])], (n, 1, s, c)), c
    out = dice.randint(2, 5)
    weight = net.weight((many, width, out), dice, width)
    y = net.add("MatMul", [wide, weight], (n, many, s, out))
    y = net.same("Tanh", y) if dice.random() < 0.5 else y
    if dice.random() < 0.4:
        net.keep(net.add("ReduceSum", [y], (n, s, out), axes=[1], keepdims=0))
        return
    turned = net.add("Transpose", [y], (n, s, many, out), perm=[0, 2, 1, 3])
    net.keep(net.add("Reshape", [turned, net.ints([0, -1, many * out])], (n, s, many * out)))


def sums(net: Network, dice: random.Random) -> None:
    """Einsum: with a weight of two or three axes, and between two tensors."""
    x, (n, s, c) = net.pick_rows(dice)
    heads, d, out = dice.choice([1, 2, 3]), dice.randint(2, 4), dice.randint(2, 6)
    form = dice.choice(["plain", "turned", "heads", "pair"])
    if form == "plain":
        net.keep(net.add("Einsum", [x, net.weight((c, out), dice, c)], (n, s, out), equation="bsc,co->bso"))
        return
    if form == "turned":
        net.keep(net.add("Einsum", [net.weight((out, c), dice, c), x], (n, s, out), equation="oc,bsc->bso"))
        return
    y = net.add("Einsum", [x, net.weight((c, heads, d), dice, c)], (n, heads, s, d), equation="bsc,chd->bhsd")
    y = net.same("Tanh", y)
    if form == "pair":
        z = net.add("Einsum", [x, net.weight((c, heads, d), dice, c)], (n, heads, s, d), equation="bsc,chd->bhsd")
        scores = net.add("Einsum", [y, z], (n, heads, s, s), equation="bhqd,bhkd->bhqk")
        y = net.add("Einsum", [net.same("Softmax", scores, axis=-1), y], (n, heads, s, d), equation="bhqk,bhkd->bhqd")
    net.keep(net.add("Einsum", [y, net.weight((heads, d, out), dice, d)], (n, s, out), equation="bhsd,hdo->bso"))


def _gate(net: Network, x: str, dice: random.Random) -> str:
    form = dice.choice(["silu", "gelu", "tanh", "quick", "relu2"])
    if form == "silu":
        return net.same("Mul", x, net.same("Sigmoid", x))
    if form == "gelu":
        bent = net.same("Erf", net.same("Div", x, net.const(np.float32(1.41421356))))
        half = net.same("Mul", x, net.same("Add", bent, net.const(np.float32(1))))
        return net.same("Mul", half, net.const(np.float32(0.5)))
    if form == "tanh":
        cubed = net.same("Mul", net.same("Pow", x, net.const(np.float32(3))), net.const(np.float32(0.044715)))
        bent = net.same("Tanh", net.same("Mul", net.same("Add", x, cubed), net.const(np.float32(0.79788456))))
        half = net.same("Mul", x, net.const(np.float32(0.5)))
        return net.same("Mul", half, net.same("Add", bent, net.const(np.float32(1))))
    if form == "quick":
        return net.same("QuickGelu", x, alpha=1.702, domain=MS)
    return net.same("Mul", net.same("Relu", x), net.same("Tanh", net.same("Relu", x)))


def gated(net: Network, dice: random.Random) -> None:
    """A gated layer and its shortcut: gate and values apart, or two halves of one product."""
    x, (n, s, c) = net.pick_rows(dice)
    width = dice.randint(2, 8)
    if dice.random() < 0.5:
        gate, value = net.project(x, width, dice), net.project(x, width, dice)
    else:
        both = net.project(x, 2 * width, dice)
        sizes = [net.ints([width, width])] if dice.random() < 0.5 else []
        gate = net.add("Split", [both, *sizes], (n, s, width), outputs=2, axis=-1)
        value = net.last(1, (n, s, width))
    bent = _gate(net, gate, dice)
    y = net.project(net.same("Mul", bent, value), c, dice)
    net.keep(net.same("Add", x, y) if dice.random() < 0.7 else y)


def layers(net: Network, dice: random.Random) -> None:
    """Two products and what bends between them, with a shortcut."""
    x, (_, _, c) = net.pick_rows(dice)
    h = net.project(x, dice.randint(2, 10), dice)
    h = _gate(net, _biased(net, h, dice) if dice.random() < 0.7 else h, dice)
    y = net.project(h, c, dice)
    net.keep(net.same("Add", x, _biased(net, y, dice)))


def along(net: Network, dice: random.Random) -> None:
    """A Conv or ConvTranspose along the positions, with groups at times, and a gate on its result."""
    x, (n, s, c) = net.pick_rows(dice)
    turned = net.add("Transpose", [x], (n, c, s), perm=[0, 2, 1])
    group = dice.choice(divisors(c)) if dice.random() < 0.6 else 1
    width = group * dice.randint(1, max(1, 8 // group))
    if dice.random() < 0.3:
        weight = net.weight((c, width // group, 3), dice, 3 * c // group)
        y = net.add("ConvTranspose", [turned, weight], (n, width, s), group=group, pads=[1, 1])
    else:
        weight = net.weight((width, c // group, 3), dice, 3 * c // group)
        y = net.add("Conv", [turned, weight], (n, width, s), group=group, pads=[2, 0])
    if width % 2 == 0 and dice.random() < 0.5:
        first = net.add("Split", [y], (n, width // 2, s), outputs=2, axis=1)
        y = net.same("Mul", first, net.same("Sigmoid", net.last(1, (n, width // 2, s))))
    net.keep(net.add("Transpose", [y], (n, s, net.shapes[y][1]), perm=[0, 2, 1]))


def numbers(net: Network, dice: random.Random, most: int) -> tuple[str, int]:
    """Return ids [N, S] below `most` that are computed from the network's input, and S."""
    e, shape = exact(net, dice, (net.shapes["x"][0], 1, 6, 1))
    length = shape[2]
    flat = net.add("Reshape", [e, net.ints([0, -1])], (shape[0], length))
    ids = net.same("Cast", net.same("Abs", net.same("Mul", flat, net.const(np.float32(3.0)))), to=TensorProto.INT64)
    return net.same("Mod", ids, net.const(np.int64(most))), length


def table(net: Network, dice: random.Random) -> None:
    """Rows looked up; the same table, transposed, is a product's weight at times (a tied head)."""
    n = net.shapes["x"][0]
    count, c = dice.randint(3, 8), dice.randint(3, 8)
    ids, s = numbers(net, dice, count)
    stored = net.weight((count, c), dice)
    rows = net.add("Gather", [stored, ids], (n, s, c), axis=0)
    if dice.random() < 0.4:
        h = net.same("Add", net.project(net.same("Tanh", net.project(rows, 5, dice)), c, dice), rows)
        turned = net.add("Transpose", [stored], (c, count), perm=[1, 0])
        rows = net.add("MatMul", [h, turned], (n, s, count))
    net.keep(rows)


def marked(net: Network, dice: random.Random) -> None:
    """OneHot of ids, multiplied by a weight."""
    n = net.shapes["x"][0]
    count = dice.randint(3, 6)
    ids, s = numbers(net, dice, count)
    values = net.const(np.float32([0.1, 0.9]))
    hot = net.add("OneHot", [ids, net.const(np.int64(count)), values], (n, s, count), axis=-1)
    net.keep(net.project(hot, dice.randint(3, 8), dice))


STEPS = (product, product, general, fused_product, experts, sums, gated, layers, along, table, marked)
