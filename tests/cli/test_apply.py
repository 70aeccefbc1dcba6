"""`apply`: a plan replayed, what it needs for that, and what it refuses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnx_subprune.model import fingerprint, load_model
from onnx_subprune.options import RecoveryOptions
from onnx_subprune.plan import Plan, PlannedGroup

Cli = Callable[..., Any]


@pytest.fixture
def planned(cli: Cli, model: Path, tmp_path: Path) -> Callable[..., Path]:
    """`planned(kept1, kept2, recovery=...)` writes a plan for the model of these tests."""
    names = [group["name"] for group in json.loads(cli("inspect", model, "--json").out)["groups"]]

    def write(
        first: tuple[int, ...] = (0, 2, 4, 6),
        second: tuple[int, ...] = (1, 3, 5),
        *,
        recovery: str = "none",
        sizes: tuple[int, int] = (8, 12),
        digest: str | None = None,
    ) -> Path:
        groups = tuple(
            PlannedGroup(name, size, kept) for name, size, kept in zip(names, sizes, (first, second), strict=True)
        )
        options = RecoveryOptions(recovery=recovery)
        Plan(digest or fingerprint(load_model(model)), "units=0.35", groups, options).save(tmp_path / "plan.json")
        return tmp_path / "plan.json"

    return write


def weights(path: Path) -> dict[str, Any]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}


def test_without_recovery_the_weights_that_stay_are_those_of_the_model(
    cli: Cli, model: Path, planned: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    outcome = cli("apply", planned(), model, out, "--json")
    assert outcome.code == 0, outcome.err
    dense, pruned = weights(model), weights(out)
    first, second = [0, 2, 4, 6], [1, 3, 5]
    assert (pruned["w1"] == dense["w1"][first]).all()
    assert (pruned["b1"] == dense["b1"][first]).all()
    assert (pruned["w2"] == dense["w2"][second][:, first]).all()
    assert (pruned["w3"] == dense["w3"][:, second]).all()
    assert (pruned["b3"] == dense["b3"]).all()
    document = json.loads(outcome.out)
    assert document["target"] == "units=0.35"
    assert document["calibration"] is None
    assert {group["kept"] for group in document["groups"]} == {4, 3}
    assert document["groups"][0]["curve"] is None


def test_recovery_changes_the_readers_and_not_the_makers(
    cli: Cli, model: Path, calib: Path, planned: Callable[..., Path], tmp_path: Path
) -> None:
    out = tmp_path / "out.onnx"
    outcome = cli("apply", planned(recovery="channel"), model, out, "--calib", calib, "--threads", 1)
    assert outcome.code == 0, outcome.err
    dense, pruned = weights(model), weights(out)
    assert (pruned["w1"] == dense["w1"][[0, 2, 4, 6]]).all()
    assert not (pruned["w3"] == dense["w3"][:, [1, 3, 5]]).all()
    assert pruned["w3"].shape == (4, 3)


def test_a_recovery_needs_data_or_statistics(
    cli: Cli, model: Path, planned: Callable[..., Path], tmp_path: Path
) -> None:
    outcome = cli("apply", planned(recovery="channel"), model, tmp_path / "out.onnx")
    assert outcome.code == 1
    assert outcome.error == (
        "error: expected calibration data or statistics, found neither; give --calib DATA or --statistics FILE"
    )
    assert not (tmp_path / "out.onnx").exists()


def test_statistics_that_are_not_there_are_named(
    cli: Cli, model: Path, planned: Callable[..., Path], tmp_path: Path
) -> None:
    gone = tmp_path / "gone.safetensors"
    outcome = cli("apply", planned(recovery="channel"), model, tmp_path / "out.onnx", "--statistics", gone)
    assert outcome.code == 1
    assert f"expected statistics at '{gone}', found no file; give --calib DATA to make it" in outcome.error


def test_statistics_of_the_data_are_saved_and_replay_to_the_same_bytes(
    cli: Cli, model: Path, calib: Path, planned: Callable[..., Path], tmp_path: Path
) -> None:
    plan, kept = planned(recovery="channel"), tmp_path / "s.safetensors"
    first, second = tmp_path / "a.onnx", tmp_path / "b.onnx"
    assert cli("apply", plan, model, first, "--calib", calib, "--statistics", kept, "--threads", 1).code == 0
    assert cli("apply", plan, model, second, "--statistics", kept, "--threads", 1).code == 0
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("options", [{"digest": "0" * 64}, {"sizes": (9, 12)}])
def test_a_plan_of_another_model_is_refused(
    cli: Cli, model: Path, planned: Callable[..., Path], tmp_path: Path, options: dict[str, Any]
) -> None:
    outcome = cli("apply", planned(**options), model, tmp_path / "out.onnx")
    assert outcome.code == 1
    assert outcome.error.startswith("error: ")
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("name", ["plan.json", "dense.onnx"])
def test_an_input_is_not_overwritten(
    cli: Cli, model: Path, planned: Callable[..., Path], tmp_path: Path, name: str
) -> None:
    plan = planned()
    before = (tmp_path / name).read_bytes()
    outcome = cli("apply", plan, model, tmp_path / name)
    assert outcome.code == 1
    assert "expected OUT to be another file than" in outcome.error
    assert (tmp_path / name).read_bytes() == before
