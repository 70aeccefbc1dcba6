"""Reductions and scans."""

from __future__ import annotations

import numpy as np
import pytest

OPERATORS = ("L1", "L2", "LogSum", "LogSumExp", "Max", "Mean", "Min", "Prod", "Sum", "SumSquare")


@pytest.mark.parametrize("operator", OPERATORS)
@pytest.mark.parametrize("keep", [0, 1])
def test_reducing_the_positions_passes_the_channels(net, holds, operator, keep):
    flat = "[f] f = Flatten(p)" if keep else "[f] f = Identity(p)"
    model = net(
        f"""g (float[2,3,4,4] x) => (float[a,b] y) {{
            [c1] h = Conv(x, w1)
            [e] e = Exp(h)
            [p] p = Reduce{operator} <axes=[2,-1], keepdims={keep}> (e)
            {flat}
            [fc] y = Gemm(f, w2)
        }}""",
        opset=11, w1=(8, 3, 1, 1), w2=(8, 4),
    )  # fmt: skip
    holds(model, {"c1": 8})


@pytest.mark.parametrize(
    ("opset", "text"),
    [
        (13, "[p] r = ReduceSum(h, hw)"),
        (18, "[p] p = ReduceMean <keepdims=1> (h, hw)\n[m] r = Mul(p, h)"),
        (18, "[p] p = ReduceMax <noop_with_empty_axes=1> (h)\n[m] r = Mul(p, h)"),
        (17, "[p] p = ReduceMax <axes=[0]> (h)\n[m] r = Mul(p, h)"),
        (17, "[p] p = ReduceMax <axes=[0], keepdims=0> (h)\n[m] r = Mul(p, h)"),
        (17, "[p] i = ArgMax <axis=2> (h)\n[c] p = Cast <to=1> (i)\n[m] r = Mul(p, h)"),
        (
            17,
            "[p] i = ArgMin <axis=-1, keepdims=0> (h)\n[c] p = Cast <to=1> (i)\n"
            "[u] u = Unsqueeze(p, last)\n[m] r = Mul(u, h)",
        ),
        (17, "[p] r = CumSum(h, two)"),
        (17, "[p] r = CumSum(h, last)"),
        (17, "[p] v, i = TopK <axis=3> (h, last2)\n[c] f = Cast <to=1> (i)\n[m] r = Mul(v, f)"),
    ],
)
def test_other_axes_may_be_reduced_or_scanned(between, holds, opset, text):
    weights = {"hw": np.array([2, 3]), "two": np.array(2), "last": np.array([-1]), "last2": np.array([2])}
    used = {name: value for name, value in weights.items() if f", {name})" in text}
    holds(between(text, opset=opset, **used), {"c1": 8})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[p] p = ReduceMean <axes=[1]> (h)\n[m] r = Mul(p, h)", "ReduceMean 'p' reduces over this axis"),
        ("[p] p = ReduceMax <axes=[-3]> (h)\n[m] r = Mul(p, h)", "ReduceMax 'p' reduces over this axis"),
        ("[p] p = ReduceL2(h)\n[m] r = Mul(p, h)", "ReduceL2 'p' reduces over this axis"),
        ("[p] p = ReduceSum(h, none)\n[m] r = Mul(p, h)", "ReduceSum 'p' reduces over this axis"),
        (
            "[p] i = ArgMax <axis=1> (h)\n[c] p = Cast <to=1> (i)\n[m] r = Mul(p, h)",
            "ArgMax 'p' reduces over this axis",
        ),
        ("[p] r = CumSum(h, one)", "CumSum 'p' accumulates along this axis"),
        ("[p] r, i = TopK <axis=1> (h, eight)", "TopK 'p' selects along this axis"),
    ],
)
def test_what_runs_over_the_channels_freezes_them(between, refuses, text, reason):
    weights = {"none": np.zeros(0, np.int64), "one": np.array(1), "eight": np.array([8])}
    used = {name: value for name, value in weights.items() if f", {name})" in text}
    refuses(between(text, **used), {"c1": reason})


TOWERS = """g (float[4,6] x, float[{items}] z) => (float[a] y) {{
    [user] u = MatMul(x, wu)
    [item] i = {item}
    {text}
}}"""


def _towers(net, text, items="4,6", item="MatMul(z, wi)", **weights):
    last = {"last": np.array([-1])}
    return net(TOWERS.format(text=text, items=items, item=item), wu=(6, 8), wi=(6, 8), **last, **weights)


def test_a_sum_of_products_that_broadcasts_is_a_contraction_too(net, holds):
    """One item for all users: its axis of features is aligned from the end."""
    text = "[s] s = Squeeze(i, zero)\n[p] p = Mul(u, s)\n[sum] y = ReduceSum <keepdims=0> (p, last)"
    structure = holds(_towers(net, text, items="1,6", zero=np.array([0])), {"user": 8})
    assert [contraction.name for contraction in structure.prunable[0].contractions] == ["p"]


@pytest.mark.parametrize(
    "text",
    [
        # The product is read by something else too.
        "[p] p = Mul(u, i)\n[t] t = ReduceMax <axes=[1], keepdims=0> (p)\n"
        "[sum] k = ReduceSum <keepdims=0> (p, last)\n[add] y = Add(k, t)",
        # Squares: one tensor, twice.
        "[p] p = Mul(u, u)\n[sum] k = ReduceSum <keepdims=0> (p, last)\n"
        "[q] q = ReduceMax <axes=[1], keepdims=0> (i)\n[add] y = Add(k, q)",
        # A mean divides by how many there are.
        "[p] p = Mul(u, i)\n[sum] y = ReduceMean <axes=[-1], keepdims=0> (p)",
        # Of a sum the terms are not products.
        "[p] p = Add(u, i)\n[sum] y = ReduceSum <keepdims=0> (p, last)",
        # A constant factor is no activation.
        "[p] p = Mul(u, gamma)\n[sum] k = ReduceSum <keepdims=0> (p, last)\n"
        "[q] q = ReduceMax <axes=[1], keepdims=0> (i)\n[add] y = Add(k, q)",
    ],
)
def test_other_sums_over_units_freeze_them(net, refuses, text):
    weights = {"gamma": (8,)} if "gamma" in text else {}
    refuses(_towers(net, text, **weights), {"user": "'sum' reduces over this axis"})


def test_a_sum_over_several_axes_is_no_contraction(net, refuses):
    text = "[p] p = Mul(u, i)\n[sum] k = ReduceSum <keepdims=1> (p, both)\n[q] y = Squeeze(k, one)"
    both = {"both": np.array([0, 1]), "one": np.array([1])}
    refuses(_towers(net, text, **both), {"user": "'sum' reduces over this axis"})
