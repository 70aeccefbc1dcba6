from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.subspace import (
    conditional_variance_scores,
    cumulative_variance,
    fold,
    ldl,
    rank,
    recover,
    zca_scores,
)

SETTINGS = settings(max_examples=80, deadline=None, derandomize=True)


@st.composite
def activations(draw: st.DrawFn, scales: bool = True) -> np.ndarray:
    """Features x samples with any mixture of what goes wrong: dead, constant, dependent, few samples, all scales."""
    d, n = draw(st.integers(1, 12)), draw(st.integers(1, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = rng.standard_normal((d, d)) @ rng.standard_normal((d, n)) + rng.standard_normal((d, 1))
    for i in range(d):
        kind = draw(st.sampled_from(["free", "free", "dead", "constant", "duplicate", "dependent", "relu"]))
        if kind == "dead":
            X[i] = 0.0
        elif kind == "constant":
            X[i] = rng.standard_normal()
        elif kind == "duplicate":
            X[i] = X[rng.integers(d)]
        elif kind == "dependent" and i:
            X[i] = rng.standard_normal(i) @ X[:i]
        elif kind == "relu":
            X[i] = np.maximum(X[i], 0.0)
    exponents = draw(st.lists(st.integers(-6, 6), min_size=d, max_size=d)) if scales else [0] * d
    return X * 10.0 ** np.array(exponents)[:, None]


def second_moment(X: np.ndarray) -> np.ndarray:
    affine = np.vstack([X, np.ones(X.shape[1])])
    return affine @ affine.T


def amplitude(X: np.ndarray) -> np.ndarray:
    return np.sqrt(np.maximum((X**2).mean(axis=1), 1e-300))


@SETTINGS
@given(activations(), st.randoms(use_true_random=False))
def test_ldl_gives_back_the_gram_matrix(X: np.ndarray, random: object) -> None:
    G = X @ X.T
    order = np.array(random.sample(range(len(X)), len(X)))  # type: ignore[attr-defined]
    L, D = ldl(G, order)
    permuted = G[np.ix_(order, order)]
    scale = np.sqrt(np.maximum(np.diagonal(permuted), 1e-300))
    assert (D >= 0).all()
    assert (np.abs((L * D) @ L.T - permuted) <= 1e-10 * np.outer(scale, scale)).all()


@SETTINGS
@given(activations(), st.integers(0, 12), st.integers(0, 1000))
def test_fold_is_least_squares_whatever_the_rank(X: np.ndarray, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    k, order = min(k, len(X)), rng.permutation(len(X))
    X = X[order]
    W = rng.standard_normal((3, len(X))) / amplitude(X)
    W[:, (X == 0).all(axis=1)] = 0.0
    L, _ = ldl(X @ X.T)
    scaled = X[:k] / amplitude(X)[:k, None]
    target = W @ X
    best = target - np.linalg.lstsq(scaled.T, target.T, rcond=1e-12)[0].T @ scaled
    found = target - fold(W, L, k) @ X[:k]
    assert np.sqrt((found**2).sum()) <= np.sqrt((best**2).sum()) * (1 + 1e-6) + 1e-5 * len(X) * np.sqrt(X.shape[1])


@SETTINGS
@given(activations())
def test_scores_lie_between_zero_and_the_variance(X: np.ndarray) -> None:
    C = X @ X.T / X.shape[1]
    zca, conditional, variances = zca_scores(C), conditional_variance_scores(C), np.diagonal(C)
    assert (zca >= 0).all()
    assert (conditional >= 0).all()
    assert (zca <= variances * (1 + 1e-9)).all()
    assert (conditional <= variances * (1 + 1e-9)).all()
    assert (zca[variances == 0] == 0).all()


@SETTINGS
@given(activations(scales=False))
def test_conditional_variance_is_the_smaller_score(X: np.ndarray) -> None:
    C = X @ X.T / X.shape[1]
    assert (conditional_variance_scores(C) <= zca_scores(C) + 1e-6 * np.diagonal(C).max()).all()


@SETTINGS
@given(activations(), st.integers(1, 3))
def test_cumulative_variance_is_a_curve(X: np.ndarray, block: int) -> None:
    X = np.repeat(X, block, axis=0) if block > 1 else X
    C = np.cov(X, bias=True).reshape(len(X), len(X))
    n = len(X) // block
    share = cumulative_variance(C, rank(np.diagonal(C).reshape(n, block).sum(axis=1)), block)
    assert share.shape == (n + 1,)
    assert share[0] == 0.0
    assert share[-1] == 1.0
    assert (np.diff(share) >= 0).all()


@SETTINGS
@given(activations(), st.integers(0, 4095), st.sampled_from([0.0, 1e-8, 1e-3, 10.0]), st.booleans())
def test_recovery_is_finite_and_never_worse_than_the_mean(X: np.ndarray, mask: int, ridge: float, affine: bool) -> None:
    keep = np.array([bool(mask >> i & 1) for i in range(len(X))])
    found = recover(second_moment(X), keep, ridge, affine)
    assert np.isfinite(found.coefficients).all()
    assert np.isfinite(found.intercept).all()
    assert 0.0 <= found.error <= 1.0 + 1e-9
    np.testing.assert_array_equal(found.coefficients[keep], np.eye(int(keep.sum())))


@SETTINGS
@given(activations(), st.integers(0, 4095))
def test_recovery_reaches_the_least_squares_error(X: np.ndarray, mask: int) -> None:
    keep = np.array([bool(mask >> i & 1) for i in range(len(X))])
    found = recover(second_moment(X), keep)
    error = (X - found.coefficients @ X[keep] - found.intercept[:, None]) / amplitude(X)[:, None]
    design = np.vstack([X[keep] / amplitude(X[keep])[:, None], np.ones(X.shape[1])])
    target = X / amplitude(X)[:, None]
    best = target - np.linalg.lstsq(design.T, target.T, rcond=1e-10)[0].T @ design
    assert (np.sqrt((error**2).mean(axis=1)) <= np.sqrt((best**2).mean(axis=1)) * (1 + 1e-6) + 1e-5).all()


@SETTINGS
@given(st.integers(0, 2**32 - 1), st.integers(1, 8), st.integers(1, 8))
def test_exact_linear_dependence_is_recovered(seed: int, rank_: int, extra: int) -> None:
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((rank_, 50))
    X = np.vstack([basis, rng.standard_normal((extra, rank_)) @ basis + rng.standard_normal((extra, 1))])
    found = recover(second_moment(X), np.arange(len(X)) < rank_)
    assert found.error <= 1e-6
