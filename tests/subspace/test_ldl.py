from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.errors import DataError, InternalError
from onnx_subprune.subspace import equilibrate, fold, ldl


def covariance(seed: int, d: int, n: int) -> np.ndarray:
    X = np.random.default_rng(seed).standard_normal((d, d)) @ np.random.default_rng(seed + 1).standard_normal((d, n))
    return X @ X.T / n


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    """Largest error in units of sqrt(G_ii G_jj), the natural scale of rounding."""
    scale = np.sqrt(np.maximum(np.diagonal(expected), 1e-300))
    return float((np.abs(found - expected) / np.outer(scale, scale)).max())


def assert_decomposes(G: np.ndarray, order: np.ndarray | None = None, tolerance: float = 1e-12) -> None:
    L, D = ldl(G, order)
    permuted = G if order is None else G[np.ix_(order, order)]
    assert np.isfinite(L).all()
    assert (D >= 0).all()
    np.testing.assert_array_equal(L, np.tril(L))
    np.testing.assert_array_equal(np.diagonal(L), 1.0)
    assert relative((L * D) @ L.T, permuted) < tolerance


def test_definite_matrix_in_any_order() -> None:
    G = covariance(0, 12, 200)
    assert_decomposes(G)
    assert_decomposes(G, np.random.default_rng(1).permutation(12))


def test_d_is_the_variance_left_by_the_features_before() -> None:
    X = np.random.default_rng(3).standard_normal((5, 5)) @ np.random.default_rng(4).standard_normal((5, 300))
    _, D = ldl(X @ X.T)
    for i in range(5):
        coefficients = np.linalg.lstsq(X[:i].T, X[i], rcond=None)[0] if i else np.zeros(0)
        assert D[i] == pytest.approx(((X[i] - coefficients @ X[:i]) ** 2).sum(), rel=1e-10)


def test_rows_of_the_subspace_are_uncorrelated() -> None:
    X = np.random.default_rng(5).standard_normal((6, 6)) @ np.random.default_rng(6).standard_normal((6, 100))
    L, D = ldl(X @ X.T)
    Z = np.linalg.solve(L, X)
    np.testing.assert_allclose(Z @ Z.T, np.diag(D), atol=1e-10 * D.max())


def test_dead_duplicate_and_dependent_features_have_zero_pivots() -> None:
    X = np.random.default_rng(7).standard_normal((4, 50))
    X = np.stack([X[0], np.zeros(50), X[1], X[0], 2 * X[0] - 3 * X[1], X[2], np.zeros(50)])
    G = X @ X.T
    assert_decomposes(G)
    _, D = ldl(G)
    np.testing.assert_array_equal(D == 0, [False, True, False, True, True, False, True])


def test_fewer_samples_than_features_across_several_panels() -> None:
    G = covariance(8, 150, 90)
    assert_decomposes(G, tolerance=1e-11)
    assert np.count_nonzero(ldl(G)[1] > 1e-10 * np.diagonal(G)) == 90


def test_panels_agree_with_lapack(monkeypatch: pytest.MonkeyPatch) -> None:
    G = covariance(9, 130, 400)
    L, D = ldl(G)

    def refuse(*args: object, **options: object) -> None:
        raise np.linalg.LinAlgError

    monkeypatch.setattr("scipy.linalg.cholesky", refuse)
    again, pivots = ldl(G)
    np.testing.assert_allclose(pivots, D, rtol=1e-8)
    np.testing.assert_allclose(again, L, atol=1e-8 * np.abs(L).max())


def test_scales_from_1e_6_to_1e6_do_not_matter() -> None:
    G, scale = covariance(10, 7, 100), np.logspace(-6, 6, 7)
    L, D = ldl(G)
    scaled_L, scaled_D = ldl(G * np.outer(scale, scale))
    np.testing.assert_allclose(scaled_D, D * scale**2, rtol=1e-10)
    np.testing.assert_allclose(scaled_L, L * scale[:, None] / scale[None, :], rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 1e-20, 3.0, 1e12])
def test_one_feature(value: float) -> None:
    L, D = ldl([[value]])
    np.testing.assert_array_equal(L, [[1.0]])
    assert D[0] == pytest.approx(value, rel=1e-12)


def test_empty_matrix() -> None:
    L, D = ldl(np.zeros((0, 0)))
    assert L.shape == (0, 0)
    assert D.shape == (0,)


def test_fold_is_the_least_squares_weight() -> None:
    G, rng = covariance(11, 9, 60), np.random.default_rng(12)
    order, W = rng.permutation(9), rng.standard_normal((4, 9))
    L, _ = ldl(G, order)
    for k in range(10):
        S = order[:k]
        expected = W @ G[:, S] @ np.linalg.inv(G[np.ix_(S, S)])
        np.testing.assert_allclose(fold(W[:, order], L, k), expected, rtol=1e-7, atol=1e-9)


def test_fold_of_dependent_features_loses_nothing() -> None:
    rng = np.random.default_rng(13)
    X = rng.standard_normal((6, 3)) @ rng.standard_normal((3, 40))
    W = rng.standard_normal((2, 6))
    L, _ = ldl(X @ X.T)
    np.testing.assert_allclose(fold(W, L, 3) @ X[:3], W @ X, atol=1e-10)


def test_equilibrated_matrix_has_a_unit_diagonal_and_gives_back_the_original() -> None:
    G = np.diag([4.0, 0.0, 1e-8])
    G[0, 2] = G[2, 0] = 1e-4
    R, scale = equilibrate(G)
    np.testing.assert_allclose(np.diagonal(R), [1.0, 0.0, 1.0])
    np.testing.assert_allclose(scale[:, None] * R * scale, G, rtol=1e-14)


def test_what_is_not_a_gram_matrix_is_refused() -> None:
    with pytest.raises(DataError, match="NaN"):
        ldl([[1.0, np.nan], [np.nan, 1.0]])
    with pytest.raises(InternalError, match="square"):
        ldl(np.zeros((2, 3)))
