"""Inverse correlations, as a matrix and by vectors: the same numbers, while features go."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.subspace import inverse as module
from onnx_subprune.subspace.inverse import DenseInverse, LowRankInverse, factor, inverse
from onnx_subprune.subspace.obs import Term, obs_sweep

RIDGE = 1e-3


def vectors(d: int, r: int, seed: int = 0) -> np.ndarray:
    """Vectors whose products have a diagonal of ones."""
    V = np.random.default_rng(seed).standard_normal((d, r))
    return V / np.linalg.norm(V, axis=1, keepdims=True)


def few_samples(features: int, samples: int) -> np.ndarray:
    """A covariance of fewer samples than features, of uneven scales; two features are dead."""
    rng = np.random.default_rng(1)
    x = np.maximum(rng.standard_normal((samples, features)), 0.0) * np.logspace(-2, 2, features)
    x[:, [3, 7]] = 0.0
    centred = x - x.mean(axis=0)
    return centred.T @ centred / samples


def expected(V: np.ndarray, places: np.ndarray) -> np.ndarray:
    left = V[places]
    return np.linalg.inv(left @ left.T + RIDGE * np.eye(len(left)))


def remove(found: DenseInverse | LowRankInverse, index: np.ndarray) -> None:
    rows = found.rows(index)
    root = np.linalg.cholesky(rows[:, index])
    found.remove(index, root, np.linalg.solve(root, rows))


@pytest.fixture(params=["matrix", "vectors"])
def pair(request: pytest.FixtureRequest) -> tuple[np.ndarray, DenseInverse | LowRankInverse]:
    V = vectors(24, 4)
    if request.param == "vectors":
        return V, LowRankInverse(V, RIDGE, 2)
    return V, DenseInverse(np.asfortranarray(np.linalg.cholesky(V @ V.T + RIDGE * np.eye(24))))


def test_blocks_rows_and_parts_are_those_of_the_inverse(pair: tuple[np.ndarray, DenseInverse | LowRankInverse]) -> None:
    V, found = pair
    P, index = expected(V, np.arange(24)), np.array([2, 3, 10, 11])
    np.testing.assert_allclose(found.rows(index), P[index], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(found.among(index), P[np.ix_(index, index)], rtol=1e-8, atol=1e-8)
    blocks = [P[np.ix_(unit, unit)] for unit in index.reshape(2, 2)]
    np.testing.assert_allclose(found.blocks(index.reshape(2, 2)), blocks, rtol=1e-8, atol=1e-8)


def test_features_that_go_leave_the_inverse_of_the_others(
    pair: tuple[np.ndarray, DenseInverse | LowRankInverse],
) -> None:
    V, found = pair
    places = np.arange(24)
    # At 14 the vectors are renewed; at 8 and fewer they become a matrix.
    for gone in ([0, 1, 8, 9], [4, 5, 6, 7, 18, 19], [10, 11, 12, 13], [2, 3], [22, 23]):
        remove(found, np.flatnonzero(np.isin(places, gone)))
        keep = np.flatnonzero(~np.isin(places, gone))
        places = places[keep]
        still = expected(V, places)
        units = keep.reshape(-1, 2)
        blocks = [still[np.ix_(unit, unit)] for unit in np.arange(len(places)).reshape(-1, 2)]
        np.testing.assert_allclose(found.blocks(units), blocks, rtol=1e-6, atol=1e-6)
        found = found.compacted(keep)
        np.testing.assert_allclose(found.rows(np.arange(len(places))), still, rtol=1e-6, atol=1e-6)
    assert isinstance(found, DenseInverse)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors are used for few features too."""
    monkeypatch.setattr(module, "_WIDE", 8)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("units", [np.arange(90), np.repeat(np.arange(45), 2)], ids=["single", "pairs"])
def test_a_sweep_over_few_samples_is_that_without_the_bound(units: np.ndarray) -> None:
    covariance = few_samples(90, 12)
    weight = np.random.default_rng(2).standard_normal((5, 90))
    size = int(units.max()) + 1
    # A ridge far above rounding, so that the order of units that are copies of others is sure too.
    bounded = obs_sweep([Term(covariance, weight, units, rank=12)], size, ridge=1e-4)
    free = obs_sweep([Term(covariance, weight, units)], size, ridge=1e-4)
    np.testing.assert_array_equal(bounded[0], free[0])
    np.testing.assert_allclose(bounded[1], free[1], rtol=1e-6, atol=1e-9 * free[1][0])


@pytest.mark.usefixtures("small")
def test_vectors_are_for_few_samples_alone() -> None:
    """A bound that does not hold, and features that stay, leave a matrix of the same numbers."""
    rng = np.random.default_rng(3)
    x = rng.standard_normal((200, 60))
    covariance, index = x.T @ x / 200, np.arange(60)
    wrong, _ = inverse(covariance, index, RIDGE, fixed=0, width=1, spare=False, rank=5)
    plain, _ = inverse(covariance, index, RIDGE, fixed=0, width=1, spare=False, rank=None)
    assert isinstance(wrong, DenseInverse)
    np.testing.assert_allclose(wrong.rows(index), plain.rows(index), rtol=1e-9, atol=1e-9)
    held, _ = inverse(few_samples(60, 5), index, RIDGE, fixed=2, width=1, spare=False, rank=5)
    assert isinstance(held, DenseInverse)
    few, deviation = inverse(few_samples(60, 5), index, RIDGE, fixed=0, width=1, spare=False, rank=5)
    assert isinstance(few, LowRankInverse)
    assert deviation[3] == 0.0


def test_a_spare_covariance_gives_its_memory() -> None:
    covariance = few_samples(30, 100)
    root, _ = factor(covariance.copy(), np.arange(30), 1e-2)
    again, _ = factor(covariance, np.arange(30), 1e-2, spare=True)
    np.testing.assert_array_equal(np.tril(again), np.tril(root))
    assert np.shares_memory(again, covariance)


def test_a_ridge_grows_until_the_matrix_is_definite() -> None:
    covariance = np.array([[1.0, 1.0 + 1e-4, 0.2], [1.0 + 1e-4, 1.0, 0.2], [0.2, 0.2, 1.0]])
    root, _ = factor(covariance, np.arange(3), 1e-6)
    np.testing.assert_allclose(np.tril(root) @ np.tril(root).T, covariance + 1e-3 * np.eye(3), rtol=1e-12)


def test_a_factor_is_of_correlations_with_a_ridge() -> None:
    x = np.random.default_rng(7).standard_normal((24, 6)) @ np.random.default_rng(8).standard_normal((6, 6))
    covariance = x.T @ x / len(x)
    order = np.array([4, 0, 5, 1, 2, 3])
    root, scale = factor(covariance, order, 1e-2)
    deviation = np.sqrt(np.diag(covariance))[order]
    np.testing.assert_allclose(scale.ravel(), deviation)
    correlation = covariance[np.ix_(order, order)] / np.outer(deviation, deviation)
    np.testing.assert_allclose(np.tril(root) @ np.tril(root).T, correlation + 1e-2 * np.eye(6), rtol=1e-9, atol=1e-12)


def test_a_wide_layer_that_is_dead_on_all_samples_has_an_inverse() -> None:
    """There is no vector at all."""
    P, deviation = inverse(np.zeros((1100, 1100)), np.arange(1100), 1e-3, fixed=0, width=1, spare=False, rank=100)
    assert isinstance(P, DenseInverse)
    assert not deviation.any()
