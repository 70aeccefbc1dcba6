"""The one way out: a line on stderr and the code that goes with what happened."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from onnx_subprune.cli import exits
from onnx_subprune.cli.interrupt import Interrupted
from onnx_subprune.errors import InternalError, ModelError, TargetError

CASES = {
    "a fault of the input": (ModelError("expected a model,\n  found none"), 1, "error: expected a model, found none"),
    "a target out of reach": (TargetError("ask for macs=0.2", 0.2), 3, "error: ask for macs=0.2"),
    "a check of ours": (InternalError("the pass X refused"), 1, "error: the pass X refused"),
    "anything else": (ValueError("what?"), 1, "internal error: ValueError: what?; run with -v for the traceback"),
    "Ctrl-C": (Interrupted(), 130, "interrupted; nothing half-written was left under an output's name"),
    "Ctrl-C early": (KeyboardInterrupt(), 130, "interrupted; nothing half-written was left under an output's name"),
    "a name that is no word": (ModelError("node '\x1b[2J[red]\u202e'"), 1, r"error: node '\x1b[2J[red]\u202e'"),
}


def app_that(outcome: BaseException | None) -> Callable[[], Any]:
    def app(*arguments: object, **options: object) -> None:
        if outcome is not None:
            raise outcome

    return lambda: app


@pytest.mark.parametrize("case", CASES)
def test_what_happened_is_one_line_and_a_code(
    case: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error, code, line = CASES[case]
    monkeypatch.setattr(exits, "_app", app_that(error))
    assert exits.run(["inspect"]) == code
    said = capsys.readouterr()
    assert said.err == f"{line}\n"
    assert not said.out


@pytest.mark.parametrize(("status", "code"), [(None, 0), (0, 0), (2, 2), ("text", 1)])
def test_what_typer_says_is_handed_on(status: Any, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "_app", app_that(SystemExit(status)))
    assert exits.run([]) == code


def test_done_is_nought(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exits, "_app", app_that(None))
    assert exits.run([]) == 0


def test_a_broken_runtime_is_one_line_that_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import builtins  # noqa: PLC0415

    real = builtins.__import__

    def broken(name: str, *rest: Any, **options: Any) -> Any:
        if name == "onnx_subprune.cli.app":
            raise ImportError("cannot import name 'InferenceSession' from 'onnxruntime'")
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", broken)
    assert exits.run(["doctor"]) == 1
    monkeypatch.undo()
    said = capsys.readouterr().err
    assert "expected a working ONNX Runtime" in said
    assert "pip install --force-reinstall 'onnx-subprune[cpu]'" in said
    assert len(said.splitlines()) == 1
