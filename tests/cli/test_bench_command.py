"""`bench` on the command line: what it says, what it holds in JSON, what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

Cli = Callable[..., Any]
CPU = "CPUExecutionProvider"
SHORT = ("--runs", 48, "--threads", 1)


def document(said: Any) -> dict[str, Any]:
    assert said.code == 0, said.err
    result: dict[str, Any] = json.loads(said.out)
    return result


def test_every_batch_is_timed(cli: Cli, model: Path) -> None:
    words = ("bench", model, model, *SHORT)
    said = document(cli(*words, "--batch", 1, "--batch", 4, "--json"))
    assert [batch["input_shapes"] for batch in said["batches"]] == [{"x": [1, 3, 6, 6]}, {"x": [4, 3, 6, 6]}]
    assert all(batch["models"][0]["ratio_to_first"] == 1.0 for batch in said["batches"])
    said = cli(*words)
    assert "1.00 x" in said.out
    assert f"x [1, 3, 6, 6], on {CPU}" in said.out


def test_the_document_holds_what_was_asked_and_what_ran(cli: Cli, model: Path) -> None:
    said = document(cli("bench", model, model, *SHORT, "--json"))
    assert (said["runs"], said["threads"], said["providers"], said["data"]) == (48, 1, ["cpu"], None)
    assert said["versions"]["onnx"] == onnx.__version__
    first, second = said["batches"][0]["models"]
    assert first["providers"] == second["providers"] == [CPU]
    assert (first["runs"], second["runs"]) == (48, 48)
    low, high = second["ratio_interval"]
    assert low <= second["ratio_to_first"] <= high
    assert "profile" not in first
    assert "memory" not in first


def test_without_a_number_of_runs_it_goes_on_until_it_is_sure(cli: Cli, model: Path) -> None:
    said = document(cli("bench", model, model, "--precision", 0.9, "--threads", 1, "--json"))
    assert said["runs"] is None
    second = said["batches"][0]["models"][1]
    assert second["sittings"] >= 6
    assert second["runs"] >= 60
    limited = document(cli("bench", model, model, "--precision", 1e-9, "--max-seconds", 0.001, "--json"))
    assert limited["batches"][0]["models"][1]["runs"] == 2


def test_the_profile_says_where_the_time_goes(cli: Cli, model: Path) -> None:
    words = ("bench", model, *SHORT, "--profile")
    said = cli(*words).out
    assert "between nodes" in said
    assert "longest of" in said
    profile = document(cli(*words, "--json"))["batches"][0]["models"][0]["profile"]
    assert {"Conv", "Gemm"} <= {one["operator"] for one in profile["operators"]}
    assert sum(one["nodes"] for one in profile["operators"]) == len(profile["nodes"])
    assert sum(one["seconds"] for one in profile["operators"]) == pytest.approx(
        sum(node["seconds"] for node in profile["nodes"])
    )
    assert all(node["provider"] == CPU for node in profile["nodes"])
    assert profile["fallen"] == 0


def test_memory_is_measured_on_request(cli: Cli, model: Path) -> None:
    words = ("bench", model, *SHORT, "--memory")
    memory = document(cli(*words, "--json"))["batches"][0]["models"][0]["memory"]
    # A small model may hold nothing of its own on a machine that is short of memory.
    assert 0 <= memory["held"] <= memory["peak"] < 200e6
    assert "peak memory" in cli(*words).out


def test_real_inputs(cli: Cli, model: Path, calib: Path) -> None:
    said = document(cli("bench", model, *SHORT, "--data", calib, "--batch", 2, "--batch", 256, "--json"))
    assert said["data"] == str(calib)
    assert [batch["input_shapes"]["x"][0] for batch in said["batches"]] == [2, 256]
    assert document(cli("bench", model, *SHORT, "--data", calib, "--json"))["batches"][0]["input_shapes"]["x"][0] == 1


@pytest.mark.parametrize("option", ["--io-binding", "--no-io-binding"])
def test_buffers_are_a_choice(cli: Cli, model: Path, option: str) -> None:
    assert document(cli("bench", model, *SHORT, option, "--json"))["io_binding"] is (option == "--io-binding")


@pytest.mark.parametrize(
    ("words", "fragments"),
    [
        (("--runs", 0), ["one round expected", "0 runs"]),
        (("--batch", 0), ["batch of 1 or more", "found 0"]),
        (("--precision", 0), ["precision", "above 0"]),
        (("--max-seconds", -1), ["limits of bench above 0"]),
        (("--threads", 0), ["threads", "found 0"]),
        (("--providers", "gpu"), ["'gpu'", CPU]),
        (("--input-shapes", "y:1"), ["'y'", "inputs are: x"]),
        (("--data", "nothing.npz"), ["nothing.npz", "found nothing there"]),
    ],
)
def test_an_option_that_cannot_be(cli: Cli, model: Path, words: tuple[object, ...], fragments: list[str]) -> None:
    said = cli("bench", model, *words)
    assert (said.code, said.out) == (1, "")
    for fragment in fragments:
        assert fragment in said.error


def test_data_that_are_too_few_or_beside_shapes(cli: Cli, model: Path, calib: Path) -> None:
    said = cli("bench", model, "--data", calib, "--batch", 300)
    assert (said.code, "300 samples of one shape expected, found 256" in said.error) == (1, True)
    said = cli("bench", model, "--data", calib, "--input-shapes", "x:1,3,6,6")
    assert (said.code, "found both" in said.error) == (1, True)


def test_models_with_different_inputs_are_not_compared(cli: Cli, model: Path, tmp_path: Path) -> None:
    other = onnx.load(model)
    other.graph.input[0].name = "y"
    other.graph.node[0].input[0] = "y"
    onnx.save(other, tmp_path / "other.onnx")
    said = cli("bench", model, tmp_path / "other.onnx", *SHORT)
    assert said.code == 1
    assert "model 2 expected to take the inputs of the first" in said.error


def test_a_fixed_batch_is_kept(cli: Cli, model: Path, tmp_path: Path) -> None:
    fixed = onnx.load(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(fixed, tmp_path / "fixed.onnx")
    said = document(cli("bench", tmp_path / "fixed.onnx", *SHORT, "--json"))
    assert said["batches"][0]["input_shapes"] == {"x": [2, 3, 6, 6]}
    np.savez(tmp_path / "data.npz", x=np.zeros((5, 3, 6, 6), np.float32))
    said = document(cli("bench", tmp_path / "fixed.onnx", *SHORT, "--data", tmp_path / "data.npz", "--json"))
    assert said["batches"][0]["input_shapes"] == {"x": [2, 3, 6, 6]}
    assert "dynamic first axis" in cli("bench", tmp_path / "fixed.onnx", "--batch", 3).error


FOLDED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[N, T, 6] x) => (float[1, b, 6] y) <int64[3] to = {1, 20, 6}> { r = Reshape(x, to) y = Relu(r) }"""


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "refuses the inputs made up for it: Reshape: The input tensor cannot be reshaped"),
        (["--batch", 2, "--input-shapes", "x:1,20,6"], "a batch of 2 expected to run, the model refuses it: Reshape: "),
        (["--batch", 2, "--data"], "a batch of 2 expected to run, the model refuses it: Reshape: "),
    ],
)
def test_a_refusal_is_the_network_s_own(cli: Cli, tmp_path: Path, words: list[Any], message: str) -> None:
    path, data = tmp_path / "folded.onnx", tmp_path / "data.npz"
    onnx.save(onnx.parser.parse_model(FOLDED), path)
    np.savez(data, x=np.zeros((3, 20, 6), np.float32))
    refused = cli("bench", path, *words, *([data] if "--data" in words else []))
    assert (refused.code, message in refused.error) == (1, True)
    assert "--input-shapes" in refused.error or "--data" in words
    assert "leave --batch out" in refused.error or not words
    for accepted in (["--input-shapes", "x:1,20,6"], ["--data", data]):
        assert cli("bench", path, "--runs", 1, *accepted).code == 0
