"""Fits behind a clip: against a solver of the convex problem, and what must not change."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import minimize

from onnx_subprune.subspace import clipped_regression
from onnx_subprune.subspace.clipped_regression import Examples, Limits, _Problem, _Rows, fit_behind_clip
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


def _sums(present: tuple[np.ndarray, np.ndarray], *sets: Examples) -> tuple[Pairs, Pairs]:
    """The sums over several sets of rows, about one pivot."""
    pivot = sets[0].x.mean(axis=1) + 0.1
    pairs = [Pairs(*present, len(sets[0].parts), pivot) for _ in sets]
    for sums, rows in zip(pairs, sets, strict=True):
        sums.add(rows.x, rows.parts)
    return pairs[0], pairs[1]


def _fitted(rows: Examples, held: Examples) -> tuple[Refined, tuple[Pairs, Pairs]]:
    """The fit to the whole output, from a layer of zeros."""
    blocks, _, features = rows.x.shape
    outputs = rows.total.shape[2]
    pairs = _sums((np.zeros((blocks, outputs, features)), np.zeros((blocks, outputs))), rows, held)
    return refine(*pairs, affine=True, strengths=[1e-5])[0], pairs


def _some(rows: Examples, count: int) -> Examples:
    return Examples(rows.x[:, :count], tuple(part[:, :count] for part in rows.parts), rows.total[:, :count])


def _missed(weight: np.ndarray, bias: np.ndarray, rows: Examples, limits: Limits) -> float:
    given = rows.x @ weight.transpose(0, 2, 1) + bias[:, None] + rows.total - sum(rows.parts)
    return float(np.square(np.clip(given, *limits) - np.clip(rows.total, *limits)).sum())


@pytest.mark.parametrize("limits", [RELU, Limits(0.0, 2.0), Limits(-np.inf, 1.0)])
@pytest.mark.parametrize(("beside", "blocks"), [(0.0, 1), (0.5, 1), (0.0, 4)])
def test_less_is_missed_behind_the_clip(limits, beside, blocks):
    rows, held, new = (_examples(count, beside, blocks=blocks) for count in (4000, 1000, 4000))
    found, pairs = _fitted(rows, held)
    better = fit_behind_clip(found, pairs, rows, held, limits)
    before, after = (_missed(one.weight, one.bias, new, limits) for one in (found, better))
    # Noise of a shortcut cannot be made up for.
    assert after < (0.99 if beside else 0.97) * before
    scale = float(np.square(np.clip(held.total, *limits)).sum())
    # What is named was measured before the rows that chose were fitted on too.
    assert better.after == pytest.approx(_missed(better.weight, better.bias, held, limits) / scale, rel=0.02)
    present = pairs[0].weight, pairs[0].bias
    assert better.before == pytest.approx(_missed(*present, held, limits) / scale, rel=1e-3)


def test_steps_lead_to_the_least_of_the_convex_problem():
    rows, held = _examples(3000, outputs=1), _examples(1000, outputs=1)
    found, pairs = _fitted(rows, held)
    x, target = rows.x[0].astype(np.float64), rows.total[0, :, 0].astype(np.float64)

    def loss(weight: np.ndarray) -> float:
        given = x @ weight[:-1] + weight[-1]
        return float(np.square(np.where(target > 0, given - target, np.maximum(given, 0))).mean())

    least = minimize(loss, np.append(found.weight[0, 0], found.bias[0])).fun
    work, these = _Problem(found, pairs[:1]), _Rows.of(rows, pairs[0], found.factors, RELU)
    now, losses = work.solve(), []
    for _ in range(100):
        now = work.solve(these.excess(now))
        weight = now[0, 0, :-1]
        losses.append(loss(np.append(weight, now[0, 0, -1] - weight @ pairs[0].pivots[0, 0])))
    assert (np.diff(losses) <= 1e-6 * losses[0]).all()
    assert losses[-1] == pytest.approx(least, rel=1e-3)


@pytest.mark.parametrize("limits", [Limits(-np.inf, 1e9), RELU])
def test_the_first_point_is_the_plain_fit_whatever_rows_the_clip_is_seen_on(limits):
    rows, held = _examples(4000), _examples(1000)
    found, pairs = _fitted(rows, held)
    plain = _Problem(found, pairs).solve()
    np.testing.assert_allclose(pairs[0].weight + plain[:, :, :-1], found.weight, atol=1e-5)
    few = _Rows.of(_some(rows, 100), pairs[0], found.factors, limits)
    assert bool(few.excess(plain).any()) is (limits == RELU)


def test_a_few_rows_tell_what_the_clip_changes():
    """The rest is told by the sums: on a tenth of the rows the fit is hardly worse than on all."""
    rows, held, new = (_examples(count) for count in (20_000, 5000, 10_000))
    found, pairs = _fitted(rows, held)
    plain = _missed(found.weight, found.bias, new, RELU)
    errors = []
    for share in (1, 10):
        better = fit_behind_clip(found, pairs, _some(rows, 20_000 // share), _some(held, 5000 // share), RELU)
        errors.append(_missed(better.weight, better.bias, new, RELU))
    assert errors[0] < 0.97 * plain
    assert errors[1] < errors[0] + 0.1 * (plain - errors[0])


def test_no_step_follows_one_that_is_worse():
    errors = iter([0.9, 0.9005, 0.95, 0.1])
    asked: list[float] = []

    def error(_: np.ndarray) -> float:
        asked.append(next(errors))
        return asked[-1]

    best = clipped_regression._best_point(lambda point: point + 1, error, np.zeros((1, 3, 6)), 1.0)
    assert best is not None
    point, least = best
    assert (point == 0).all()
    assert least == 0.9
    # One that is hardly worse is not the last, for momentum needs a while.
    assert asked == [0.9, 0.9005, 0.95]


def test_what_no_clip_reaches_stays():
    rows, held = _examples(2000, level=100.0), _examples(500, level=100.0)
    found, pairs = _fitted(rows, held)
    assert fit_behind_clip(found, pairs, rows, held, RELU) is found


def test_a_layer_that_was_right_is_left_alone():
    rows, held = _examples(2000), _examples(500)
    found, pairs = _fitted(rows, held)
    for kept in (replace(found, strength=float("inf"), before=0.0, after=0.0), replace(found, after=1e-12)):
        assert fit_behind_clip(kept, pairs, rows, held, RELU) is kept


def test_where_no_fit_to_the_whole_output_helped_one_behind_the_clip_may():
    rows, held = _examples(2000), _examples(500)
    found, _ = _fitted(rows, held)
    present = found.weight, found.bias
    kept = Refined(*present, float("inf"), (0.0,), 0.1, 0.1)
    better = fit_behind_clip(kept, _sums(present, rows, held), rows, held, RELU)
    assert np.isfinite(better.strength)
    assert _missed(better.weight, better.bias, held, RELU) < _missed(*present, held, RELU)


def test_features_that_never_vary_do_no_harm():
    rows, held = _examples(2000), _examples(500)
    for some in (rows, held):
        some.x[:, :, 1] = 0
        some.x[:, :, 2] = some.x[:, :, 3]
    found, pairs = _fitted(rows, held)
    better = fit_behind_clip(found, pairs, rows, held, RELU)
    assert np.isfinite(better.weight).all()
    assert _missed(better.weight, better.bias, held, RELU) < _missed(found.weight, found.bias, held, RELU)


def test_weights_that_one_bias_serves_have_it_in_the_shape_that_was_given():
    """Of several readers of one weight the bias is shared: [blocks, o]."""
    rows, held = _examples(2000), _examples(500)
    found, pairs = _fitted(rows, held)
    assert fit_behind_clip(found, pairs, rows, held, RELU).bias.shape == found.bias.shape == (1, 3)
