"""Whatever a network costs is known to its structure, also where nothing can be pruned."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_subprune.network.analysis import analyse, take_apart

LAYERS = "a = MatMul(x, w1)  b = Relu(a)  h = MatMul(b, w2)"
SCAN = """y, z = Scan <num_scan_inputs = 1, body = b (float[8] s, float[8] e) => (float[8] t, float[8] r) {
    g = Gemm(e, w3)  v = Reshape(g, flat)  t = Add(s, v)  r = Identity(t) }> (first, h)"""
BODIES = {
    "Loop": """y = Loop(five, yes, h) <body = l (int64 i, bool go, float[n,8] s) => (bool on, float[n,8] t) {
        on = Identity(go)  t = MatMul(s, w3) }>""",
    "Loop in If": """y = If(flag) <
        then_branch = t () => (float[n,8] u) { u = Loop(five, yes, h) <
            body = l (int64 i, bool go, float[n,8] s) => (bool on, float[n,8] t) {
                on = Identity(go)  t = MatMul(s, w3) }> },
        else_branch = e () => (float[n,8] v) { v = Relu(h) }>""",
    "a product of an operator without a rule": "u = Unique(h)  k = Reshape(u, eight)  y = MatMul(k, w3)",
}


def build(text: str) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[n,6] x, bool flag) => (float[p,q] y) {{ {LAYERS} {text} }}'
    )
    rng = np.random.default_rng(0)
    stored = {"w1": (6, 16), "w2": (16, 8), "w3": (8, 8)}
    values = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in stored.items()}
    for name, value in {**values, "five": np.array(5), "yes": np.array(True), "eight": np.array([-1, 8])}.items():
        if name in text or name in stored:
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    return model


@pytest.mark.parametrize("text", BODIES.values(), ids=BODIES)
def test_the_structure_costs_what_the_network_does(text):
    feeds = {"x": np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32), "flag": np.array(True)}
    analysis = take_apart(build(text), {"x": (3, 6), "flag": ()}, sample=feeds)
    structure = analysis.structure
    assert (structure.macs({}), structure.parameters({})) == (analysis.cost.macs, analysis.cost.parameters)
    inside = 5 if "Loop" in text else 1
    assert analysis.cost.macs == 3 * (6 * 16 + 16 * 8 + inside * 64)
    copy = structure.copy()
    assert (copy.macs({}), copy.parameters({})) == (structure.macs({}), structure.parameters({}))


def test_shares_are_those_of_the_whole():
    text = BODIES["Loop"]
    share = analyse(build(text), {"x": (3, 6), "flag": ()}).prunable_share
    layers = 6 * 16 + 16 * 8
    assert share == {
        "parameters": pytest.approx(layers / (layers + 64)),
        "macs": pytest.approx(layers / (layers + 320)),
    }


def test_a_cost_that_cannot_be_counted_is_left_to_whoever_asks_for_it():
    model = build("u = com.unknown.Op(h)  y = MatMul(u, w3)")
    assert analyse(model).structure.macs({}) == 6 * 16 + 16 * 8
