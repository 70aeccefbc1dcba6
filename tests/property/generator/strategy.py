"""Steps drawn at random, one after the other, and a network made of them, as a hypothesis strategy."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from generator import arithmetic, elementwise, flow, fused, indexing, linear, maps, norms, rarer, sequences, space
from generator.network import LARGEST, MS, WIDEST, Network

# Steps on maps count twice: without layers between them the others would find nothing to prune.
FAMILIES = (maps, maps, arithmetic, elementwise, flow, fused, indexing, linear, linear, norms, rarer, sequences, space)
STEPS = tuple(step for family in FAMILIES for step in family.STEPS)
Step = Callable[[Network, random.Random], None]
# The opset of the steps' operators, and the newest that ONNX Runtime has kernels for.
OPSETS = (17, 17, 18, 21, 23, 24)
_IR = {17: 8, 18: 8, 21: 10, 23: 11, 24: 12}


def _flat(net: Network, name: str, dice: random.Random) -> str:
    """Return [batch, numbers] of a map or of rows."""
    shape = net.shapes[name]
    n = shape[0]
    if len(shape) == 3:
        form = dice.choice(["mean", "all"])
        if form == "mean" or net.unknown == "NHW":
            return net.add("ReduceMean", [name], (n, shape[2]), axes=[1], keepdims=0)
        return net.add("Flatten", [name], (n, shape[1] * shape[2]))
    if dice.random() < (0.9 if net.unknown == "NHW" else 0.5):
        pooled = net.add("GlobalAveragePool", [name], (n, shape[1], 1, 1))
        return net.add("Flatten", [pooled], (n, shape[1]))
    return net.add("Flatten", [name], (n, math.prod(shape[1:])))


def finish(net: Network, dice: random.Random) -> onnx.ModelProto:
    """Read the last tensors by a layer each and give the results out."""
    found = [net.maps[-1], *net.rows[-1:], dice.choice(net.maps), dice.choice([*net.maps, *net.rows])]
    outputs = []
    for name in dict.fromkeys(found):
        flat = _flat(net, name, dice)
        n, width = net.shapes[flat]
        outputs.append(net.add("Gemm", [flat, net.weight((width, 3), dice, width), net.weight((3,), dice)], (n, 3)))
    first, *rest = ((name if name in net.unknown else size) for name, size in zip("NCHW", net.shapes["x"], strict=True))
    literal = [name for name in net.weights if dice.random() < 0.1 and name not in dict(net.given)]
    constants = [
        helper.make_node("Constant", [], [name], value=numpy_helper.from_array(net.weights[name])) for name in literal
    ]
    graph = helper.make_graph(
        [*constants, *net.nodes],
        "random",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [first, *rest])],
        [
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, [first, 3]) for name in outputs),
            *(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in net.given),
        ],
        [numpy_helper.from_array(value, name) for name, value in net.weights.items() if name not in literal],
    )
    domains = {"": net.opset, MS: 1, **({"local": 1} if net.functions else {})}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(graph, opset_imports=opsets, ir_version=_IR[net.opset], functions=net.functions)


def is_known(model: onnx.ModelProto) -> bool:
    """Whether ONNX's checker knows all operators of its own domain: one is ONNX Runtime's."""
    return all(node.op_type != "SimplifiedLayerNormalization" for node in model.graph.node)


def build(steps: Sequence[Step], salt: int, unknown: str, opset: int) -> onnx.ModelProto:
    """Return the network that these steps make; `salt` seeds what each of them chooses."""
    net = Network(unknown, opset)
    maps.conv(net, random.Random(f"{salt}/first"))
    for number, step in enumerate(steps):
        step(net, random.Random(f"{salt}/{number}"))
        net.maps = [m for m in net.maps if net.shapes[m][1] <= WIDEST and math.prod(net.shapes[m]) <= LARGEST]
        net.rows = [r for r in net.rows if net.shapes[r][2] <= WIDEST and math.prod(net.shapes[r]) <= LARGEST]
    model = finish(net, random.Random(f"{salt}/last"))
    if is_known(model):
        onnx.checker.check_model(model, full_check=True)
    return model


@st.composite
def networks(draw: st.DrawFn, most: int = 16) -> onnx.ModelProto:
    steps = draw(st.lists(st.sampled_from(STEPS), min_size=4, max_size=most))
    salt = draw(st.integers(0, 2**32))
    return build(steps, salt, draw(st.sampled_from(["", "N", "NHW"])), draw(st.sampled_from(OPSETS)))
