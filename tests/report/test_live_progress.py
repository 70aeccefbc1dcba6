"""Bars: which phases are under way, and that they are drawn."""

from __future__ import annotations

import io

import numpy as np
import onnx
from rich.console import Console
from rich.progress import Progress

from onnx_subprune.calibration import open_data, watched
from onnx_subprune.model import input_specs
from onnx_subprune.report.live_progress import Bars, progress_bar


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


def test_a_pass_over_data_is_watched() -> None:
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        one (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }
    """)
    data = open_data({"x": np.zeros((5, 2), np.float32), "labels": np.arange(5)}, input_specs(model))
    told: list[tuple[str, int, int | None]] = []
    same = watched(data, lambda *step: told.append(step), "reading")
    assert [len(feeds["x"]) for feeds in same.batches(2)] == [2, 2, 1]
    assert told == [("reading", 0, 5), ("reading", 2, 5), ("reading", 4, 5), ("reading", 5, 5)]
    assert list(same.labels) == list(range(5))
    assert watched(data, None, "reading") is data


def test_bars_are_drawn_and_taken_away() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with progress_bar(console) as tell:
        tell("calibrating", 3, 8)
        tell("verifying", 0, None)
    drawn = console.file.getvalue()
    assert "calibrating" in drawn
    assert "3/8" in drawn
    assert drawn.rstrip().endswith("\x1b[2K"), "the last thing drawn is erased"
