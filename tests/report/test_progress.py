"""Bars: which phases are under way, and that they are drawn."""

from __future__ import annotations

import io

from rich.console import Console
from rich.progress import Progress

from onnx_subprune.report.progress import Bars, progress_bar


def lines(display: Progress) -> list[tuple[str, float, float | None]]:
    return [(task.description, task.completed, task.total) for task in display.tasks]


def test_a_phase_ends_when_it_is_done_and_another_begins() -> None:
    display = Progress(disable=True)
    bars = Bars(display)
    bars("reading", 0, None)
    bars("calibrating", 3, 8)
    assert lines(display) == [("calibrating", 3, 8)]
    bars("calibrating", 8, 8)
    assert lines(display) == [("calibrating", 8, 8)]
    bars("ranking", 0, 2)
    assert lines(display) == [("ranking", 0, 2)]


def test_a_phase_inside_another_ends_when_that_goes_on() -> None:
    display = Progress(disable=True)
    bars = Bars(display)
    bars("trying", 0, 3)
    bars("fitting", 0, 5)
    bars("fitting", 4, 5)
    assert lines(display) == [("trying", 0, 3), ("fitting", 4, 5)]
    bars("trying", 1, 3)
    assert lines(display) == [("trying", 1, 3)]
    bars("fitting", 1, 5)
    assert lines(display) == [("trying", 1, 3), ("fitting", 1, 5)]
    bars("trying", 3, 3)
    bars("verifying", 0, None)
    assert lines(display) == [("verifying", 0, None)]


def test_bars_are_drawn_and_taken_away() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_bar(console) as tell:
        tell("calibrating", 3, 8)
        tell("verifying", 0, None)
    drawn = console.file.getvalue()
    assert "calibrating" in drawn
    assert "3/8" in drawn
    assert drawn.rstrip().endswith("\x1b[2K"), "the last thing drawn is erased"
