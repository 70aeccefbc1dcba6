"""Options of the command line: those of the same name as a field of `Options` say what that field says."""

from __future__ import annotations

from dataclasses import fields

import pytest
import typer.main

from onnx_subprune.cli.app import app
from onnx_subprune.cli.parameters import parsed
from onnx_subprune.errors import OptionError
from onnx_subprune.options import Options, Target

# By these `factorise` means layers and ranks, and `demo` has words of its own.
OWN_WORDS = {"factorise": {"target", "round_to", "ignore", "only"}, "demo": {"target", "round_to"}}


def test_an_option_has_the_help_of_its_field() -> None:
    helps = {field.name: field.metadata["help"] for field in fields(Options)}
    compared = set()
    for command, group in typer.main.get_command(app).commands.items():
        for parameter in group.params:
            if parameter.name in helps and parameter.name not in OWN_WORDS.get(command, ()):
                assert parameter.help == helps[parameter.name], (command, parameter.name)
                assert parameter.opts[0] == f"--{parameter.name.replace('_', '-')}"
                compared.add(parameter.name)
    assert set(helps) - compared == {"rows", "probes", "levels", "trials"}


@pytest.mark.parametrize("command", ["prune", "apply", "eval", "factorise"])
def test_a_default_is_that_of_the_field(command: str) -> None:
    defaults = Options()
    (group,) = (group for name, group in typer.main.get_command(app).commands.items() if name == command)
    given = {
        parameter.name: parameter.default
        for parameter in group.params
        if hasattr(defaults, parameter.name) and not parameter.required and parameter.default is not None
    }
    assert "seed" in given
    assert all(getattr(defaults, name) == value for name, value in parsed(**given).items())


def test_what_was_not_given_is_left_to_the_defaults() -> None:
    assert parsed(samples=None, threads=None, ignore=None) == {}
    assert Options(**parsed(providers=None)).providers == ("cpu",)


@pytest.mark.parametrize(
    ("given", "field"),
    [
        ({"target": "units=0.25"}, Target("units", 0.25)),
        ({"round_to": " 16 "}, 16),
        ({"round_to": 16}, 16),
        ({"round_to": "auto"}, "auto"),
        ({"round_to": "-3"}, -3),
        ({"ignore": ["a*", "b"]}, ("a*", "b")),
        ({"providers": ["cuda, cpu"]}, ("cuda", "cpu")),
        ({"input_shapes": ["x:1,3", "ids:2"]}, (("x", (1, 3)), ("ids", (2,)))),
        ({"prune_normalised": False}, False),
        ({"time_limit": "90s"}, 90.0),
        ({"time_limit": " 5m "}, 300.0),
        ({"time_limit": "1.5h"}, 5400.0),
        ({"time_limit": "20"}, 20.0),
    ],
)
def test_texts_become_what_options_take(given: dict[str, object], field: object) -> None:
    (value,) = parsed(**given).values()
    assert value == field


@pytest.mark.parametrize(
    "given",
    [{"target": "macs"}, {"input_shapes": ["x"]}, {"time_limit": "soon"}, {"time_limit": "5d"}, {"time_limit": ""}],
)
def test_a_text_that_is_not_understood_is_refused(given: dict[str, object]) -> None:
    with pytest.raises(OptionError, match="found"):
        parsed(**given)
