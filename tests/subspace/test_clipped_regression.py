"""Fits behind a clip: against a solver of the convex problem, and what must not change."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize

from onnx_subprune.subspace.clipped_regression import Examples, Limits, _ClipProblem, fit_behind_clip
from onnx_subprune.subspace.residual_ridge import Refined, refine
from onnx_subprune.subspace.residual_sums import Pairs

RNG = np.random.default_rng(5)
RELU = Limits(0.0, np.inf)


def _examples(rows: int, beside: float = 0.0, outputs: int = 3, blocks: int = 1, level: float = 0.0) -> Examples:
    """A layer of 8 inputs of which 5 are left, on top of something that has drifted."""
    weight = np.random.default_rng(1).standard_normal((blocks, outputs, 8))
    x = RNG.standard_normal((blocks, rows, 8)) + 0.3
    own = x @ weight.transpose(0, 2, 1) + level
    theirs, ours = (beside * RNG.standard_normal(own.shape) for _ in range(2))
    arrays = (x[:, :, :5], own, theirs - ours, own + theirs)
    x, own, drift, total = (each.astype(np.float32) for each in arrays)
    return Examples(x, (own, drift) if beside else (own,), total)


def _fitted(rows: Examples, held: Examples) -> tuple[Refined, tuple[np.ndarray, np.ndarray]]:
    """The fit to the whole output, from a layer of zeros."""
    blocks, _, features = rows.x.shape
    outputs = rows.total.shape[2]
    present = np.zeros((blocks, outputs, features)), np.zeros((blocks, outputs))
    pairs = [Pairs(*present, len(rows.parts)) for _ in range(2)]
    for sums, some in zip(pairs, (rows, held), strict=True):
        sums.add(some.x, some.parts)
    return refine(*pairs, affine=True, strengths=[1e-5])[0], present


def _missed(weight: np.ndarray, bias: np.ndarray, rows: Examples, limits: Limits) -> float:
    given = rows.x @ weight.transpose(0, 2, 1) + bias[:, None] + rows.total - sum(rows.parts)
    return float(np.square(np.clip(given, *limits) - np.clip(rows.total, *limits)).sum())


@pytest.mark.parametrize("limits", [RELU, Limits(0.0, 2.0), Limits(-np.inf, 1.0)])
@pytest.mark.parametrize(("beside", "blocks"), [(0.0, 1), (0.5, 1), (0.0, 4)])
def test_less_is_missed_behind_the_clip(limits, beside, blocks):
    rows, held, new = (_examples(count, beside, blocks=blocks) for count in (4000, 1000, 4000))
    found, present = _fitted(rows, held)
    better = fit_behind_clip(found, present, rows, held, limits)
    before, after = (_missed(one.weight, one.bias, new, limits) for one in (found, better))
    # Noise of a shortcut cannot be made up for.
    assert after < (0.99 if beside else 0.97) * before
    scale = float(np.square(np.clip(held.total, *limits)).sum())
    assert better.after == pytest.approx(_missed(better.weight, better.bias, held, limits) / scale, rel=1e-3)
    assert better.before == pytest.approx(_missed(*present, held, limits) / scale, rel=1e-3)


def test_steps_lead_to_the_least_of_the_convex_problem():
    rows, held = _examples(3000, outputs=1), _examples(1000, outputs=1)
    found, present = _fitted(rows, held)
    x, target = rows.x[0].astype(np.float64), rows.total[0, :, 0].astype(np.float64)

    def loss(weight: np.ndarray) -> float:
        given = x @ weight[:-1] + weight[-1]
        return float(np.square(np.where(target > 0, given - target, np.maximum(given, 0))).mean())

    least = minimize(loss, np.append(found.weight[0, 0], found.bias[0])).fun
    work = _ClipProblem(found, present, rows, RELU)
    now = np.concatenate([found.weight, work.level(found.weight, found.bias)], axis=2)
    losses = []
    for _ in range(100):
        step = work.step(now)
        assert step is not None
        now = step
        weight = now[0, 0, :-1]
        losses.append(loss(np.append(weight, now[0, 0, -1] - weight @ work.mean[0])))
    assert (np.diff(losses) <= 1e-6 * losses[0]).all()
    assert losses[-1] == pytest.approx(least, rel=1e-3)


def test_what_no_clip_reaches_stays():
    rows, held = _examples(2000, level=100.0), _examples(500, level=100.0)
    found, present = _fitted(rows, held)
    assert fit_behind_clip(found, present, rows, held, RELU) is found


def test_a_layer_that_was_right_is_left_alone():
    rows, held = _examples(2000), _examples(500)
    _, present = _fitted(rows, held)
    kept = Refined(*present, float("inf"), (0.0,), 0.0, 0.0)
    assert fit_behind_clip(kept, present, rows, held, RELU) is kept


def test_where_no_fit_to_the_whole_output_helped_one_behind_the_clip_may():
    rows, held = _examples(2000), _examples(500)
    found, _ = _fitted(rows, held)
    present = found.weight, found.bias
    kept = Refined(*present, float("inf"), (0.0,), 0.1, 0.1)
    better = fit_behind_clip(kept, present, rows, held, RELU)
    assert np.isfinite(better.strength)
    assert _missed(better.weight, better.bias, held, RELU) < _missed(*present, held, RELU)


def test_features_that_never_vary_do_no_harm():
    rows, held = _examples(2000), _examples(500)
    for some in (rows, held):
        some.x[:, :, 1] = 0
        some.x[:, :, 2] = some.x[:, :, 3]
    found, present = _fitted(rows, held)
    better = fit_behind_clip(found, present, rows, held, RELU)
    assert np.isfinite(better.weight).all()
    assert _missed(better.weight, better.bias, held, RELU) < _missed(found.weight, found.bias, held, RELU)
