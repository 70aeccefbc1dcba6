"""A function counts steps, and its caller says of what."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_subprune import progress
from onnx_subprune.progress import PhaseClock, begin, phase, resident_bytes


def test_steps_are_told_with_the_name_of_their_phase() -> None:
    seen: list[tuple[str, int, int | None]] = []
    calibrating = phase(lambda *step: seen.append(step), "calibrating")
    assert calibrating is not None
    calibrating(3, 10)
    calibrating(4, None)
    assert seen == [("calibrating", 3, 10), ("calibrating", 4, None)]


def test_a_phase_without_steps_begins_at_none() -> None:
    seen: list[tuple[str, int, int | None]] = []
    begin(lambda *step: seen.append(step), "verifying")
    assert seen == [("verifying", 0, None)]


def test_where_nobody_watches_nothing_is_counted() -> None:
    assert phase(None, "calibrating") is None
    begin(None, "verifying")


class Ticking:
    """A clock that goes on by what it is told to."""

    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def test_a_clock_counts_a_phase_inside_another_one_for_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    ticking, seen = Ticking(), []
    monkeypatch.setattr(progress, "_clock", ticking)
    clock = PhaseClock(lambda *step: seen.append(step))
    for seconds, step in ((1, ("outer", 0, 2)), (2, ("inner", 0, 1)), (4, ("inner", 1, 1)), (8, ("outer", 2, 2))):
        ticking.time += seconds
        clock(*step)
    ticking.time += 16
    taken = clock.taken()
    assert {name: phase.seconds for name, phase in taken.items()} == {"outer": 2 + 16, "inner": 4 + 8}
    assert seen == [("outer", 0, 2), ("inner", 0, 1), ("inner", 1, 1), ("outer", 2, 2)]
    assert clock.seconds == 31


def test_memory_is_that_of_the_process_at_the_steps() -> None:
    clock = PhaseClock()
    clock("holding", 0, None)
    kept = np.ones(1 << 23)
    clock("holding", 1, None)
    del kept
    clock("done", 0, None)
    taken = clock.taken()
    assert taken["holding"].bytes > 1 << 26
    # The kernel counts in batches.
    assert taken["holding"].bytes <= resident_bytes("VmHWM") + (1 << 20)


def test_where_the_system_does_not_say_memory_is_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(progress, "_STATUS", tmp_path / "none")
    assert resident_bytes() == 0
