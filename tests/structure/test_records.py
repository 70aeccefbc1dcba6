"""Records of a graph: weights behind views, axes that belong to one use, and integers that are known."""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.model import constant_values, to_graph
from onnx_subprune.structure import infer
from onnx_subprune.structure.axes import fresh
from onnx_subprune.structure.records import MacTerm, Records, RuleError, captured, label

FORWARD = """g (float[2,3] x) => (float[2,5] y) {
    [m1] h = MatMul(x, w1)
    [a] b = Add(h, k)
    [m2] y = MatMul(b, w2)
}"""


@pytest.fixture
def records(net) -> tuple[Records, gs.Graph]:
    structure = infer(to_graph(net(FORWARD, w1=(3, 4), k=(4,), w2=(4, 5))), {"x": (2, 3)})
    return structure.records, structure.graph


def node(graph: gs.Graph, name: str) -> gs.Node:
    return next(node for node in graph.nodes if node.name == name)


def test_records_are_kept_by_kind(records):
    found, graph = records
    before = len(found.mac_terms)
    found.add(MacTerm(node(graph, "m1"), (fresh(2),)), RuleError("MatMul", "m1", "ValueError: nothing"))
    assert len(found.mac_terms) == before + 1
    assert found.rule_errors[-1].node == "m1"


def test_weights_are_tied_and_biases_are_of_their_use(records):
    found, graph = records
    assert found.constant_axes(node(graph, "m1"), 1) == found.tied["w1"][1]
    own = found.own_axes(node(graph, "a"), 1)
    assert own is not None
    assert found.constant_axes(node(graph, "a"), 1) == own
    assert found.own_axes(node(graph, "m1"), 1) is None
    assert found.constant_axes(node(graph, "m1"), 0) is None, "an activation"


def test_axes_can_be_given(records):
    found, graph = records
    add = node(graph, "a")
    axes = (fresh(4),)
    found.give_own_axes(add, 1, axes)
    assert found.own_axes(add, 1) == axes
    found.give_axes_of("new", "h")
    assert found.axes["new"] == found.axes["h"]


def test_a_weight_has_the_same_axes_at_all_its_uses(records):
    found, graph = records
    constant = node(graph, "m1").inputs[1]
    assert found.tie(constant) is found.tie(constant)
    assert [dim.size for dim in found.tie(constant)] == [3, 4]


def test_optional_inputs_are_there_or_not(net):
    model = net("g (float[2,3] x) => (float[a,b] y) { [c] y = Clip(x, , high) }", high=np.float32(6))
    graph = to_graph(model)
    found = Records(17)
    (clip,) = graph.nodes
    assert [found.has(clip, index) for index in range(4)] == [True, False, True, False]


def test_what_the_caller_may_replace_is_no_constant(records):
    _, graph = records
    weight = node(graph, "m1").inputs[1]
    assert Records(17).is_constant(weight)
    assert not Records(17, {"w1"}).is_constant(weight)
    assert not Records(17).is_constant(node(graph, "m1").inputs[0])


@pytest.mark.parametrize(
    ("values", "known"),
    [
        (np.array([1, -1, 3]), [1, -1, 3]),
        (np.array([1, 2], np.int32), [1, 2]),
        (np.array(True), 1),
        (np.array([1.0, 2.0], np.float32), None),
        (np.arange(2000), None),
    ],
    ids=["int64", "int32", "bool", "float", "too many"],
)
def test_integers_are_read_where_they_are_few(values, known):
    found = Records(17).extents_of(gs.Constant("k", values))
    assert (None if found is None else found.tolist()) == known


VIEWS = {
    "as it is": ("y = MatMul(x, w)", (3, 4), (0, 1)),
    "turned": ("t = Transpose <perm=[1,0]> (w)\ny = MatMul(x, t)", (4, 3), (1, 0)),
    "turned without saying how": ("t = Transpose(w)\ny = MatMul(x, t)", (4, 3), (1, 0)),
    "turned twice": ("s = Transpose(w)\nt = Transpose(s)\ny = MatMul(x, t)", (3, 4), (0, 1)),
    "handed on": ("t = Identity(w)\ny = MatMul(x, t)", (3, 4), (0, 1)),
    "cast": ("t = Cast <to=1> (w)\ny = MatMul(x, t)", (3, 4), (0, 1)),
}


@pytest.mark.parametrize("spelling", VIEWS)
def test_a_weight_is_seen_as_its_node_reads_it(net, spelling):
    text, shape, perm = VIEWS[spelling]
    values = np.random.default_rng(0).standard_normal(shape).astype(np.float16 if spelling == "cast" else np.float32)
    graph = to_graph(net(f"g (float[2,3] x) => (float[a,b] y) {{ {text} }}", w=values))
    found = Records(17).weight(graph.nodes[-1], 1)
    assert found is not None
    weight, dims = found
    assert weight.perm == perm
    assert weight.dtype == np.float32
    view = weight.view(constant_values)
    np.testing.assert_array_equal(view, values.transpose(perm))
    assert [dim.size for dim in dims] == [3, 4]
    np.testing.assert_array_equal(weight.store(view), values)


@pytest.mark.parametrize(
    "text", ["y = MatMul(x, x2)", "t = Relu(w)\ny = MatMul(x, t)", "t = Cast <to=1> (i)\ny = MatMul(x, t)"]
)
def test_behind_arithmetic_or_integers_there_is_no_weight(net, text):
    given = {"w": (3, 4), "i": np.ones((3, 4), np.int64)}
    model = net(
        f"g (float[2,3] x, float[3,4] x2) => (float[a,b] y) {{ {text} }}",
        **{name: value for name, value in given.items() if f"({name})" in text},
    )  # fmt: skip
    assert Records(17).weight(to_graph(model).nodes[-1], 1) is None


def test_tensors_that_bodies_read_are_captured(net):
    model = net(
        """g (float[2,3] x, bool flag) => (float[2,3] y) {
            [if] y = If (flag) <
                then_branch = yes () => (float[2,3] a) { a = Add(x, k) },
                else_branch = no () => (float[2,3] b) { b = Relu(x) }
            >
        }""",
        k=(3,),
    )  # fmt: skip
    (choice,) = to_graph(model).nodes
    assert {"x", "k"} <= {tensor.name for tensor in captured(choice)}
    assert label(choice) == "If 'if'"
