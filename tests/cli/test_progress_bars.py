"""Somebody at a terminal sees what the program is at; a pipe, and -q, see nothing."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

PHASES = ("reading the model", "calibrating", "ranking units", "measuring sensitivities", "fitting layers", "verifying")
COMMAND = (sys.executable, "-c", "from onnx_subprune.cli import main; main()")


def on_a_terminal(words: list[str]) -> tuple[int, str]:
    """Run the command line with stderr on a terminal; what was printed there, without the control sequences."""
    ours, theirs = pty.openpty()
    done = subprocess.Popen([*COMMAND, *words], stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    printed = b""
    while True:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        printed += piece
    os.close(ours)
    return done.wait(), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", printed.decode())


@pytest.fixture
def words(model: Path, calib: Path, tmp_path: Path) -> list[str]:
    return ["prune", str(model), str(tmp_path / "out.onnx"), "--calib", str(calib), "--target", "macs=0.5"]


def test_every_phase_is_named_on_a_terminal(words: list[str]) -> None:
    code, printed = on_a_terminal(words)
    assert code == 0, printed
    assert [phase for phase in PHASES if phase not in printed] == []


def test_quiet_is_quiet_on_a_terminal(words: list[str]) -> None:
    assert on_a_terminal([*words, "--quiet"]) == (0, "")


def test_a_pipe_sees_no_bars(words: list[str]) -> None:
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, check=True)
    assert all(phase not in done.stderr for phase in PHASES)
    assert "\x1b" not in done.stdout + done.stderr


def test_measuring_is_seen_too(model: Path, labelled: Path) -> None:
    code, printed = on_a_terminal(["eval", str(model), "--data", str(labelled)])
    assert code == 0, printed
    assert "measuring" in printed
    assert "256/256" in printed
    code, printed = on_a_terminal(["bench", str(model), str(model), "--runs", "48"])
    assert code == 0, printed
    assert "timing" in printed
    assert "/48" in printed
