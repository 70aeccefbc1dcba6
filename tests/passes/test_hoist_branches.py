"""Branches in the main graph: the same function, one copy of every weight, names that nothing else has."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_subprune import passes
from onnx_subprune.model import open_session, run, to_graph, to_model
from onnx_subprune.structure import is_hoisted

W = np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
V = np.random.default_rng(1).standard_normal((4, 4)).astype(np.float32)
X = np.random.default_rng(2).standard_normal((3, 4)).astype(np.float32)
BOTH = """y = If(c) <
    then_branch = t () => (float[n,4] a) { h = MatMul(x, w)  r = Relu(h)  a = MatMul(r, v) },
    else_branch = e () => (float[n,4] b) { h = MatMul(x, w)  r = Tanh(h)  b = MatMul(r, v) }>"""
THEN, ELSE = (("y", "then_branch"),), (("y", "else_branch"),)


def build(text: str, *, in_bodies: bool = False) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (bool c, float[n,4] x) => (float[p,q] y) {{ {text} }}'
    )
    bodies = [attribute.g for node in model.graph.node for attribute in node.attribute]
    for graph in bodies if in_bodies else [model.graph]:
        graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in (("w", W), ("v", V)))
    onnx.checker.check_model(model, full_check=True)
    return model


def hoisted(model: onnx.ModelProto) -> tuple[onnx.ModelProto, passes.HoistBranches]:
    """Return the model with all its branches hoisted, held to what it computed before."""
    graph = to_graph(model)
    passes.name_apart(graph)
    hoist = passes.HoistBranches(passes.weighted_branches(graph))
    assert hoist(graph).modified
    flat = to_model(graph, model)
    for flag in (True, False):
        feeds = {"c": np.array(flag), "x": X}
        expected, actual = (run(open_session(each), feeds)["y"] for each in (model, flat))
        np.testing.assert_allclose(actual, expected, atol=1e-6)
    return flat, hoist


@pytest.mark.parametrize("in_bodies", [False, True])
def test_both_branches_stand_in_the_main_graph_and_share_their_weights(in_bodies):
    flat, hoist = hoisted(build(BOTH, in_bodies=in_bodies))
    assert [node.op_type for node in flat.graph.node] == ["MatMul", "Relu", "MatMul", "MatMul", "Tanh", "MatMul", "If"]
    assert sorted(tensor.name for tensor in flat.graph.initializer) == ["v", "w"]
    outputs = [node.output[0] for node in flat.graph.node]
    assert len(set(outputs)) == 7
    assert [hoist.origins[name] for name in outputs] == [THEN] * 3 + [ELSE] * 3 + [()]
    assert is_hoisted(to_graph(flat).nodes[-1])


def test_weights_of_one_name_and_other_values_stay_two():
    model = build(BOTH, in_bodies=True)
    other = next(a.g for a in model.graph.node[0].attribute if a.name == "else_branch")
    other.initializer[0].CopyFrom(numpy_helper.from_array(2 * W, "w"))
    flat, _ = hoisted(model)
    assert len(flat.graph.initializer) == 3


def test_a_branch_without_weights_is_hoisted_beside_one_that_has_some():
    flat, _ = hoisted(build(BOTH.replace("h = MatMul(x, w)  r = Tanh(h)  b = MatMul(r, v)", "r = Tanh(x)  b = Neg(r)")))
    assert [node.op_type for node in flat.graph.node] == ["MatMul", "Relu", "MatMul", "Tanh", "Neg", "If"]


def test_a_constant_that_a_branch_gives_is_made_by_a_node():
    body = "h = MatMul(x, w)  r = Tanh(h)  b = MatMul(r, v)"
    flat, hoist = hoisted(build(BOTH.replace(body, "s = Neg(x)  u = Identity(w)  b = MatMul(u, v)")))
    assert [node.op_type for node in flat.graph.node][3:] == ["Neg", "Identity", "MatMul", "If"]
    graph = to_graph(build(BOTH.replace(body, "b = Constant <value = float[1,4] {1, 2, 3, 4}> ()")))
    hoist = passes.HoistBranches(passes.weighted_branches(graph))
    hoist(graph)
    assert [node.op for node in graph.nodes] == ["MatMul", "Relu", "MatMul", "Identity", "If"]
    assert hoist.origins[graph.nodes[3].outputs[0].name] == ELSE


def test_branches_within_branches():
    inner = """r = If(c) <
        then_branch = u () => (float[n,4] p) { z = MatMul(h, w)  p = Relu(z) },
        else_branch = v () => (float[n,4] q) { q = Relu(h) }>"""
    flat, hoist = hoisted(build(BOTH.replace("r = Relu(h)", inner)))
    assert [node.op_type for node in flat.graph.node].count("If") == 2
    assert hoist.origins["z"] == (*THEN, ("r", "then_branch"))
    assert hoist.origins["r"] == THEN


def test_only_the_branches_that_are_chosen():
    graph = to_graph(build(BOTH))
    passes.name_apart(graph)
    branch = next(one for one in passes.weighted_branches(graph) if one[1] == "else_branch")
    passes.HoistBranches([branch])(graph)
    assert [node.op for node in graph.nodes] == ["MatMul", "Tanh", "MatMul", "If"]
    assert len(graph.nodes[-1].attrs["then_branch"].nodes) == 3


@pytest.mark.parametrize(
    "text",
    [
        BOTH.replace("MatMul(x, w)", "Add(x, x)").replace("MatMul(r, v)", "Neg(r)"),
        """y = Loop(, c, x) <body = l (int64 i, bool go, float[n,4] s) => (bool on, float[n,4] o) {
            on = Identity(go)  o = MatMul(s, w) }>""",
    ],
    ids=["no weights", "a loop"],
)
def test_what_is_not_hoisted(text):
    graph = to_graph(build(text))
    assert not passes.weighted_branches(graph)
    assert not passes.HoistBranches([])(graph).modified


def test_names_of_different_tensors_are_set_apart_and_others_stay():
    graph = to_graph(build(f"z = Relu(x)  {BOTH}"))
    passes.name_apart(graph)
    bodies = [graph.nodes[-1].attrs[branch] for branch in ("then_branch", "else_branch")]
    names = [[node.outputs[0].name for node in body.nodes] for body in bodies]
    assert [node.outputs[0].name for node in graph.nodes] == ["z", "y"]
    assert names == [["h", "r", "a"], ["h_apart", "r_apart", "b"]]
