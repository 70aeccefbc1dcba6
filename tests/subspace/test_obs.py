"""Greedy Optimal Brain Surgeon, held to least squares worked out anew for every candidate at every step."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from onnx_subprune.errors import DataError
from onnx_subprune.subspace import Term, loss_of_order, obs_sweep
from onnx_subprune.subspace.elimination import Elimination, reduced
from onnx_subprune.subspace.obs import RIDGE

RNG = np.random.default_rng(3)


def covariance(d: int, rows: int | None = None, decay: float = 0.0) -> np.ndarray:
    """Of features that mix `rows` sources; `decay` makes their spectrum fall."""
    sources = d if rows is None else rows
    X = RNG.standard_normal((d, sources)) @ np.diag(np.exp(-decay * np.arange(sources)))
    return np.asarray(X @ X.T)


def term(units: Sequence[int], outputs: int = 5, C: np.ndarray | None = None) -> Term:
    d = len(units)
    return Term(covariance(d) if C is None else C, RNG.standard_normal((outputs, d)), np.array(units))


def least_loss(terms: Sequence[Term], keep: Sequence[int], ridge: float) -> float:
    """The squared error at the consumers with only the units `keep`, least squares from scratch."""
    total = 0.0
    for one in terms:
        kept = np.isin(one.units, [-1, *keep])
        C = one.covariance + ridge * np.diag(np.diagonal(one.covariance))
        gone = C[np.ix_(~kept, ~kept)]
        if kept.any():
            across = C[np.ix_(kept, ~kept)]
            gone = gone - across.T @ np.linalg.solve(C[np.ix_(kept, kept)], across)
        total += float(np.trace(one.weight[:, ~kept] @ gone @ one.weight[:, ~kept].T))
    return total


def by_hand(
    terms: Sequence[Term], size: int, uncorrected: np.ndarray | None = None, ridge: float = RIDGE
) -> tuple[np.ndarray, np.ndarray]:
    """Order and losses by trying every unit at every step."""
    keep, order, losses = list(range(size)), [], [0.0]
    while keep:
        tried = []
        for unit in keep:
            rest = [other for other in keep if other != unit]
            extra = 0.0
            if uncorrected is not None:
                removed = np.setdiff1d(np.arange(size), rest)
                extra = float(uncorrected[np.ix_(removed, removed)].sum())
            tried.append(least_loss(terms, rest, ridge) + extra)
        least = int(np.argmin(tried))
        losses.append(tried[least])
        order.append(keep.pop(least))
    return np.array(order[::-1]), np.maximum.accumulate(losses)[::-1]


BLOCKS = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
CASES = {
    "features": [term(range(6))],
    "more outputs than features": [term(range(6), 40)],
    "blocks": [term(BLOCKS)],
    "blocks that are interleaved": [term([0, 1, 2, 3, 4, 5] * 2)],
    "several consumers": [term(range(6)), term(range(6), 9), term([5, 4, 3, 2, 1, 0], 1)],
    "consumers with blocks of different sizes": [term(range(6)), term(BLOCKS)],
    "blocks of a grouped Conv": [term([0, 1, 2]), term([3, 4, 5])],
    "every block of a grouped Conv holds all units": [term(range(6), 2) for _ in range(4)],
    "neighbours on a concatenated axis": [term([-1, 0, 1, -1, 2, 3, 4, 5, -1, -1])],
    "units with unlike numbers of features": [term([0, 1, 1, 1, 2, 4, 5, 5, 3])],
    "a unit that nobody reads": [term([0, 1, 2, 4, 5])],
}


@pytest.mark.parametrize("panel", [1, 128])
@pytest.mark.parametrize("name", CASES)
def test_the_sweep_is_the_greedy_search(name: str, panel: int) -> None:
    order, loss = obs_sweep(CASES[name], 6, panel=panel)
    expected, losses = by_hand(CASES[name], 6)
    np.testing.assert_array_equal(order, expected)
    np.testing.assert_allclose(loss, losses, rtol=1e-9, atol=1e-9 * losses[0])
    assert loss[-1] == 0.0


@pytest.mark.parametrize("name", CASES)
def test_the_loss_of_any_order(name: str) -> None:
    order = RNG.permutation(6)
    expected = [least_loss(CASES[name], order[:k], RIDGE) for k in range(7)]
    np.testing.assert_allclose(loss_of_order(CASES[name], order), expected, rtol=1e-9, atol=1e-9 * expected[0])


@pytest.mark.parametrize("panel", [1, 128])
def test_sums_that_no_weight_reads(panel: int) -> None:
    moments = covariance(6)
    order, loss = obs_sweep([term(range(6))], 6, uncorrected=[moments], panel=panel)
    alone, sums = obs_sweep([], 6, uncorrected=[moments], panel=panel)
    assert sorted(order) == sorted(alone) == list(range(6))
    expected, losses = by_hand([], 6, moments)
    np.testing.assert_array_equal(alone, expected)
    np.testing.assert_allclose(sums, losses, rtol=1e-9)
    np.testing.assert_allclose(loss_of_order([], alone, uncorrected=[moments]), sums, rtol=1e-9)
    assert loss[0] > sums[0]


def test_one_of_each_pair_of_duplicates_stays() -> None:
    C = covariance(20)
    twice = np.tile(C, (2, 2))
    order, loss = obs_sweep([Term(twice, RNG.standard_normal((30, 40)), np.arange(40))], 40)
    assert set(order[:20] % 20) == set(range(20))
    assert loss[20] < 1e-4 * loss[0]
    assert loss[20] < 1e-2 * loss[19]


def test_dead_features_go_first_and_cost_nothing() -> None:
    C = covariance(8)
    C[[1, 6], :] = C[:, [1, 6]] = 0.0
    order, loss = obs_sweep([term(range(8), C=C)], 8)
    assert set(order[-2:]) == {1, 6}
    assert loss[6] == loss[7] == loss[8] == 0.0
    assert loss[5] > 0.0


def test_where_nothing_varies_the_lower_units_stay() -> None:
    order, loss = obs_sweep([term(range(5), C=np.zeros((5, 5)))], 5)
    np.testing.assert_array_equal(order, np.arange(5))
    np.testing.assert_array_equal(loss, 0.0)
    np.testing.assert_array_equal(loss_of_order([term(range(5), C=np.zeros((5, 5)))], order), 0.0)


def test_a_covariance_of_few_samples() -> None:
    C = covariance(30, rows=12)
    for noise in (C, C.astype(np.float32).astype(np.float64)):
        one = term(range(30), 40, noise)
        order, loss = obs_sweep([one], 30)
        assert loss[12] < 1e-3 * loss[0]
        np.testing.assert_allclose(loss_of_order([one], order), loss, rtol=1e-6, atol=1e-9 * loss[0])


def test_a_covariance_that_is_clearly_indefinite_gets_a_larger_ridge() -> None:
    C = np.full((3, 3), 0.9) + 0.1 * np.eye(3)
    C[0, 1] = C[1, 0] = -0.9
    order, loss = obs_sweep([term(range(3), C=C)], 3)
    assert sorted(order) == [0, 1, 2]
    assert np.isfinite(loss).all()
    assert (np.diff(loss) <= 0).all()


def test_scales_of_features_and_what_reads_them_make_no_difference() -> None:
    one = term(range(10))
    scale = 10.0 ** RNG.uniform(-6, 6, 10)
    order, loss = obs_sweep([one], 10)
    again, scaled = obs_sweep([Term(one.covariance * np.outer(scale, scale), one.weight / scale, one.units)], 10)
    np.testing.assert_array_equal(order, again)
    np.testing.assert_allclose(loss, scaled, rtol=1e-8)


@pytest.mark.parametrize(("size", "width"), [(400, 1), (100, 4)])
def test_panels_lose_little_more_than_the_exact_search(size: int, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_subprune.subspace.obs._POOL", 64)
    d = size * width
    terms = [term(list(np.repeat(np.arange(size), width)), o, covariance(d, 2 * d, 4 / d)) for o in (d // 4, 2 * d)]
    exact, least = obs_sweep(terms, size, panel=1)
    order, loss = obs_sweep(terms, size, panel=32)
    kept = np.arange(size // 10, size)
    assert (loss[kept] <= 1.02 * least[kept]).all()
    assert (order == exact).mean() > 0.5
    np.testing.assert_allclose(loss_of_order(terms, order), loss, rtol=1e-6, atol=1e-9 * loss[0])


def test_the_same_order_every_time() -> None:
    terms = [term(range(200), 50, covariance(200, 400)), term(range(200), 300, covariance(200, 400))]
    first, loss = obs_sweep(terms, 200, panel=16)
    second, again = obs_sweep(terms, 200, panel=16)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(loss, again)


@pytest.mark.parametrize("panel", [1, 32])
def test_wide_terms_are_in_single_precision_once_that_is_safe(panel: int, monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.linalg.qr(RNG.standard_normal((300, 300)))[0] * 0.98 ** np.arange(300)
    C = X @ X.T + 0.01 * np.eye(300)
    C[:, 7] = C[7] = 0.0  # a dead feature, and two that are all but the same
    C[9], C[:, 9] = C[8], C[:, 8]
    C[9, 9] = C[8, 8] * (1 + 1e-9)
    one = term(range(300), 100, C)
    exact, losses = obs_sweep([one], 300, panel=1)
    monkeypatch.setattr("onnx_subprune.subspace.inverse._DOUBLE", 10)
    monkeypatch.setattr("onnx_subprune.subspace.obs._POOL", 64)
    state = Elimination(one, RIDGE)
    assert (state._W.dtype, state._P._P.dtype) == (np.float32, np.float64)
    for unit in range(20):
        state.eliminate(np.array([unit]))
    assert state._P._P.dtype == np.float32
    order, loss = obs_sweep([one], 300, panel=panel)
    assert (order == exact).mean() > 0.95
    np.testing.assert_allclose(loss, losses, rtol=1e-4, atol=1e-8 * losses[0])


def test_a_weight_with_more_rows_than_columns_is_reduced() -> None:
    W = RNG.standard_normal((9000, 7))
    small = reduced(W)
    assert small.shape == (7, 7)
    np.testing.assert_allclose(small.T @ small, W.T @ W, rtol=1e-9, atol=1e-9)


def test_values_that_are_not_finite() -> None:
    with pytest.raises(DataError, match="finite"):
        obs_sweep([term(range(2), C=np.full((2, 2), np.nan))], 2)


def test_what_the_consumers_do_not_read_goes_first() -> None:
    one = term(range(6))
    one.weight[:, [0, 4]] = 0.0
    order, loss = obs_sweep([Term(np.diag(10.0 ** np.arange(6)), one.weight, one.units)], 6)
    assert set(order[-2:]) == {0, 4}
    assert loss[4] == 0.0 < loss[3]
