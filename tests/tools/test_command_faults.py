"""What counts as a fault of a command: every kind is found, and what is allowed is not."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path

import command_faults
import pytest
from command_faults import Printed, fault_of, page_fault, run_command

DONE = Printed(0, '{"a": 1}', "warning: few samples\n", 1.0)
REFUSED = Printed(1, "", "warning: few samples\nerror: expected a group, found none; say why\n", 1.0)


def fault(printed: Printed, form: str = "json", report: Path | None = None, written: Path | None = None) -> str:
    return fault_of(printed, form=form, report=report, written=written)


@pytest.mark.parametrize("printed", [DONE, replace(DONE, err=""), REFUSED, replace(REFUSED, code=3)])
def test_results_and_refusals_are_no_faults(printed: Printed) -> None:
    assert not fault(printed)


@pytest.mark.parametrize(("printed", "said"), [
    (replace(DONE, code=2), "exit code 2"),
    (replace(REFUSED, err="internal error: KeyError: 'x'\n"), "internal error"),
    (replace(REFUSED, err="error: the rule failed; please report this\n"), "report this"),
    (replace(REFUSED, err="error: one\nerror: two\n"), "printed beside its own lines"),
    (replace(REFUSED, err=""), "printed beside its own lines"),
    (replace(REFUSED, out="{}"), "printed a result and refused"),
    (replace(DONE, err="x.py:3: RuntimeWarning: overflow\n"), "printed beside its own lines"),
    (replace(DONE, out='{"a": NaN}'), "no JSON: NaN is no number"),
    (replace(DONE, out="a table"), "no JSON"),
])  # fmt: skip
def test_a_fault_is_found(printed: Printed, said: str) -> None:
    assert said in fault(printed)


@pytest.mark.parametrize(("out", "said"), [
    ("", "printed nothing"), ("loss nan", "prints 'nan'"), ("a [/bold] b", "prints '[/'"), ("fine: None.", ""),
])  # fmt: skip
def test_tables_hold_no_values_that_are_not_there(out: str, said: str) -> None:
    assert fault(replace(DONE, out=out), form="text") == said


def test_files_are_there_if_and_only_if_it_succeeded(tmp_path: Path) -> None:
    model, report = tmp_path / "out.onnx", tmp_path / "report.json"
    assert "out.onnx is not there" in fault(DONE, written=model)
    model.touch()
    assert not fault(DONE, written=model)
    assert "out.onnx is there" in fault(REFUSED, written=model)
    report.write_text('{"a": 1}')
    assert not fault(DONE, report=report)
    report.write_text('{"a": 2}')
    assert "differs from what was printed" in fault(DONE, report=report)
    report.write_text("{")
    assert "report.json is no JSON" in fault(DONE, report=report)


@pytest.mark.parametrize(("page", "said"), [
    ("<p>one<br>two <wbr>three</p><svg><path d='M0'/></svg>", ""),
    ("<style>a { b: none }</style><p>No <b>fault</b></p>", ""),
    ("<p><b>one</p></b>", "left open or closed twice"),
    ("<div><p>one</p>", "left open or closed twice"),
    ("<p>a loss of nan here</p>", "page says 'a loss of nan here'"),
])  # fmt: skip
def test_a_page_is_whole(page: str, said: str) -> None:
    assert said in page_fault(page)
    assert bool(page_fault(page)) == bool(said)


def test_what_libraries_print_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def talkative(words: list[str]) -> int:
        print(*words)
        os.write(1, b"past Python\n")
        os.write(2, b"a complaint\n")
        print("and another", file=sys.stderr)
        return 0

    monkeypatch.setattr(command_faults, "run", talkative)
    streams = sys.stdout, sys.stderr
    printed = run_command(["inspect", Path("model.onnx")])
    assert (sys.stdout, sys.stderr) == streams
    assert sorted(printed.out.splitlines()) == ["inspect model.onnx", "past Python"]
    assert "a complaint" in printed.err
    assert "and another" in printed.err
    assert "printed beside its own lines" in fault(printed, form="text")


def test_a_command_that_does_not_end_is_broken_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(words: list[str]) -> int:
        try:
            while True:
                pass
        except TimeoutError as error:
            print(f"internal error: {error}", file=sys.stderr)
            return 1

    monkeypatch.setattr(command_faults, "run", endless)
    printed = run_command([], seconds=0.1)
    assert "internal error: not done after 0.1 s" in fault(printed)
    assert 0.05 < printed.seconds < 1


def test_a_command_runs_in_this_process(tmp_path: Path) -> None:
    printed = run_command(["inspect", tmp_path / "missing.onnx"])
    assert (printed.code, printed.out) == (1, "")
    assert not fault(printed)
