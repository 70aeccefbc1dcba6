"""Names of models, data and files reach no terminal as they are: control characters, marks of direction, markup."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from rich.console import Console

from onnx_subprune import report
from onnx_subprune.network.analysis import analyse

Cli = Callable[..., Any]

# Colour, a new line, an overwritten line, a bell, reversed reading, markup, a window's title, C1, formats, U+2028.
HOSTILE = "\x1b[31m\n\rerror: \x07\u202e[red][/]\x1b]0;t\x07\x9b2J%s{0}$\\frac$\u2028"
FILE = "m\x1b[31m\n\u202e[red]%s.onnx"
WORDS: list[tuple[int, tuple[str, ...]]] = [
    (0, ("inspect", FILE, "-vv", "--report", "i.html")),
    (0, ("inspect", FILE, "--json")),
    (0, ("prune", FILE, "o.onnx", "--calib", "c.npz", "--target", "macs=0.5", "--report", "r.html", "-vv")),
    (0, ("eval", FILE, "o.onnx", "--data", "c.npz", "--metric", "fidelity")),
    (0, ("bench", FILE, FILE, "--runs", "5", "--profile")),
    (0, ("factorise", FILE, "f.onnx", "--calib", "c.npz", "--target", "macs=0.8")),
    (1, ("inspect", f"no{FILE}")),
    (1, ("inspect", FILE, "--input-shapes", "\x1b:1")),
    (1, ("prune", FILE, "o.onnx", "--calib", "\x1b[2J.npz", "--target", "macs=0.5")),
    (1, ("prune", FILE, "o.onnx", "--calib", "c.npz", "--target", "\x1b[2J")),
    (1, ("prune", FILE, "o.onnx", "--calib", "c.npz", "--target", "macs=0.5", "--only", "\x1b[2J")),
    (1, ("prune", FILE, "o.onnx", "--calib", "other.npz", "--target", "macs=0.5")),
    (3, ("prune", FILE, "o.onnx", "--calib", "c.npz", "--target", "macs=0.001")),
    (2, ("inspect", FILE, "\x1b[2J")),
]  # fmt: skip


@pytest.fixture
def folder(model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a folder with a model whose names are hostile, in a file of such a name, and data for it."""
    monkeypatch.chdir(model.parent)
    proto = renamed(onnx.load(model))
    onnx.save(proto, FILE)
    samples = np.random.default_rng(1).standard_normal((64, 3, 6, 6)).astype(np.float32)
    np.savez("c.npz", **{f"x{HOSTILE}": samples, "labels": np.arange(64) % 4})
    np.savez("other.npz", **{f"y{HOSTILE}": samples})
    return model.parent


def renamed(model: onnx.ModelProto) -> onnx.ModelProto:
    """Give every name of a model a hostile end."""
    graph = model.graph
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.node):
        value.name += HOSTILE
    for node in graph.node:
        node.input[:] = [name + HOSTILE for name in node.input]
        node.output[:] = [name + HOSTILE for name in node.output]
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param += HOSTILE
    model.metadata_props.add(key=HOSTILE, value=HOSTILE)
    model.producer_name = HOSTILE
    return model


def strange(text: str) -> set[str]:
    return {letter for letter in text if not letter.isprintable()} - {"\n"}


def test_a_terminal_takes_every_name_for_letters(cli: Cli, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "250")
    for code, words in WORDS:
        said = cli(*words)
        assert said.code == code, (words, said.err)
        assert strange(said.out + said.err) == set(), words
        assert "Traceback" not in said.err, words
        # A name begins no line: what stands there could be taken for the program's own words.
        assert sum(line.startswith("error: ") for line in said.err.splitlines()) == (code in (1, 3)), words
        if said.out and "--json" not in words:
            assert r"\x1b" in said.out
    for page in ("i.html", "r.html"):
        text = (folder / page).read_text(encoding="utf-8")
        assert strange(text) == set()
        assert "[red][/]" in text


def test_json_is_faithful(cli: Cli, folder: Path) -> None:
    out = cli("inspect", FILE, "--json").out
    document = json.loads(out)
    assert document["groups"][0]["name"] == f"first{HOSTILE}"
    assert list(document["input_shapes"]) == [f"x{HOSTILE}"]


@pytest.mark.parametrize("change", ["no maker", "no operator", "bad attribute"])
@pytest.mark.parametrize("command", ["inspect", "bench"])
def test_what_others_say_of_a_model_is_letters_too(cli: Cli, folder: Path, change: str, command: str) -> None:
    model = onnx.load(FILE)
    if change == "no maker":
        model.graph.node[2].input[0] = HOSTILE
    elif change == "no operator":
        model.graph.node[2].op_type = HOSTILE
    else:
        model.graph.node[0].attribute[0].ints[0] = -100
    onnx.save(model, "bad.onnx")
    said = cli(command, "bad.onnx")
    assert said.code == 1
    assert said.error.startswith("error: ")
    assert strange(said.error) == set()


def test_tables_hold_no_markup_wherever_they_are_printed(folder: Path) -> None:
    document = analyse(onnx.load(FILE)).document()
    console = Console(record=True, width=300, markup=True, force_terminal=True, file=(folder / "out").open("w"))
    with console.file:
        console.print(report.group_table(document), report.frozen_table(document))
    assert r"first\x1b[31m\n\rerror: \x07\u202e[red][/]" in console.export_text()


def test_a_file_name_that_is_no_text_is_shown(cli: Cli, model: Path) -> None:
    strange_name = model.with_name("\udcff.onnx")
    shutil.copy(model, strange_name)
    out = strange_name.with_name("o.html")
    said = cli("bench", strange_name, "--runs", "5")
    assert said.code == 0
    assert r"\udcff.onnx" in said.out
    said = cli("bench", strange_name, "--runs", "5", "--json")
    assert json.loads(said.out)["batches"][0]["models"][0]["model"] == str(strange_name)
    assert cli("inspect", strange_name, "--report", out).code == 0
