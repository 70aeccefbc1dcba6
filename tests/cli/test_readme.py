"""Commands in the README are commands there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from onnx_subprune.cli.app import app

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(text: str) -> list[list[str]]:
    """Return the words of every `$ onnx-subprune ...` in code blocks, joined over lines that end in a backslash."""
    blocks = re.findall(r"^```[^\n]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    blocks += re.findall(r"(?:^(?: {4}|\t)[^\n]*\n?)+", text, re.MULTILINE)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [
        shlex.split(line, comments=True) for line in re.findall(r"^\s*\$ (onnx-subprune\b.*)$", joined, re.MULTILINE)
    ]


def parse(words: list[str]) -> None:
    """Parse a command line as typer would, without running it; raises if it is not understood."""
    group: Any = typer.main.get_command(app)
    assert words[0] == "onnx-subprune"
    if words[1:] in (["--version"], ["--help"]):
        return
    with group.make_context("onnx-subprune", ["doctor"]) as context:
        name, command, rest = group.resolve_command(context, words[1:])
        if "--help" not in rest:
            command.make_context(name, rest, parent=context)


def test_every_command_shown_can_be_parsed() -> None:
    shown = [words for path in DOCUMENTS for words in commands(path.read_text(encoding="utf-8"))]
    assert shown
    for words in shown:
        parse(words)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_documents_are_finished_and_their_links_lead_somewhere(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"@[A-Z]+@|TODO|FIXME", text)
    for target in re.findall(r"\]\((?!https?://|#)([^)#]+)", text):
        assert (path.parent / target).exists(), target


def test_every_subcommand_has_a_session_in_the_readme() -> None:
    shown = {words[1] for words in commands(DOCUMENTS[0].read_text(encoding="utf-8"))}
    assert {command.name or command.callback.__name__ for command in app.registered_commands} <= shown  # type: ignore[union-attr]


def test_the_check_finds_commands_in_both_kinds_of_blocks() -> None:
    fenced = "```sh\n$ onnx-subprune a \\\n    --b c  # why\nout\n```\n"
    text = f"$ onnx-subprune not a block\n\n{fenced}\n    $ onnx-subprune d\n"
    assert commands(text) == [["onnx-subprune", "a", "--b", "c"], ["onnx-subprune", "d"]]


@pytest.mark.parametrize("rest", ["prune a b --traget macs=0.5", "prone a b", "prune a b", ""])
def test_the_check_refuses_a_wrong_command(rest: str) -> None:
    with pytest.raises((typer.TyperException, typer.Exit, IndexError)):
        parse(["onnx-subprune", *rest.split()])


@pytest.mark.parametrize(
    "rest",
    [
        "prune a.onnx b.onnx --calib c.npz --target macs=0.5 --ignore head --ignore x* -vv",
        "eval a.onnx b.onnx --data c.npz --metric fidelity",
        "bench a.onnx b.onnx --batch 1 --batch 8",
        "--version",
    ],
)
def test_the_check_takes_a_right_command(rest: str) -> None:
    parse(["onnx-subprune", *rest.split()])
