"""Questions about the wiring of a graph, bodies included, and the small edits that passes share."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.errors import InternalError
from onnx_subprune.model import to_graph
from onnx_subprune.passes import overridable_initializers
from onnx_subprune.passes.wiring import (
    dead_nodes,
    defect,
    drop_nodes,
    float_type,
    fresh_name,
    is_readable,
    is_sorted,
    names_known,
    place_of,
    protected_names,
    read_values,
    replace_uses,
    sort_nodes,
)

CHAIN = """g (float[2,3] x) => (float[2,3] y) {
    [first] a = Relu(x)
    [second] b = Add(a, w)
    [spare] c = Neg(a)
    [third] y = Mul(b, a)
}"""
# The bodies read `a` of the graph around them, and hand out tensors of their own.
BODIES = """g (float[2,3] x, bool flag) => (float[2,3] y) {
    [first] a = Relu(x)
    [choice] y = If (flag) <
        then_branch = yes () => (float[2,3] yes_out) { [inner] yes_out = Neg(a) },
        else_branch = no () => (float[2,3] no_out) { [other] no_out = Add(a, a) }
    >
}"""


@pytest.fixture
def chain(build) -> gs.Graph:
    return to_graph(build(CHAIN, w=np.ones(3, np.float32)))


@pytest.fixture
def bodies(build) -> gs.Graph:
    return to_graph(build(BODIES))


def node(graph: gs.Graph, name: str) -> gs.Node:
    return next(node for node in graph.nodes if node.name == name)


def names(nodes) -> list[str]:
    return [node.name for node in nodes]


def test_initializers_that_are_inputs_are_the_callers(build):
    model = build(CHAIN, w=np.ones(3, np.float32))
    assert overridable_initializers(model) == frozenset()
    model.graph.input.append(onnx.helper.make_tensor_value_info("w", onnx.TensorProto.FLOAT, [3]))
    assert overridable_initializers(model) == {"w"}
    model.ir_version = 3
    assert overridable_initializers(model) == frozenset(), "before IR 4 all initializers are listed among the inputs"


def test_outputs_of_bodies_are_protected(chain, bodies):
    assert protected_names(chain) == {"x", "y"}
    assert protected_names(bodies) == {"x", "flag", "y", "yes_out", "no_out"}


def test_values_are_read_where_they_are_numbers(chain):
    weight = node(chain, "second").inputs[1]
    assert is_readable(weight)
    np.testing.assert_array_equal(read_values(weight), np.ones(3))
    assert read_values(node(chain, "second").inputs[0]) is None
    assert not is_readable(gs.Constant("text", np.array(["a", "b"], dtype=object)))


def test_a_sparse_constant_is_not_read(build):
    values = onnx.helper.make_tensor("s", onnx.TensorProto.FLOAT, [2], [1.0, 2.0])
    indices = onnx.helper.make_tensor("i", onnx.TensorProto.INT64, [2], [0, 4])
    sparse = onnx.helper.make_sparse_tensor(values, indices, [6])
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "s"], ["y"])], "g",
        [onnx.helper.make_tensor_value_info("x", 1, [6])], [onnx.helper.make_tensor_value_info("y", 1, [6])],
        sparse_initializer=[sparse],
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 17)]
    (add,) = to_graph(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)).nodes
    assert all(read_values(tensor) is None for tensor in add.inputs)


def test_the_type_of_a_tensor_is_found_upstream():
    half = gs.Variable("x", dtype=np.float16)
    between, end = gs.Variable("h"), gs.Variable("y")
    gs.Node("Relu", inputs=[half], outputs=[between])
    gs.Node("Relu", inputs=[between], outputs=[end])
    assert float_type(end) == np.float16
    assert float_type(gs.Variable("alone")) == np.float32


def test_fresh_names_are_taken_by_nobody(chain, bodies):
    assert fresh_name(chain, "new") == "new"
    assert fresh_name(chain, "a") == "a_1"
    assert fresh_name(bodies, "yes_out") == "yes_out_1"


def test_names_are_given_once_while_they_are_known(chain):
    with names_known(chain):
        assert [fresh_name(chain, "a") for _ in range(3)] == ["a_1", "a_2", "a_3"]
    assert fresh_name(chain, "a") == "a_1"


def test_readers_change_to_another_tensor(bodies):
    a = node(bodies, "first").outputs[0]
    replace_uses(a, bodies.inputs[0])
    inner = next(n for body in bodies.subgraphs() for n in body.nodes if n.name == "inner")
    assert inner.inputs[0] is bodies.inputs[0]
    assert not a.outputs


def test_dropped_nodes_are_disconnected(chain):
    spare = node(chain, "spare")
    source = spare.inputs[0]
    drop_nodes(chain, [spare])
    assert names(chain.nodes) == ["first", "second", "third"]
    assert not spare.inputs
    assert spare not in source.outputs


def test_dead_nodes_are_those_that_nothing_needs(chain, bodies):
    assert names(dead_nodes(chain)) == ["spare"]
    assert dead_nodes(chain, spare={"spare"}) == []
    assert dead_nodes(bodies) == [], "a body reads what the graph around it makes"


def test_nodes_are_sorted_as_they_stood_where_that_is_possible(chain):
    assert is_sorted(chain)
    assert not sort_nodes(chain)
    chain.nodes = chain.nodes[::-1]
    assert not is_sorted(chain)
    assert sort_nodes(chain)
    assert names(chain.nodes) == ["first", "spare", "second", "third"]


def test_a_body_needs_what_it_reads_before_it(bodies):
    bodies.nodes = bodies.nodes[::-1]
    assert sort_nodes(bodies)
    assert names(bodies.nodes) == ["first", "choice"]


def test_a_cycle_is_an_error_that_names_a_node(chain):
    first, third = node(chain, "first"), node(chain, "third")
    first.inputs[0] = third.outputs[0]
    with pytest.raises(InternalError, match="cycles, found one at node 'first'"):
        sort_nodes(chain)


def test_defects_are_named(chain, bodies):
    assert defect(chain) is None
    assert defect(bodies) is None
    node(chain, "spare").outputs[0] = node(chain, "first").outputs[0]
    assert defect(chain) == "two nodes make tensor 'a'"


def test_a_tensor_that_nothing_makes_is_a_defect(bodies):
    inner = next(n for body in bodies.subgraphs() for n in body.nodes if n.name == "inner")
    inner.inputs[0] = gs.Variable("lost")
    assert defect(bodies) == "nothing makes tensor 'lost'"


def test_the_place_of_a_node(chain):
    assert [place_of(chain, node) for node in chain.nodes] == [0, 1, 2, 3]
