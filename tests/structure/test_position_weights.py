"""Where errors count relative to the size of a position: what a layer writes into is normalised there."""

from __future__ import annotations

import pytest

from onnx_subprune.pipeline import analyse
from onnx_subprune.structure import features_of

LAYER = """g (float[N,T,6] x) => (float[N,T,6] y) {{
    h = MatMul(x, w1)
    a = Relu(h)
    [down] d = MatMul(a, w2)
    {text}
}}"""
LAYERNORM = "y = LayerNormalization(s, g, c)"
RMSNORM = "q = Mul(s, s)\nm = ReduceMean <axes=[-1]> (q)\nr = Sqrt(m)\ny = Div(s, r)"
WEIGHTS = {"w1": (6, 8), "w2": (8, 6), "b": (6,), "g": (6,), "c": (6,)}


def relative(net, text: str, **weights: tuple[int, ...]) -> str | None:
    structure = analyse(net(LAYER.format(text=text), **{**WEIGHTS, **weights})).structure
    (group,) = structure.prunable
    return features_of(structure, group.consumers[0]).relative


@pytest.mark.parametrize("norm", [LAYERNORM, RMSNORM])
@pytest.mark.parametrize("text", ["s = Add(x, d)", "e = Add(d, b)\ns = Add(e, x)", "e = Mul(d, g)\ns = Add(x, e)"])
def test_a_sum_that_is_normalised_over_its_last_axis(net, text, norm):
    assert relative(net, f"{text}\n{norm}") == "s"


def test_an_output_that_is_normalised_itself(net):
    assert relative(net, "y = LayerNormalization(d, g, c)") == "d"


def test_of_several_additions_the_sum_that_is_normalised_counts(net):
    text = "e = MatMul(x, v)\np = Add(d, e)\ns = Add(p, x)\nt = LayerNormalization(s, g, c)\ny = Add(t, s)"
    assert relative(net, text, v=(6, 6)) == "s"


@pytest.mark.parametrize(
    "text",
    [
        "y = Add(x, d)",
        "s = Add(x, d)\nm = ReduceMean <axes=[1]> (s)\ny = Sub(s, m)",
        "s = Add(x, d)\nt = Transpose <perm=[0,2,1]> (s)\nu = Softmax(t)\ny = Transpose <perm=[0,2,1]> (u)",
        "f = Relu(d)\ns = Add(x, f)\ny = LayerNormalization(s, g, c)",
    ],
)
def test_no_sum_or_none_that_is_normalised(net, text):
    assert relative(net, text) is None


def test_a_sum_of_other_positions_is_none(net):
    text = """g (float[1,T,6] x, float[N,T,6] z) => (float[N,T,6] y) {
        h = MatMul(x, w1)
        a = Relu(h)
        d = MatMul(a, w2)
        s = Add(z, d)
        y = LayerNormalization(s, g, c)
    }"""
    structure = analyse(net(text, **{name: shape for name, shape in WEIGHTS.items() if name != "b"})).structure
    (group,) = structure.prunable
    assert features_of(structure, group.consumers[0]).relative is None
