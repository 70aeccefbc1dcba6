"""Tidying: dead nodes, idle nodes that were named, and a stable order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.errors import InternalError
from onnx_subprune.model import to_graph
from onnx_subprune.passes import Tidy
from onnx_subprune.passes.wiring import sort_nodes

Build = Callable[..., onnx.ModelProto]
Apply = Callable[..., onnx.ModelProto]
Same = Callable[..., None]

DEAD = """g (float[N,4] x, float[N,4] unused) => (float[N,4] y) {
    [first] a = Neg (x)
    [dead] d = Add (a, w)
    [deader] e = Relu (d)
    [last] y = Abs (a)
}"""


def names(model: onnx.ModelProto) -> list[str]:
    return [node.name for node in model.graph.node]


def test_dead_nodes_go_and_inputs_stay(build: Build, apply: Apply, same_outputs: Same) -> None:
    before = build(DEAD, w=np.ones(4, np.float32))
    after = apply(before, Tidy())
    assert names(after) == ["first", "last"]
    assert [value.name for value in after.graph.input] == ["x", "unused"]
    assert not after.graph.initializer
    same_outputs(before, after)


def test_spared_nodes_stay_with_what_they_read(build: Build, apply: Apply) -> None:
    before = build(DEAD, w=np.ones(4, np.float32))
    assert names(apply(before, Tidy(spare=["deader"]))) == ["first", "dead", "deader", "last"]
    assert names(apply(before, Tidy(spare=["dead"]))) == ["first", "dead", "last"]


BODY = """g (bool k, float[4] x) => (float[4] y) {
    [needed] a = Neg (x)
    [choice] y = If (k) <
        then_branch = t () => (float[4] p) { p = Relu (a) },
        else_branch = e () => (float[4] q) { q = Abs (x) }
    >
}"""


def test_what_a_body_reads_is_alive_and_comes_first(build: Build, apply: Apply) -> None:
    before = build(BODY)
    assert apply(before, Tidy()) == before
    graph = to_graph(before)
    graph.nodes.reverse()
    assert Tidy()(graph).modified
    assert [node.name for node in graph.nodes] == ["needed", "choice"]


CONSTANTS = {name: np.array([value]) for name, value in {"i0": 0, "i1": 1, "i2": 2, "i3": 3, "i4": 4, "m1": -1}.items()}
CONSTANTS |= {"end": np.array([2**63 - 1]), "none": np.zeros(4, np.int64), "one": np.array([0, 0, 0, 1])}
IDLE = {
    "Identity": "[idle] b = Identity (a)",
    "Pad": "[idle] b = Pad (a, none)",
    "Slice to the end": "[idle] b = Slice (a, i0, end, i1)",
    "Slice to the end of all axes": "[idle] b = Slice (a, i0, end)",
    "Slice to the size": "[idle] b = Slice (a, i0, i4, m1, i1)",
}
BUSY = {
    "Pad": "[idle] b = Pad (a, one)",
    "Slice from 1": "[idle] b = Slice (a, i1, i4, i1)",
    "Slice too short": "[idle] b = Slice (a, i0, i3, i1)",
    "Slice of unknown size": "[idle] b = Slice (a, i0, i3, i0)",
    "Slice by steps": "[idle] b = Slice (a, i0, i4, i1, i2)",
    "Slice to a computed end": "e = Shape <start = 1> (x) [idle] b = Slice (a, i0, e, i1)",
    "another operator": "[idle] b = Relu (a)",
}


def idle_model(build: Build, nodes: str) -> onnx.ModelProto:
    text = f"g (float[N,4] x) => (float[N,M] y) <float[N,4] a> {{ [first] a = Neg (x) {nodes} [last] y = Abs (b) }}"
    return build(text, **CONSTANTS)


@pytest.mark.parametrize("case", IDLE)
def test_named_idle_nodes_go(build: Build, apply: Apply, same_outputs: Same, case: str) -> None:
    before = idle_model(build, IDLE[case])
    after = apply(before, Tidy(introduced=["idle"]))
    assert names(after) == ["first", "last"]
    same_outputs(before, after)


@pytest.mark.parametrize("case", IDLE)
def test_idle_nodes_of_the_user_stay(build: Build, case: str) -> None:
    graph = to_graph(idle_model(build, IDLE[case]))
    assert not Tidy()(graph).modified
    assert "idle" in [node.name for node in graph.nodes]


@pytest.mark.parametrize("case", BUSY)
def test_named_nodes_that_do_something_stay(build: Build, case: str) -> None:
    graph = to_graph(idle_model(build, BUSY[case]))
    assert not Tidy(introduced=["idle"])(graph).modified


def test_an_idle_node_that_names_a_graph_output_stays(build: Build, apply: Apply) -> None:
    before = build("g (float[4] x) => (float[4] y) { a = Neg (x) [idle] y = Identity (a) }")
    assert names(apply(before, Tidy(introduced=["idle"])))[-1] == "idle"


def test_chains_of_idle_nodes_go_whole(build: Build, apply: Apply, same_outputs: Same) -> None:
    text = """g (float[4] x) => (float[4] y, float[4] z) {
        [i] a = Identity (x)
        [j] b = Identity (a)
        [m] y = Mul (b, b)
        [n] z = Add (a, b)
    }"""
    before = build(text)
    after = apply(before, Tidy(introduced=["i", "j"]))
    assert names(after) == ["m", "n"]
    same_outputs(before, after)


def test_sorting_is_stable(build: Build) -> None:
    text = """g (float[4] x) => (float[4] y) {
        [a] a = Neg (x)
        [b] b = Abs (x)
        [c] c = Add (a, b)
        [d] d = Relu (x)
        [e] y = Add (c, d)
    }"""
    graph = to_graph(build(text))
    assert not sort_nodes(graph)
    a, b, c, d, e = graph.nodes
    graph.nodes = [e, d, c, b, a]
    assert sort_nodes(graph)
    assert [node.name for node in graph.nodes] == ["d", "b", "a", "c", "e"]


def test_a_cycle_is_an_internal_error(build: Build) -> None:
    graph = to_graph(build("g (float[4] x) => (float[4] y) { [p] a = Neg (x) [q] y = Add (a, x) }"))
    graph.nodes[0].inputs[0] = graph.nodes[1].outputs[0]
    with pytest.raises(InternalError, match="found one at node 'p'"):
        Tidy()(graph)


def test_a_body_may_reuse_the_name_of_a_later_tensor():
    """ONNX forbids it, exporters do it: the name made in the body is not a need of the node that holds it."""
    inner = gs.Variable("same", dtype=np.float32, shape=[1])
    x = gs.Variable("x", dtype=np.float32, shape=[1])
    body = gs.Graph(nodes=[gs.Node("Neg", inputs=[x], outputs=[inner])], outputs=[inner])
    condition = gs.Constant("condition", np.array(True))
    chosen = gs.Variable("chosen", dtype=np.float32, shape=[1])
    branch = gs.Node(
        "If", name="if", inputs=[condition], outputs=[chosen], attrs={"then_branch": body, "else_branch": body}
    )
    later = gs.Node("Abs", name="abs", inputs=[chosen], outputs=[gs.Variable("same", dtype=np.float32, shape=[1])])
    graph = gs.Graph(nodes=[branch, later], inputs=[x], outputs=later.outputs)
    assert not sort_nodes(graph)
