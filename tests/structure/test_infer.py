"""One pass of the rules over a graph: inputs, run-time sizes, barriers, and sizes that enter as numbers."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.model import to_graph
from onnx_subprune.structure import Structure, infer

CHAIN = """g (float[{image}] x) => (float[a,b] y) {{
    [m1] h = MatMul(x, w1)
    {text}
    [m2] y = MatMul(r, w2)
}}"""


def _reasons(structure: Structure) -> dict[str, str]:
    return {group.name: "; ".join(group.reasons) for group in structure.groups}


def _graph(model: onnx.ModelProto) -> gs.Graph:
    return to_graph(onnx.shape_inference.infer_shapes(model, data_prop=True))


def test_axes_of_inputs_never_shrink(net) -> None:
    model = net(CHAIN.format(image="2,6", text="[r] r = Relu(h)"), w1=(6, 8), w2=(8, 3))
    structure = infer(_graph(model), {"x": (2, 6)})
    (group,) = structure.prunable
    assert (group.name, group.size) == ("m1", 8)
    reasons = {reason for dim in structure.records.axes["x"] for atom in dim.atoms() for reason in atom.reasons}
    assert {"axis 0 of graph input 'x'", "axis 1 of graph input 'x'"} <= reasons


@pytest.mark.parametrize("batch", [-1, "N"])
def test_a_batch_without_a_size_is_of_run_time(net, batch) -> None:
    """Some exporters write -1 where others give a name."""
    model = net(CHAIN.format(image="N,6", text="[r] r = Relu(h)"), w1=(6, 8), w2=(8, 3))
    graph = _graph(model)
    graph.inputs[0].shape = [batch, 6]
    structure = infer(graph, {"x": (5, 6)})
    rows, columns = structure.records.axes["x"]
    assert (rows.size, rows.dynamic, columns.size, columns.dynamic) == (5, True, 6, False)
    assert structure.records.axes["y"][0].resolve() == rows.resolve()


def test_axes_of_one_name_are_one_axis(net) -> None:
    """What two inputs call N is the same number, so a sum of both needs no broadcast."""
    text = """g (float[N,6] x, float[N,6] z) => (float[N,b] y) {
        [m1] h = MatMul(x, w1)
        [m2] k = MatMul(z, w2)
        [a] a = Add(h, k)
        [m3] y = MatMul(a, w3)
    }"""
    weights = {"w1": (6, 8), "w2": (6, 8), "w3": (8, 3)}
    same = infer(_graph(net(text, **weights)), {"x": (2, 6), "z": (2, 6)})
    assert same.records.axes["x"][0].resolve() == same.records.axes["z"][0].resolve()
    other = infer(_graph(net(text.replace("float[N,6] z", "float[M,6] z"), **weights)), {"x": (2, 6), "z": (2, 6)})
    assert other.records.axes["x"][0].resolve() != other.records.axes["z"][0].resolve()
    assert [group.name for group in same.prunable] == [group.name for group in other.prunable] == ["m1"]


def test_weights_that_the_caller_may_replace_stay_whole(net) -> None:
    model = net(CHAIN.format(image="2,6", text="[r] r = Relu(h)"), w1=(6, 8), w2=(8, 3))
    assert [group.name for group in infer(_graph(model), {"x": (2, 6)}).prunable] == ["m1"]
    structure = infer(_graph(model), {"x": (2, 6)}, overridable={"w1"})
    assert not structure.prunable
    frozen = [atom.reasons for atom in structure.records.axes["h"][1].atoms()]
    assert frozen == [["'w1' is an input of the graph with a default value"]]


def test_a_barrier_gives_frozen_axes_of_the_shape_that_is_known(net) -> None:
    text = '[e] r = Einsum <equation="ij,ij,ij->ij"> (h, h, h)'
    structure = infer(_graph(net(CHAIN.format(image="2,6", text=text), w1=(6, 8), w2=(8, 3))), {"x": (2, 6)})
    axes = structure.records.axes["r"]
    assert [dim.size for dim in axes] == [2, 8]
    reason = "Einsum 'e' contracts by an equation that is no product of two tensors"
    assert all(reason in atom.reasons for dim in axes for atom in dim.atoms())


def test_a_barrier_without_a_shape_gives_no_axes(net) -> None:
    model = net(CHAIN.format(image="2,6", text="[e] u = Unique(h)\n[r] r = Relu(h)"), w1=(6, 8), w2=(8, 3))
    graph = to_graph(model)
    structure = infer(graph, {"x": (2, 6)})
    assert "u" not in structure.records.axes
    assert _reasons(structure)["m1"] == "Unique 'e' picks entries by their values, all axes at once"


def test_a_shape_that_is_declared_with_another_rank_is_not_believed(net) -> None:
    graph = _graph(net(CHAIN.format(image="2,6", text="[r] r = Relu(h)"), w1=(6, 8), w2=(8, 3)))
    graph.tensors()["r"].shape = [2, 4, 2]
    reasons = _reasons(infer(graph, {"x": (2, 6)}))
    assert "Relu 'r' was expected to give 2x8 entries, but gives [2, 4, 2]" in reasons["m1"]


def test_a_size_that_divides_an_activation_stays_the_dense_one(net) -> None:
    """An attention scale from the width: the number is held where the axis shrinks."""
    text = """[s] s = Shape <start=1, end=2> (h)
    [c] f = Cast <to=1> (s)
    [d] r = Div(h, f)"""
    structure = infer(_graph(net(CHAIN.format(image="2,6", text=text), w1=(6, 8), w2=(8, 3))), {"x": (2, 6)})
    assert [(group.name, group.size) for group in structure.prunable] == [("m1", 8)]
    (use,) = (use for use in structure.records.size_uses if use.node.op == "Cast")
    assert (use.where, use.position, use.expected) == (0, 0, 8)


def test_a_size_that_no_elementwise_operator_reads_freezes_its_axis(net) -> None:
    text = """[s] s = Shape <start=1, end=2> (h)
    [q] q = TopK (s, k)
    [r] r = Relu(h)"""
    model = net(
        CHAIN.format(image="2,6", text=text.replace("q = TopK", "q, i = TopK")), w1=(6, 8), w2=(8, 3), k=np.array([1])
    )
    assert "TopK 'q' computes with the size of this axis" in _reasons(infer(_graph(model), {"x": (2, 6)}))["m1"]


def test_a_size_that_belongs_to_another_axis_does_not_tie_the_two(net, holds) -> None:
    """A Reshape to the width of one layer, of what another one of the same width makes: each shrinks alone."""
    text = """g (float[2,6] x) => (float[a,b] y, float[c,d] v) {
        [m1] h = MatMul(x, w1)
        [m2] k = MatMul(x, w2)
        [s] s = Shape <start=1, end=2> (k)
        [c] c = Concat <axis=0> (two, s)
        [q] r = Reshape(h, c)
        [m3] y = MatMul(r, w3)
        [m4] v = MatMul(k, w4)
    }"""
    model = net(text, w1=(6, 8), w2=(6, 8), w3=(8, 3), w4=(8, 3), two=np.array([2]))
    holds(model, {"m1": 8, "m2": 8})


def test_outputs_freeze_what_they_hold(net) -> None:
    text = """g (float[2,6] x) => (float[a,b] y, float[c,d] r) {
        [m1] h = MatMul(x, w1)
        [r] r = Relu(h)
        [m2] y = MatMul(r, w2)
    }"""
    reasons = _reasons(infer(_graph(net(text, w1=(6, 8), w2=(8, 3))), {"x": (2, 6)}))
    assert reasons == {"m1": "graph output 'r'", "m2": "graph output 'y'"}
