"""Attention in one operator, of ONNX Runtime and of ONNX."""

from __future__ import annotations

import random

import numpy as np

from generator.network import MS, Network


def packed(net: Network, dice: random.Random) -> None:
    """Attention of ONNX Runtime; its kernel wants the bias."""
    x, (n, s, c) = net.pick_rows(dice)
    heads, d, v = dice.choice([(2, 3, 3), (3, 2, 4), (2, 2, 2), (1, 4, 4)])
    width = heads * (2 * d + v)
    attributes: dict[str, object] = {"num_heads": heads, "unidirectional": dice.choice([0, 1])}
    if d != v or dice.random() < 0.3:
        attributes["qkv_hidden_sizes"] = [heads * d, heads * d, heads * v]
    inputs = [x, net.weight((c, width), dice, c), net.weight((width,), dice)]
    net.keep(net.add("Attention", inputs, (n, s, heads * v), domain=MS, **attributes))


def _projections(net: Network, x: str, sizes: tuple[int, int, int], dice: random.Random) -> list[str]:
    return [net.project(x, size, dice) for size in sizes]


def _out(net: Network, y: str, x: str, dice: random.Random) -> None:
    """Give the values out as they are, or by a product back onto the stream."""
    if dice.random() < 0.5:
        net.keep(y)
    else:
        net.keep(net.same("Add", x, net.project(y, net.shapes[x][2], dice)))


def multi_head(net: Network, dice: random.Random) -> None:
    x, (n, s, _) = net.pick_rows(dice)
    heads, d, v = dice.choice([(2, 3, 3), (3, 2, 4), (2, 2, 3)])
    inputs = _projections(net, x, (heads * d, heads * d, heads * v), dice)
    inputs += [net.weight((heads * (2 * d + v),), dice)] if dice.random() < 0.3 else []
    more = {"scale": 0.3} if dice.random() < 0.3 else {}
    more |= {"unidirectional": 1} if dice.random() < 0.3 else {}
    y = net.add("MultiHeadAttention", inputs, (n, s, heads * v), num_heads=heads, domain=MS, **more)
    _out(net, y, x, dice)


def _lengths(net: Network, x: str) -> tuple[str, str]:
    """Return the number of keys of each sample less one, and the number of all: int32 [N] and a scalar."""
    shape = net.add("Shape", [x], (3,))
    size = net.add("Slice", [shape, net.ints([0]), net.ints([1])], (1,))
    length = net.same("Cast", net.add("Slice", [shape, net.ints([1]), net.ints([2])], (1,)), to=6)
    last = net.same("Sub", length, net.const(np.array([1], np.int32)))
    total = net.add("Reshape", [length, net.const(np.zeros(0, np.int64))], ())
    return net.add("Expand", [last, size], (net.shapes[x][0],)), total


def grouped(net: Network, dice: random.Random) -> None:
    """GroupQueryAttention: heads of 8, or of 16 if turned, as its kernel wants them; apart or in one tensor."""
    x, (n, s, _) = net.pick_rows(dice)
    keys, shared = dice.choice([(1, 1), (2, 1), (1, 2), (2, 2)])
    turn = dice.random() < 0.4
    d = 16 if turn else 8
    heads = keys * shared
    one = dice.random() < 0.4
    if one:
        inputs = [net.project(x, (heads + 2 * keys) * d, dice), "", ""]
    else:
        inputs = _projections(net, x, (heads * d, keys * d, keys * d), dice)
    inputs += ["", "", *_lengths(net, x)]
    more = {}
    if turn:
        angles = np.outer(np.arange(40), np.arange(1, d // 2 + 1)).astype(np.float32) / 10
        inputs += [net.const(np.cos(angles)), net.const(np.sin(angles))]
        more["do_rotary"] = 1
    y = net.add(
        "GroupQueryAttention", inputs, (n, s, heads * d), outputs=3, num_heads=heads, kv_num_heads=keys, domain=MS,
        **more,
    )  # fmt: skip
    _out(net, y, x, dice)


def of_onnx(net: Network, dice: random.Random) -> None:
    """Attention of ONNX, its operands flat or split in heads."""
    x, (n, s, _) = net.pick_rows(dice)
    if net.opset < 23:
        multi_head(net, dice)
        return
    keys, shared, d, v = dice.choice([(2, 1, 3, 3), (1, 2, 3, 2), (2, 2, 2, 2), (3, 1, 2, 4)])
    heads = keys * shared
    q, k, value = _projections(net, x, (heads * d, keys * d, keys * v), dice)
    causal = {"is_causal": dice.choice([0, 1])}
    if dice.random() < 0.5:
        y = net.add("Attention", [q, k, value], (n, s, heads * v), q_num_heads=heads, kv_num_heads=keys, **causal)
    else:
        parts = [
            _split(net, part, count, size) for part, count, size in ((q, heads, d), (k, keys, d), (value, keys, v))
        ]
        mixed = net.add("Attention", parts, (n, heads, s, v), **causal)
        back = net.add("Transpose", [mixed], (n, s, heads, v), perm=[0, 2, 1, 3])
        y = net.add("Reshape", [back, net.ints([0, -1, heads * v])], (n, s, heads * v))
    _out(net, y, x, dice)


def _split(net: Network, flat: str, heads: int, d: int) -> str:
    n, s, _ = net.shapes[flat]
    grid = net.add("Reshape", [flat, net.ints([0, -1, heads, d])], (n, s, heads, d))
    return net.add("Transpose", [grid], (n, heads, s, d), perm=[0, 2, 1, 3])


def turned(net: Network, dice: random.Random) -> None:
    """RotaryEmbedding of queries and keys before attention in one operator."""
    x, (n, s, _) = net.pick_rows(dice)
    if net.unknown == "NHW":
        return
    heads, d, v = dice.choice([(2, 4, 3), (3, 2, 2), (1, 6, 4)])
    q, k, value = _projections(net, x, (heads * d, heads * d, heads * v), dice)
    angles = np.outer(np.arange(s), np.arange(1, d // 2 + 1)).astype(np.float32) / 10
    cos, sin = np.cos(angles), np.sin(angles)
    size = net.add("Slice", [net.add("Shape", [x], (3,)), net.ints([0]), net.ints([1])], (1,))
    target = net.add("Concat", [size, net.ints([s])], (2,), axis=0)
    places = net.add("Expand", [net.ints(list(range(s))), target], (n, s))
    flat = []
    for part in (q, k):
        if net.opset >= 23 and dice.random() < 0.5:
            flat.append(net.same("RotaryEmbedding", part, net.const(cos), net.const(sin), places, num_heads=heads))
        else:
            flat.append(net.same("RotaryEmbedding", part, places, net.const(cos), net.const(sin), num_heads=heads,
                                 domain=MS))  # fmt: skip
    y = net.add("MultiHeadAttention", [*flat, value], (n, s, heads * v), num_heads=heads, domain=MS)
    _out(net, y, x, dice)


def _rotated(net: Network, x: str, dice: random.Random) -> str:
    """Turn the channels of heads [N, heads, S, d] by position: halves against each other, or neighbours."""
    n, heads, s, d = net.shapes[x]
    angles = np.outer(np.arange(s), np.tile(np.arange(1, d // 2 + 1), 2)) / 10
    cos, sin = net.const(np.cos(angles)), net.const(np.sin(angles))
    half = (n, heads, s, d // 2)
    if dice.random() < 0.5:
        bounds = [net.ints([0]), net.ints([d // 2]), net.ints([dice.choice([d, 2**63 - 1])])]
        left, right = (net.add("Slice", [x, bounds[i], bounds[i + 1], net.ints([3])], half) for i in range(2))
        turned_ = net.add("Concat", [net.same("Neg", right), left], (n, heads, s, d), axis=-1)
    else:
        ends = [net.ints([2**63 - 1]), net.ints([3]), net.ints([2])]
        even, odd = (net.add("Slice", [x, net.ints([i]), *ends], half) for i in range(2))
        slots = [net.add("Unsqueeze", [t, net.ints([4])], (*half, 1)) for t in (net.same("Neg", odd), even)]
        pairs = net.add("Concat", slots, (*half, 2), axis=-1)
        turned_ = net.add("Reshape", [pairs, net.ints([0, 0, 0, -1])], (n, heads, s, d))
    return net.same("Add", net.same("Mul", x, cos), net.same("Mul", turned_, sin))


def unpacked(net: Network, dice: random.Random) -> None:
    """Queries, keys and values from one product, cut apart as exporters write it, and attention in MatMuls."""
    x, (n, s, _) = net.pick_rows(dice)
    heads, d = dice.choice([(2, 3), (3, 2), (1, 4), (2, 2)])
    width = heads * d
    both = net.project(x, 3 * width, dice)
    both = net.same("Add", both, net.weight((3 * width,), dice)) if dice.random() < 0.6 else both
    form = dice.choice(["split", "grid", "slices"])
    if form == "grid":
        grid = net.add("Reshape", [both, net.ints([0, -1, 3, heads, d])], (n, s, 3, heads, d))
        turned_ = net.add("Transpose", [grid], (3, n, heads, s, d), perm=[2, 0, 3, 1, 4])
        parts = [net.add("Gather", [turned_, net.const(np.int64(i))], (n, heads, s, d), axis=0) for i in range(3)]
    else:
        if form == "split":
            net.add("Split", [both, net.ints([width] * 3)], (n, s, width), outputs=3, axis=2)
            flats = [net.last(i, (n, s, width)) for i in range(3)]
        else:
            bounds = [net.ints([i * width]) for i in range(4)]
            flats = [net.add("Slice", [both, bounds[i], bounds[i + 1], net.ints([2])], (n, s, width)) for i in range(3)]
        parts = [_split(net, flat, heads, d) for flat in flats]
    q, k, v = parts
    if d % 2 == 0 and net.unknown != "NHW" and dice.random() < 0.5:
        q, k = _rotated(net, q, dice), _rotated(net, k, dice)
    scores = net.add("MatMul", [q, net.add("Transpose", [k], (n, heads, d, s), perm=[0, 1, 3, 2])], (n, heads, s, s))
    scores = net.same("Mul", scores, net.const(np.float32(d**-0.5)))
    mixed = net.add("MatMul", [net.same("Softmax", scores, axis=-1), v], (n, heads, s, d))
    back = net.add("Transpose", [mixed], (n, s, heads, d), perm=[0, 2, 1, 3])
    _out(net, net.add("Reshape", [back, net.ints([0, -1, width])], (n, s, width)), x, dice)


STEPS = (packed, multi_head, grouped, of_onnx, turned, unpacked)
