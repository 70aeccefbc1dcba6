"""Allocations are carried out once each, and the one with the least error is the best."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import onnx
import pytest

from onnx_subprune.planning.study import Study
from onnx_subprune.planning.trials import Trials

Widths = dict[str, int]


def widths(first: int, second: int) -> Widths:
    return {"first": first, "second": second}


class Narrowest:
    """A distance by which wide networks are worse."""

    def __init__(self) -> None:
        self.models: list[onnx.ModelProto] = []

    def __call__(self, model: onnx.ModelProto) -> float:
        self.models.append(model)
        return float(sum(tensor.dims[0] for tensor in model.graph.initializer if tensor.name in ("w2", "w3")))


@pytest.fixture
def distance() -> Narrowest:
    return Narrowest()


def test_the_best_is_kept_with_its_network(small_study: Study, distance: Narrowest) -> None:
    trials = Trials(small_study, distance, most=9)  # type: ignore[arg-type]
    assert trials.run({"wide": widths(6, 4), "narrow": widths(3, 2), "medium": widths(4, 3)})
    assert trials.widths == widths(3, 2)
    assert trials.error == 5
    assert trials.network is not None
    assert trials.network.model is distance.models[1]
    assert trials.ranked() == ["narrow", "medium", "wide"]
    assert trials.errors == {"wide": 10.0, "narrow": 5.0, "medium": 7.0}
    assert not trials.run({"wider": widths(7, 4)})
    assert trials.run({"narrower": widths(2, 2)})


def test_no_allocation_is_carried_out_twice_and_no_more_than_are_allowed(
    small_study: Study, distance: Narrowest
) -> None:
    trials = Trials(small_study, distance, most=2)  # type: ignore[arg-type]
    trials.run({"one": widths(6, 4), "the same": widths(6, 4)})
    assert (len(distance.models), trials.remaining) == (1, 1)
    trials.run({"two": widths(5, 4), "three": widths(1, 1)})
    assert (len(distance.models), trials.remaining) == (2, 0)
    assert trials.ranked() == ["two", "one"]


def test_progress_is_told(small_study: Study, distance: Narrowest) -> None:
    steps: list[tuple[str, int, int | None]] = []
    study = replace(small_study, progress=lambda *step: steps.append(step))
    trials = Trials(study, distance, most=5)  # type: ignore[arg-type]
    trials.run({"one": widths(6, 4), "two": widths(5, 4)})
    trials.finish()
    assert [done for name, done, _ in steps if name == "trying allocations"] == [0, 1, 5]


def test_trials_take_one_sweep(study_with: Callable[..., Study], distance: Narrowest) -> None:
    """Further sweeps are for the best alone."""
    study = study_with(sweeps=3)
    trials = Trials(study, distance, most=1)  # type: ignore[arg-type]
    trials.run({"one": widths(6, 4)})
    assert trials._study.options.sweeps == 1
    assert study.options.sweeps == 3
