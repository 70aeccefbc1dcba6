"""What was hoisted goes back into its branches: the file that comes out is the one that went in."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper, parser

from onnx_subprune import passes
from onnx_subprune.model import to_graph, to_model

BOTH = """y = If(c) <
    then_branch = t () => (float[n,4] a) { h = MatMul(x, w)  r = Relu(h)  a = MatMul(r, v) },
    else_branch = e () => (float[n,4] b) { k = MatMul(x, w)  s = Tanh(k)  b = MatMul(s, u) }>"""
NESTED = BOTH.replace(
    "r = Relu(h)",
    """r = If(c) <
        then_branch = m () => (float[n,4] p) { z = MatMul(h, w)  p = Relu(z) },
        else_branch = o () => (float[n,4] q) { q = Relu(h) }>""",
)


def build(text: str) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (bool c, float[n,4] x) => (float[p,q] y) {{ {text} }}'
    )
    for name in "uvw":
        model.graph.initializer.append(numpy_helper.from_array(np.eye(4, dtype=np.float32), name))
    return model


def hoisted(model: onnx.ModelProto) -> tuple[gs.Graph, passes.SinkBranches]:
    graph = to_graph(model)
    hoist = passes.HoistBranches(passes.weighted_branches(graph))
    hoist(graph)
    return graph, passes.SinkBranches(hoist.origins)


def operators(model: onnx.ModelProto) -> list[list[str]]:
    """Return the operators of the main graph, of then_branch and of else_branch."""
    attributes = {attribute.name: attribute.g for node in model.graph.node for attribute in node.attribute}
    graphs = [model.graph, attributes["then_branch"], attributes["else_branch"]]
    return [[node.op_type for node in graph.node] for graph in graphs]


@pytest.mark.parametrize("text", [BOTH, NESTED, f"d = Neg(x)  {BOTH.replace('MatMul(x, w)', 'MatMul(d, w)')}"])
def test_there_and_back(text):
    model = build(text)
    graph, sink = hoisted(model)
    assert sink(graph).modified
    sunk = to_model(graph, model)
    onnx.checker.check_model(sunk, full_check=True)
    assert operators(sunk) == operators(model)
    assert sunk.graph.initializer == model.graph.initializer


def test_what_both_branches_come_to_need_is_computed_once_in_front_of_them():
    """A node that was hoisted from one branch, and that the other one reads as well now."""
    model = build(BOTH)
    graph, sink = hoisted(model)
    by_name = {node.outputs[0].name: node for node in graph.nodes}
    by_name["s"].inputs[0] = by_name["h"].outputs[0]
    sink(graph)
    graph.cleanup()
    assert operators(to_model(graph, model)) == [["MatMul", "If"], ["Relu", "MatMul"], ["Tanh", "MatMul"]]


def test_new_nodes_go_where_they_are_needed_and_shared_constants_are_named():
    model = build(BOTH)
    graph, sink = hoisted(model)
    last = next(node for node in graph.nodes if node.outputs[0].name == "b")
    product = gs.Variable("product", np.float32)
    bias = gs.Constant("bias", np.ones(4, np.float32))
    add = gs.Node("Add", "add", inputs=[product, bias], outputs=[last.outputs[0]])
    last.outputs = [product]
    graph.nodes.insert(graph.nodes.index(last) + 1, add)
    sink(graph)
    sunk = to_model(graph, model, shared=sink.shared)
    assert operators(sunk) == [["If"], ["MatMul", "Relu", "MatMul"], ["MatMul", "Tanh", "MatMul", "Add"]]
    assert sink.shared == {"w"}
    (body,) = [a.g for a in sunk.graph.node[0].attribute if a.name == "else_branch"]
    assert [tensor.name for tensor in body.initializer] == ["bias"]


def test_a_graph_without_hoisted_branches_stays_as_it_is():
    model = build(BOTH)
    graph = to_graph(model)
    assert not passes.SinkBranches({})(graph).modified
    assert to_model(graph, model) == model
