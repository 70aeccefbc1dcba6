"""If and Loop: what their bodies touch stays whole, and the rest of the graph goes on."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.pipeline import analyse

CHOICE = """g (float[2,3,6,7] x, bool flag) => (float[a,b,c,d] y) {
    [c0] e = Conv(x, w0)
    [r] f = Relu(e)
    [c1] h = Conv(f, w1)
    [if] r = If (flag) <
        then_branch = yes () => (float[2,8,6,7] yes_out) { yes_out = Relu(h) },
        else_branch = no () => (float[2,8,6,7] no_out) { no_out = Neg(h) }
    >
    [c2] y = Conv(r, w2)
}"""
LOOP = """g (float[2,3,6,7] x) => (float[a,b,c,d] y) {
    [c0] e = Conv(x, w0)
    [c1] h = Conv(e, w1)
    [loop] r = Loop (three, yes, h) <
        body = step (int64 i, bool go, float[2,8,6,7] before) => (bool go_on, float[2,8,6,7] after) {
            go_on = Identity(go)
            after = Tanh(before)
        }
    >
    [c2] y = Conv(r, w2)
}"""
WEIGHTS = {"w0": (5, 3, 1, 1), "w1": (8, 5, 1, 1), "w2": (4, 8, 1, 1)}


@pytest.mark.parametrize(
    ("text", "given", "reason"),
    [
        (CHOICE, {}, "If 'if' reads it in a body"),
        (LOOP, {"three": np.int64(3), "yes": np.array(True)}, "Loop 'loop' repeats a body"),
    ],
    ids=["If", "Loop"],
)
def test_bodies_freeze_what_they_read_and_give(net, refuses, text, given, reason):
    structure = refuses(net(text, **WEIGHTS, **given), {"c1": reason}, allowed=["c0"])
    assert {group.name: group.size for group in structure.prunable} == {"c0": 5}


def test_the_rest_of_the_graph_is_pruned(net, mask_oracle):
    model = net(LOOP, **WEIGHTS, three=np.int64(3), yes=np.array(True))
    analysis = mask_oracle(model)
    assert [group.name for group in analysis.structure.prunable] == ["c0"]


def test_a_condition_that_is_known_is_no_choice(net, holds):
    text = CHOICE.replace(", bool flag", "")
    holds(net(text, **WEIGHTS, flag=np.array(True)), {"c0": 5, "c1": 8})
    holds(net(text, **WEIGHTS, flag=np.array(False)), {"c0": 5, "c1": 8})


def test_a_weight_of_a_body_stays_whole(net):
    """What a body computes with stays as it is, though it is stored outside."""
    text = CHOICE.replace("yes_out = Relu(h)", "yes_out = Mul(h, k)")
    structure = analyse(net(text, **WEIGHTS, k=(8, 1, 1))).structure
    assert [group.name for group in structure.prunable] == ["c0"]
