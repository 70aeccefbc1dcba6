"""ONNX Runtime sends no telemetry, and writes no identifier of the machine, unless the user turns it on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import onnx
from onnx_subprune.model import open_session
open_session(onnx.parser.parse_model('''<ir_version: 8, opset_import: ["": 17]>
    g (float[1] x) => (float[1] y) { y = Neg(x) }'''))
"""
# Variables of build machines turn it off as well.
_OFF = ("ORT_DISABLE_TELEMETRY", "GITHUB_ACTIONS", "TF_BUILD", "XDG_CACHE_HOME")


def left_by(program: str, home: Path, **variables: str) -> list[str]:
    """Run a program with an empty home; return the files that it left there."""
    environment = {name: value for name, value in os.environ.items() if name not in _OFF}
    environment |= {"HOME": str(home), **variables}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""
    return [path.name for path in home.rglob("*") if path.is_file()]


def test_nothing_is_written_for_telemetry_unless_it_is_asked_for(tmp_path: Path) -> None:
    assert left_by(PROGRAM, tmp_path) == []
    if not left_by(PROGRAM, tmp_path, ORT_DISABLE_TELEMETRY="0"):
        pytest.skip("this build of ONNX Runtime has no telemetry, or none that leaves files")


@pytest.mark.parametrize(("variables", "calls"), [({}, 1), ({"ORT_DISABLE_TELEMETRY": "0"}, 0)])
def test_a_runtime_that_was_imported_before_is_told_as_well(
    tmp_path: Path, variables: dict[str, str], calls: int
) -> None:
    program = f"""
import onnxruntime
calls = []
onnxruntime.disable_telemetry_events = lambda: calls.append(1)
import onnx_subprune.model
assert len(calls) == {calls}
"""
    left_by(program, tmp_path, **variables)


def test_children_are_told_too(tmp_path: Path) -> None:
    program = "import os, onnx_subprune; assert os.environ['ORT_DISABLE_TELEMETRY'] == '1'"
    left_by(program, tmp_path)
