from __future__ import annotations

import gc
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.evaluate import Pace
from onnx_subprune.evaluate.intervals import median_interval

MODULE = importlib.import_module("onnx_subprune.evaluate.rounds")
Takes = Callable[[int, int, int], float]


class Models:
    """Models on a clock of their own: `takes(sitting, round, model)` seconds each, and what was done in which order."""

    def __init__(self, count: int, takes: Takes) -> None:
        self.now = 0.0
        self.opened: list[bool] = []
        self.order: list[int] = []
        self._count, self._takes = count, takes
        self._rounds = [0] * count

    def open(self, backwards: bool) -> Sequence[Callable[[], None]]:
        self.opened.append(backwards)
        self._rounds = [0] * self._count
        return [lambda place=place: self._run(place) for place in range(self._count)]

    def _run(self, place: int) -> None:
        assert not gc.isenabled()
        self.now += self._takes(len(self.opened) - 1, self._rounds[place], place)
        self._rounds[place] += 1
        self.order.append(place)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, Takes], Models]:
    def make(count: int, takes: Takes) -> Models:
        models = Models(count, takes)
        monkeypatch.setattr(MODULE, "perf_counter", lambda: models.now)
        return models

    return make


def test_models_take_turns_and_the_order_alternates(make: Any):
    models = make(3, lambda sitting, number, place: 1.0 + place)
    (seconds,) = MODULE.fixed(models.open, 3, 1)
    assert models.order == [0, 1, 2] * 2 + [2, 1, 0] + [0, 1, 2]
    np.testing.assert_array_equal(seconds, [[1, 2, 3]] * 3)
    assert gc.isenabled()


@pytest.mark.parametrize(("runs", "lengths"), [(7, [7]), (16, [8, 8]), (50, [8, 8, 9, 8, 8, 9]), (600, [100] * 6)])
def test_runs_are_shared_among_sittings_whose_order_of_opening_alternates(
    make: Any, runs: int, lengths: list[int]
) -> None:
    models = make(2, lambda sitting, number, place: 1.0)
    assert [len(seconds) for seconds in MODULE.fixed(models.open, runs, 2)] == lengths
    assert models.opened == [bool(number % 2) for number in range(len(lengths))]
    assert len(models.order) == 2 * (runs + 2 * len(lengths))


def test_calm_models_are_done_with_six_sittings(make: Any):
    models = make(2, lambda sitting, number, place: 0.02 / (1 + place))
    sittings = MODULE.paced(models.open, Pace(seconds=0.25, rounds=10), 0)
    assert [len(seconds) for seconds in sittings] == [10] * 6
    sittings = MODULE.paced(models.open, Pace(seconds=1.0, rounds=10), 0)
    assert [len(seconds) for seconds in sittings] == [34] * 6
    np.testing.assert_allclose(MODULE.ratios(sittings), [[1.0, 0.5]] * 6)


def test_sittings_go_on_until_the_ratio_is_sure(make: Any):
    noise = np.random.default_rng(0).lognormal(0, 0.05, 10_000)
    models = make(2, lambda sitting, number, place: 1e-3 * (2 * noise[sitting] if place else 1.0))
    pace = Pace(precision=0.01, most_seconds=1e9, seconds=0.0, rounds=2)
    found = MODULE.ratios(MODULE.paced(models.open, pace, 0))[:, 1]
    # The half width of such an interval is about 1.96 * 1.25 * sigma / sqrt(n).
    assert 60 < len(found) < 400
    assert np.median(found) == pytest.approx(2, rel=0.02)


def test_noise_that_models_share_costs_nothing(make: Any):
    noise = np.random.default_rng(0).lognormal(0, 0.5, 1000)
    models = make(2, lambda sitting, number, place: noise[10 * sitting + number] * (1 + place))
    assert len(MODULE.paced(models.open, Pace(most_seconds=1e9), 0)) == 6


def test_the_limit_of_time_breaks_off_a_sitting_but_not_the_first_rounds_there_and_back(make: Any):
    models = make(2, lambda sitting, number, place: 0.5 if place else 0.25 + 0.5 * (sitting % 2))
    assert [len(seconds) for seconds in MODULE.paced(models.open, Pace(most_seconds=0.1), 0)] == [2]
    sittings = MODULE.paced(models.open, Pace(most_seconds=20.0), 0)
    assert len(sittings) >= 6
    assert all(len(seconds) % 2 == 0 and len(seconds) < 10 for seconds in sittings)


@pytest.mark.parametrize("seconds", [0.05, 0.2, 0.4])
def test_of_slow_models_enough_sittings_are_held_for_an_interval(make: Any, seconds: float):
    """Sittings of ten rounds and five of warm-up would leave time for one of them."""
    noise = np.random.default_rng(0).lognormal(0, 0.05, 10_000)
    models = make(2, lambda sitting, number, place: seconds * noise[sitting] / (1 + place))
    found = MODULE.ratios(MODULE.paced(models.open, Pace(most_seconds=12.0), 5))
    assert len(found) >= 6
    assert median_interval(found[:, 1]) is not None


def test_a_model_alone_is_held_to_its_own_time(make: Any):
    noise = np.random.default_rng(0).lognormal(0, 0.05, 10_000)
    models = make(1, lambda sitting, number, place: 1e-3 * noise[sitting])
    pace = Pace(precision=0.01, most_seconds=1e9, seconds=0.0, rounds=2)
    assert 60 < len(MODULE.paced(models.open, pace, 0)) < 400


def test_garbage_is_collected_again_whatever_happens(make: Any):
    def takes(sitting: int, number: int, place: int) -> float:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError, match="no"):
        MODULE.fixed(make(1, takes).open, 1, 0)
    assert gc.isenabled()


@pytest.mark.parametrize(
    "limits", [{"precision": 0}, {"rounds": 0}, {"seconds": -1}, {"most_seconds": 0}, {"most_seconds": float("nan")}]
)
def test_a_pace_that_is_none_is_refused(limits: dict[str, Any]):
    with pytest.raises(OptionError, match="above 0"):
        Pace(**limits)
