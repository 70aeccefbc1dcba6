"""Seconds of parts times how often they are done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from onnx_subprune.options import Options, Target
from onnx_subprune.planning.forecast import Forecast, Work, forecast
from onnx_subprune.planning.rehearsal import Rehearsal
from onnx_subprune.recovery.exact import FitSize, LayerSize

REHEARSAL = Rehearsal(
    opening=0.01,
    inference=0.002,
    calibrating=0.005,
    before_calibrating=0.1,
    ranking=0.01,
    ranked_cubes=16.0**3,
    probing=0.3,
    cutting=0.1,
    sharing=0.2,
    product=1e-11,
    copying=1e-9,
    passes=1.0,
    tapped_bytes=(1e6, 1e5),
    gram_bytes=1 << 20,
    rows=0.1,
    resident_bytes=1 << 28,
)


def fits(options: Options, samples: int) -> FitSize:
    return FitSize(samples, (LayerSize(144, 16, min(options.rows * 144, samples * 1024)),) * 10)


def foreseen(effort: str = "balanced", rehearsal: Rehearsal = REHEARSAL, **chosen: Any) -> Forecast:
    """Return the forecast of a run on 1,000 samples, rehearsed with the effort's options, with others chosen."""
    calibrates = chosen.pop("calibrates", True)
    options = Options.of_effort(effort, target=chosen.pop("target", Target("macs", 0.5)))
    work = Work({"reading the model": 0.5}, 1000, (16,) * 8, options, calibrates, fits)
    return forecast(work, rehearsal, replace(options, **chosen))


def seconds(found: Forecast, phase: str) -> float:
    return found.phases[phase].seconds if phase in found.phases else 0.0


def test_phases_add_up_and_take_what_was_rehearsed() -> None:
    found = foreseen()
    assert found.seconds == pytest.approx(sum(phase.seconds for phase in found.phases.values()))
    assert seconds(found, "reading the model") == 0.5
    assert seconds(found, "calibrating") == pytest.approx(0.1 + 1000 * 0.005)
    assert seconds(found, "ranking units") == pytest.approx(8 * 0.01)
    assert seconds(found, "measuring sensitivities") == pytest.approx(8 * 0.3 + 64 * 0.002 + 0.01)


def test_what_an_effort_does_not_do_takes_no_time() -> None:
    names = set(foreseen("fast").phases)
    assert not names & {"measuring sensitivities", "trying allocations", "fitting layers"}
    assert "calibrating" not in foreseen(calibrates=False).phases


@pytest.mark.parametrize(
    ("chosen", "phase"),
    [
        ({"samples": 500}, "calibrating"),
        ({"samples": 500}, "fitting layers"),
        ({"rows": 32}, "fitting layers"),
        ({"levels": (0.75,)}, "measuring sensitivities"),
        ({"probes": 4}, "measuring sensitivities"),
        ({"probes": 4}, "trying allocations"),
        ({"recovery": "channel"}, "fitting layers"),
    ],
)
def test_less_of_a_thing_takes_less_time(chosen: dict[str, Any], phase: str) -> None:
    assert seconds(foreseen(**chosen), phase) < seconds(foreseen(), phase)


def test_every_trial_and_every_sweep_fits_all_layers() -> None:
    once = seconds(foreseen("best", trials=0, sweeps=1), "fitting layers")
    compared = 4 * (64 * 0.002 + 0.01)
    for chosen, times in (({"trials": 3, "sweeps": 1}, 3), ({"trials": 2, "sweeps": 2}, 3)):
        several = seconds(foreseen("best", **chosen), "fitting layers")
        assert several - compared == pytest.approx(times * (once - compared))


def test_a_search_makes_many_networks() -> None:
    one, many = foreseen(), foreseen(target=Target("drop", 0.01))
    assert seconds(many, "fitting layers") > 4 * seconds(one, "fitting layers")
    assert seconds(many, "measuring the fall") > 0


def test_wide_groups_are_ranked_in_the_time_that_their_size_says() -> None:
    wide = replace(REHEARSAL, ranked_cubes=512.0**3)
    options = Options()
    work = Work({}, 1000, (512, 1024), options, True, fits)
    found = forecast(work, wide, options)
    assert seconds(found, "ranking units") == pytest.approx(0.01 * (1 + 8))


def test_memory_grows_with_the_statistics_and_the_samples_that_wait() -> None:
    large = replace(REHEARSAL, gram_bytes=1 << 30)
    assert foreseen(rehearsal=large).bytes - foreseen().bytes >= 1 << 30
    few, many = (foreseen(samples=samples).phases["fitting layers"].bytes for samples in (100, 1000))
    assert REHEARSAL.resident_bytes < few < many


def test_what_the_clock_decides_is_named() -> None:
    assert foreseen().unforeseen == ()
    assert foreseen(target=Target("latency", 0.5)).unforeseen == ("measuring latencies",)


def test_what_memory_does_not_hold_is_written_to_files() -> None:
    assert foreseen().spilled_bytes == 0
    large = replace(REHEARSAL, tapped_bytes=(1e7, 1e6))
    assert foreseen(rehearsal=large).spilled_bytes == round(1.5 * (3e9 - (1 << 29)))
    assert foreseen("fast", rehearsal=large).spilled_bytes == 0


def test_where_rows_are_scarce_statistics_are_taken_once_more() -> None:
    scarce = replace(REHEARSAL, rows=0.003)
    once, twice = (seconds(foreseen(rehearsal=rehearsal), "calibrating") - 0.1 for rehearsal in (REHEARSAL, scarce))
    assert twice == pytest.approx(1.8 * once)
    assert seconds(foreseen(rehearsal=scarce, recovery="channel"), "calibrating") - 0.1 == pytest.approx(once)
