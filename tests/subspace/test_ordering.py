from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from onnx_subprune.budget import Curve
from onnx_subprune.errors import DataError, InternalError, OptionError
from onnx_subprune.subspace import (
    METHODS,
    conditional_variance_scores,
    cumulative_variance,
    feature_scores,
    joint_scores,
    magnitude_scores,
    random_scores,
    rank,
    saw_scores,
    unit_scores,
    wanda_scores,
    zca_scores,
)
from onnx_subprune.subspace.ordering import joint_share


def features(seed: int, d: int, n: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((d, d)) @ rng.standard_normal((d, n))


def degenerate() -> np.ndarray:
    """Covariance of: two duplicates, a dead feature, a combination, two of their own."""
    X = features(0, 3, 80)
    X = np.stack([X[0], X[0], np.zeros(80), X[1] - 2 * X[0], X[1], X[2]])
    return np.cov(X)


def test_zca_is_its_formula() -> None:
    C = np.cov(features(1, 8, 200))
    expected = 1.0 / np.diagonal(scipy.linalg.inv(scipy.linalg.sqrtm(C))).real ** 2
    np.testing.assert_allclose(zca_scores(C), expected, rtol=1e-8)


def test_conditional_variance_is_its_formula() -> None:
    C = np.cov(features(2, 8, 200))
    np.testing.assert_allclose(conditional_variance_scores(C), 1.0 / np.diagonal(np.linalg.inv(C)), rtol=1e-6)


def test_uncorrelated_features_score_their_variance() -> None:
    variances = np.array([1e-12, 4.0, 1e12, 0.25])
    for scores in (zca_scores, conditional_variance_scores):
        np.testing.assert_allclose(scores(np.diag(variances)), variances, rtol=1e-9)


@pytest.mark.parametrize("scores", [zca_scores, conditional_variance_scores])
def test_dead_and_dependent_features_come_last(scores: object) -> None:
    C = degenerate()
    found = scores(C)  # type: ignore[operator]
    assert found[2] == 0.0
    assert np.isfinite(found).all()
    assert (found[:5] < 1e-6 * C.max()).all()
    assert found[5] > 1e-2 * C[5, 5]
    assert rank(found)[0] == 5
    assert rank(found)[-1] == 2


@pytest.mark.parametrize("scores", [zca_scores, conditional_variance_scores])
def test_nothing_varies_and_one_feature(scores: object) -> None:
    np.testing.assert_array_equal(scores(np.zeros((3, 3))), 0.0)  # type: ignore[operator]
    np.testing.assert_array_equal(scores([[0.0]]), [0.0])  # type: ignore[operator]
    np.testing.assert_allclose(scores([[9.0]]), [9.0], rtol=1e-9)  # type: ignore[operator]


@pytest.mark.parametrize("scores", [zca_scores, conditional_variance_scores])
def test_rounding_that_makes_the_covariance_indefinite(scores: object) -> None:
    C = np.cov(features(3, 20, 10)).astype(np.float32).astype(np.float64)
    C[4, 4] = -1e-17  # a constant feature after the subtraction of its mean
    assert np.linalg.eigvalsh(C)[0] < 0
    found = scores(C)  # type: ignore[operator]
    assert np.isfinite(found).all()
    assert (found >= 0).all()
    assert found[4] == 0.0


def test_clearly_indefinite_correlations_fall_back_to_eigenvalues() -> None:
    C = np.full((3, 3), 0.5) + 0.5 * np.eye(3)
    C[0, 1] = C[1, 0] = -0.9
    assert np.linalg.eigvalsh(C)[0] < -0.1
    assert (conditional_variance_scores(C) >= 0).all()


def test_weights() -> None:
    W = np.array([[1.0, -2.0, 0.0], [0.5, 0.5, 0.0]])
    np.testing.assert_array_equal(saw_scores(W), [1.5, 2.5, 0.0])
    np.testing.assert_array_equal(magnitude_scores(W), [3.0, 1.0])
    np.testing.assert_array_equal(magnitude_scores(np.full((2, 3, 2, 2), -1.0)), [12.0, 12.0])
    np.testing.assert_array_equal(magnitude_scores([-1.0, 2.0]), [1.0, 2.0])


def test_wanda_is_its_formula() -> None:
    X, W = features(6, 5, 40), np.random.default_rng(7).standard_normal((3, 5))
    expected = np.abs(W).sum(axis=0) * np.linalg.norm(X, axis=1) / np.sqrt(40)
    np.testing.assert_allclose(wanda_scores(W, (X**2).mean(axis=1)), expected)


def test_random_depends_on_the_seed_alone() -> None:
    np.testing.assert_array_equal(random_scores(50, 1), random_scores(50, 1))
    assert (random_scores(50, 1) != random_scores(50, 2)).any()
    np.testing.assert_allclose(np.sort(random_scores(4, 0)), [0.25, 0.5, 0.75, 1.0])


def test_feature_scores_dispatch() -> None:
    C, W = np.cov(features(4, 5, 60)), np.random.default_rng(5).standard_normal((7, 5))
    expected = {
        "zca": zca_scores(C),
        "conditional-variance": conditional_variance_scores(C),
        "saw": saw_scores(W),
        "wanda": wanda_scores(W, np.diagonal(C)),
        "magnitude": magnitude_scores(W.T),
        "random": random_scores(5, 3),
    }
    assert {"obs", *expected} == set(METHODS)
    for method, scores in expected.items():
        weights = W.T if method == "magnitude" else W
        np.testing.assert_array_equal(feature_scores(method, C, weights, seed=3), scores)


def test_feature_scores_refuses_what_it_cannot_do() -> None:
    with pytest.raises(OptionError, match=r"zca, .*'l1'"):
        feature_scores("l1", np.eye(2))
    with pytest.raises(InternalError, match="weights"):
        feature_scores("saw", np.eye(2))
    with pytest.raises(InternalError, match="covariance"):
        feature_scores("wanda", weights=np.eye(2))
    with pytest.raises(InternalError, match="single features"):
        feature_scores("obs", np.eye(2))
    with pytest.raises(InternalError, match="covariance"):
        feature_scores("zca", weights=np.eye(2))
    with pytest.raises(DataError, match="finite"):
        feature_scores("saw", weights=[[np.nan]])


def test_unit_scores_by_block_and_by_list() -> None:
    np.testing.assert_array_equal(unit_scores([1.0, 2.0, 3.0, 4.0], 2), [3.0, 7.0])
    np.testing.assert_array_equal(unit_scores([1.0, 2.0, 3.0, 4.0], [[3, 0], [1], []]), [5.0, 2.0, 0.0])
    with pytest.raises(InternalError, match="blocks of 3"):
        unit_scores([1.0, 2.0], 3)


def test_joint_scores_weigh_consumers_alike() -> None:
    np.testing.assert_allclose(joint_scores([[1e9, 3e9], [1e-9, 1e-9]]), [0.375, 0.625])
    np.testing.assert_allclose(joint_scores([[0.0, 0.0], [1.0, 3.0]]), [0.125, 0.375])
    with pytest.raises(InternalError, match="one length"):
        joint_scores([])
    with pytest.raises(InternalError, match="one length"):
        joint_scores([[1.0], [1.0, 2.0]])


def test_rank_descends_and_breaks_ties_by_index() -> None:
    np.testing.assert_array_equal(rank([1.0, 3.0, 1.0, 3.0, 0.0]), [1, 3, 0, 2, 4])
    with pytest.raises(DataError, match="finite"):
        rank([1.0, np.nan])


def test_cumulative_variance_of_uncorrelated_features() -> None:
    share = cumulative_variance(np.diag([1.0, 2.0, 3.0, 4.0]), [3, 0, 2, 1], 1)
    np.testing.assert_allclose(share, [0.0, 0.4, 0.5, 0.8, 1.0])
    np.testing.assert_allclose(cumulative_variance(np.diag([1.0, 2.0, 3.0, 4.0]), [1, 0], 2), [0.0, 0.7, 1.0])


def test_cumulative_variance_counts_what_a_unit_adds() -> None:
    share = cumulative_variance([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 3.0]], [0, 1, 2], 1)
    np.testing.assert_allclose(share, [0.0, 0.25, 0.25, 1.0])


def test_cumulative_variance_of_part_of_an_axis() -> None:
    C = np.cov(features(6, 6, 90))
    units = [[4], [1, 5], []]
    share = cumulative_variance(C, [1, 2, 0], units)
    part = cumulative_variance(C[np.ix_([1, 5, 4], [1, 5, 4])], [0, 1], [[0, 1], [2]])
    np.testing.assert_allclose(share, [0.0, part[1], part[1], 1.0])


def test_cumulative_variance_where_nothing_varies() -> None:
    np.testing.assert_array_equal(cumulative_variance(np.zeros((3, 3)), [0, 1, 2], 1), [0.0, 1.0, 1.0, 1.0])
    np.testing.assert_array_equal(cumulative_variance(np.zeros((0, 0)), [], []), [0.0])


def test_joint_share_is_the_mean_and_a_valid_curve() -> None:
    third = [0.0, 1 / 3, 2 / 3, 1.0]
    share = joint_share([third, [0.0, 1.0, 1.0, 1.0], third])
    np.testing.assert_allclose(share, [0.0, 5 / 9, 7 / 9, 1.0])
    assert Curve("g", 3, np.arange(3), share).share[-1] == 1.0
    with pytest.raises(InternalError, match="one length"):
        joint_share([])
