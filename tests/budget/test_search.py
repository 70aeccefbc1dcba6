from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from onnx_subprune.budget import Searched, smallest
from onnx_subprune.errors import OptionError


def power(exponent: float, scale: float = 0.2) -> Callable[[float], float]:
    """A fall that starts slowly and grows ever faster as the budget shrinks, as those of networks do."""
    return lambda fraction: scale * (1.0 - fraction) ** exponent


def check(found: Searched, drop: float) -> None:
    assert len({trial.fraction for trial in found.tried}) == len(found.tried) <= 8
    assert all(trial.accepted == (trial.fall <= drop) for trial in found.tried)
    accepted = [trial.fraction for trial in found.tried if trial.accepted]
    assert (found.best.fraction if found.best else None) == min(accepted, default=None)


@pytest.mark.parametrize("exponent", [1.0, 2.0, 4.0])
@pytest.mark.parametrize("drop", [0.001, 0.01, 0.05])
def test_it_closes_in_on_the_boundary(exponent: float, drop: float) -> None:
    found = smallest(power(exponent), 0.05, 0.98, drop)
    check(found, drop)
    boundary = max(0.05, 1.0 - (drop / 0.2) ** (1.0 / exponent))
    if boundary > 0.98:
        assert found.best is None
        return
    assert found.best is not None
    assert 0.0 <= found.best.fraction - boundary < 0.02


def test_high_failing_ends_it_and_low_passing_is_found_at_once() -> None:
    found = smallest(lambda _: 1.0, 0.1, 0.9, 0.01)
    assert (found.best, len(found.tried)) == (None, 1)
    found = smallest(lambda _: 0.0, 0.1, 0.9, 0.01)
    assert found.best is not None
    assert (found.best.fraction, len(found.tried)) == (0.1, 3)
    one = smallest(lambda _: 0.0, 0.5, 0.5, 0.01)
    assert one.best is not None
    assert len(one.tried) == 1


@pytest.mark.parametrize("seed", range(20))
def test_noise_never_makes_a_failure_the_answer(seed: int) -> None:
    rng, drop = np.random.default_rng(seed), 0.02
    found = smallest(lambda fraction: power(2.0)(fraction) + rng.normal(0.0, 0.005), 0.1, 0.95, drop)
    check(found, drop)
    assert found.best is not None
    assert abs(found.best.fraction - (1.0 - 0.1**0.5)) < 0.15


def test_bumps_cost_no_more_than_the_better_side_of_them() -> None:
    """Between 0.5 and 0.6 the metric fails by chance, below it passes again."""

    def bumpy(fraction: float) -> float:
        return 1.0 if 0.5 < fraction < 0.6 or fraction < 0.3 else 0.0

    found = smallest(bumpy, 0.1, 0.9, 0.01)
    check(found, 0.01)
    assert found.best is not None
    assert found.best.fraction < 0.62


def test_what_cannot_be_met_or_measured_fails() -> None:
    for bad in (math.inf, math.nan):
        found = smallest(lambda fraction: 0.0 if fraction > 0.4 else bad, 0.1, 1.0, 0.01)  # noqa: B023
        check(found, 0.01)
        assert found.best is not None
        assert 0.4 < found.best.fraction < 0.42


def test_evaluations_are_counted_and_bounds_make_sense() -> None:
    assert [len(smallest(power(2.0), 0.1, 0.9, 0.01, evaluations=n).tried) for n in (1, 2, 4)] == [1, 2, 4]
    for low, high, evaluations in ((0.0, 1.0, 8), (0.6, 0.5, 8), (0.1, 0.9, 0), (math.nan, 1.0, 8)):
        with pytest.raises(OptionError, match="low <= high"):
            smallest(power(1.0), low, high, 0.01, evaluations=evaluations)
