"""`eval --metric perplexity`, on a small decoder as an exporter wrote it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

ROOT = Path(__file__).resolve().parents[2]
Cli = Callable[..., Any]
VOCABULARY = 96
STREAM = np.random.default_rng(0).integers(0, VOCABULARY, 520)


@pytest.fixture(scope="module")
def decoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a Llama of two layers with random weights: input_ids and attention_mask in, logits out."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from zoo.skeleton import read_skeleton, refill  # noqa: PLC0415 - tools/ is on no import path
    finally:
        sys.path.pop(0)
    path = tmp_path_factory.mktemp("decoder") / "decoder.onnx"
    onnx.save(refill(read_skeleton(ROOT / "tests" / "zoo" / "skeletons" / "llama_ts17.onnx.xz")), path)
    return path


@pytest.fixture
def stream(tmp_path: Path) -> Path:
    path = tmp_path / "stream.npy"
    np.save(path, STREAM)
    return path


def document(outcome: Any) -> Any:
    assert outcome.code == 0, outcome.err
    return json.loads(outcome.out)


def test_models_are_compared_with_the_first(cli: Cli, decoder: Path, stream: Path, tmp_path: Path) -> None:
    windows, pruned = tmp_path / "windows.npz", tmp_path / "pruned.onnx"
    np.savez(windows, input_ids=STREAM.reshape(26, 20))
    # Calibration needs the token ids only, too.
    said = cli("prune", decoder, pruned, "--calib", windows, "--target", "units=0.75", "--only", "*mlp*")
    assert said.code == 0
    assert "filled in for whole sequences: attention_mask" in said.err
    words = ("eval", decoder, pruned, "--metric", "perplexity", "--data")
    found = document(cli(*words, stream, "--window", 20, "--json"))
    first, second = found["models"]
    assert found["metric"] == "perplexity"
    assert (first["tokens"], first["windows"]) == (26 * 19, 26)
    assert first["difference"] == 0
    assert second["difference"] == pytest.approx(second["perplexity"] - first["perplexity"])
    assert abs(second["difference"]) > 0
    assert first["perplexity"] == pytest.approx(math.exp(first["nll"]))
    again = document(cli(*words, windows, "--json"))
    assert [one["nll"] for one in again["models"]] == [one["nll"] for one in found["models"]]


def test_the_table_says_perplexity_difference_and_tokens(cli: Cli, decoder: Path, stream: Path) -> None:
    said = cli("eval", decoder, "--data", stream, "--metric", "perplexity", "--window", 130, "--samples", 2)
    assert said.code == 0
    # A path wraps rather than lose its end: the figures stand on one of its lines.
    (row,) = [line.split() for line in said.out.splitlines() if line.rstrip().endswith(" 258")]
    assert row[-3:-1][0] == "+0"
    assert 1 < float(row[-4]) < 10 * VOCABULARY


@pytest.mark.parametrize(
    ("data", "words", "fragments"),
    [
        (STREAM, (), ["a window expected for one stream of 520 token ids", "--window"]),
        (STREAM, ("--window", 1), ["at least 2 tokens", "found 1"]),
        (STREAM, ("--window", 600), ["at least 600 token ids", "found 520"]),
        (STREAM[:, None], (), ["windows of at least 2 tokens", "found 1"]),
        (STREAM + 1, ("--window", 20), ["ids from 0 to 95", "found 96", "tokenizer"]),
        (-STREAM, ("--window", 20), ["ids from 0", "found -95"]),
        (STREAM / 2, ("--window", 20), ["integer token ids", "float64"]),
    ],
)
def test_tokens_that_cannot_be_measured(
    cli: Cli, decoder: Path, tmp_path: Path, data: np.ndarray, words: tuple[object, ...], fragments: list[str]
) -> None:
    path = tmp_path / "ids.npy"
    np.save(path, data)
    said = cli("eval", decoder, "--data", path, "--metric", "perplexity", *words)
    assert said.code == 1
    for fragment in fragments:
        assert fragment in said.error


def test_a_model_that_is_no_language_model(cli: Cli, model: Path, stream: Path) -> None:
    said = cli("eval", model, "--data", stream, "--metric", "perplexity", "--window", 20)
    assert "an integer input 'input_ids' [batch, sequence] expected" in said.error
    assert "'x' float32" in said.error


def test_a_window_is_for_perplexity(cli: Cli, model: Path, labelled: Path) -> None:
    assert "--window with the metric perplexity" in cli("eval", model, "--data", labelled, "--window", 4).error
