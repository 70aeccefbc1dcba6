"""Every command on the small files that stand for what people deploy: each ends with a result or one line of reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_faults import run_command
from try_commands import RUNS, Files, try_network, write_inputs

from onnx_subprune.model import load_model

NAMES = (
    "arcface_ir3", "argmax_seg", "fp16_bn", "genai_gqa", "merged_decoder", "nms", "predicted_length", "query_key_group",
    "random_noise", "rvm", "tiny_probability", "topk", "weights_in_if",
)  # fmt: skip
ASKED = {"tiny_probability": ("--target", "params=0.8", "--prune-normalised")}
# Calibration data made up, where the file comes without.
SHAPES = {"query_key_group": {"x": (2, 3, 16, 16)}}
# Each in the form that the other does not have; all other cases, and exact recovery, are among the slow tests.
EVERYDAY = {"genai_gqa": "json", "predicted_length": "text", "query_key_group": "json", "rvm": "text"}


@pytest.fixture(scope="session")
def cases(data_dir: Path) -> Path:
    """Return the folder of small files that stand for what people deploy, beside the real data."""
    folder = data_dir.parent / "cases"
    if not folder.is_dir():
        pytest.skip(f"CASES MISSING: expected them at {folder}; these tests did not run")
    return folder


def files_of(name: str, cases: Path, folder: Path) -> Files:
    model, data = cases / f"{name}.onnx", cases / f"{name}.npz"
    if name in SHAPES:
        data = folder / "data"
        write_inputs(load_model(model), SHAPES[name], data, 8)
    return Files(model, data, folder, ASKED.get(name, ("--target", "macs=0.7")))


def test_no_case_is_left_out(cases: Path) -> None:
    assert sorted(NAMES) == sorted(path.stem for path in cases.glob("*.onnx"))


@pytest.mark.parametrize("name", NAMES)
def test_every_case_is_shown(name: str, cases: Path, tmp_path: Path) -> None:
    runs = [run for run in RUNS if run[0] == "inspect"]
    attempts = list(try_network(name, files_of(name, cases, tmp_path), runs))
    assert [(attempt.code, attempt.fault) for attempt in attempts] == [(0, "")] * 2


@pytest.mark.parametrize("name", EVERYDAY)
def test_commands_end_as_they_should(name: str, cases: Path, tmp_path: Path) -> None:
    runs = [run for run in RUNS if run[1] == EVERYDAY[name] and run[0] not in ("inspect", "prune balanced")]
    attempts = list(try_network(name, files_of(name, cases, tmp_path), runs))
    assert not [str(attempt) for attempt in attempts if attempt.fault]
    assert {attempt.command for attempt in attempts if attempt.code == 0} >= {"prune fast", "apply", "eval", "bench"}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_all_commands_end_as_they_should(name: str, cases: Path, tmp_path: Path) -> None:
    attempts = list(try_network(name, files_of(name, cases, tmp_path)))
    assert not [str(attempt) for attempt in attempts if attempt.fault]


def test_a_group_that_a_product_alone_reads_is_shown_with_it(cases: Path, tmp_path: Path) -> None:
    model, page, data = cases / "query_key_group.onnx", tmp_path / "report.html", tmp_path / "report.json"
    table = run_command(["inspect", model, "--report", page])
    printed = run_command(["inspect", model, "--json", "--report", data])
    assert (table.code, printed.code) == (0, 0)
    document = json.loads(printed.out)
    assert json.loads(data.read_text(encoding="utf-8")) == document
    (pairs,) = (group for group in document["groups"] if group["contractions"])
    assert not pairs["consumers"]
    (product,) = pairs["contractions"]
    for text in (table.out, page.read_text(encoding="utf-8").replace("<wbr>", "")):
        assert product in text
