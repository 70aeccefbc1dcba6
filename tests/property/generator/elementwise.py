"""Elementwise operators of one, two and many inputs.

What jumps (Floor, comparisons, integers) is computed from the network's input and constants alone: no sum lies before
it whose rounding could differ between two ways to compute the same.
"""

from __future__ import annotations

import random

import numpy as np
from onnx import TensorProto

from generator.network import MS, Network, Shape

# Functions that are tame for any number, those that want one above a half, and those that want one below 1 in size.
ANY = (
    "Abs", "Atan", "Asinh", "Celu", "Cos", "Elu", "Erf", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Mish",
    "Neg", "Relu", "Selu", "Sigmoid", "Sin", "Softplus", "Softsign", "Tanh",
)  # fmt: skip
POSITIVE = ("Log", "Sqrt", "Reciprocal")
SMALL = ("Acos", "Asin", "Atanh", "Cosh", "Exp", "Sinh", "Tan")
SINCE = {"Gelu": 20, "Swish": 24, "Mish": 18}
COMPARISONS = ("Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual")


def any_function(net: Network, dice: random.Random) -> None:
    x, _ = net.pick(dice)
    net.keep(net.same(dice.choice([op for op in (*ANY, *SINCE) if SINCE.get(op, 0) <= net.opset]), x))


def bounded_function(net: Network, dice: random.Random) -> None:
    x, _ = net.pick(dice)
    if dice.random() < 0.3:
        y = net.same("Add", net.positive(x), net.const(np.float32(0.5)))
        net.keep(net.same("Acosh", y))
    elif dice.random() < 0.5:
        net.keep(net.same(dice.choice(POSITIVE), net.positive(x)))
    else:
        net.keep(net.same(dice.choice(SMALL), net.small(x)))


def power(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    exponent = dice.choice([net.const(np.float32(2)), net.const(np.float32(0.5)), net.weight((shape[1], 1, 1), dice)])
    net.keep(net.same("Pow", net.positive(net.small(x)), exponent))


def quotient(net: Network, dice: random.Random) -> None:
    x, _ = net.pick(dice)
    other = net.partner(dice, lambda s: s == net.shapes[x])
    assert other is not None
    net.keep(net.same("Div", x, net.positive(other)))


def many(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    others = [name for name in net.maps if net.shapes[name] == shape]
    inputs = [x, *(dice.choice(others) for _ in range(dice.randint(0, 2)))]
    if dice.random() < 0.5:
        inputs.insert(dice.randint(0, len(inputs)), net.weight((shape[1], 1, 1), dice))
    net.keep(net.add(dice.choice(["Max", "Min", "Mean", "Sum"]), inputs, shape))


def slopes(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    slope = dice.choice([(1,), (shape[1], 1, 1), (shape[1], 1, shape[3])])
    net.keep(net.same("PRelu", x, net.weight(slope, dice)))


def handed_on(net: Network, dice: random.Random) -> None:
    """Operators that hand on what they get, in another type or as it is."""
    x, _ = net.pick(dice)
    form = dice.choice(["cast", "like", "dropout", "mask"])
    if form == "cast":
        wide = net.same("Cast", x, to=TensorProto.DOUBLE)
        net.keep(net.same("Cast", net.same("Tanh", wide), to=TensorProto.FLOAT))
    elif form == "like":
        wide = net.same("Cast", x, to=TensorProto.DOUBLE)
        net.keep(net.same("CastLike", wide, net.weight((), dice)))
    elif form == "dropout":
        net.keep(net.same("Dropout", x))
    else:
        net.same("Dropout", x, outputs=2)
        mask = net.last(1, net.shapes[x])
        net.keep(net.add("Where", [mask, x, net.const(np.float32(0.25))], net.shapes[x]))


def exact(net: Network, dice: random.Random, like: Shape) -> tuple[str, Shape]:
    """Return a tensor that broadcasts to a map and is computed from the network's input without any sum."""
    n, *space = net.shapes["x"]
    axes = [1] + [i for i in (2, 3) if like[i] != space[i - 1] or dice.random() < 0.3]
    shape = tuple(1 if i in axes else s for i, s in enumerate(net.shapes["x"]))
    highest = net.add("ReduceMax", ["x"], shape, axes=axes)
    whole = (n, like[1], *shape[2:])
    return net.add("Mul", [highest, net.weight((like[1], 1, 1), dice)], whole), whole


def jump(net: Network, dice: random.Random, like: Shape) -> str:
    """Return a tensor that broadcasts to a map, of numbers that jump."""
    e, shape = exact(net, dice, like)
    op = dice.choice(
        ["Floor", "Ceil", "Round", "Sign", "Shrink", "ThresholdedRelu", "Mod", "Bits", "Bits", "Shift", "Equal"]
    )
    if op == "Mod":
        return net.add("Mod", [e, net.const(np.float32(0.7))], shape, fmod=1)
    if op in ("Bits", "Shift", "Equal"):
        number = net.same("Floor", net.same("Abs", net.same("Mul", e, net.const(np.float32(5)))))
        whole = net.same("Cast", number, to=TensorProto.UINT8 if op == "Shift" else TensorProto.INT32)
        if op == "Shift":
            small = net.same("Mod", whole, net.const(np.array(8, np.uint8)))
            whole = net.same("BitShift", small, net.const(np.array(2, np.uint8)), direction="LEFT")
        elif op == "Equal":
            whole = net.same("Equal", whole, net.const(np.array(2, np.int32)))
        elif net.opset >= 18:
            other = net.const((np.arange(like[1]) % 7).astype(np.int32).reshape(-1, 1, 1))
            whole = net.same(dice.choice(["BitwiseAnd", "BitwiseOr", "BitwiseXor"]), whole, other)
            whole = net.same("BitwiseNot", whole) if dice.random() < 0.3 else whole
        back = net.same("Cast", whole, to=TensorProto.FLOAT)
        return net.same("Mul", back, net.const(np.float32(0.1)))
    return net.same(op, e)


def jumping(net: Network, dice: random.Random) -> None:
    x, shape = net.pick(dice)
    net.keep(net.add("Mul", [x, jump(net, dice, shape)], shape))


def condition(net: Network, dice: random.Random, like: Shape) -> str:
    """Return booleans that broadcast to a map."""
    e, _ = exact(net, dice, like)
    bound = dice.choice([net.const(np.float32(0.3)), net.weight((like[1], 1, 1), dice)])
    made = net.same(dice.choice(COMPARISONS), e, bound)
    form = dice.choice(["plain", "not", "two", "odd"])
    if form == "not":
        return net.same("Not", made)
    if form == "two":
        other = net.same("Less", e, net.const(np.float32(0.6)))
        return net.same(dice.choice(["And", "Or", "Xor"]), made, other)
    if form == "odd":
        return net.same("Or", made, net.same(dice.choice(["IsNaN", "IsInf"]), e))
    return made


def choose(net: Network, dice: random.Random) -> None:
    """Where: between two maps, or a map and a constant."""
    x, shape = net.pick(dice)
    where = condition(net, dice, shape)
    other = net.partner(dice, lambda s: s == shape) if dice.random() < 0.5 else net.weight((shape[1], 1, 1), dice)
    assert other is not None
    pair = [x, other] if dice.random() < 0.5 else [other, x]
    net.keep(net.add("Where", [where, *pair], shape))


def fused_function(net: Network, dice: random.Random) -> None:
    """Activations of ONNX Runtime over rows, two of them with a bias."""
    x, (n, s, c) = net.pick_rows(dice)
    op = dice.choice(["BiasGelu", "FastGelu", "FastGelu", "Gelu", "QuickGelu"])
    inputs = [x] + ([net.weight((c,), dice)] if op == "BiasGelu" or (op == "FastGelu" and dice.random() < 0.5) else [])
    net.keep(net.add(op, inputs, (n, s, c), domain=MS))


STEPS = (
    any_function, bounded_function, power, quotient, many, slopes, handed_on, jumping, choose, fused_function,
)  # fmt: skip
