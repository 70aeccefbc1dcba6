"""Bodies and functions, weights that are given out, and what goes from rows back to maps."""

from __future__ import annotations

import random

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from generator.elementwise import exact
from generator.network import Network


def picture(net: Network, dice: random.Random) -> None:
    """Rows become a map of one column, or of two where they can be cut so."""
    x, (n, s, c) = net.pick_rows(dice)
    turned = net.add("Transpose", [x], (n, c, s), perm=[0, 2, 1])
    if s % 2 == 0 and net.unknown != "NHW" and dice.random() < 0.5:
        net.keep(net.add("Reshape", [turned, net.ints([0, 0, s // 2, 2])], (n, c, s // 2, 2)))
    else:
        net.keep(net.add("Unsqueeze", [turned, net.ints([3])], (n, c, s, 1)))


def joined(net: Network, dice: random.Random) -> None:
    """Rows after one another, or side by side."""
    x, (n, s, c) = net.pick_rows(dice)
    beside = dice.random() < 0.5
    fits = [r for r in net.rows if net.shapes[r][1 if beside else 2] == (s, c)[not beside]]
    other = dice.choice(fits)
    _, t, d = net.shapes[other]
    if net.unknown == "NHW" and other != x:
        return
    shape = (n, s, c + d) if beside else (n, s + t, c)
    net.keep(net.add("Concat", [x, other], shape, axis=2 if beside else 1))


def rows_combined(net: Network, dice: random.Random) -> None:
    x, shape = net.pick_rows(dice)
    other = dice.choice([r for r in net.rows if net.shapes[r] == shape])
    net.keep(net.add(dice.choice(["Add", "Mul"]), [x, other], shape))


def mean_of_rows(net: Network, dice: random.Random) -> None:
    """The mean, or one row, goes back to all of them."""
    x, (n, s, c) = net.pick_rows(dice)
    if dice.random() < 0.5:
        one = net.add("ReduceMean", [x], (n, 1, c), axes=[1])
    else:
        row = net.add("Gather", [x, net.const(np.int64(0))], (n, c), axis=1)
        one = net.add("Unsqueeze", [row, net.ints([1])], (n, 1, c))
    net.keep(net.add("Add", [x, net.project(net.same("Tanh", net.project(one, 4, dice)), c, dice)], (n, s, c)))


def _body(net: Network, op: str, x: str, dice: random.Random) -> object:
    """Return a graph without inputs that applies an operator, or a layer, to a tensor of the outer graph."""
    _, c, _, _ = net.shapes[x]
    name = f"b{len(net.shapes)}_{dice.randrange(10**6)}"
    if op == "layer":
        weight = numpy_helper.from_array(net.rng.standard_normal((c, c, 1, 1)).astype(np.float32), f"{name}_w")
        node = helper.make_node("Conv", [x, weight.name], [name], name=f"{name}_conv")
        extra = [weight]
    else:
        node, extra = helper.make_node(op, [x], [name], name=f"{name}_{op}"), []
    given = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
    return helper.make_graph([node], name, [], [given], extra)


def branch(net: Network, dice: random.Random) -> None:
    """If: its condition is a constant, or computed from the input."""
    x, shape = net.pick(dice)
    if dice.random() < 0.6:
        test = net.const(np.array(dice.random() < 0.5))
    else:
        e, _ = exact(net, dice, (shape[0], 1, 1, 1))
        mean = net.add("ReduceMax", [e], (), axes=[0, 1, 2, 3], keepdims=0)
        test = net.add("Greater", [mean, net.const(np.float32(0))], ())
    bodies = [_body(net, dice.choice(["layer", "Tanh", "Relu"]), x, dice) for _ in range(2)]
    net.keep(net.add("If", [test], shape, then_branch=bodies[0], else_branch=bodies[1]))


def repeated(net: Network, dice: random.Random) -> None:
    """Loop, Scan and SequenceMap are barriers: nothing that they touch is pruned."""
    x, (n, s, c) = net.pick_rows(dice)
    x = net.project(x, c, dice)
    float_ = TensorProto.FLOAT
    if dice.random() < 0.5:
        body = helper.make_graph(
            [helper.make_node("Tanh", ["state"], ["next"]), helper.make_node("Identity", ["go"], ["on"])],
            "loop",
            [
                helper.make_tensor_value_info("i", TensorProto.INT64, []),
                helper.make_tensor_value_info("go", TensorProto.BOOL, []),
                helper.make_tensor_value_info("state", float_, None),
            ],
            [
                helper.make_tensor_value_info("on", TensorProto.BOOL, []),
                helper.make_tensor_value_info("next", float_, None),
            ],
        )
        inputs = [net.const(np.int64(2)), net.const(np.array(True)), x]
        net.keep(net.add("Loop", inputs, (n, s, c), body=body))
        return
    body = helper.make_graph(
        [helper.make_node("Tanh", ["one"], ["out"])],
        "scan",
        [helper.make_tensor_value_info("one", float_, ["a", "b"])],
        [helper.make_tensor_value_info("out", float_, ["a", "b"])],
    )
    axes = dice.choice([[1], [2]])
    y = net.add("Scan", [x], (n, s, c), body=body, num_scan_inputs=1, scan_input_axes=axes, scan_output_axes=axes)
    net.keep(y)


def called(net: Network, dice: random.Random) -> None:
    """A local function of two layers."""
    x, (n, c, h, w) = net.pick(dice)
    inner, out = dice.randint(2, 6), dice.randint(2, 6)
    if not net.functions:
        nodes = [
            helper.make_node("Conv", ["a", "first"], ["b"], name="inner"),
            helper.make_node("Tanh", ["b"], ["c"], name="bend"),
            helper.make_node("Conv", ["c", "second"], ["d"], name="outer"),
        ]
        opset = [helper.make_opsetid("", net.opset)]
        net.functions.append(helper.make_function("local", "Pair", ["a", "first", "second"], ["d"], nodes, opset))
    weights = [net.weight((inner, c, 1, 1), dice, c), net.weight((out, inner, 1, 1), dice, inner)]
    net.keep(net.add("Pair", [x, *weights], (n, out, h, w), domain="local"))


def given_out(net: Network, dice: random.Random) -> None:
    """A weight is an output of the graph as well, or a map on the way."""
    if dice.random() < 0.3 and not net.given:
        net.given.append((net.maps[-1], ("a", "b", "c", "d")))
        return
    floats = [name for name, value in net.weights.items() if name.startswith("w") and value.ndim > 1]
    if floats and not net.given:
        name = dice.choice(floats)
        shape = net.weights[name].shape
        net.given.append((name if dice.random() < 0.5 else net.add("Identity", [name], shape), shape))


STEPS = (
    picture, picture, joined, rows_combined, mean_of_rows, branch, branch, repeated, called, given_out,
)  # fmt: skip
