"""Layers fitted anew: against ridge regression on the rows themselves, and what held-out rows decide."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.subspace.residual_ridge import STRENGTHS, Refined, refine
from onnx_subprune.subspace.residual_sums import Pairs
from onnx_subprune.threads import side_by_side

RNG = np.random.default_rng(5)


def _layer(blocks=1, outputs=3, features=6, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((blocks, outputs, features)), rng.standard_normal((blocks, outputs))


def _rows(count, blocks=1, features=6, seed=1, scale=None):
    """Correlated features of unlike size and mean."""
    rng = np.random.default_rng(seed)
    mix = rng.standard_normal((features, features)) * (np.logspace(0, -1, features) if scale is None else scale)
    return rng.standard_normal((blocks, count, features)) @ mix + rng.standard_normal(features)


def _said(x, weight, bias):
    return x @ weight.transpose(0, 2, 1) + bias[:, None, :]


def _pairs(weight, bias, x, parts, weights=None, *, pivot=True, batches=3):
    found = Pairs(weight, bias, len(parts), x.mean(axis=1) + 0.1 if pivot else None)
    for chosen in np.array_split(np.arange(x.shape[1]), batches):
        one = None if weights is None else weights[chosen]
        found.add(x[:, chosen], [part[:, chosen] for part in parts], one)
    return found


def _by_hand(x, errors, strength, weights=None, *, affine=True):
    """Ridge regression of one block's errors [rows, o] on x [rows, f]: D, shift."""
    weights = np.ones(len(x)) if weights is None else weights
    total = weights.sum()
    middle, level = (weights @ x / total, weights @ errors / total) if affine else (0, np.zeros(errors.shape[1]))
    x0, e0 = x - middle, errors - level
    gram = (x0 * weights[:, None]).T @ x0 / total
    ridge = np.diag(gram) + 0.1 * np.diag(gram).mean()
    D = np.linalg.solve(gram + strength * np.diag(ridge), (x0 * weights[:, None]).T @ e0 / total).T
    return D, level - D @ middle if affine else level


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("affine", [False, True])
@pytest.mark.parametrize("blocks", [1, 4])
def test_one_strength_is_ridge_regression_of_the_error(affine, blocks, weighted):
    (weight, bias), x = _layer(blocks), _rows(400, blocks)
    bias = bias if affine else np.zeros_like(bias)
    target = RNG.standard_normal((blocks, 400, 3)) + _said(x, *_layer(blocks, seed=9))
    weights = RNG.uniform(0.1, 3, 400) if weighted else None
    pairs = _pairs(weight, bias, x, [target], weights, pivot=affine)
    (found,) = refine(pairs, pairs, affine=affine, strengths=[0.1])
    assert found.strength == 0.1
    errors = target - _said(x, weight, bias)
    ones = np.ones(400) if weights is None else weights
    corrections = [_by_hand(x[b], errors[b], 0.1, weights, affine=affine) for b in range(blocks)]
    change = np.stack([x[b] @ D.T + shift for b, (D, shift) in enumerate(corrections)])
    # The rows that choose are those that were fitted on: only how far to go is left to choose.
    factor = np.clip((ones[:, None] * change * errors).sum() / (ones[:, None] * change**2).sum(), 0, 1)
    assert found.factors == pytest.approx((factor,))
    for b, (D, shift) in enumerate(corrections):
        assert found.weight[b] == pytest.approx(weight[b] + factor * D, abs=1e-9)
        assert found.bias[b] == pytest.approx(bias[b] + factor * shift, abs=1e-9)
    square = (ones[:, None] * target**2).sum()
    assert found.before == pytest.approx((ones[:, None] * errors**2).sum() / square)
    after = (ones[:, None] * (target - _said(x, found.weight, found.bias)) ** 2).sum() / square
    assert found.after == pytest.approx(after)


def test_parts_have_corrections_and_factors_of_their_own():
    (weight, bias), x = _layer(), _rows(600)
    own = _said(x, *_layer(seed=3))
    drift = RNG.standard_normal((1, 600, 3)) * 2
    first, second = slice(0, 300), slice(300, 600)
    # In the rows that choose, the drift has another sign: it is not to be believed.
    drift[:, second] = -_said(x[:, second], *_layer(seed=4))
    drift[:, first] = _said(x[:, first], *_layer(seed=4))
    fitted = _pairs(weight, bias, x[:, first], [own[:, first], drift[:, first]])
    held = Pairs(weight, bias, 2, fitted.pivot)
    held.add(x[:, second], [own[:, second], drift[:, second]])
    (found,) = refine(fitted, held, affine=True)
    assert found.factors[1] == 0
    assert found.factors[0] > 0.5


def test_noise_that_few_rows_explain_is_not_believed():
    """50 features, 60 noisy rows: least squares would all but interpolate them."""
    weight, bias = _layer(features=50, outputs=8)
    errors_of = {}
    for name, count in (("fitted", 60), ("held", 500), ("fresh", 5000)):
        x = _rows(count, features=50, seed=len(name))
        x = np.random.default_rng(count).standard_normal(x.shape)
        target = _said(x, weight, bias) + 3 * np.random.default_rng(count + 1).standard_normal((1, count, 8))
        errors_of[name] = (x, target)
    fitted = _pairs(weight, bias, *[v if i == 0 else [v] for i, v in enumerate(errors_of["fitted"])])
    held = Pairs(weight, bias, 1, fitted.pivot)
    held.add(errors_of["held"][0], [errors_of["held"][1]])
    (found,) = refine(fitted, held, affine=True)
    x, target = errors_of["fresh"]
    before, after = (np.square(target - _said(x, *one)).sum() for one in ((weight, bias), (found.weight, found.bias)))
    assert after < 1.02 * before
    assert found.strength > 0.01
    assert found.after <= found.before


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("count", [3, 12, 200])
def test_the_error_on_the_rows_that_choose_never_rises(seed, count):
    """Without the last fit on all rows that is so to the last digit; with it `after` still tells the choice's."""
    rng = np.random.default_rng(seed)
    weight, bias = _layer(seed=seed)
    x, unseen = rng.standard_normal((1, count, 6)) ** 3, rng.standard_normal((1, 50, 6))
    fitted = Pairs(weight, bias, 1, x.mean(axis=1))
    fitted.add(x, [_said(x, weight, bias) + rng.standard_normal((1, count, 3))])
    held = Pairs(weight, bias, 1, fitted.pivot)
    held.add(unseen, [_said(unseen, weight, bias) + rng.standard_normal((1, 50, 3))])
    (found,) = refine(fitted, held, affine=True)
    assert 0 <= found.after <= found.before
    assert np.isfinite(found.weight).all()


def test_more_features_than_rows_are_fitted_without_a_fuss():
    weight, bias = _layer(features=80)
    x = _rows(40, features=80)
    pairs = _pairs(weight, bias, x, [RNG.standard_normal((1, 40, 3))])
    (found,) = refine(pairs, pairs, affine=True)
    assert np.isfinite(found.weight).all()
    assert found.after < 0.1 * found.before


@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_dead_and_constant_features_keep_their_weights(kind):
    weight, bias = _layer()
    x = _rows(300).astype(kind)
    x[..., 2] = 0
    x[..., 4] = 1e3
    target = _said(x, *_layer(seed=8)).astype(kind)
    pairs = _pairs(weight, bias, x, [target])
    (found,) = refine(pairs, pairs, affine=True)
    assert (found.weight[..., [2, 4]] == weight[..., [2, 4]]).all()
    assert found.after < 1e-6
    assert np.isfinite(found.bias).all()


def test_a_feature_that_varies_by_rounding_alone_is_constant():
    weight, bias = _layer()
    x = _rows(300).astype(np.float32)
    x[..., 4] = 1e3 * (1 + 1e-6 * RNG.standard_normal((1, 300)))
    pairs = _pairs(weight, bias, x, [_said(x, *_layer(seed=8)).astype(np.float32)])
    (found,) = refine(pairs, pairs, affine=True)
    assert (found.weight[..., 4] == weight[..., 4]).all()


def test_large_means_cost_no_digits():
    """Single precision sums of squares about 0 would have no digit left of this variance."""
    weight, bias = _layer(features=300)
    x = (1000 + RNG.standard_normal((1, 3000, 300))).astype(np.float32)
    wanted = weight + 0.1 * RNG.standard_normal(weight.shape)
    target = _said(x.astype(np.float64), wanted, bias)
    pairs = _pairs(weight, bias, x, [target])
    assert pairs.single
    (found,) = refine(pairs, pairs, affine=True)
    assert np.abs(found.weight - wanted).max() < 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("where", ["x", "target"])
def test_what_is_not_finite_changes_nothing(value, where):
    (weight, bias), x = _layer(), _rows(100)
    target = _said(x, *_layer(seed=2))
    (x if where == "x" else target)[0, 17, 1] = value
    pairs = Pairs(weight, bias, 1, np.zeros((1, 6)))
    pairs.add(x, [target])
    assert not pairs.finite
    (found,) = refine(pairs, pairs, affine=True)
    assert np.isinf(found.strength)
    assert (found.weight == weight).all()


def test_no_rows_change_nothing():
    weight, bias = _layer()
    (found,) = refine(Pairs(weight, bias, 1), Pairs(weight, bias, 1), affine=True)
    assert np.isinf(found.strength)
    assert (found.weight == weight).all()


def test_a_target_that_is_met_changes_nothing():
    (weight, bias), x = _layer(), _rows(100)
    pairs = _pairs(weight, bias, x, [_said(x, weight, bias)])
    (found,) = refine(pairs, pairs, affine=True)
    assert np.isinf(found.strength)
    assert (found.weight == weight).all()
    assert (found.bias == bias).all()


def test_hundreds_of_blocks_are_fitted_each_for_itself():
    """A depthwise convolution; the choice is one for all."""
    weight, bias = _layer(blocks=300, outputs=1, features=9)
    wanted, level = _layer(blocks=300, outputs=1, features=9, seed=2)
    x = _rows(200, blocks=300, features=9)
    pairs = _pairs(weight, bias, x, [_said(x, wanted, level)])
    (found,) = refine(pairs, pairs, affine=True)
    assert np.abs(found.weight - wanted).max() < 1e-3
    assert len(found.factors) == 1


def test_layers_that_read_the_same_are_fitted_as_each_alone():
    weight, bias = _layer(outputs=7)
    x, unseen = _rows(200), _rows(80, seed=4)
    noise = RNG.standard_normal((1, 7)) * [0.0, 0, 0, 5, 5, 5, 5]
    target, other = (_said(rows, *_layer(outputs=7, seed=6)) + noise * RNG.standard_normal((1, rows.shape[1], 7))
                     for rows in (x, unseen))  # fmt: skip

    def pair(part):
        fitted = Pairs(weight[:, part], bias[:, part], 1, x.mean(axis=1))
        held = Pairs(weight[:, part], bias[:, part], 1, x.mean(axis=1))
        fitted.add(x, [target[..., part]])
        held.add(unseen, [other[..., part]])
        return fitted, held

    together = refine(*pair(slice(0, 7)), affine=True, bounds=[0, 3, 7])
    alone = [refine(*pair(part), affine=True)[0] for part in (slice(0, 3), slice(3, 7))]
    assert together[0].strength < together[1].strength
    for one, other_one in zip(together, alone, strict=True):
        assert one.strength == other_one.strength
        assert one.weight == pytest.approx(other_one.weight, abs=1e-9)
        assert (one.before, one.after) == pytest.approx((other_one.before, other_one.after))


def test_wide_layers_do_without_ridges_below_single_precision():
    weight, bias = _layer(features=300, outputs=2)
    x = RNG.standard_normal((1, 2000, 300)).astype(np.float32)
    pairs = _pairs(weight, bias, x, [_said(x, *_layer(features=300, outputs=2, seed=3)).astype(np.float32)])
    found: Refined = refine(pairs, pairs, affine=True)[0]
    assert found.strength == 1e-5
    assert min(STRENGTHS) < 1e-5
    assert found.after < 1e-6


def test_of_few_rows_the_last_solution_is_the_one_that_was_measured():
    (weight, bias), x = _layer(), _rows(40)
    target = RNG.standard_normal((1, 40, 3)) + _said(x, *_layer(seed=9))
    fitted = _pairs(weight, bias, x[:, :30], [target[:, :30]])
    held = Pairs(weight, bias, 1, fitted.pivot)
    held.add(x[:, 30:], [target[:, 30:]])
    (all_rows,), (few,) = (refine(fitted, held, affine=True, strengths=[0.1], whole=whole) for whole in (True, False))
    errors = target - _said(x, weight, bias)
    for found, rows in ((all_rows, 40), (few, 30)):
        (factor,) = found.factors
        D, shift = _by_hand(x[0, :rows], errors[0, :rows], 0.1)
        np.testing.assert_allclose(found.weight[0], weight[0] + factor * D, rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(found.bias[0], bias[0] + factor * shift, rtol=1e-6, atol=1e-9)
    # What it misses of the rows held out is what was said.
    missed = np.square(target[0, 30:] - _said(x[:, 30:], few.weight, few.bias)[0]).sum()
    assert few.after == pytest.approx(missed / np.square(target[0, 30:]).sum())


@pytest.mark.parametrize("blocks", [1, 2])
@pytest.mark.parametrize("features", [256, 257, 600])
def test_wide_gram_matrices_are_the_same_on_any_number_of_threads(features: int, blocks: int) -> None:
    weight, bias = _layer(blocks, 2, features)
    rng = np.random.default_rng(3)
    x = rng.standard_normal((blocks, 900, features)).astype(np.float32)
    target, weights = rng.standard_normal((blocks, 900, 2)).astype(np.float32), rng.uniform(0.5, 2, 900)
    found = []
    for threads in (1, 2, 4):
        with side_by_side(threads):
            found.append(_pairs(weight, bias, x, [target], weights))
    z = np.concatenate([x - found[0].pivot[:, None], np.ones((blocks, 900, 1))], axis=2)
    expected = np.einsum("brf,r,brg->bfg", z, weights, z)
    assert np.abs(found[0].gram - expected).max() < 1e-5 * np.abs(expected).max()
    for one in found[1:]:
        assert one.gram.tobytes() == found[0].gram.tobytes()
        assert one.cross.tobytes() == found[0].cross.tobytes()
    # Rows may come after the sums were read.
    found[0].add(x, [target], weights)
    assert np.abs(found[0].gram - 2 * expected).max() < 2e-5 * np.abs(expected).max()
