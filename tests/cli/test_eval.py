"""`eval`: every metric against NumPy, and what it refuses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

Cli = Callable[..., Any]
INPUTS = np.random.default_rng(3).standard_normal((50, 5)).astype(np.float32)
LABELS = np.random.default_rng(4).integers(0, 4, 50)


def weight(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((5, 4)).astype(np.float32)


@pytest.fixture
def linear(tmp_path: Path) -> Callable[[int], Path]:
    """`linear(seed)` writes y = x W and returns its path."""

    def write(seed: int) -> Path:
        network = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[N,5] x) => (float[N,4] y) { y = MatMul(x, w) }'
        )
        network.graph.initializer.append(onnx.numpy_helper.from_array(weight(seed), "w"))
        path = tmp_path / f"m{seed}.onnx"
        onnx.save(network, path)
        return path

    return write


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "data.npz", x=INPUTS, labels=LABELS)
    return tmp_path / "data.npz"


def evaluated(cli: Cli, *words: object) -> dict[str, Any]:
    outcome = cli("eval", *words, "--threads", 1, "--json")
    assert outcome.code == 0, outcome.err
    document: dict[str, Any] = json.loads(outcome.out)
    assert document["format"] == "onnx_subprune.eval/1"
    return document


def test_top1_of_several_models_is_that_of_numpy(cli: Cli, linear: Callable[[int], Path], data: Path) -> None:
    models = [linear(0), linear(1)]
    document = evaluated(cli, *models, "--data", data, "--batch-size", 7)
    assert (document["metric"], document["data"]) == ("top1", str(data))
    assert [entry["model"] for entry in document["models"]] == [str(path) for path in models]
    for seed, entry in enumerate(document["models"]):
        correct = int(np.sum((INPUTS @ weight(seed)).argmax(axis=1) == LABELS))
        assert (entry["correct"], entry["samples"], entry["accuracy"]) == (correct, 50, correct / 50)


def test_samples_are_the_first_of_a_seeded_permutation(cli: Cli, linear: Callable[[int], Path], data: Path) -> None:
    rows = np.random.default_rng(9).permutation(50)[:13]
    correct = int(np.sum((INPUTS[rows] @ weight(0)).argmax(axis=1) == LABELS[rows]))
    document = evaluated(cli, linear(0), "--data", data, "--samples", 13, "--seed", 9)
    assert document["models"][0]["correct"] == correct
    assert document["models"][0]["samples"] == 13


def test_fidelity_leaves_the_reference_out(cli: Cli, linear: Callable[[int], Path], data: Path) -> None:
    models = [linear(0), linear(1), linear(2)]
    document = evaluated(cli, *models, "--data", data, "--metric", "fidelity")
    assert [entry["model"] for entry in document["models"]] == [str(path) for path in models[1:]]
    dense = (INPUTS @ weight(0)).astype(np.float64)
    for seed, entry in enumerate(document["models"], start=1):
        pruned = (INPUTS @ weight(seed)).astype(np.float64)
        output = entry["outputs"]["y"]
        assert output["relative_l2"] == pytest.approx(np.linalg.norm(pruned - dense) / np.linalg.norm(dense), rel=1e-5)
        assert output["max_abs"] == pytest.approx(np.abs(pruned - dense).max(), rel=1e-5)
        assert output["agreement"] == np.mean(dense.argmax(axis=1) == pruned.argmax(axis=1))
        assert "difference" not in entry


@pytest.fixture
def decoder(tmp_path: Path) -> Callable[[float], Path]:
    """`decoder(scale)` writes a network that gives token t + 1 the logit `scale` after token t, and others none."""

    def write(scale: float) -> Path:
        network = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> '
            "g (int64[N,T] input_ids) => (float[N,T,6] logits) { logits = Gather(table, input_ids) }"
        )
        table = scale * np.roll(np.eye(6, dtype=np.float32), 1, axis=1)
        network.graph.initializer.append(onnx.numpy_helper.from_array(table, "table"))
        path = tmp_path / f"d{scale}.onnx"
        onnx.save(network, path)
        return path

    return write


def test_perplexity_tells_the_difference_to_the_first(
    cli: Cli, decoder: Callable[[float], Path], tmp_path: Path
) -> None:
    np.save(tmp_path / "ids.npy", np.arange(60) % 6)
    models = [decoder(0.0), decoder(2.0)]
    document = evaluated(cli, *models, "--data", tmp_path / "ids.npy", "--metric", "perplexity", "--window", 8)
    first, second = document["models"]
    assert first["perplexity"] == pytest.approx(6.0)
    assert first["difference"] == 0.0
    assert second["nll"] == pytest.approx(math.log(1 + 5 * math.exp(-2.0)))
    assert second["difference"] == pytest.approx(second["perplexity"] - first["perplexity"])
    # Seven windows of eight tokens, of which the last four of sixty are no part.
    assert [(entry["windows"], entry["tokens"]) for entry in document["models"]] == [(7, 49), (7, 49)]


def test_tables_name_every_model(cli: Cli, linear: Callable[[int], Path], data: Path) -> None:
    outcome = cli("eval", linear(0), linear(1), "--data", data)
    assert outcome.code == 0
    rows = [line for line in outcome.out.splitlines() if "%" in line]
    assert len(rows) == 2
    correct = int(np.sum((INPUTS @ weight(0)).argmax(axis=1) == LABELS))
    assert f"{correct / 50:.2%}" in rows[0]
    assert f"{correct} / 50" in rows[0]


@pytest.mark.parametrize(("words", "line"), [
    (("--metric", "f1"), "error: expected a metric among top1, fidelity, perplexity, found 'f1'; choose one of them"),
    (("--metric", "fidelity"), "expected a reference and at least one model to compare with it, found one model"),
    (("--window", "8"), "error: expected --window with the metric perplexity only, found 'top1'; leave it out"),
    (("--metric", "fidelity", "--window", "8"), "error: expected --window with the metric perplexity only"),
    (("--samples", "0"), "samples"),
    (("--batch-size", "0"), "batch"),
    (("--threads", "-1"), "threads"),
    (("--providers", "tpu"), "tpu"),
])  # fmt: skip
def test_an_option_that_cannot_be_is_one_line(
    cli: Cli, linear: Callable[[int], Path], data: Path, words: tuple[str, ...], line: str
) -> None:
    outcome = cli("eval", linear(0), "--data", data, *words)
    assert outcome.code == 1
    assert outcome.out == ""
    assert line in outcome.error


@pytest.mark.parametrize(("arrays", "fragment"), [
    ({"x": INPUTS}, "labels expected for top-1, found none"),
    ({"x": INPUTS, "labels": LABELS.astype(np.float32)}, "labels expected as a vector of class numbers, found float32"),
    ({"x": INPUTS, "labels": LABELS + 1}, "labels expected from 0 to 3"),
    ({"x": INPUTS, "labels": LABELS[:-1]}, "a label for each of 50 samples expected"),
    ({"z": INPUTS, "labels": LABELS}, "input 'x' expected, found 'z'"),
    ({"x": INPUTS[:, :4], "labels": LABELS}, "input 'x' expected of shape [?, 5], found [50, 4]"),
    ({"x": INPUTS[:0], "labels": LABELS[:0]}, "at least one sample expected, found none"),
    ({"x": np.full((2, 5), np.nan, np.float32), "labels": LABELS[:2]}, "finite values expected for input 'x'"),
    ({"x": INPUTS.astype(np.int64), "labels": LABELS}, "input 'x' expected of dtype float32, found int64"),
])  # fmt: skip
def test_data_that_cannot_be_measured_are_one_line(
    cli: Cli, linear: Callable[[int], Path], tmp_path: Path, arrays: dict[str, Any], fragment: str
) -> None:
    np.savez(tmp_path / "odd.npz", **arrays)
    outcome = cli("eval", linear(0), "--data", tmp_path / "odd.npz", "--json")
    assert outcome.code == 1
    assert outcome.out == "", "with an error stdout holds no half of a document"
    assert outcome.error.startswith("error: ")
    assert fragment in outcome.error
