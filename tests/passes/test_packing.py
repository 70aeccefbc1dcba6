"""Stacked projections are found with all that reads them, and not where a part of them is used otherwise."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.model import to_graph
from onnx_subprune.passes.packing import has_candidates, packings

# [batch, tokens, 3 x heads x channels] -> [3, batch, heads, tokens, channels].
STACK = """[qkv] p = MatMul(x, w)
    s = Reshape(p, five)
    t = Transpose <perm=[2,0,3,1,4]> (s)"""
ATTENTION = """kt = Transpose <perm=[0,1,3,2]> (k)
    scores = MatMul(q, kt)
    a = Softmax(scores)
    y = MatMul(a, v)"""
PICKS = {
    "Gather": "q = Gather <axis=0> (t, zero) k = Gather <axis=0> (t, one) v = Gather <axis=0> (t, two)",
    "Gather that keeps": """q1 = Gather <axis=0> (t, zeros)
        k1 = Gather <axis=0> (t, ones) v1 = Gather <axis=0> (t, twos)
        q = Squeeze(q1, zeros) k = Squeeze(k1, zeros) v = Squeeze(v1, zeros)""",
    "Split": """q1, k1, v1 = Split <axis=0> (t)
        q = Squeeze(q1, zeros) k = Squeeze(k1, zeros) v = Squeeze(v1, zeros)""",
    "Slice": """q1 = Slice(t, zeros, ones, zeros) k1 = Slice(t, ones, twos, zeros) v1 = Slice(t, twos, threes, zeros)
        q = Squeeze(q1, zeros) k = Squeeze(k1, zeros) v = Squeeze(v1, zeros)""",
}
NUMBERS = {
    "five": np.array([2, 4, 3, 2, 6]), "small": np.array([2, 4, 2, 2, 2]),
    "zero": np.int64(0), "one": np.int64(1), "two": np.int64(2),
    "zeros": np.array([0]), "ones": np.array([1]), "twos": np.array([2]), "threes": np.array([3]),
}  # fmt: skip


@pytest.fixture
def stacked(build, draw):
    def make(picks, attention=ATTENTION, out="float[a,b,c,d] y", stack=STACK):
        text = f"{stack}\n{picks}\n{attention}"
        words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
        numbers = {name: value for name, value in NUMBERS.items() if name in words}
        return build(f"g (float[2,4,8] x) => ({out}) {{ {text} }}", w=draw(8, 36), **numbers)

    return make


@pytest.mark.parametrize("picks", PICKS)
def test_queries_keys_and_values_are_found(stacked, structured, picks):
    model = stacked(PICKS[picks])
    assert has_candidates(to_graph(model))
    (packing,) = packings(structured(model))
    assert packing.reshape.op == "Reshape"
    assert packing.rank == 5
    assert (packing.place.flat, packing.place.stack, packing.place.count) == (2, 2, 3)
    assert (packing.place.outer, packing.place.inner) == (1, 12)
    assert packing.next_size == 2
    assert packing.order == (2, 0, 3, 1, 4)
    assert {pick.position for pick in packing.picks} == {0, 1, 2}
    dropped = [pick for pick in packing.picks if not pick.keeps]
    assert [pick.tensor.name for pick in sorted(dropped, key=lambda pick: pick.position)] == ["q", "k", "v"]


def test_a_stack_that_is_read_as_a_whole_is_none(stacked, structured):
    model = stacked(PICKS["Gather"], f"{ATTENTION}\nz = Relu(t)", "float[a,b,c,d] y, float[e,f,g,h,i] z")
    assert not has_candidates(to_graph(model))
    assert packings(structured(model)) == []


def test_a_stack_that_is_an_output_is_none(stacked, structured):
    model = stacked(PICKS["Gather"], ATTENTION, "float[a,b,c,d] y, float[e,f,g,h,i] t")
    assert packings(structured(model)) == []


def test_two_positions_at_once_are_no_pick(stacked, structured):
    picks = """q = Gather <axis=0> (t, zero)
        kv = Slice(t, ones, threes, zeros)
        k1, v1 = Split <axis=0> (kv)
        k = Squeeze(k1, zeros) v = Squeeze(v1, zeros)"""
    assert packings(structured(stacked(picks))) == []


def test_heads_picked_one_by_one_are_no_stack(stacked, structured):
    """The axis that is picked from is the one that rows of the weight are stacked along, with another behind it."""
    stack = STACK.replace("perm=[2,0,3,1,4]", "perm=[4,0,3,1,2]")
    picks = "q = Gather <axis=0> (t, zero) k = Gather <axis=0> (t, one) v = Gather <axis=0> (t, two)"
    assert packings(structured(stacked(picks, stack=stack))) == []


def test_an_activation_is_no_projection(stacked, structured):
    """No weight writes the stacked axis: there are no rows to sort."""
    stack = "s = Reshape(x, five)\nt = Transpose <perm=[2,0,3,1,4]> (s)"
    model = stacked(PICKS["Gather"], stack=stack.replace("five", "small"))
    assert packings(structured(model)) == []


def test_a_network_without_a_stack_has_no_candidates(build, draw):
    model = build("g (float[2,8] x) => (float[2,4] y) { h = MatMul(x, w) y = Relu(h) }", w=draw(8, 4))
    assert not has_candidates(to_graph(model))
