"""The low-rank baseline on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from onnx_subprune.calibration import Statistics
from onnx_subprune.model import load_model

Cli = Callable[..., object]


def test_factorise_writes_a_model_that_is_as_it_says(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    out, report, statistics = tmp_path / "out.onnx", tmp_path / "report.json", tmp_path / "s.safetensors"
    words = ("--calib", calib, "--target", "macs=0.5", "--report", report, "--statistics", statistics, "--json")
    found = cli("factorise", model, out, *words)
    assert found.code == 0, found.err
    said = json.loads(found.out)
    assert json.loads(report.read_text()) == said
    assert said["format"] == "onnx_subprune.factorise/1"
    assert said["pruned"]["macs"] <= 0.5 * said["dense"]["macs"]
    assert said["calibration"] == {"source": str(calib), "samples": 256, "taps": 3}
    assert Statistics.load(statistics).samples == 256
    ranks = {layer["name"]: layer["rank"] for layer in said["layers"]}
    shapes = {tensor.name: tuple(tensor.dims) for tensor in load_model(out).graph.initializer}
    assert shapes["w2_first"] == (ranks["second"], 8, 3, 3)
    assert shapes["w2_second"] == (12, ranks["second"], 1, 1)
    again = tmp_path / "again.onnx"
    assert cli("factorise", model, again, "--statistics", statistics, "--target", "macs=0.5").code == 0
    assert again.read_bytes() == out.read_bytes()


def test_factorise_shows_ranks(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    said = cli("factorise", model, tmp_path / "out.onnx", "--calib", calib, "--target", "units=0.5")
    lines = [line.split() for line in said.out.splitlines()]
    assert said.code == 0
    assert ["second", "72", "x", "12", "5"] in [line[:5] for line in lines]
    assert any(line[:1] == ["Conv"] and line[1:3] == ["2", "4"] for line in lines)


def test_a_target_out_of_reach_writes_nothing(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    said = cli("factorise", model, out, "--calib", calib, "--target", "macs=0.001")
    assert said.code != 0
    assert "layers of rank 1 leave" in said.error
    assert not out.exists()
