"""From curves to a plan, and once more where the finished network takes too long."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import pytest

from onnx_subprune.options import Target
from onnx_subprune.planning.choice import choose, choose_again
from onnx_subprune.planning.latency import LatencyMet
from onnx_subprune.planning.sensitivity import measure_losses
from onnx_subprune.planning.study import Study


class Meter:
    """A machine on which time is a share of the units, times a factor that finished networks teach it."""

    def __init__(self, units: int) -> None:
        self._units = units
        self.factor = 1.0
        self.warnings: list[str] = []

    def predicted(self, widths: Mapping[str, int]) -> float:
        return sum(widths.values()) / self._units

    def measure(self, widths: Mapping[str, int], repeats: int = 1) -> float:
        return self.factor * self.predicted(widths)

    def remember(self, widths: Mapping[str, int], finished: LatencyMet) -> None:
        self.factor = finished.measured / self.predicted(widths)


def finished(measured: float) -> LatencyMet:
    return LatencyMet(0.5, measured, None, 1.0, measured, {}, ("cpu",), 1, {}, 0.0)


@pytest.fixture
def timed_study(study_with: Callable[..., Study]) -> Callable[[str], Study]:
    def timed(target: str) -> Study:
        study = study_with(target=Target.parse(target), allocation="cutoff")
        return replace(study, meter=Meter(sum(curve.size for curve in study.curves)))  # type: ignore[arg-type]

    return timed


def test_the_plan_keeps_the_units_that_the_curves_rank_first(study_with: Callable[..., Study]) -> None:
    study = study_with(target=Target("units", 0.5))
    plan, warnings, begun = choose(study)
    assert plan.widths == {"first": 4, "second": 3}
    assert plan.groups[0].kept == tuple(sorted(study.curves[0].order[:4].tolist()))
    assert (warnings, begun) == ([], None)
    assert plan.options == study.options.recovery_options


def test_the_best_trial_comes_with_its_network(study_with: Callable[..., Study]) -> None:
    study = measure_losses(study_with(target=Target("macs", 0.6), allocation="measured", trials=3))
    plan, _, begun = choose(study)
    assert begun is not None
    shapes = {tensor.name: tuple(tensor.dims) for tensor in begun.model.graph.initializer}
    assert shapes["w2"] == (plan.widths["first"], plan.widths["second"])


def test_without_trials_a_plan_is_all(study_with: Callable[..., Study]) -> None:
    study = measure_losses(study_with(target=Target("macs", 0.6), allocation="measured"))
    assert choose(study).begun is None


def test_a_target_of_latency_is_met_by_measuring(timed_study: Callable[[str], Study]) -> None:
    study = timed_study("latency=0.7")
    assert 0.6 < sum(choose(study).plan.widths.values()) / 13 <= 0.7


def test_a_finished_network_that_is_too_slow_leads_to_other_widths(timed_study: Callable[[str], Study]) -> None:
    study = timed_study("latency=0.7")
    plan = choose(study).plan
    again = choose_again(study, plan, finished(0.85))
    assert again is not None
    assert sum(again.plan.widths.values()) < sum(plan.widths.values())


@pytest.mark.parametrize("measured", [0.6, 0.7, 0.72])
def test_one_that_meets_its_target_is_left_alone(timed_study: Callable[[str], Study], measured: float) -> None:
    study = timed_study("latency=0.7")
    assert choose_again(study, choose(study).plan, finished(measured)) is None


def test_other_targets_are_not_chosen_again(study_with: Callable[..., Study]) -> None:
    study = study_with(target=Target("macs", 0.5))
    assert choose_again(study, choose(study).plan, finished(2.0)) is None
