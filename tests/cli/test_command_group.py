"""What typer would answer in its own way comes out of the commands."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import typer

from onnx_subprune.cli.command_group import CommandGroup
from onnx_subprune.cli.interrupt import Interrupted


def app_of(command: Callable[[], None]) -> typer.Typer:
    app = typer.Typer(cls=CommandGroup, pretty_exceptions_enable=False)
    app.command("work")(command)
    app.command("other")(lambda: None)
    return app


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


def test_an_interrupt_comes_out_with_its_cause() -> None:
    interrupt = KeyboardInterrupt()
    with pytest.raises(Interrupted) as caught:
        app_of(raising(interrupt))(["work"])
    assert caught.value.__cause__ is interrupt


def test_an_interrupt_is_no_error_that_commands_could_catch_by_accident() -> None:
    assert issubclass(Interrupted, Exception)
    assert not issubclass(Interrupted, KeyboardInterrupt)


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(28, "no space")])
def test_other_exceptions_come_out_as_they_are(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        app_of(raising(error))(["work"])
    assert caught.value is error


def test_a_command_that_ends_well_ends_with_nought() -> None:
    ran: list[str] = []

    def work() -> None:
        ran.append("work")

    with pytest.raises(SystemExit) as ended:
        app_of(work)(["work"])
    assert ended.value.code == 0
    assert ran == ["work"]


def test_a_file_that_ends_too_soon_is_no_wish_of_the_user() -> None:
    with pytest.raises(RuntimeError, match="a file ended too soon: in the midst"):
        app_of(raising(EOFError("in the midst")))(["work"])


@pytest.mark.parametrize("words", [["\x1b[31m"], ["--\x1b[31m"], ["work", "--\x1b[31m"], ["work", "\x1b[31m"]])
def test_words_that_are_not_understood_are_shown_as_they_are(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        app_of(lambda: None)(words)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert r"\x1b[31m" in said
    assert "\x1b" not in said
