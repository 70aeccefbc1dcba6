"""Who reads what in a pruned network, and what its tensors stand for in the dense one."""

from __future__ import annotations

import numpy as np

from onnx_subprune.recovery.exact.correspondence import Surroundings, counterparts
from onnx_subprune.recovery.exact.linear_layers import find_linears

DENSE = """g (float[N,4] x) => (float[a,b] y) {
    [m1] s = MatMul(x, w)
    [m2] u = MatMul(x, v)
    [a1] t = Add(s, u)
    [n] y = Tanh(t)
}"""
# The second branch is gone.
PRUNED = """g (float[N,4] x) => (float[a,b] y) {
    [m1] s = MatMul(x, w)
    [n] y = Tanh(s)
}"""


def test_what_remains_of_a_sum_stands_for_the_sum(net):
    dense, pruned = net(DENSE, w=(4, 4), v=(4, 4)), net(PRUNED, w=(4, 4))
    assert counterparts(pruned, dense) == {"s": "t"}
    surroundings = Surroundings(pruned, dense)
    assert surroundings.counterpart("s") == "t"
    assert surroundings.counterpart("x") == "x"


def test_nodes_without_a_name_of_their_own_say_nothing(net):
    dense, pruned = net(DENSE.replace("[n]", ""), w=(4, 4), v=(4, 4)), net(PRUNED.replace("[n]", ""), w=(4, 4))
    assert counterparts(pruned, dense) == {}


def test_a_sum_that_holds_what_a_branch_gave_is_told_of(net):
    text = """g (float[N,4] x, float[N,4] z) => (float[a,b] y) {
        [m1] s = MatMul(x, w)
        [a1] t = Add(s, z)
        [n] y = Tanh(READ)
    }"""
    dense = net(text.replace("READ", "p").replace("[n]", "[a2] p = Add(t, x)\n[n]"), w=(4, 4))
    pruned = net(text.replace("READ", "t"), w=(4, 4))
    surroundings = Surroundings(pruned, dense)
    (linear,), _ = find_linears(pruned)
    assert surroundings.shifted(linear) == "t"
    assert Surroundings(pruned, pruned).shifted(linear) is None


def test_a_normalisation_reads_the_layer_or_the_sum(net):
    text = """g (float[N,5,4] x) => (float[a,b,c] y) {
        [m1] s = MatMul(x, w)
        [a1] t = Add(s, x)
        [n] y = LayerNormalization(READ, scale)
    }"""
    for read, alone, summed in (("s", True, False), ("t", False, True)):
        model = net(text.replace("READ", read), w=(4, 4), scale=np.ones(4, np.float32))
        surroundings = Surroundings(model, model)
        (linear,), _ = find_linears(model)
        assert surroundings.normalised(linear, None, 3) == alone
        shortcut = surroundings.shortcut(linear)
        if read == "t":
            assert surroundings.normalised(linear, shortcut, 3) == summed
