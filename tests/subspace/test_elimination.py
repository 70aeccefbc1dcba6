"""Units leave the inverse covariance and the weight: what they cost is the rise of the least squared error."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.subspace.elimination import Elimination, Term, reduced, scaled_columns

RIDGE = 1e-9


def covariance_of(rng: np.random.Generator, features: int) -> np.ndarray:
    x = rng.standard_normal((4 * features, features)) @ rng.standard_normal((features, features))
    return x.T @ x / len(x)


def error_without(term: Term, gone: np.ndarray) -> float:
    """Return the least squared error of the output where the features of these units are regressed on the others."""
    removed = np.isin(term.units, gone)
    c = term.covariance
    kept = c[np.ix_(~removed, ~removed)]
    cross = c[np.ix_(removed, ~removed)]
    rest = c[np.ix_(removed, removed)] - cross @ np.linalg.solve(kept, cross.T)
    weight = term.weight[:, removed]
    return float(np.trace(weight @ rest @ weight.T))


def scores_of(elimination: Elimination, units: int) -> np.ndarray:
    scores = np.zeros(units)
    elimination.add_scores(scores)
    return scores


@pytest.fixture(params=["single features", "pairs of features", "with others' features"])
def term(request: pytest.FixtureRequest) -> Term:
    rng = np.random.default_rng(3)
    units = {
        "single features": np.arange(8),
        "pairs of features": np.repeat(np.arange(6), 2),
        "with others' features": np.array([-1, 0, 1, 2, -1, 3, 4, -1]),
    }[request.param]
    return Term(covariance_of(rng, len(units)), rng.standard_normal((5, len(units))), units)


def test_a_score_is_what_taking_the_unit_out_costs(term: Term) -> None:
    units = int(term.units.max()) + 1
    scores = scores_of(Elimination(term, RIDGE), units)
    np.testing.assert_allclose(scores, [error_without(term, np.array([unit])) for unit in range(units)], rtol=1e-5)


def test_costs_add_up_to_the_error_of_all_that_went(term: Term) -> None:
    units = int(term.units.max()) + 1
    elimination, total = Elimination(term, RIDGE), 0.0
    gone: list[int] = []
    for _ in range(units - 1):
        scores = scores_of(elimination, units)
        scores[gone] = np.inf
        least = int(scores.argmin())
        total += scores[least]
        gone.append(least)
        elimination.eliminate(np.array([least]))
        assert total == pytest.approx(error_without(term, np.array(gone)), rel=1e-5)


def test_several_units_at_once_are_one_after_the_other(term: Term) -> None:
    units = int(term.units.max()) + 1
    together, single = Elimination(term, RIDGE), Elimination(term, RIDGE)
    together.eliminate(np.array([0, 2]))
    for unit in (0, 2):
        single.eliminate(np.array([unit]))
    np.testing.assert_allclose(scores_of(together, units), scores_of(single, units), rtol=1e-6, atol=1e-12)


def test_a_pool_scores_as_the_whole_does(term: Term) -> None:
    units = int(term.units.max()) + 1
    pool = np.array([1, 2, 4])
    whole = Elimination(term, RIDGE)
    local = whole.local(pool)
    assert local is not None
    for unit in (2, 4):
        scores = np.zeros(len(pool))
        local.add_scores(scores)
        alive = [slot for slot, member in enumerate(pool) if member in whole.units]
        expected = scores_of(whole, units)[pool]
        np.testing.assert_allclose(scores[alive], expected[alive], rtol=1e-6, atol=1e-12)
        local.remove(int(np.flatnonzero(pool == unit)[0]))
        whole.eliminate(np.array([unit]))


def test_a_pool_of_strangers_is_none(term: Term) -> None:
    assert Elimination(term, RIDGE).local(np.array([97, 98])) is None


def test_of_two_copies_one_goes_for_nothing_and_the_other_not() -> None:
    rng = np.random.default_rng(5)
    covariance = covariance_of(rng, 4)
    double = np.array([0, 1, 2, 3, 3])
    term = Term(covariance[np.ix_(double, double)], rng.standard_normal((3, 5)), np.arange(5))
    elimination = Elimination(term, 1e-6)
    scores = scores_of(elimination, 5)
    assert scores[3:].max() < 1e-2 * scores[:3].min()
    elimination.eliminate(np.array([4]))
    assert scores_of(elimination, 5)[3] > 1e-2


def test_fewer_rows_give_the_same_squares() -> None:
    """Only W^T W counts: many outputs are reduced to as many rows as there are features."""
    weight = np.random.default_rng(9).standard_normal((50, 6))
    small = reduced(weight)
    assert small.shape[0] <= 6
    np.testing.assert_allclose(small.T @ small, weight.T @ weight, rtol=1e-10)


def test_columns_are_in_units_of_their_features() -> None:
    weight = np.arange(12.0).reshape(3, 4)
    found = scaled_columns(weight, np.array([2, 0]), np.array([10.0, 0.5]))
    np.testing.assert_allclose(found, weight[:, [2, 0]] * [10.0, 0.5])
