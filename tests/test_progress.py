"""A function counts steps, and its caller says of what."""

from __future__ import annotations

from onnx_subprune.progress import begin, phase


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
