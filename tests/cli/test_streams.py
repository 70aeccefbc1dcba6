"""Standard streams that are closed, full or unread: no traceback, no complaint, and no file in their place."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = "from onnx_subprune.cli import main; main()"


def shell(line: str, *words: object, program: str = PROGRAM) -> subprocess.CompletedProcess[str]:
    """Run `line` in a shell in which "$@" is the command line."""
    command = ["bash", "-o", "pipefail", "-c", line, "bash", sys.executable, "-c", program, *map(str, words)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, env=environment)


def test_a_reader_that_has_seen_enough(model: Path) -> None:
    for words in ((), ("--json",)):
        said = shell('"$@" | true', "inspect", model, *words)
        assert (said.returncode, said.stdout, said.stderr) == (141, "", "")


def test_a_full_disk_behind_stdout(model: Path) -> None:
    said = shell('"$@" > /dev/full', "inspect", model)
    assert said.returncode == 1
    assert said.stderr == "error: cannot print the result: No space left on device; send it to a place with room\n"


def test_streams_that_were_closed_from_the_start(model: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    said = shell('"$@" <&- >&- 2>&-', "inspect", model, "--report", report)
    assert said.returncode == 0
    assert report.read_text().startswith("{")


FLUSHED = "import sys; from onnx_subprune.cli.streams import flushed; print('mine'); sys.exit(flushed({}))"
FAILED = "import sys; from onnx_subprune.cli.exits import _fail, flushed; sys.exit(flushed(_fail('a word', 1)))"
OPENED = "from onnx_subprune.cli.streams import open_streams; open_streams(); print(open('/dev/null').fileno() > 2)"


@pytest.mark.parametrize(
    ("line", "program", "code", "out"),
    [
        ('"$@"', FLUSHED.format(0), 0, "mine\n"),
        ('"$@" > /dev/full', FLUSHED.format(0), 141, ""),
        ('"$@" > /dev/full', FLUSHED.format(3), 3, ""),
        ('"$@" 2> /dev/full', FAILED, 1, ""),
        ('"$@" <&- 2>&-', OPENED, 0, "True\n"),
    ],
)
def test_the_last_words_are_said_or_not_without_a_complaint(line: str, program: str, code: int, out: str) -> None:
    said = shell(line, program=program)
    assert (said.returncode, said.stdout, said.stderr) == (code, out, "")


def test_letters_that_stdout_cannot_print_are_escaped() -> None:
    program = """
import sys
from onnx_subprune.cli.streams import open_streams
from onnx_subprune.cli.terminal import Terminal
open_streams()
for json in (False, True):
    Terminal(sys.stdout, json=json, quiet=False).show({"größe": 1}, "größe")
"""
    text, document = shell('PYTHONIOENCODING=ascii "$@"', program=program).stdout.split("\n", 1)
    assert text == r"gr\xf6\xdfe"
    assert document.isascii()
    assert json.loads(document) == {"größe": 1}
