"""Signals at a few moments of commands; and the tool that sends them can tell what went wrong."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import try_interrupts
from try_interrupts import ANSWERED, BEFORE, DONE, Outcome

LINE = "interrupted; nothing half-written was left under an output's name\n"


@pytest.mark.slow
@pytest.mark.parametrize("command", try_interrupts.COMMANDS)
def test_at_any_moment_a_signal_is_answered_in_one_line(tmp_path: Path, command: str) -> None:
    kinds, wrong = try_interrupts.try_all(tmp_path, [command], 20, [signal.SIGINT, signal.SIGTERM])
    assert not wrong
    assert kinds[ANSWERED] > 20


def test_while_libraries_are_imported_a_signal_is_answered_in_one_line(tmp_path: Path) -> None:
    try_interrupts.write_inputs(tmp_path)
    kinds = [
        try_interrupts.attempt(tmp_path, "inspect", moment, signal.SIGINT).kind(signal.SIGINT)
        for moment in (0.3, 0.6, 0.9)
    ]
    assert set(kinds) <= {ANSWERED, BEFORE, DONE}
    assert ANSWERED in kinds


@pytest.mark.parametrize(
    ("outcome", "kind"),
    [
        (Outcome(130, LINE, ()), ANSWERED),
        (Outcome(0, "", ()), DONE),
        (Outcome(-signal.SIGINT, "", ()), BEFORE),
        (Outcome(1, "Traceback\n  File 'site.py'\nKeyboardInterrupt\n", ()), BEFORE),
        (Outcome(130, LINE, ("tmp/weights",)), "left tmp/weights"),
        (Outcome(143, LINE, ()), f"exit code 143: {LINE.strip()}"),
        (
            Outcome(130, f"Exception ignored in: ...\n{LINE}", ()),
            f"exit code 130: Exception ignored in: ...\n{LINE.strip()}",
        ),
        (
            Outcome(1, "Traceback\n  File 'onnx_subprune/cli/exits.py'", ()),
            "exit code 1: Traceback\n  File 'onnx_subprune/cli/exits.py'",
        ),
    ],
)
def test_what_happened_is_told_apart(outcome: Outcome, kind: str) -> None:
    assert outcome.kind(signal.SIGINT) == kind


def test_what_is_left_is_seen(tmp_path: Path) -> None:
    (tmp_path / "tmp" / "folder").mkdir(parents=True)
    (tmp_path / ".onnx-subprune-1.tmp").touch()
    (tmp_path / "report.json").touch()
    assert set(try_interrupts._files_left(tmp_path)) == {"tmp/folder", ".onnx-subprune-1.tmp"}
