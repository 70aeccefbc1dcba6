"""Times of networks as sums of terms: what was put in comes out again, and no width is cheaper than a smaller one."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.budget import Curve, fit_times, sampled_widths
from onnx_subprune.budget.ladder import rungs


def curve(group: str, size: int, **options: int) -> Curve:
    return Curve(group, size, np.arange(size), np.linspace(0.0, 1.0, size + 1), **options)


FAMILIES = ("conv", "conv", "conv", "entries", "entries", "matmul")
CLASSES = (("conv", 1), ("conv", 1), ("conv", 2), ("entries", 1), ("entries", 2), ("matmul", 1))


def values(networks: int, seed: int = 0) -> np.ndarray:
    """Terms [networks, 6] of a dense network and of others with parts of it."""
    rng = np.random.default_rng(seed)
    dense = np.array([40.0, 30.0, 20.0, 5.0, 6.0, 10.0])
    return dense * np.vstack([np.ones(6), rng.uniform(0.05, 1.0, (networks - 1, 6))])


@pytest.mark.parametrize("seed", range(5))
def test_coefficients_of_a_sum_are_found_again(seed: int) -> None:
    truth = np.array([0.004, 0.004, 0.006, 0.02, 0.03, 0.01])
    terms, others = values(17, seed), values(50, seed + 100)
    constant = 1.0 - float(terms[0] @ truth)
    fit = fit_times(terms, FAMILIES, CLASSES, terms @ truth + constant)
    expected = others @ truth + constant
    assert np.abs((fit.constant + others @ fit.coefficients) / expected - 1).max() < 0.03
    assert fit.error < 0.02


@pytest.mark.parametrize("seed", range(5))
def test_no_term_makes_a_network_faster_whatever_was_measured(seed: int) -> None:
    rng = np.random.default_rng(seed)
    terms = values(17, seed)
    fit = fit_times(terms, FAMILIES, CLASSES, np.array([1.0, *rng.uniform(0.1, 1.2, 16)]))
    assert fit.constant >= 0
    assert (fit.coefficients >= 0).all()
    assert np.isfinite(fit.coefficients).all()
    assert fit.error > 0.1


def test_a_class_may_differ_from_its_family_where_measurements_say_so() -> None:
    truth = np.array([0.001, 0.001, 0.030, 0.01, 0.01, 0.01])
    terms = values(17)
    fit = fit_times(terms, FAMILIES, CLASSES, terms @ truth + 0.1)
    assert fit.coefficients[2] > 10 * fit.coefficients[0]
    assert fit.coefficients[0] == fit.coefficients[1]


def test_a_network_without_terms_takes_a_constant_time() -> None:
    fit = fit_times(np.zeros((4, 0)), (), (), np.ones(4))
    assert fit.constant == pytest.approx(1.0, abs=1e-3)
    assert not len(fit.coefficients)


def test_sampled_widths_are_allowed_spread_and_the_same_again() -> None:
    curves = [curve(f"g{index}", 40, round_to=8, minimum=3) for index in range(6)]
    found = sampled_widths(curves)
    assert found == sampled_widths(curves)
    assert all(one[c.group] in rungs(c, 1) for one in found for c in curves)
    assert dict.fromkeys(found[0], 8) in found
    assert {one["g0"] for one in found} == {8, 16, 24, 32, 40}
    # Groups do not move together, or nothing could be told of each.
    matrix = np.array([list(one.values()) for one in found], float)
    assert np.corrcoef(matrix.T)[np.triu_indices(6, 1)].max() < 0.95


def test_widths_of_a_network_with_one_group_or_none() -> None:
    assert all(set(one) == {"g"} for one in sampled_widths([curve("g", 3)]))
    assert all(one == {} for one in sampled_widths([]))
