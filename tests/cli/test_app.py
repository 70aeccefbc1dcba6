"""The commands put together: their names, and what happens where there is no command."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import typer

import onnx_subprune
from onnx_subprune.cli.app import app

Cli = Callable[..., Any]
COMMANDS = ["inspect", "prune", "eval", "bench", "apply", "factorise", "doctor", "demo"]


def test_the_commands_are_those_of_the_manual_in_their_order() -> None:
    group = typer.main.get_command(app)
    assert list(group.commands) == COMMANDS


def test_every_command_says_in_one_line_what_it_is_for() -> None:
    for name, command in typer.main.get_command(app).commands.items():
        words = (command.help or "").split("\n")[0]
        assert len(words) > 20, name
        assert words.rstrip().endswith("."), name


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_without_a_command_the_help_is_printed(cli: Cli, words: tuple[str, ...]) -> None:
    outcome = cli(*words)
    assert all(name in outcome.out + outcome.err for name in COMMANDS)
    assert outcome.code in ((0,) if words else (0, 2))


def test_the_version_comes_before_anything_else_is_looked_at(cli: Cli) -> None:
    outcome = cli("--version", "no-such-command")
    assert (outcome.code, outcome.out) == (0, f"onnx-subprune {onnx_subprune.__version__}\n")


@pytest.mark.parametrize("words", [("no-such-command",), ("--no-such-option",), ("inspect",), ("prune", "m.onnx")])
def test_what_is_not_understood_is_code_two_and_on_stderr(cli: Cli, words: tuple[str, ...]) -> None:
    outcome = cli(*words)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize("command", ["inspect", "prune", "eval", "bench", "apply", "factorise", "doctor", "demo"])
def test_every_command_can_be_json_verbose_and_quiet(command: str) -> None:
    options = {name for parameter in typer.main.get_command(app).commands[command].params for name in parameter.opts}
    assert {"--json", "--verbose", "--quiet", "-v", "-q"} <= options
