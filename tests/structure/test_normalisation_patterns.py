"""What is read off a normalisation that is written out: its kind, where its values are, and where its spread is."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.pipeline import analyse

TWO, HALF, EPSILON, THREE = (np.array(value, np.float32) for value in (2, 0.5, 1e-3, 3))
WIDTH = 8

BLOCK = """g (float[2,5,6] x) => (float[a,b,c] y) {{
    [emb] e = MatMul(x, we)
    {text}
    [head] y = MatMul(n, wh)
}}"""


def _analysed(net, text: str, opset: int = 17, **weights: object):
    model = net(BLOCK.format(text=text), opset=opset, we=(6, WIDTH), wh=(WIDTH, 3), **weights)
    return analyse(model, prune_normalised=True).structure


def _pattern(net, text: str, opset: int = 17, **weights: object):
    structure = _analysed(net, text, opset, **weights)
    assert [(group.name, group.size) for group in structure.prunable] == [("emb", WIDTH)]
    (pattern,) = structure.records.normalisations
    assert pattern.dim.resolve() == structure.records.axes["e"][2].resolve()
    assert pattern.axis == 2
    return pattern


def _refused(net, text: str, opset: int = 17, **weights: object) -> str:
    structure = _analysed(net, text, opset, **weights)
    assert not structure.prunable
    assert not structure.records.normalisations
    (reasons,) = (group.reasons for group in structure.frozen if group.name == "emb")
    return "; ".join(reasons)


SQUARES = "p = Mul(e, e)\n[m] m = ReduceMean <axes=[-1]> (p)\n"


def test_a_root_that_divides(net) -> None:
    pattern = _pattern(net, SQUARES + "v = Add(m, epsilon)\n[r] r = Sqrt(v)\n[d] n = Div(e, r)", epsilon=EPSILON)
    assert (pattern.kind, pattern.tensor, pattern.centred, pattern.averaged) == ("RMSNorm", "n", False, True)
    assert (pattern.node.name, pattern.spread.node.name, pattern.spread.inverse) == ("m", "r", False)
    assert (pattern.pooled, pattern.unrestored) == (False, None)


def test_a_power_that_is_one_over_a_root(net) -> None:
    text = SQUARES + "v = Add(m, epsilon)\n[r] r = Pow(v, half)\n[d] n = Mul(r, e)"
    pattern = _pattern(net, text, epsilon=EPSILON, half=-HALF)
    assert (pattern.kind, pattern.spread.node.name, pattern.spread.inverse) == ("RMSNorm", "r", True)


def test_one_over_a_root_by_another_name(net) -> None:
    """Two reciprocals cancel out: to divide by one over the inverse is to multiply by it."""
    text = SQUARES + "v = Add(m, epsilon)\n[r] r = Sqrt(v)\ni = Reciprocal(r)\nj = Reciprocal(i)\nn = Div(e, j)"
    pattern = _pattern(net, text, epsilon=EPSILON)
    assert (pattern.spread.node.name, pattern.spread.inverse) == ("r", False)


@pytest.mark.parametrize("half", [np.float32(0.25), np.float32(1)])
def test_another_power_is_no_root(net, half) -> None:
    text = SQUARES + "v = Add(m, epsilon)\n[r] r = Pow(v, half)\nn = Div(e, r)"
    assert "ReduceMean 'm' reduces over this axis" in _refused(net, text, epsilon=EPSILON, half=np.asarray(half))


@pytest.mark.parametrize(
    ("operator", "root"),
    [("ReduceL2 <axes=[-1]> (e)", ""), ("ReduceSumSquare <axes=[2]> (e)", "Sqrt"), ("ReduceSum (p, last)", "Sqrt")],
)
def test_sums_of_squares_are_not_averaged(net, operator, root) -> None:
    weights = {"last": np.array([-1])} if "last" in operator else {}
    squares = "p = Pow(e, two)\n" if "p," in operator else ""
    tail = f"[r] r = {root}(q)\nn = Div(e, r)" if root else "n = Div(e, q)"
    more = {"two": TWO} if squares else {}
    pattern = _pattern(net, f"{squares}[q] q = {operator}\n{tail}", **weights, **more)
    assert (pattern.kind, pattern.averaged, pattern.centred) == ("L2 normalisation", False, False)
    assert pattern.spread.node.name == ("r" if root else "q")


CENTRED = "[m] m = ReduceMean <axes=[-1]> (e)\nd = Sub(e, m)\np = Mul(d, d)\n[w] w = ReduceMean <axes=[-1]> (p)\n"
SPREAD = "v = Add(w, epsilon)\n[r] r = Sqrt(v)\n"


def test_a_mean_that_is_subtracted_first(net) -> None:
    pattern = _pattern(net, CENTRED + SPREAD + "[k] n = Div(d, r)", epsilon=EPSILON)
    assert (pattern.kind, pattern.tensor, pattern.centred, pattern.unrestored) == ("LayerNorm", "n", True, None)
    assert pattern.node.name == "w"


def test_a_mean_that_is_subtracted_afterwards_cannot_be_put_right(net) -> None:
    """Keras multiplies x itself by one over the spread: the product is not the normalised tensor."""
    text = CENTRED + SPREAD + "i = Reciprocal(r)\nh = Mul(e, i)\nk = Mul(m, i)\nn = Sub(h, k)"
    pattern = _pattern(net, text, epsilon=EPSILON)
    assert (pattern.centred, pattern.unrestored) == (True, "its scale is part of them")


def test_a_scale_for_each_channel_inside_the_spread_cannot_be_put_right(net) -> None:
    text = CENTRED + SPREAD + "i = Reciprocal(r)\ng = Mul(i, s)\nn = Mul(d, g)"
    assert _pattern(net, text, epsilon=EPSILON, s=(WIDTH,)).unrestored == "its scale is part of them"
    one = "i = Reciprocal(r)\ng = Mul(i, s)\nn = Mul(d, g)"
    assert _pattern(net, CENTRED + SPREAD + one, epsilon=EPSILON, s=np.float32([1.5])).unrestored is None


def test_statistics_over_several_axes_are_pooled(net) -> None:
    text = "p = Mul(e, e)\n[m] m = ReduceMean <axes=[1,2]> (p)\nv = Add(m, epsilon)\nr = Sqrt(v)\nn = Div(e, r)"
    assert _pattern(net, text, epsilon=EPSILON).pooled


def test_casts_between_do_not_hide_it(net) -> None:
    text = (
        "c = Cast <to=11> (e)\np = Mul(c, c)\n[m] m = ReduceMean <axes=[-1]> (p)\nv = Add(m, eps)\n[r] r = Sqrt(v)\n"
        "k = Div(c, r)\nn = Cast <to=1> (k)"
    )
    pattern = _pattern(net, text, eps=np.float64(1e-3))
    assert (pattern.kind, pattern.tensor) == ("RMSNorm", "k")


def test_two_normalisations_of_one_stream_are_two(net) -> None:
    text = (
        "p = Mul(e, e)\n[m] m = ReduceMean <axes=[-1]> (p)\nr = Sqrt(m)\nf = Div(e, r)\n"
        "q = Mul(e, e)\n[o] o = ReduceMean <axes=[-1]> (q)\nt = Sqrt(o)\nu = Div(e, t)\nn = Add(f, u)"
    )
    structure = _analysed(net, text)
    assert [pattern.node.name for pattern in structure.records.normalisations] == ["m", "o"]
    assert [pattern.tensor for pattern in structure.records.normalisations] == ["f", "u"]


@pytest.mark.parametrize(
    ("text", "weights", "reduction"),
    [
        # The cube is no square.
        ("p = Pow(e, three)\n[m] m = ReduceMean <axes=[-1]> (p)\nr = Sqrt(m)\nn = Div(e, r)", {"three": THREE}, "m"),
        # The square of something else.
        ("t = Tanh(e)\np = Mul(t, t)\n[m] m = ReduceMean <axes=[-1]> (p)\nr = Sqrt(m)\nn = Div(e, r)", {}, "m"),
        # A product of two tensors is no square either.
        ("t = Tanh(e)\np = Mul(t, e)\n[m] m = ReduceMean <axes=[-1]> (p)\nr = Sqrt(m)\nn = Div(e, r)", {}, "m"),
        # The spread is added, not divided by.
        (SQUARES + "r = Sqrt(m)\nn = Add(e, r)", {}, "m"),
        # It multiplies.
        (SQUARES + "r = Sqrt(m)\nn = Mul(e, r)", {}, "m"),
        # It is the numerator.
        (SQUARES + "r = Sqrt(m)\nn = Div(r, e)", {}, "m"),
        # An operator that is not followed.
        (SQUARES + "r = Sqrt(m)\nz = Tanh(r)\nn = Div(e, z)", {}, "m"),
        # A statistic of a statistic.
        (SQUARES + "[o] o = ReduceMax <axes=[1], keepdims=1> (m)\nr = Sqrt(o)\nn = Div(e, r)", {}, "m"),
        # The largest value is none of the statistics.
        ("p = Abs(e)\n[m] m = ReduceMax <axes=[-1]> (p)\nn = Div(e, m)", {}, "m"),
    ],
)
def test_what_only_looks_like_one(net, text, weights, reduction) -> None:
    assert f"'{reduction}' reduces over this axis" in _refused(net, text, **weights)


def test_a_statistic_that_is_an_output_too_stays_the_dense_one(net) -> None:
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y, float[d,e0,f] m) {
            [emb] e = MatMul(x, we)
            p = Mul(e, e)
            [m] m = ReduceMean <axes=[-1]> (p)
            r = Sqrt(m)
            n = Div(e, r)
            [head] y = MatMul(n, wh)
        }""",
        we=(6, WIDTH), wh=(WIDTH, 3),
    )  # fmt: skip
    structure = analyse(model, prune_normalised=True).structure
    assert not structure.records.normalisations
    assert "ReduceMean 'm' reduces over this axis" in "; ".join(structure.frozen[0].reasons)


def test_a_mean_alone_is_no_normalisation(net) -> None:
    reason = _refused(net, "[m] m = ReduceMean <axes=[-1]> (e)\nn = Sub(e, m)")
    assert "ReduceMean 'm' reduces over this axis" in reason


def test_without_the_wish_the_reason_names_the_pattern_and_the_option(net) -> None:
    text = BLOCK.format(text=CENTRED + SPREAD + "n = Div(d, r)")
    model = net(text, we=(6, WIDTH), wh=(WIDTH, 3), epsilon=EPSILON)
    structure = analyse(model).structure
    assert not structure.records.normalisations
    (reasons,) = (group.reasons for group in structure.frozen if group.name == "emb")
    for reduction in ("m", "w"):
        assert any(
            reason.startswith(f"LayerNorm written out at ReduceMean '{reduction}' normalises over this axis")
            for reason in reasons
        )
