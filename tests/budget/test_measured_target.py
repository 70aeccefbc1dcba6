"""A budget of what is measured: corrected until it is met, or said to be out of reach."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from onnx_subprune.budget import TOLERANCE, meet
from onnx_subprune.errors import TargetError


def widths(step: int, least: int = 1, most: int = 1000) -> Callable[[float], dict[str, int]]:
    """Units of one group that cost their share of `most`: multiples of `step`, at least `least`."""

    def within(limit: float) -> dict[str, int]:
        count = min(most, step * int(limit * most / step + 1e-9))
        if count < least:
            raise TargetError("too little", least / most)
        return {"g": count}

    return within


def counted(measure: Callable[[float], float]) -> tuple[Callable[[Mapping[str, int], int], float], list[int]]:
    calls: list[int] = []

    def measured(counts: Mapping[str, int], sittings: int) -> float:
        if sittings == 1:
            calls.append(counts["g"])
        return measure(counts["g"] / 1000)

    return measured, calls


@pytest.mark.parametrize("target", [0.9, 0.7, 0.5, 0.25])
@pytest.mark.parametrize(
    "real",
    [
        lambda share: share,
        lambda share: 1.3 * share,
        lambda share: 0.6 * share,
        lambda share: 0.2 + 0.8 * share,
        lambda share: share**2,
        lambda share: max(0.0, 1.2 * share - 0.2),
    ],
)
def test_a_model_that_is_off_is_corrected_in_few_measurements(target: float, real: Callable[[float], float]) -> None:
    measured, calls = counted(real)
    met = meet(widths(1), measured, target)
    assert target * (1 - TOLERANCE) <= met.ratio <= target * (1 + TOLERANCE) or met.counts == {"g": 1000}
    assert met.ratio <= target * (1 + TOLERANCE)
    assert met.ratio == real(met.counts["g"] / 1000)
    assert len(calls) == len(met.tried) <= 8


def test_a_true_model_is_believed_after_one_measurement() -> None:
    measured, calls = counted(lambda share: share)
    assert meet(widths(1), measured, 0.6).counts == {"g": 600}
    assert calls == [600]


def test_coarse_widths_take_the_largest_that_meets_the_target() -> None:
    measured, _ = counted(lambda share: 1.1 * share)
    assert meet(widths(250, least=250), measured, 0.6).counts == {"g": 500}


def test_the_smallest_widths_are_measured_before_a_target_is_given_up() -> None:
    measured, calls = counted(lambda share: 0.5 * share)
    met = meet(widths(1, least=400), measured, 0.25)
    assert 0.2 <= met.ratio <= 0.25
    assert calls[0] == 400


def test_out_of_reach_names_the_least_that_was_measured() -> None:
    measured, _ = counted(lambda share: 0.5 + 0.5 * share)
    with pytest.raises(TargetError, match=r"takes 0\.600 of the time.*ask for latency=0\.6 or more") as refused:
        meet(widths(1, least=200), measured, 0.5)
    assert refused.value.nearest == pytest.approx(0.6)
    assert refused.value.exit_code == 3


def test_what_is_slower_than_the_dense_network_is_never_taken() -> None:
    measured, _ = counted(lambda _: 1.01)
    with pytest.raises(TargetError):
        meet(widths(1), measured, 0.99)


@pytest.mark.parametrize("seed", range(10))
def test_noise_of_one_percent_does_not_spoil_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    met = meet(widths(1), lambda counts, _: (0.1 + counts["g"] / 1000) * rng.normal(1.0, 0.01), 0.5)
    assert 0.45 < 0.1 + met.counts["g"] / 1000 < 0.55


def test_a_lucky_measurement_does_not_meet_the_target() -> None:
    """The first one of every network is five percent too low, the mean of two is what it takes."""

    def measured(counts: Mapping[str, int], sittings: int) -> float:
        return counts["g"] / 1000 * (0.95 if sittings == 1 else 1.0)

    met = meet(widths(1), measured, 0.6)
    assert 0.6 * (1 - TOLERANCE) <= met.counts["g"] / 1000 <= 0.6
    assert met.ratio == met.counts["g"] / 1000


@pytest.mark.parametrize("seed", range(20))
def test_of_measurements_that_vary_by_three_percent_the_mean_of_all_runs_is_met(seed: int) -> None:
    rng = np.random.default_rng(seed)
    known: dict[int, list[float]] = {}

    def measured(counts: Mapping[str, int], sittings: int) -> float:
        own = known.setdefault(counts["g"], [])
        own += [counts["g"] / 1000 * rng.normal(1.0, 0.03) for _ in range(sittings - len(own))]
        return float(np.mean(own[:sittings]))

    assert meet(widths(1), measured, 0.7).counts["g"] / 1000 <= 0.7 * 1.06


def test_it_starts_where_it_is_told_to() -> None:
    measured, calls = counted(lambda share: 2.0 * share)
    meet(widths(1), measured, 0.5, start=0.25)
    assert calls == [250]
