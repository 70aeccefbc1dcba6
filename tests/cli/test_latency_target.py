"""`--target latency=F` and `--round-to auto` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_subprune.demo import load_demo
from onnx_subprune.latency import FAMILIES, Decision
from onnx_subprune.model import load_model
from onnx_subprune.planning import width_multiples

Cli = Callable[..., object]


@pytest.fixture
def wide() -> Path:
    """A network that is large enough for its time to depend on its widths."""
    return Path(load_demo().model_path)


@pytest.fixture
def known_multiples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Multiples that pay on a machine that needs no measuring."""
    fours = {family: Decision(4, sure=True) for family in FAMILIES}
    monkeypatch.setattr(width_multiples, "measured_multiples", lambda *_, **__: fours)


def test_a_real_machine_says_what_it_predicted_and_measured(
    cli: Cli, wide: Path, tmp_path: Path, measurements: Path
) -> None:
    np.savez(tmp_path / "calib.npz", **load_demo().calibration)
    words = ("--calib", tmp_path / "calib.npz", "--effort", "fast", "--threads", 1, "--samples", 64)
    out = tmp_path / "out.onnx"
    # So lenient that any machine meets it.
    said = cli("prune", wide, out, *words, "--target", "latency=0.98", "--latency-batch", 4, "--json")
    assert said.code == 0, said.err
    latency = json.loads(said.out)["latency"]
    assert latency["shapes"] == {"image": [4, 1, 28, 28]}
    assert latency["predicted"] > 0
    assert latency["measured"] > 0
    assert latency["dense_ms"] > 0
    assert latency["threads"] == 1
    assert set(latency["multiples"]) == {"conv", "pointwise", "depthwise", "matmul"}
    assert {path.name.split("-")[0] for path in measurements.iterdir()} == {"latency", "multiples", "statistics"}
    onnx.checker.check_model(load_model(out))


def test_out_of_reach_is_exit_code_3_and_nothing_is_written(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    words = ("--effort", "fast", "--threads", 1, "--target", "latency=0.001")
    said = cli("prune", model, out, "--calib", calib, *words)
    assert said.code == 3
    assert "ask for latency=" in said.error
    assert not out.exists()


@pytest.mark.usefixtures("known_multiples")
def test_round_to_takes_a_number_or_auto(cli: Cli, model: Path, calib: Path) -> None:
    words = ("prune", model, "--dry-run", "--calib", calib, "--effort", "fast", "--target", "units=0.5")
    assert cli(*words, "--round-to", "auto", "--threads", 1).code == 0
    for wrong in ("wide", "0", "-8", "1.5", ""):
        said = cli(*words, "--round-to", wrong)
        assert said.code == 1
        assert "round-to" in said.error


def test_widths_that_may_be_slow_are_told_of_where_nobody_measured(cli: Cli, wide: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", **load_demo().calibration)
    words = ("prune", wide, "--dry-run", "--calib", tmp_path / "calib.npz", "--effort", "fast", "--samples", 64)
    hint = "no multiples of 8"
    assert hint in cli(*words, "--target", "macs=0.7", "--round-to", 1).out
    assert hint not in cli(*words, "--target", "macs=0.7").out
    assert hint not in cli(*words, "--target", "macs=0.7", "--round-to", 1, "--latency", "--threads", 1).out


def test_a_fixed_batch_is_refused_before_anything_is_calibrated(
    cli: Cli, model: Path, calib: Path, tmp_path: Path
) -> None:
    fixed = onnx.load(model)
    fixed.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 2
    onnx.save(fixed, tmp_path / "fixed.onnx")
    words = ("--calib", calib, "--target", "latency=0.7", "--latency-batch", 8, "--dry-run", "--batch-size", 2)
    assert "leave --latency-batch out" in cli("prune", tmp_path / "fixed.onnx", *words).error


@pytest.mark.usefixtures("known_multiples")
def test_doctor_says_which_multiples_are_known_here(cli: Cli, model: Path, calib: Path) -> None:
    assert json.loads(cli("doctor", "--json").out)["multiples"] == {}
    words = ("prune", model, "--dry-run", "--calib", calib, "--effort", "fast", "--target", "units=0.5")
    assert cli(*words, "--round-to", "auto", "--threads", 1).code == 0
    (known,) = json.loads(cli("doctor", "--json").out)["multiples"].items()
    assert known[0] == "cpu, float32, 1 threads"
    assert set(known[1]) == {"conv", "pointwise", "depthwise", "matmul"}
    assert f"conv {known[1]['conv']}, pointwise" in cli("doctor").out


def test_a_factorisation_knows_no_latency(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    words = ("factorise", model, tmp_path / "out.onnx", "--calib", calib)
    assert "latency=0.5" in cli(*words, "--target", "latency=0.5").error
