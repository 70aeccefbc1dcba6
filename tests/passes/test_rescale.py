"""A factor and an offset for normalised values, wherever the normalisation has a place for them."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.model import to_graph, to_model
from onnx_subprune.passes import RescaleNormalised
from onnx_subprune.subspace import Rescaling

EPSILON = np.array(1e-5, np.float32)
FACTOR, OFFSET = 1.25, 0.5
WRITTEN_OUT = """m = ReduceMean <axes=[-1]> (e)
    d = Sub(e, m)
    p = Mul(d, d)
    w = ReduceMean <axes=[-1]> (p)
    v = Add(w, epsilon)
    r = Sqrt(v)
    {end}"""
# How the operator or the nodes are spelt, and how many nodes more there are afterwards, by factor and by offset.
SPELLINGS = {
    "scale and shift": ("n = LayerNormalization(e, s, b)", 0, 0),
    "scale alone": ("n = LayerNormalization(e, s)", 0, 0),
    "written out": (WRITTEN_OUT.format(end="n = Div(d, r)"), 1, 1),
    "written out, scaled and shifted": (WRITTEN_OUT.format(end="k = Div(d, r)\ng = Mul(k, s)\nn = Add(g, b)"), 1, 0),
    "written out, by the inverse": (WRITTEN_OUT.format(end="i = Reciprocal(r)\nn = Mul(d, i)"), 1, 1),
}


def used(text: str, **given: np.ndarray) -> dict[str, np.ndarray]:
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    return {name: value for name, value in given.items() if name in words}


@pytest.fixture
def normalised(build, draw):
    """`normalised(spelling)`: a model MatMul -> normalisation -> MatMul."""

    def make(spelling):
        text = SPELLINGS[spelling][0]
        weights = used(text, s=draw(6, seed=2), b=draw(6, seed=3), epsilon=EPSILON)
        return build(
            f"g (float[5,4] x) => (float[5,6] y) {{\n[m1] e = MatMul(x, w1)\n{text}\n[m2] y = MatMul(n, w2) }}",
            w1=draw(4, 6), w2=np.eye(6, dtype=np.float32), **weights,
        )  # fmt: skip

    return make


@pytest.mark.parametrize("offset", [0.0, OFFSET])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_normalised_values_are_scaled_and_shifted(normalised, structured, draw, outputs, spelling, offset):
    model = normalised(spelling)
    structure = structured(model, prune_normalised=True)
    (normalisation,) = structure.normalisations
    before = len(structure.graph.nodes)
    rescale = RescaleNormalised(structure, {normalisation: Rescaling(FACTOR, offset)})
    assert rescale(structure.graph).modified
    more = len(structure.graph.nodes) - before
    assert more == SPELLINGS[spelling][1] + (SPELLINGS[spelling][2] if offset else 0)
    rescaled = to_model(structure.graph, model)
    x = draw(5, 4, seed=7)
    (y,) = outputs(rescaled, x=x)
    e = x @ draw(4, 6)
    d = e - e.mean(axis=-1, keepdims=True)
    n = FACTOR * d / np.sqrt((d**2).mean(axis=-1, keepdims=True) + 1e-5) + offset
    names = {tensor.name for tensor in model.graph.initializer}
    scale = draw(6, seed=2) if "s" in names else 1.0
    shift = draw(6, seed=3) if "b" in names else 0.0
    np.testing.assert_allclose(y, n * scale + shift, rtol=1e-4, atol=1e-5)


def test_behind_a_scale_that_is_computed(build, structured, draw, outputs):
    model = build(
        """g (float[5,4] x) => (float[5,6] y) {
            [m1] e = MatMul(x, w1)
            c = Identity(s)
            z = Add(c, c)
            n = LayerNormalization(e, z)
            [m2] y = MatMul(n, w2)
        }""",
        w1=draw(4, 6), w2=np.eye(6, dtype=np.float32), s=draw(6, seed=2),
    )  # fmt: skip
    structure = structured(model, prune_normalised=True)
    (normalisation,) = structure.normalisations
    RescaleNormalised(structure, {normalisation: Rescaling(FACTOR, 0.0)})(structure.graph)
    x = draw(5, 4, seed=7)
    (dense,), (rescaled,) = (outputs(each, x=x) for each in (model, to_model(structure.graph, model)))
    np.testing.assert_allclose(rescaled, FACTOR * dense, rtol=1e-5, atol=1e-6)


def test_a_scale_that_others_read_stays_theirs(build, structured, draw, outputs):
    model = build(
        """g (float[5,4] x) => (float[5,6] y, float[5,6] z) {
            [m1] e = MatMul(x, w1)
            n = LayerNormalization(e, s)
            [m2] y = MatMul(n, w2)
            [m3] f = MatMul(x, w3)
            z = Mul(f, s)
        }""",
        w1=draw(4, 6), w2=np.eye(6, dtype=np.float32), w3=draw(4, 6, seed=9), s=draw(6, seed=2),
    )  # fmt: skip
    structure = structured(model, prune_normalised=True)
    (normalisation,) = structure.normalisations
    RescaleNormalised(structure, {normalisation: Rescaling(FACTOR, 0.0)})(structure.graph)
    x = draw(5, 4, seed=7)
    dense, rescaled = (outputs(each, x=x) for each in (model, to_model(structure.graph, model)))
    np.testing.assert_allclose(rescaled[0], FACTOR * dense[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(rescaled[1], dense[1])


def test_nothing_to_do_changes_nothing(normalised, structured):
    model = normalised("written out")
    structure = structured(model, prune_normalised=True)
    assert not RescaleNormalised(structure, {})(structure.graph).modified
    (normalisation,) = structure.normalisations
    nodes = len(structure.graph.nodes)
    RescaleNormalised(structure, {normalisation: Rescaling(1.0, 0.0)})(structure.graph)
    assert len(structure.graph.nodes) == nodes


def test_another_graph_is_refused(normalised, structured):
    model = normalised("scale alone")
    (refusal,) = RescaleNormalised(structured(model), {})(to_graph(model)).refusals
    assert "another graph" in refusal
