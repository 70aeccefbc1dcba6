"""A command that cannot write its outputs leaves all as they were; and the tool that tries it can tell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tool(program: Path, *words: str) -> tuple[int, str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tools'}{os.pathsep}{ROOT}"}
    command = [sys.executable, str(program), *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=1800, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def figures(text: str) -> dict[str, tuple[int, ...]]:
    """Return commands, refusals and losses of every kind of trouble that was tried."""
    return {row[0]: tuple(map(int, row[1:])) for row in re.findall(r"^(\S+) +(\d+) +(\d+) +(\d+)$", text, re.MULTILINE)}


def test_nothing_is_lost_where_out_cannot_be_written() -> None:
    words = ("--commands", "prune", "--weights", "beside", "--outputs", "out.onnx", "--rounds", "1")
    code, text = tool(ROOT / "tools" / "try_disks.py", *words)
    assert code == 0, text
    table = figures(text)
    assert table["limit"] == (1, 1, 0)
    assert table["long"] == (1, 1, 0)
    assert table["race"] == (2, 0, 0)
    if "no mounts are allowed" not in text:
        assert table["taken"] == table["read-only"] == (1, 1, 0)
        assert table["full"][1] >= 3
        assert table["full"][2] == 0


@pytest.mark.slow
def test_nothing_is_lost_wherever_it_cannot_be_written() -> None:
    code, text = tool(ROOT / "tools" / "try_disks.py")
    assert code == 0, text
    assert figures(text)["race"] == (120, 0, 0)


def test_outputs_that_are_written_one_after_the_other_are_found_out(tmp_path: Path) -> None:
    program = tmp_path / "sabotaged.py"
    program.write_text(
        "import contextlib, importlib, sys, try_disks\n"
        "importlib.import_module('onnx_subprune.cli.outcome').together = contextlib.nullcontext\n"
        "try_disks.enter = lambda: False\n"
        "sys.exit(try_disks.main(sys.argv[1:]))\n"
    )
    words = ("--commands", "prune", "--weights", "inline", "--outputs", "out.onnx", "--rounds", "1")
    code, text = tool(program, *words)
    assert code == 1, text
    assert "plan.json is new" in text
    assert "report.json is new" in text
