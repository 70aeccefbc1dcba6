"""`inspect`: groups, shares and warnings of models small enough to count by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

Cli = Callable[..., Any]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(text, w1=(6, 10))` saves a model with random weights of these shapes."""

    def write(text: str, **shapes: tuple[int, ...]) -> Path:
        network = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')
        generator = np.random.default_rng(0)
        for name, shape in shapes.items():
            values = generator.standard_normal(shape).astype(np.float32)
            network.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
        path = tmp_path / "model.onnx"
        onnx.save(network, path)
        return path

    return write


TWO = "(float[N,6] x) => (float[N,2] y) { a = MatMul(x, w1)  b = Relu(a)  y = MatMul(b, w2) }"
TOKENS = "(float[N,T,6] x) => (float[N,T,2] y) { a = MatMul(x, w1)  b = Relu(a)  y = MatMul(b, w2) }"


def inspected(cli: Cli, *words: object) -> dict[str, Any]:
    outcome = cli("inspect", *words, "--json")
    assert outcome.code == 0, outcome.err
    document: dict[str, Any] = json.loads(outcome.out)
    assert document["format"] == "onnx_subprune.inspect/1"
    return document


def test_a_hidden_layer_can_be_pruned_and_the_output_cannot(cli: Cli, write: Callable[..., Path]) -> None:
    document = inspected(cli, write(TWO, w1=(6, 10), w2=(10, 2)))
    (hidden,), (out,) = document["groups"], document["frozen"]
    assert (hidden["units"], out["units"]) == (10, 2)
    assert document["dense"]["macs"] == 6 * 10 + 10 * 2
    assert document["dense"]["parameters"] == 80
    assert hidden["macs"] == 80, "both products touch the group"
    assert document["prunable_share"] == {"macs": 1.0, "parameters": 1.0}
    assert "graph output 'y'" in out["reasons"][0]


def test_shares_count_what_no_group_touches(cli: Cli, write: Callable[..., Path]) -> None:
    text = TWO.replace("y)", "y, float[N,4] z)").replace("}", " z = MatMul(x, w3) }")
    document = inspected(cli, write(text, w1=(6, 10), w2=(10, 2), w3=(6, 4)))
    assert document["dense"]["macs"] == 80 + 24
    assert document["prunable_share"]["macs"] == pytest.approx(80 / 104)
    assert [group["units"] for group in document["groups"]] == [10]


@pytest.mark.parametrize(("shape", "macs"), [("1,7,6", 7 * 80), ("3,5,6", 15 * 80)])
def test_sizes_that_are_given_are_counted_with(cli: Cli, write: Callable[..., Path], shape: str, macs: int) -> None:
    path = write(TOKENS, w1=(6, 10), w2=(10, 2))
    assert inspected(cli, path)["dense"]["macs"] == 80
    assert inspected(cli, path, "--input-shapes", f"x:{shape}")["dense"]["macs"] == macs


def test_a_guess_is_warned_of_unless_sizes_are_given(cli: Cli, write: Callable[..., Path]) -> None:
    path = write(TOKENS, w1=(6, 10), w2=(10, 2))
    assert "give --input-shapes x:N,N,6 with sizes for N" in cli("inspect", path).err
    assert cli("inspect", path, "--input-shapes", "x:1,4,6").err == ""
    assert cli("inspect", path, "--quiet").err == ""


def test_a_model_with_nothing_to_prune_says_so(cli: Cli, write: Callable[..., Path]) -> None:
    outcome = cli("inspect", write("(float[N,6] x) => (float[N,2] y) { y = MatMul(x, w) }", w=(6, 2)))
    assert outcome.code == 0
    assert "0 of 1 groups can be pruned" in outcome.out
    assert "frozen group" in outcome.out
    assert "producers" not in outcome.out, "there is no table of prunable groups"


@pytest.mark.parametrize(("words", "fragment"), [
    (("--input-shapes", "x"), "x"),
    (("--input-shapes", "x:1,a"), "x:1,a"),
    (("--input-shapes", "z:1,6"), "'z'"),
    (("--input-shapes", "x:1,7"), "x"),
    (("--report", "report.txt"), "expected a report FILE.html or FILE.json, found 'report.txt'"),
])  # fmt: skip
def test_what_does_not_fit_is_one_line_and_nothing_is_written(
    cli: Cli, write: Callable[..., Path], tmp_path: Path, words: tuple[str, ...], fragment: str
) -> None:
    path = write(TWO, w1=(6, 10), w2=(10, 2))
    outcome = cli("inspect", path, *words)
    assert outcome.code == 1
    assert outcome.out == ""
    assert fragment in outcome.error
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]


def test_the_report_may_not_be_the_model(cli: Cli, write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(TWO, w1=(6, 10), w2=(10, 2)).rename(tmp_path / "model.json")
    before = path.read_bytes()
    outcome = cli("inspect", path, "--report", path)
    assert outcome.code == 1
    assert "expected --report to be another file than MODEL" in outcome.error
    assert path.read_bytes() == before


def test_the_report_holds_what_json_prints(cli: Cli, write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(TWO, w1=(6, 10), w2=(10, 2))
    printed = cli("inspect", path, "--report", tmp_path / "report.json", "--json").out
    assert (tmp_path / "report.json").read_text(encoding="utf-8") == printed


def test_the_model_is_left_as_it_was(cli: Cli, write: Callable[..., Path]) -> None:
    path = write(TWO, w1=(6, 10), w2=(10, 2))
    before = path.read_bytes()
    inspected(cli, path)
    assert path.read_bytes() == before


FOLDED = """(float[N,T,6] x) => (float[a,b,2] y) <int64[3] to = {-1,20,6}> {
    r = Reshape(x, to)
    a = MatMul(r, w1)
    y = MatMul(a, w2)
}"""


def test_sizes_come_from_the_first_sample(cli: Cli, write: Callable[..., Path], tmp_path: Path) -> None:
    path = write(FOLDED, w1=(6, 10), w2=(10, 2))
    refused = cli("inspect", path)
    assert refused.code == 1
    for words in ("Reshape: The input tensor cannot be reshaped", "--input-shapes", "--data"):
        assert words in refused.error
    np.savez(tmp_path / "data.npz", x=np.zeros((3, 20, 6), np.float32))
    said = inspected(cli, path, "--data", tmp_path / "data.npz")
    assert said["input_shapes"] == {"x": [1, 20, 6]}
    assert said["dense"]["macs"] == 20 * 80
    assert "dynamic axes" not in cli("inspect", path, "--data", tmp_path / "data.npz").err
    assert "data.npz" in cli("inspect", path, "--data", tmp_path / "data.npz", "--report", tmp_path / "data.npz").error
