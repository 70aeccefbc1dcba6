"""What goes to stdout, what to stderr, and how much of either."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from rich.console import Console

from onnx_subprune.cli import terminal as module
from onnx_subprune.cli.terminal import Terminal, terminal
from onnx_subprune.errors import DataError, OptionError, OutputError
from onnx_subprune.report.table import table

LOGGER = logging.getLogger("onnx_subprune.somewhere")


class Screen(io.StringIO):
    """A stream that may be a terminal, and knows how often it was flushed."""

    def __init__(self, *, tty: bool = False) -> None:
        super().__init__()
        self._tty, self.flushes = tty, 0

    def isatty(self) -> bool:
        return self._tty

    def flush(self) -> None:
        self.flushes += 1


def test_json_is_the_document_and_nothing_else() -> None:
    screen = Screen()
    Terminal(screen, json=True, quiet=False).show({"error": float("nan"), "é": [1]}, "a table")
    assert json.loads(screen.getvalue()) == {"error": None, "é": [1]}
    assert screen.getvalue().endswith("}\n")
    assert "é" in screen.getvalue(), "letters are not escaped"


def test_parts_are_printed_with_a_line_between_them() -> None:
    screen = Screen()
    Terminal(screen, json=False, quiet=True).show({"unseen": 1}, "first", "second", "third")
    assert screen.getvalue() == "first\n\nsecond\n\nthird\n"


def test_text_is_not_markup() -> None:
    screen = Screen()
    Terminal(screen, json=False, quiet=False).show({}, "[bold]layer[/bold] :smile: 12.5")
    assert screen.getvalue() == "[bold]layer[/bold] :smile: 12.5\n"


@pytest.mark.parametrize("as_json", [True, False])
def test_what_was_printed_is_flushed_while_a_closed_pipe_is_still_an_exception(as_json: bool) -> None:
    screen = Screen()
    Terminal(screen, json=as_json, quiet=False).show({}, "text")
    assert screen.flushes


@pytest.mark.parametrize("as_json", [True, False])
def test_whoever_stops_reading_has_seen_enough(as_json: bool) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w", encoding="utf-8") as pipe:
        Terminal(pipe, json=as_json, quiet=False).show({}, "text")
        pipe.write("nobody hears of it")


@pytest.mark.parametrize("as_json", [True, False])
def test_a_full_disk_under_stdout_is_one_clear_line(as_json: bool) -> None:
    with open("/dev/full", "w", encoding="utf-8") as full:
        with pytest.raises(OutputError, match="cannot print the result: No space left on device; send it"):
            Terminal(full, json=as_json, quiet=False).show({}, "text")
        full.write("the interpreter flushes at its end")


def test_a_pipe_has_the_width_of_a_page_unless_columns_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    part = table(("reason", "n"), [("word " * 40, "1")], "lr")

    def longest() -> int:
        screen = Screen()
        Terminal(screen, json=False, quiet=False).show({}, part)
        return max(map(len, screen.getvalue().splitlines()))

    monkeypatch.delenv("COLUMNS", raising=False)
    assert 100 < longest() <= 120
    monkeypatch.setenv("COLUMNS", "60")
    assert longest() <= 60


@pytest.mark.parametrize(("count", "lines"), [(0, 0), (1, 1), (5, 5), (6, 6), (40, 6)])
def test_a_few_warnings_are_printed_and_the_others_counted(
    count: int, lines: int, caplog: pytest.LogCaptureFixture
) -> None:
    Terminal(Screen(), json=False, quiet=False).warn(f"warning 100% {number}" for number in range(count))
    messages = [record.getMessage() for record in caplog.records]
    assert len(messages) == lines
    assert messages[:5] == [f"warning 100% {number}" for number in range(min(count, 5))]
    if count > 5:
        assert messages[5] == f"{count - 5} more like these are in the report"


def logged(verbose: int, quiet: bool, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with terminal(json=False, verbose=verbose, quiet=quiet):
        for level in ("debug", "info", "warning", "error"):
            getattr(LOGGER, level)("said as %s", level)
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("verbose", "quiet", "levels"), [
    (0, False, ["warning", "error"]),
    (1, False, ["info", "warning", "error"]),
    (2, False, ["debug", "info", "warning", "error"]),
    (7, False, ["debug", "info", "warning", "error"]),
    (0, True, ["error"]),
    (2, True, ["error"]),
])  # fmt: skip
def test_how_much_is_logged(verbose: int, quiet: bool, levels: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert logged(verbose, quiet, capsys) == [f"{level}: said as {level}" for level in levels]


def test_the_log_is_as_it_was_afterwards(capsys: pytest.CaptureFixture[str]) -> None:
    package = logging.getLogger("onnx_subprune")
    before = package.level, list(package.handlers)
    with contextlib.suppress(ValueError), terminal(json=True, verbose=2, quiet=False):
        assert len(package.handlers) == len(before[1]) + 1
        raise ValueError("mine")
    assert (package.level, list(package.handlers)) == before
    capsys.readouterr()
    LOGGER.warning("nobody prints this any more")
    assert "warning: " not in capsys.readouterr().err


def test_with_json_what_others_print_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal(json=True, verbose=0, quiet=False) as screen:
        print("a script of the user")
        screen.show({"a": 1})
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"a": 1}
    assert printed.err == "a script of the user\n"


def test_without_json_what_others_print_stays_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal(json=False, verbose=0, quiet=False) as screen:
        print("a script of the user")
        screen.show({}, "the result")
    assert capsys.readouterr().out == "a script of the user\nthe result\n"


def test_stdout_is_itself_again_after_a_failure() -> None:
    before = sys.stdout
    with contextlib.suppress(OptionError), terminal(json=True, verbose=0, quiet=False):
        assert sys.stdout is sys.stderr
        raise OptionError("wrong")
    assert sys.stdout is before


@pytest.mark.parametrize(("error", "seen_at"), [(OptionError("of the input"), 2), (KeyError("of the program"), 1)])
def test_a_traceback_is_there_for_those_who_ask(
    error: Exception, seen_at: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """An error of the input has none with -v: the line says enough; a bug has one."""
    for verbose in range(3):
        with pytest.raises(type(error)), terminal(json=False, verbose=verbose, quiet=False):
            raise error
        assert ("Traceback" in capsys.readouterr().err) == (verbose >= seen_at)


def consoles(monkeypatch: pytest.MonkeyPatch, *, tty: bool) -> list[Console]:
    """Let every console of the module draw into memory; return those that bars were drawn on."""
    drawn: list[Console] = []

    def make(**_: object) -> Console:
        return Console(file=io.StringIO(), force_terminal=tty)

    @contextlib.contextmanager
    def bar(console: Console) -> Iterator[str]:
        drawn.append(console)
        yield "watch"

    monkeypatch.setattr(module, "Console", make)
    monkeypatch.setattr(module.report, "progress_bar", bar)
    return drawn


@pytest.mark.parametrize(("tty", "quiet", "bars"), [(True, False, 1), (True, True, 0), (False, False, 0)])
def test_bars_are_for_a_terminal_that_is_not_quiet(
    tty: bool, quiet: bool, bars: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = consoles(monkeypatch, tty=tty)
    with Terminal(Screen(), json=False, quiet=quiet).progress() as watch:
        assert watch == ("watch" if bars else None)
    assert len(drawn) == bars


def test_a_warning_is_printed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal(json=False, verbose=1, quiet=False) as screen:
        screen.warn(["too few samples", "too few samples"])
        LOGGER.warning("too few samples")
        LOGGER.info("a step")
        LOGGER.info("a step")
    assert capsys.readouterr().err.splitlines() == ["warning: too few samples", *["info: a step"] * 2]


def test_a_script_that_ends_the_program_is_at_fault() -> None:
    with (
        pytest.raises(DataError, match=r"found that it ended the program with 3; take sys\.exit"),
        terminal(json=False, verbose=0, quiet=False),
    ):
        sys.exit(3)


@pytest.mark.parametrize(
    ("verbose", "quiet", "levels"),
    [
        (0, False, []),
        (1, False, ["warning", "error"]),
        (2, False, ["info", "warning", "error"]),
        (2, True, []),
    ],
)
def test_libraries_are_logged_for_those_who_ask(
    verbose: int, quiet: bool, levels: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with terminal(json=False, verbose=verbose, quiet=quiet):
        for level in ("info", "warning", "error"):
            getattr(logging.getLogger("library.part"), level)("said as %s", level)
    assert capsys.readouterr().err.splitlines() == [f"{level}: said as {level}" for level in levels]


@pytest.mark.parametrize("verbose", [0, 1])
def test_warnings_of_python_are_logged_for_those_who_ask(verbose: int, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings(), terminal(json=False, verbose=verbose, quiet=False):
        warnings.simplefilter("always")
        np.array([3e38], np.float32) * np.float32(10)
    said = capsys.readouterr().err
    assert said == "" if not verbose else said.startswith("info: RuntimeWarning: overflow encountered in multiply (")


def test_names_in_the_log_are_letters_also_in_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    with terminal(json=False, verbose=1, quiet=False):
        LOGGER.warning("node '%s'", "\x1b[31m\nerror: false", exc_info=KeyError("\x1b[2J\u202e"))
    said = capsys.readouterr().err
    assert said.startswith("warning: node '\\x1b[31m\\nerror: false'\n")
    assert r"KeyError: '\x1b[2J\u202e'" in said
    assert said.replace("\n", "").isprintable()


def test_parts_are_shown_as_they_are() -> None:
    screen = Screen()
    hostile = "\x1b]0;title\x07[red]a[/] [/bold]\r\n\u202egnp"
    Terminal(screen, json=False, quiet=False).show({}, hostile, table((hostile, "n"), [(hostile, "1")], "lr", hostile))
    shown = screen.getvalue()
    assert shown.count(r"\x1b]0;title\x07[red]a[/] [/bold]\r\n\u202egnp") == 4
    assert shown.replace("\n", "").isprintable()
