"""Attention in MatMuls and recurrent layers, over the rows of a map."""

from __future__ import annotations

import random

from onnx import TensorProto

from generator.network import Network


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


STEPS = (
    attend, attend_as_exported, recur, recur,
)  # fmt: skip
