"""Where hoisted nodes run: in the branches that need them alone, and never further out than they did before."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs
import pytest
from onnx import parser

from onnx_subprune.model import to_graph
from onnx_subprune.structure import Place, handed_out, is_hoisted, places_of
from onnx_subprune.structure.branch_places import BRANCHES, cost_places, dearest, unhoisted

THEN, ELSE = (("y", "then_branch"),), (("y", "else_branch"),)
HOISTED = """s = Neg(x)  h = Relu(s)  k = Tanh(s)  j = Exp(k)
    y = If(c) <
        then_branch = t () => (float[2] a) { a = Identity(h) },
        else_branch = e () => (float[2] b) { b = Identity(j) }>"""


def graph_of(text: str) -> gs.Graph:
    return to_graph(
        parser.parse_model(
            f'<ir_version: 8, opset_import: ["" : 17]> g (bool c, float[2] x) => (float[2] y) {{ {text} }}'
        )
    )


def places(text: str, origins: Mapping[str, Place]) -> dict[str, Place]:
    graph = graph_of(text)
    found = places_of(graph, origins)
    return {node.outputs[0].name: found[id(node)] for node in graph.nodes}


def test_what_one_branch_needs_alone_runs_there():
    assert places(HOISTED, {}) == {"s": (), "h": THEN, "k": ELSE, "j": ELSE, "y": ()}


def test_what_stood_in_the_main_graph_stays_there_and_what_it_needs_too():
    assert places(HOISTED, {"j": (), "s": (), "h": THEN}) == {"s": (), "h": THEN, "k": (), "j": (), "y": ()}


def test_a_branch_within_a_branch():
    text = """h = Neg(x)  k = Exp(x)
        r = If(c) <
            then_branch = u () => (float[2] p) { p = Identity(h) },
            else_branch = v () => (float[2] q) { q = Identity(k) }>
        m = Abs(r)
        y = If(c) <
            then_branch = t () => (float[2] a) { a = Identity(m) },
            else_branch = e () => (float[2] b) { b = Identity(k) }>"""
    within = (*THEN, ("r", "then_branch"))
    assert places(text, {}) == {"h": within, "k": (), "r": THEN, "m": THEN, "y": ()}


@pytest.mark.parametrize(
    ("body", "sources"),
    [
        ("a = Identity(x)", ["x"]),
        ("a = Neg(x)", None),
        ("z = Identity(x)  a = Identity(z)", None),
        ("z = Neg(x)  a = Identity(x)", None),
    ],
)
def test_a_body_that_only_hands_out(body, sources):
    branch = f"t () => (float[2] a) {{ {body} }}"
    other = "e () => (float[2] b) { b = Identity(x) }"
    (node,) = graph_of(f"y = If(c) <then_branch = {branch}, else_branch = {other}>").nodes
    tensors = handed_out(node.attrs["then_branch"])
    assert (tensors and [tensor.name for tensor in tensors]) == sources
    assert is_hoisted(node) == (sources is not None)
    assert unhoisted(node) == (() if sources else THEN)


def test_nodes_without_bodies_are_no_hoisted_ifs():
    assert handed_out(None) is None
    assert not is_hoisted(gs.Node("If", "bare"))
    assert not is_hoisted(gs.Node("Relu", "relu"))


def test_costs_are_spent_in_the_branch_that_is_left_in_its_if():
    graph = graph_of(HOISTED.replace("b = Identity(j)", "n = Exp(s)  b = Neg(n)"))
    origins: dict[str, Place] = {"h": THEN, "s": ()}
    spent = {
        node.outputs[0].name: place
        for node, place in zip(graph.nodes, cost_places(graph, origins).values(), strict=True)
    }
    assert spent["h"] == THEN
    assert spent["y"] == ELSE
    assert cost_places(graph, {}) == {}


def test_the_dearer_branch_at_every_depth():
    inner = [(*THEN, ("r", branch)) for branch in BRANCHES]
    costs = {(): 1, THEN: 10, ELSE: 25, inner[0]: 5, inner[1]: 20}
    assert dearest(list(costs.values()), list(costs)) == 1 + max(10 + 20, 25)
    assert dearest([], []) == 0
