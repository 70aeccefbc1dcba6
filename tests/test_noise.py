"""What is printed past Python goes to the log, and stdout and stderr are themselves again afterwards."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile

import onnx
import pytest

from onnx_subprune.noise import hushed


def test_what_is_printed_past_python_is_logged_and_not_printed(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "onnx_subprune")
    os.write(1, b"before\n")
    with hushed():
        os.write(1, b"to stdout\n")
        os.write(2, b"to \x1b[31mstderr\n")
        with hushed():
            os.write(2, b"within\n")
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("before\n", "after\n")
    assert [record.getMessage() for record in caplog.records] == [
        "a library printed: within",
        "a library printed: to stdout",
        "a library printed: to \\x1b[31mstderr",
    ]


def test_streams_are_themselves_again_after_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ZeroDivisionError), hushed():
        os.write(0 // 0, b"never")
    os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"


def test_what_python_printed_before_is_not_taken_along() -> None:
    program = "from onnx_subprune.noise import hushed\nprint('mine')\nwith hushed():\n    pass\n"
    assert subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout == b"mine\n"


def test_without_room_it_is_printed(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(28, "no space")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    with hushed():
        os.write(2, b"seen\n")
    assert capfd.readouterr().err == "seen\n"


def test_closed_streams_stay_closed() -> None:
    program = (
        "import os\nfrom onnx_subprune.noise import hushed\nos.close(1)\nwith hushed():\n    pass\n"
        "try:\n    os.fstat(1)\nexcept OSError:\n    raise SystemExit(7)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, stderr=subprocess.DEVNULL).returncode == 7


def test_the_checker_speaks_of_old_operators_by_itself(capfd: pytest.CaptureFixture[str]) -> None:
    """The noise that is kept off in `network/verify.py`; where it is gone, so may the call be."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[1] x) => (float[1] y) { y = Affine(x) }'
    )
    onnx.checker.check_model(model)
    assert "experimental ops: Affine" in capfd.readouterr().out
    with hushed():
        onnx.checker.check_model(model)
    assert capfd.readouterr() == ("", "")
