"""The oracle of normalised axes: statistics over the units that stay, worked out in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.model import to_model
from onnx_subprune.passes import MaskConsumers, MaskStatistics

KEEP = np.array([True, True, False, True, False, True, True, False])
EPSILON = np.array(1e-5, np.float32)
TWO = np.array(2.0, np.float32)


def layer_norm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + 1e-5)


def rms_norm(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(axis=-1, keepdims=True) + 1e-5)


def l2_norm(x: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).sum(axis=-1, keepdims=True))


SPELLINGS = {
    "LayerNormalization": ("n = LayerNormalization(e, one)", 17, layer_norm),
    "LayerNorm written out": (
        """m = ReduceMean <axes=[-1]> (e)
        d = Sub(e, m)
        p = Pow(d, two)
        w = ReduceMean <axes=[-1]> (p)
        v = Add(w, epsilon)
        r = Sqrt(v)
        n = Div(d, r)""",
        17,
        layer_norm,
    ),
    "LayerNorm written out, axes as inputs": (
        """m = ReduceMean(e, last)
        d = Sub(e, m)
        p = Mul(d, d)
        w = ReduceMean(p, last)
        v = Add(w, epsilon)
        r = Sqrt(v)
        n = Div(d, r)""",
        18,
        layer_norm,
    ),
    "RMSNorm written out": (
        """p = Mul(e, e)
        w = ReduceMean <axes=[-1]> (p)
        v = Add(w, epsilon)
        r = Sqrt(v)
        n = Div(e, r)""",
        17,
        rms_norm,
    ),
    "LpNormalization": ("n = LpNormalization <axis=-1, p=2> (e)", 17, l2_norm),
    "L2 written out": ("q = ReduceL2 <axes=[-1]> (e)\nn = Div(e, q)", 17, l2_norm),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_statistics_are_those_of_the_units_that_stay(build, structured, draw, outputs, spelling):
    text, opset, normalised = SPELLINGS[spelling]
    given = {
        "one": np.ones(8, np.float32), "two": TWO, "epsilon": EPSILON, "last": np.array([-1])
    }  # fmt: skip
    words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
    w1, w2 = draw(4, 8), draw(8, 3)
    model = build(
        f"g (float[5,4] x) => (float[5,3] y) {{\n[m1] e = MatMul(x, w1)\n{text}\n[m2] y = MatMul(n, w2) }}",
        opset=opset, w1=w1, w2=w2, **{name: value for name, value in given.items() if name in words},
    )  # fmt: skip
    structure = structured(model, prune_normalised=True)
    (group,) = structure.prunable
    keeps = {group.atom: KEEP}
    assert MaskConsumers(structure, keeps)(structure.graph).modified
    assert MaskStatistics(structure, keeps)(structure.graph).modified
    x = draw(5, 4, seed=3)
    (y,) = outputs(to_model(structure.graph, model), x=x)
    np.testing.assert_allclose(y, normalised((x @ w1)[:, KEEP]) @ w2[KEEP], rtol=1e-4, atol=1e-5)
    dense = normalised(x @ w1)[:, KEEP] @ w2[KEEP]
    assert np.abs(y - dense).max() > 1e-2, "the statistics of all units give the same: nothing is proved"


def test_groups_of_channels(build, structured, draw, outputs):
    """GroupNormalization takes its statistics over a group's channels and the positions of the image."""
    w1, w2 = draw(8, 3, 1, 1), draw(4, 8, 1, 1)
    model = build(
        """g (float[2,3,4,4] x) => (float[2,4,4,4] y) {
            [c1] e = Conv(x, w1)
            n = GroupNormalization <num_groups=2> (e, one, zero)
            [c2] y = Conv(n, w2)
        }""",
        opset=21, w1=w1, w2=w2, one=np.ones(8, np.float32), zero=np.zeros(8, np.float32),
    )  # fmt: skip
    structure = structured(model, prune_normalised=True)
    (group,) = (group for group in structure.prunable if group.size == 4)  # a unit: one channel of both groups
    keep = np.array([True, False, True, True])
    keeps = {group.atom: keep}
    MaskConsumers(structure, keeps)(structure.graph)
    MaskStatistics(structure, keeps)(structure.graph)
    x = draw(2, 3, 4, 4, seed=5)
    (y,) = outputs(to_model(structure.graph, model), x=x)
    e = np.einsum("oi,nihw->nohw", w1[:, :, 0, 0], x).reshape(2, 2, 4, 4, 4)[:, :, keep]
    centred = e - e.mean(axis=(2, 3, 4), keepdims=True)
    n = centred / np.sqrt((centred**2).mean(axis=(2, 3, 4), keepdims=True) + 1e-5)
    both = np.tile(keep, 2)
    expected = np.einsum("oi,nihw->nohw", w2[:, both, 0, 0], n.reshape(2, -1, 4, 4))
    np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_where_no_unit_goes_nothing_is_rewritten(build, structured, draw):
    model = build(
        """g (float[5,4] x) => (float[5,3] y) {
            [m1] e = MatMul(x, w1)
            n = LayerNormalization(e, one)
            [m2] y = MatMul(n, w2)
        }""",
        w1=draw(4, 8), w2=draw(8, 3), one=np.ones(8, np.float32),
    )  # fmt: skip
    structure = structured(model, prune_normalised=True)
    (group,) = structure.prunable
    assert not MaskStatistics(structure, {group.atom: np.ones(8, bool)})(structure.graph).modified
    assert not MaskStatistics(structure, {})(structure.graph).modified
    # Of no units at all there are no statistics, and their readers are gone too.
    assert not MaskStatistics(structure, {group.atom: np.zeros(8, bool)})(structure.graph).modified


def test_outputs_keep_their_names(build, structured, draw):
    model = build(
        """g (float[5,4] x) => (float[5,3] y) {
            [m1] e = MatMul(x, w1)
            n = LayerNormalization(e, one)
            [m2] y = MatMul(n, w2)
        }""",
        w1=draw(4, 8), w2=draw(8, 3), one=np.ones(8, np.float32),
    )  # fmt: skip
    structure = structured(model, prune_normalised=True)
    (group,) = structure.prunable
    MaskStatistics(structure, {group.atom: KEEP})(structure.graph)
    masked = to_model(structure.graph, model)
    assert "LayerNormalization" not in [node.op_type for node in masked.graph.node]
    assert "n" in {name for node in masked.graph.node for name in node.output}
