"""What branches gave that are gone: the constants they leave, and what the tensors that remain stand for."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.recovery.exact.correspondence import counterparts

RNG = np.random.default_rng(7)
FLAT = {"w1": np.zeros((8, 3, 1, 1), np.float32), "b1": np.abs(RNG.standard_normal(8)).astype(np.float32) + 1}


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("stem", ["(x, ws)", "(x, ws, bs)"])
def test_a_branch_of_constants_goes_without_a_trace(net, pruned, distance, stem, one_pass):
    """Its constant went into the stem, whose output then stands for the sum."""
    model = net(
        f"""g (float[4,3,6,7] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1, b1)
            [r] r = Relu(h)
            [c2] u = Conv(r, w2, b2)
            [stem] s = Conv{stem}
            [t] t = Add(s, u)
            [q] q = Relu(t)
            [c4] y = Conv <pads=[1,1,1,1]> (q, w4)
        }}""",
        **FLAT, w2=(6, 8, 2, 2), b2=(6,), ws=(6, 3, 2, 2), **({"bs": (6,)} if "bs" in stem else {}), w4=(2, 6, 3, 3),
    )  # fmt: skip
    assert distance(model, pruned(model, {"c1": ()}, one_pass=one_pass).model) < 1e-4


@pytest.mark.parametrize("one_pass", [False, True])
def test_a_constant_that_went_into_one_operand_of_a_sum(net, pruned, distance, one_pass):
    """Two blocks; the second goes, and what it gave is in the last convolution of the first."""
    model = net(
        """g (float[4,3,6,6] x) => (float[a,b,c,d] y) {
            [stem] s = Conv(x, ws, bs)
            [c1] h = Conv(s, w1, b1)
            [r1] r = Relu(h)
            [c2] u = Conv(r, w2, b2)
            [t1] t = Add(s, u)
            [c3] k = Conv(t, w3, b3)
            [r2] v = Relu(k)
            [c4] w = Conv(v, w4, b4)
            [t2] z = Add(t, w)
            [c5] y = Conv <pads=[1,1,1,1]> (z, w5)
        }""",
        ws=(6, 3, 1, 1), bs=(6,), w1=(8, 6, 1, 1), b1=(8,), w2=(6, 8, 1, 1), b2=(6,),
        w3=np.zeros((8, 6, 1, 1), np.float32), b3=FLAT["b1"], w4=(6, 8, 1, 1), b4=(6,), w5=(3, 6, 3, 3),
    )  # fmt: skip
    assert distance(model, pruned(model, {"c3": ()}, one_pass=one_pass).model) < 1e-4


def test_tokens_whose_branch_is_gone(net, pruned, distance):
    model = net(
        """g (float[4,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [a1] a = Add(h, b1)
            [g1] r = Sigmoid(a)
            [m2] u = MatMul(r, w2)
            [m3] s0 = MatMul(x, w3)
            [a3] s = Add(s0, b3)
            [t] t = Add(s, u)
            [q] q = Tanh(t)
            [m4] y = MatMul(q, w4)
        }""",
        w1=np.zeros((6, 8), np.float32), b1=(8,), w2=(8, 6), w3=(6, 6), b3=(6,), w4=(6, 3),
    )  # fmt: skip
    assert distance(model, pruned(model, {"m1": ()}).model) < 1e-4


def test_a_branch_that_matters_is_made_up_for(net, pruned, distance):
    """What a branch gave that is gone is part of the target of the layer that stands for the sum."""
    model = net(
        """g (float[4,3,6,6] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [c2] u = Conv(h, w2, b2)
            [stem] s = Conv(x, ws, bs)
            [t] t = Add(s, u)
            [q] q = Relu(t)
            [c4] y = Conv(q, w4)
        }""",
        w1=(8, 3, 1, 1), b1=(8,), w2=(6, 8, 1, 1), b2=(6,), ws=(6, 3, 1, 1), bs=(6,), w4=(2, 6, 3, 3),
    )  # fmt: skip
    assert distance(model, pruned(model, {"c1": ()}, recovery="channel").model) > 0.1
    assert distance(model, pruned(model, {"c1": ()}).model) < 1e-4


def test_meanings_follow_the_readers(net):
    dense = net(
        """g (float[N,4] x) => (float[a,b] y, float[c,d] v) {
            [m1] s = MatMul(x, w)
            [m2] u = MatMul(x, w)
            [a] t = Add(s, u)
            [n1] y = Neg(t)
            [n2] k = Tanh(u)
            [n3] v = Neg(k)
        }""",
        w=(4, 4),
    )  # fmt: skip
    pruned = net(
        """g (float[N,4] x) => (float[a,b] y, float[c,d] v) {
            [m1] s = MatMul(x, w)
            [m2] u = MatMul(x, w)
            [n1] y = Neg(s)
            [n2] k = Tanh(u)
            [n3] v = Neg(k)
        }""",
        w=(4, 4),
    )  # fmt: skip
    assert counterparts(pruned, dense) == {"s": "t"}
    assert counterparts(dense, dense) == {}
