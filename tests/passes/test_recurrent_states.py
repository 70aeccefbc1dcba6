"""Initial states of zeros are left out, and the states of all steps get a name that is taken away again."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.model import to_graph
from onnx_subprune.passes import DropStates, NameStates

LAYER = "s, last = {op} <hidden_size=3> (x, W, R, B, , {state})\ny = Relu(s)"
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@pytest.fixture
def layer(build, draw):
    def make(op, before, state, more=None, outputs="s, last", result="y = Relu(s)"):
        rows = 3 * GATES[op]
        numbers = {"shape": np.array([1, 2, 3]), "single": np.array([3]), "two": np.array([1, 2])}
        text = f"{before}\n{outputs} = {op} <hidden_size=3> (x, W, R, B, , {state})\n{result}"
        words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
        known = {**numbers, "zeros": np.zeros((1, 2, 3), np.float32), "some": draw(1, 2, 3), **(more or {})}
        rank = "float[a,b,c,d] y" if outputs.startswith("s") else "float[a,b,c] y"
        return build(
            f"g (float[4,2,5] x) => ({rank}) {{ {text} }}",
            W=draw(1, rows, 5), R=draw(1, rows, 3), B=draw(1, 2 * rows),
            **{name: value for name, value in known.items() if name in words},
        )  # fmt: skip

    return make


ZEROS = {
    "a constant": ("", "zeros"),
    "ConstantOfShape": ("z = ConstantOfShape(shape)", "z"),
    "with a value": ("z = ConstantOfShape <value=float[1] {0}> (shape)", "z"),
    "moved": ("c = ConstantOfShape(single) z = Expand(c, shape)", "z"),
    "joined": ("c = ConstantOfShape(shape) d = Identity(zeros) z = Concat <axis=0> (c)", "z"),
}


@pytest.mark.parametrize("op", GATES)
@pytest.mark.parametrize("spelling", ZEROS)
def test_a_state_of_zeros_is_left_out(layer, apply, same_outputs, op, spelling):
    before, state = ZEROS[spelling]
    model = layer(op, before.replace("d = Identity(zeros) ", ""), state)
    after = apply(model, NameStates())
    node = next(node for node in after.graph.node if node.op_type == op)
    assert not any(node.input[5:])
    same_outputs(model, after)


@pytest.mark.parametrize(
    ("before", "state"),
    [("", "some"), ("z = ConstantOfShape <value=float[1] {1}> (shape)", "z"), ("z = Add(some, zeros)", "z")],
    ids=["numbers", "ones", "computed"],
)
def test_any_other_state_stays(layer, before, state):
    graph = to_graph(layer("GRU", before, state))
    assert not NameStates()(graph).modified
    assert next(node for node in graph.nodes if node.op == "GRU").inputs[5].name == state


def test_zeros_that_the_caller_may_replace_stay(layer):
    graph = to_graph(layer("RNN", "", "zeros"))
    assert not NameStates(frozenset({"zeros"}))(graph).modified
    assert NameStates()(graph).modified


def test_the_states_of_all_steps_get_a_name_and_lose_it_again(layer):
    model = layer("LSTM", "", "some", outputs=", last", result="y = Relu(last)")
    graph = to_graph(model)
    node = next(node for node in graph.nodes if node.op == "LSTM")
    assert NameStates()(graph).modified
    assert node.outputs[0].name
    assert not NameStates()(graph).modified
    assert DropStates()(graph).modified
    assert node.outputs[0].is_empty()
    assert not DropStates()(graph).modified


def test_a_name_that_others_gave_is_theirs(layer):
    graph = to_graph(layer("LSTM", "", "some"))
    assert not DropStates()(graph).modified
