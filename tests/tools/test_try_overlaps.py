"""No command overwrites what it reads, however its output is named; and the tool that tries it can tell."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import try_overlaps


@pytest.mark.parametrize("command", try_overlaps.COMMANDS)
def test_every_overlap_is_refused_and_destroys_nothing(tmp_path: Path, command: str) -> None:
    tried, accepted, destroyed = try_overlaps.try_all(tmp_path, (command,), ("plain", "hardlink"))
    assert tried > 50
    assert not accepted
    assert not destroyed


def test_without_the_check_the_tool_finds_what_is_destroyed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = try_overlaps.attempts

    def one(*arguments: object) -> Iterator[try_overlaps.Attempt]:
        attempts = every(*arguments)  # type: ignore[arg-type]
        yield next(attempt for attempt in attempts if (attempt.output, attempt.other) == ("OUT", "--calib"))

    monkeypatch.setattr(try_overlaps, "attempts", one)
    monkeypatch.setattr(importlib.import_module("onnx_subprune.cli.factorise"), "check_outputs", lambda *_, **__: None)
    tried, accepted, destroyed = try_overlaps.try_all(tmp_path, ("factorise",), ("plain",))
    assert tried == 1
    assert [line.split(": 0")[0] for line in accepted] == ["factorise: OUT is --calib (plain)"], accepted
    assert destroyed == ["factorise: OUT is --calib (plain)"]
