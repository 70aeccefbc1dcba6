"""What bodies hold in one run: sizes by body, once for every time it ran."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from onnx_subprune.errors import ModelError
from onnx_subprune.model import body_shapes as module
from onnx_subprune.model.body_shapes import body_shapes, shapes_of_all_branches

X = np.ones((3, 4), np.float32)


def build(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')


def inputs_of_relu(node: onnx.NodeProto) -> list[str]:
    return list(node.input) if node.op_type == "Relu" else []


BRANCHES = """g (bool c, float[n, m] x) => (float[p, q] y) {
    y = If(c) <
        then_branch = t () => (float[p, q] a) { s = Transpose(x)  a = Relu(s) },
        else_branch = e () => (float[p, q] b) { b = Relu(x) }>
}"""


@pytest.mark.parametrize(("flag", "seen"), [(True, {"y/0/": [{"s": (4, 3)}]}), (False, {"y/1/": [{"x": (3, 4)}]})])
def test_the_branch_that_is_taken(flag, seen):
    assert body_shapes(build(BRANCHES), {"c": np.array(flag), "x": X}, inputs_of_relu) == seen


@pytest.mark.parametrize("flag", [True, False])
def test_the_branch_that_is_not_taken_is_seen_too(flag):
    seen = shapes_of_all_branches(build(BRANCHES), {"c": np.array(flag), "x": X}, inputs_of_relu)
    assert seen == {"y/0/": [{"s": (4, 3)}], "y/1/": [{"x": (3, 4)}]}


def test_branches_within_branches_are_seen_each_on_its_way():
    """Taken without the one around it, or together with the other, a branch would not run."""
    inner = """s = Transpose(x)
        h = If(c) <
            then_branch = u () => (float[p, q] v) { w = MatMul(s, x)  v = Relu(w) },
            else_branch = i () => (float[p, q] z) { r = MatMul(x, s)  z = Relu(r) }>
        a = Relu(h)"""
    model = build(BRANCHES.replace("s = Transpose(x)  a = Relu(s)", inner))
    seen = shapes_of_all_branches(model, {"c": np.array(False), "x": X}, inputs_of_relu)
    assert seen == {
        "y/0/": [{"h": (3, 3)}],
        "y/0/h/0/": [{"w": (4, 4)}],
        "y/0/h/1/": [{"r": (3, 3)}],
        "y/1/": [{"x": (3, 4)}],
    }


def test_a_branch_that_fails_where_it_is_not_taken_is_not_seen():
    model = build(BRANCHES.replace("s = Transpose(x)", "s = MatMul(x, x)"))
    with pytest.raises(ModelError):
        body_shapes(model, {"c": np.array(True), "x": X}, inputs_of_relu)
    seen = shapes_of_all_branches(model, {"c": np.array(False), "x": X}, inputs_of_relu)
    assert seen == {"y/1/": [{"x": (3, 4)}]}


GROWING = """g (int64 n, float[a, b] x) => (float[p, q] y, bool[k] odd) <bool yes = {1}, int64 two = {2}> {
    y, odd = Loop(n, yes, x) <body = l (int64 i, bool go, float[a, b] s) => (bool on, float[p, q] t, bool o) {
        on = Identity(go)
        r = Mod(i, two)
        o = Cast <to = 9> (r)
        h = If(o) <
            then_branch = u () => (float[p, q] v) { w = Transpose(s)  v = Relu(w) },
            else_branch = e () => (float[p, q] z) { z = Relu(s) }>
        t = Concat <axis = 0> (s, s)
    }>
}"""


def test_a_loop_is_seen_at_every_step_and_the_branch_within_it():
    """The state doubles its rows; at odd steps it is transposed, at even ones it is not."""
    seen = body_shapes(build(GROWING), {"n": np.array(4), "x": X}, inputs_of_relu)
    assert seen == {"y/0/h/0/": [{"w": (4, 6)}, {"w": (4, 24)}], "y/0/h/1/": [{"s": (3, 4)}, {"s": (12, 4)}]}


def test_a_loop_that_does_not_run_is_not_seen():
    assert body_shapes(build(GROWING), {"n": np.array(0), "x": X}, inputs_of_relu) == {}


def test_a_scan_whose_outputs_have_axes_of_their_own():
    model = build("""g (float[4] h, float[5, 4] x) => (float[4] last, float[a, b] all) {
        last, all = Scan <num_scan_inputs = 1, scan_output_axes = [1],
            body = b (float[4] s, float[4] e) => (float[4] t, float[4] r) { t = Add(s, e)  r = Relu(t) }> (h, x)
    }""")
    seen = body_shapes(model, {"h": X[0], "x": np.ones((5, 4), np.float32)}, inputs_of_relu)
    assert seen == {"last/0/": [{"t": (4,)}] * 5}


def test_without_anything_to_see_nothing_runs():
    model = build("g (float[2] x) => (float[2] y) { y = com.unknown.Op(x) }")
    assert body_shapes(model, {}, inputs_of_relu) == {}


def test_a_loop_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(module, "_SECONDS", 0.2)
    model = build("""g (float[2] x) => (float[2] y) <bool yes = {1}> {
        y = Loop("", yes, x) <body = l (int64 i, bool go, float[2] s) => (bool on, float[2] t) {
            on = Identity(go)  t = Relu(s) }>
    }""")
    with pytest.raises(ModelError, match="failed while running"):
        body_shapes(model, {"x": X[0, :2]}, inputs_of_relu)


def test_the_model_is_not_changed():
    model = build(BRANCHES)
    before = model.SerializeToString(deterministic=True)
    body_shapes(model, {"c": np.array(True), "x": X}, inputs_of_relu)
    assert model.SerializeToString(deterministic=True) == before
