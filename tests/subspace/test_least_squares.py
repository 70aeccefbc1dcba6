from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.errors import DataError, InternalError, OptionError
from onnx_subprune.subspace import Recovery, centred, recover


def gram(X: np.ndarray) -> np.ndarray:
    affine = np.vstack([X, np.ones(X.shape[1])])
    return affine @ affine.T


def sample(seed: int, d: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d, d)) @ rng.standard_normal((d, n)) + rng.standard_normal((d, 1))


def residual(X: np.ndarray, keep: np.ndarray, found: Recovery) -> float:
    """Largest error of the reconstruction, relative to the amplitude of its feature."""
    error = X - found.coefficients @ X[keep] - found.intercept[:, None]
    return float((np.sqrt((error**2).mean(axis=1)) / np.maximum(np.sqrt((X**2).mean(axis=1)), 1e-300)).max())


def test_affine_recovery_is_least_squares_with_an_intercept() -> None:
    X, keep = sample(0, 7, 90), np.array([1, 0, 1, 1, 0, 0, 1], dtype=bool)
    found = recover(gram(X), keep)
    design = np.vstack([X[keep], np.ones(90)]).T
    expected = np.linalg.lstsq(design, X[~keep].T, rcond=None)[0].T
    np.testing.assert_allclose(found.coefficients[~keep], expected[:, :-1], rtol=1e-9)
    np.testing.assert_allclose(found.intercept[~keep], expected[:, -1], rtol=1e-9)
    rest = X[~keep] - expected @ design.T
    assert found.error == pytest.approx((rest**2).mean() * 3 / np.var(X, axis=1).sum(), rel=1e-9)


def test_linear_recovery_uses_no_constant() -> None:
    X, keep = sample(1, 5, 60), np.array([1, 1, 0, 1, 0], dtype=bool)
    found = recover(gram(X), keep, affine=False)
    expected = np.linalg.lstsq(X[keep].T, X[~keep].T, rcond=None)[0].T
    np.testing.assert_allclose(found.coefficients[~keep], expected, rtol=1e-9)
    np.testing.assert_array_equal(found.intercept, 0.0)


def test_ridge_is_relative_to_the_mean_variance() -> None:
    X, keep = sample(2, 4, 50), np.array([1, 1, 0, 1], dtype=bool)
    C = np.cov(X, bias=True)
    S = np.flatnonzero(keep)
    expected = C[2, S] @ np.linalg.inv(C[np.ix_(S, S)] + 0.1 * np.diagonal(C)[S].mean() * np.eye(3))
    found = recover(gram(X), keep, ridge=0.1)
    np.testing.assert_allclose(found.coefficients[2], expected, rtol=1e-10)
    assert found.error > recover(gram(X), keep).error
    np.testing.assert_allclose(recover(gram(10 * X), keep, ridge=0.1).coefficients, found.coefficients, rtol=1e-10)


def test_kept_rows_are_the_identity_exactly() -> None:
    keep = np.array([0, 1, 1, 0, 1], dtype=bool)
    found = recover(gram(sample(3, 5, 40)), keep, ridge=1e-3)
    np.testing.assert_array_equal(found.coefficients[keep], np.eye(3))
    np.testing.assert_array_equal(found.intercept[keep], 0.0)


def test_sums_means_and_indices_are_all_the_same() -> None:
    X = sample(4, 4, 30)
    found = recover(gram(X), np.array([True, False, True, False]))
    again = recover(gram(X) / 30, [0, 2])
    np.testing.assert_allclose(again.coefficients, found.coefficients, rtol=1e-12)
    np.testing.assert_allclose(again.intercept, found.intercept, rtol=1e-12)


def test_grams_of_a_shared_weight_are_added() -> None:
    X, Y = sample(5, 4, 30), sample(6, 4, 50)
    keep = np.array([True, True, False, True])
    found = recover(gram(X) + gram(Y), keep)
    np.testing.assert_allclose(found.coefficients, recover(gram(np.hstack([X, Y])), keep).coefficients, rtol=1e-10)


def dependent() -> np.ndarray:
    """Kept: two duplicates, a dead one, a constant, a combination of the kept, two free ones. Removed: what follows."""
    rng = np.random.default_rng(7)
    a, b, c = rng.standard_normal((3, 64)) + 2.0
    kept = [a, a, np.zeros(64), np.full(64, 5.0), a - b, b, c]
    removed = [c, a + 2 * b + 7, np.zeros(64), np.full(64, -3.0), 1e6 * a, 1e-6 * b + 1e-6]
    return np.stack([*kept, *removed])


def test_exact_dependence_is_recovered_exactly() -> None:
    X, keep = dependent(), np.arange(13) < 7
    found = recover(gram(X), keep)
    assert found.error <= 1e-12
    assert residual(X, keep, found) < 1e-6
    np.testing.assert_array_equal(found.coefficients[7:, 2:4], 0.0)
    np.testing.assert_array_equal(found.coefficients[9:11], 0.0)
    assert found.intercept[10] == pytest.approx(-3.0, rel=1e-12)


def test_duplicates_among_the_kept_share_the_work() -> None:
    X = dependent()[[0, 1, 6, 8]]
    X[3] = 2 * X[0] + X[2]
    found = recover(gram(X), np.array([True, True, True, False]))
    np.testing.assert_allclose(found.coefficients[3], [1.0, 1.0, 1.0], rtol=1e-6)


def test_scales_from_1e_6_to_1e6() -> None:
    X, scale, keep = sample(8, 7, 100), np.logspace(-6, 6, 7), np.arange(7) % 2 == 0
    plain, scaled = recover(gram(X), keep), recover(gram(X * scale[:, None]), keep)
    expected = plain.coefficients * scale[:, None] / scale[keep]
    np.testing.assert_allclose(scaled.coefficients, expected, rtol=1e-8, atol=1e-12 * np.abs(expected).max())


def test_a_mean_far_above_the_spread() -> None:
    X = sample(9, 4, 200) + 1e4
    keep = np.array([True, True, True, False])
    found = recover(gram(X), keep)
    expected = recover(gram(X - 1e4), keep)
    np.testing.assert_allclose(found.coefficients, expected.coefficients, atol=1e-4)
    assert found.error == pytest.approx(expected.error, abs=1e-5)


def test_fewer_samples_than_features() -> None:
    X, keep = sample(10, 40, 12), np.arange(40) < 25
    for ridge in (0.0, 1e-6):
        found = recover(gram(X), keep, ridge)
        assert np.isfinite(found.coefficients).all()
        assert found.error < 1e-6


def test_nothing_kept_leaves_the_mean() -> None:
    X = sample(11, 3, 20)
    found = recover(gram(X), np.zeros(3, dtype=bool))
    assert found.coefficients.shape == (3, 0)
    np.testing.assert_allclose(found.intercept, X.mean(axis=1), rtol=1e-12)
    assert found.error == pytest.approx(1.0)


def test_everything_kept_and_nothing_varying() -> None:
    assert recover(gram(sample(12, 3, 20)), np.ones(3, dtype=bool)).error == 0.0
    found = recover(gram(np.full((2, 9), 4.0)), np.array([True, False]), ridge=1e-2)
    np.testing.assert_array_equal(found.coefficients, [[1.0], [0.0]])
    assert found.intercept[1] == 4.0
    assert found.error == 0.0


def test_one_feature() -> None:
    X = sample(13, 1, 10)
    assert recover(gram(X), np.array([True])).error == 0.0
    assert recover(gram(X), np.array([False])).intercept[0] == pytest.approx(X.mean(), rel=1e-12)


def test_centred_is_the_covariance_with_exact_zeros_for_constants() -> None:
    X = np.vstack([sample(14, 3, 25), np.full(25, 1e6 / 3)])
    mean, C = centred(gram(X))
    np.testing.assert_allclose(mean, X.mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(C[:3, :3], np.cov(X[:3], bias=True), rtol=1e-10)
    np.testing.assert_array_equal(C[3], 0.0)
    np.testing.assert_array_equal(C[:, 3], 0.0)


def test_what_cannot_be_recovered_is_refused() -> None:
    G = gram(sample(15, 3, 10))
    for ridge in (-1.0, np.nan, np.inf):
        with pytest.raises(OptionError, match="ridge"):
            recover(G, [0], ridge)
    with pytest.raises(DataError, match="some samples"):
        recover(np.zeros((4, 4)), [0])
    with pytest.raises(DataError, match="NaN"):
        recover(np.full((4, 4), np.nan), [0])
    for keep in ([1, 0], [5], np.ones(4, dtype=bool)):
        with pytest.raises(InternalError, match="3 features"):
            recover(G, keep)
