"""A limit of time leaves out what costs least, says what, and never more than is needed."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Dataset
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.inputs import prepare
from onnx_subprune.options import Options, Target
from onnx_subprune.planning import time_limit
from onnx_subprune.planning.forecast import Expected, Forecast
from onnx_subprune.planning.time_limit import Prospect, foresee, within
from onnx_subprune.progress import NOTE
from onnx_subprune.structure import Group


def priced(options: Options) -> Forecast:
    """A price list: a hundredth of a second a sample, a second for a row and a probe, five for a level."""
    samples = (options.samples or 4000) / 100
    fits = options.rows * options.sweeps * max(options.trials, 1) if options.recovery == "exact" else 0
    return Forecast({"all": Expected(samples + fits + options.probes + 5 * len(options.levels), 1 << 20)})


def limited(seconds: float, effort: str = "balanced", *, fixed: bool = False) -> Prospect:
    return within(Options.of_effort(effort, time_limit=seconds), 4000, priced, fixed=fixed)


def test_a_run_within_the_limit_stays_as_it_is() -> None:
    prospect = limited(1000.0)
    assert (prospect.left_out, prospect.warnings) == ((), ())
    assert prospect.options == Options(time_limit=1000.0)


@pytest.mark.parametrize("seconds", [200.0, 150.0, 100.0, 60.0, 40.0, 25.0])
def test_the_run_keeps_to_the_limit_and_says_what_is_left_out(seconds: float) -> None:
    prospect = limited(seconds)
    assert prospect.forecast is not None
    assert prospect.forecast.seconds <= seconds
    assert prospect.forecast == priced(prospect.options)
    (warning,) = prospect.warnings
    assert all(line in warning for line in prospect.left_out)


def test_samples_go_first_and_measured_losses_stay() -> None:
    assert limited(195.0).left_out == ("samples 1024 in the place of 4000",)
    shortest = limited(1.0).options
    assert (shortest.allocation, len(shortest.levels), shortest.probes) == ("measured", 1, 4)


def test_more_sweeps_and_trials_go_before_anything_that_balanced_does() -> None:
    options = limited(210.0, "best").options
    assert (options.trials, options.sweeps, options.samples) == (0, 1, 2048)
    assert options.rows == 128


def test_what_turns_out_not_to_be_needed_is_taken_back() -> None:
    # Only recovery by channel meets it, beside which the samples cost nothing.
    prospect = limited(90.0)
    assert prospect.options.recovery == "exact"
    few = limited(78.0, fixed=True).options
    assert (few.recovery, few.rows, few.probes, len(few.levels)) == ("channel", 128, 16, 2)


def test_samples_that_the_caller_opened_stay() -> None:
    assert limited(1.0, fixed=True).options.samples is None


def test_a_limit_that_nothing_meets_is_told_and_the_cheapest_is_done() -> None:
    prospect = limited(1.0)
    assert "nothing more to leave out" in prospect.warnings[-1]
    options = prospect.options
    assert (options.samples, options.recovery, options.probes) == (128, "channel", 4)


Inputs = tuple[Analysis, tuple[Group, ...], Dataset, Options, float]


@pytest.fixture
def inputs(small_network: onnx.ModelProto) -> Callable[[float | None], Inputs]:
    """`inputs(time_limit)`: what `foresee` takes."""

    def made(limit: float | None) -> Inputs:
        options = Options(Target("macs", 0.7), threads=1, batch_size=8, round_to=1, time_limit=limit)
        samples = {"x": np.random.default_rng(1).standard_normal((80, 6)).astype(np.float32)}
        analysis, dataset = prepare(small_network, samples, options)
        assert dataset is not None
        return analysis, analysis.structure.prunable, dataset, options, 0.1

    return made


def test_a_short_run_is_not_rehearsed(inputs: Callable[..., Inputs]) -> None:
    assert foresee(*inputs(None)).forecast is None


def test_a_run_with_a_limit_is_rehearsed_and_told(
    inputs: Callable[..., Inputs], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(NOTE):
        prospect = foresee(*inputs(3600.0))
    assert prospect.forecast is not None
    assert {"calibrating", "measuring sensitivities", "fitting layers"} <= set(prospect.forecast.phases)
    assert prospect.forecast.phases["reading the model"].seconds == 0.1
    assert [record.levelno for record in caplog.records if "expected to take" in record.message] == [NOTE]


def test_little_room_for_activations_is_told(inputs: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_limit, "forecast", lambda *_: Forecast({}, spilled_bytes=1 << 60))
    (warning,) = foresee(*inputs(3600.0)).warnings
    assert "activations may take up to 1.15" in warning
    assert "TMPDIR" in warning


def test_the_samples_to_replay_with_are_named_where_they_are_fewer() -> None:
    assert limited(195.0).warnings[0].endswith("; to replay its plan give --samples 1024")
    assert "--samples" not in limited(78.0, fixed=True).warnings[0]


def test_without_samples_a_limit_is_not_promised(inputs: Callable[..., Inputs]) -> None:
    analysis, groups, _, options, read = inputs(60.0)
    prospect = foresee(analysis, groups, None, options, read)
    assert prospect.forecast is None
    assert "no forecast to keep to the 1 min" in prospect.warnings[0]


def test_a_rehearsal_that_fails_leaves_the_run_alone(
    inputs: Callable[..., Inputs], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time_limit, "rehearse", lambda *_: None)
    prospect = foresee(*inputs(60.0))
    assert prospect.options == inputs(60.0)[3]
    assert prospect.forecast is None
