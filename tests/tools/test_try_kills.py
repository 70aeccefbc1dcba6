"""A command that is killed leaves its outputs old or new and no rubbish; and the tool that tries it can tell."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
import try_kills

ROOT = Path(__file__).resolve().parents[2]
# In a process of its own: it forks, which those of the tests may not once sessions have run in them.
TOOL = "import sys, try_kills; sys.exit(try_kills.main(sys.argv[1:]))"


def tool(program: str, *words: str) -> tuple[int, str]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'tools'}{os.pathsep}{ROOT}"}
    command = [sys.executable, "-c", program, *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def figures(text: str) -> dict[str, list[int]]:
    """Return the numbers of every row of the table."""
    rows = re.findall(r"^(\w+, weights \w+)((?: +\d+)+)$", text, re.MULTILINE)
    return {name: [int(number) for number in numbers.split()] for name, numbers in rows}


def test_nothing_is_lost_by_a_few_kills() -> None:
    code, text = tool(TOOL, "--kills", "6", "--commands", "prune")
    assert code == 0, text
    assert set(figures(text)) == {"prune, weights inline", "prune, weights beside"}
    for runs, killed, old, new, _, lost in figures(text).values():
        assert (runs, old + new, lost) == (3, 3, 0)
        assert killed >= 2


@pytest.mark.slow
def test_nothing_is_lost_by_many_kills() -> None:
    code, text = tool(TOOL)
    assert code == 0, text
    assert sum(row[0] for row in figures(text).values()) >= 60
    assert sum(row[1] for row in figures(text).values()) >= 50


def test_a_command_that_removes_out_first_is_found_out() -> None:
    program = (
        "import importlib\n"
        "module = importlib.import_module('onnx_subprune.cli.apply')\n"
        "module.check_outputs = lambda inputs, outputs: outputs['OUT'].unlink(missing_ok=True)\n" + TOOL
    )
    code, text = tool(program, "--kills", "2", "--commands", "apply", "--weights", "inline", "--seed", "1")
    assert code == 1, text
    assert "out.onnx is none" in text


def test_kills_come_at_steps_after_steps_and_at_any_time() -> None:
    moments = list(try_kills.moments(8, 40, 2.0, random.Random(0)))
    assert [moment.step for moment in moments] == [1, 6, 11, 0, 21, 26, 31, 0]
    assert [moment.later > 0 for moment in moments] == [False, True, False, True] * 2
    assert all(0 < moment.later < 2.0 for moment in moments[3::4])
