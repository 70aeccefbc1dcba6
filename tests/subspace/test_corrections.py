"""Which consumers are corrected, which weights cannot be, and what is fitted for several that share one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.network.analysis import analyse
from onnx_subprune.structure import Structure
from onnx_subprune.subspace import corrected, fit_corrections, intercept_is_exact

RNG = np.random.default_rng(6)
SIAMESE = """g (float[2,3,5,5] x, float[2,3,5,5] z) => (float[a,b,c,d] y) {
    [c1] h = Conv(x, w1)
    [d1] k = Conv(z, w1)
    [c2] u = Conv (h, w2)
    [d2] v = Conv (k, w2)
    [s] y = Sub(u, v)
}"""
SHAPES = {"w1": (6, 3, 1, 1), "w2": (4, 6, 3, 3)}


def _structure(text: str, **weights: tuple[int, ...]) -> Structure:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    for name, shape in weights.items():
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(RNG.standard_normal(shape).astype(np.float32), name)
        )
    return analyse(model).structure


def _keeps(structure: Structure, kept: int) -> dict[Any, np.ndarray]:
    (group,) = structure.prunable
    return {group.atom: np.arange(group.size) < kept}


def _gram(rows: np.ndarray) -> np.ndarray:
    x = np.concatenate([rows, np.ones((len(rows), 1))], axis=1)
    return (x.T @ x)[None]


def test_consumers_that_share_a_weight_share_one_fit_on_the_sum_of_their_moments():
    structure = _structure(SIAMESE, **SHAPES)
    keeps = _keeps(structure, 4)
    consumers = [consumer for consumer in structure.consumers if consumer.node.name in ("c2", "d2")]
    rows = [RNG.standard_normal((50, 6)) for _ in consumers]
    grams = {consumer: _gram(x) for consumer, x in zip(consumers, rows, strict=True)}
    (pending,), refusals = fit_corrections(structure, keeps, grams, ridge=0.0)
    assert not refusals
    assert [consumer.name for consumer in pending.consumers] == ["c2", "d2"]
    together = np.concatenate(rows)
    kept = np.concatenate([together[:, :4], np.ones((100, 1))], axis=1)
    solution = np.linalg.lstsq(kept, together[:, 4:], rcond=None)[0]
    fit = pending.solve()
    np.testing.assert_allclose(fit.removed[0], solution[:4].T, atol=1e-9)
    np.testing.assert_allclose(fit.intercepts[0, 4:], solution[4], atol=1e-9)
    assert pending.error == fit.error
    assert [consumer.name for consumer in corrected(structure, keeps)] == ["c2", "d2"]


def test_nothing_that_loses_no_feature_is_corrected():
    structure = _structure(SIAMESE, **SHAPES)
    keeps = _keeps(structure, 6)
    assert fit_corrections(structure, keeps, {}, 0.0) == ([], [])
    assert corrected(structure, keeps) == []


def test_a_weight_with_another_use_is_refused():
    text = """g (float[2,6] x) => (float[a,b] y, float[c,d] v) {
        [m1] h = MatMul(x, w1)
        [m2] y = MatMul(h, w2)
        [t] v = Tanh(w2)
    }"""
    structure = _structure(text, w1=(6, 5), w2=(5, 4))
    (group,) = (group for group in structure.groups if "m1" in group.name)
    keeps = {group.atom: np.arange(5) < 3}
    fits, refusals = fit_corrections(structure, keeps, {}, 0.0)
    assert not fits
    assert refusals == ["weight 'w2' has other uses as well; it was pruned without recovery"]


@pytest.mark.parametrize(
    ("node", "weight", "exact"),
    [
        ("Conv (h, w2)", (4, 6, 3, 3), True),
        ("Conv <pads=[1,1,1,1]> (h, w2)", (4, 6, 3, 3), False),
        ("ConvTranspose (h, w2)", (6, 4, 3, 3), False),
        ("ConvTranspose (h, w2)", (6, 4, 1, 1), True),
        ("ConvTranspose <strides=[2,2]> (h, w2)", (6, 4, 1, 1), False),
    ],
)
def test_a_constant_is_a_bias_only_where_every_output_sees_it_alike(node, weight, exact):
    structure = _structure(
        f"g (float[2,3,5,5] x) => (float[a,b,c,d] y) {{ [c1] h = Conv(x, w1)\n[c2] y = {node} }}",
        w1=(6, 3, 1, 1), w2=weight,
    )  # fmt: skip
    consumer = next(consumer for consumer in structure.consumers if consumer.node.name == "c2")
    assert intercept_is_exact(consumer) == exact


def test_a_weight_that_is_contracted_along_different_axes_is_refused():
    text = """g (float[2,6] x) => (float[a,b] y, float[c,d] v) {
        [m1] h = MatMul(x, w1)
        [m2] y = MatMul(h, w2)
        [t] t = Transpose <perm=[1,0]> (w2)
        [m3] v = MatMul(x, t)
    }"""
    structure = _structure(text, w1=(6, 5), w2=(5, 6))
    atom = next(group.atom for group in structure.groups if group.size == 5)
    keeps = {atom: np.arange(5) < 3}
    fits, refusals = fit_corrections(structure, keeps, {}, 0.0)
    assert not fits
    assert refusals == ["weight 'w2' is contracted along different axes; it was pruned without recovery"]
    assert corrected(structure, keeps) == []


RECURRENT = """g (float[{steps},2,4] x{more}) => (float[a,b,c] y) {{
    [layer] Y = RNN <hidden_size=6> (x, W, R{state})
    [s] s = Squeeze(Y, one)
    [out] y = MatMul(s, w2)
}}"""


@pytest.mark.parametrize("state", ["", "given"])
@pytest.mark.parametrize("steps", [2, 5])
def test_states_are_read_a_step_later(steps, state):
    """Of the states of S steps S - 1 are read again, and zeros first: the constant counts S / (S - 1) times as often.

    A first state that is given counts like any other.
    """
    text = RECURRENT.format(steps=steps, more=", float[1,2,6] h0" if state else "", state=", , , h0" if state else "")
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    for name, shape in {"W": (1, 6, 4), "R": (1, 6, 6), "w2": (6, 3)}.items():
        values = RNG.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "one"))
    structure = analyse(model).structure
    (feedback,) = (consumer for consumer in structure.consumers if consumer.recurrence)
    others = [consumer for consumer in structure.consumers if not consumer.recurrence]
    atom = next(group.atom for group in structure.groups if group.size == 6)
    gram = _gram(RNG.standard_normal((40, 6)))
    grams = {feedback: gram, **dict.fromkeys(others, gram)}
    fits, _ = fit_corrections(structure, {atom: np.arange(6) < 4}, grams, 0.0)
    (pending,) = (fit for fit in fits if feedback in fit.consumers)
    expected = gram.copy()
    if not state:
        expected[0, -1, -1] *= steps / (steps - 1)
    np.testing.assert_allclose(pending.grams[0], expected)
    # What reads the states in the same step has the moments as they are.
    (plain,) = (fit for fit in fits if feedback not in fit.consumers)
    np.testing.assert_array_equal(plain.grams[0], gram)
