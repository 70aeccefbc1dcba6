"""`prune`: how words become options, what is checked before the long work, and what survives a failure."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from onnx_subprune import pipeline
from onnx_subprune.calibration import Statistics
from onnx_subprune.errors import TargetError
from onnx_subprune.options import EFFORTS, Options

Cli = Callable[..., Any]
FAST = ("--effort", "fast", "--threads", 1)


class Reached(Exception):  # noqa: N818 - no error: the test has seen enough
    """The long work would begin."""


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Options, dict[str, Any]]]:
    """The options and arguments with which the long work was asked for, which is not done."""
    calls: list[tuple[Options, dict[str, Any]]] = []

    def prune(model: Path, calib: str | None, options: Options, **others: Any) -> None:
        calls.append((options, {"model": model, "calib": calib, **others}))
        raise Reached

    monkeypatch.setattr(pipeline, "prune", prune)
    return calls


@pytest.mark.parametrize(("words", "expected"), [
    ((), {"round_to": None, "seed": 0, "ignore": (), "threads": None}),
    (("--round-to", "auto"), {"round_to": "auto"}),
    (("--round-to", "8"), {"round_to": 8}),
    (("--ignore", "head", "--ignore", "w*"), {"ignore": ("head", "w*")}),
    (("--only", "first"), {"only": ("first",)}),
    (("--samples", "7", "--seed", "3", "--batch-size", "2"), {"samples": 7, "seed": 3, "batch_size": 2}),
    (("--effort", "fast"), dict(EFFORTS["fast"])),
    (("--effort", "fast", "--allocation", "measured"), {**EFFORTS["fast"], "allocation": "measured"}),
    (("--effort", "best"), dict(EFFORTS["best"])),
    (("--effort", "best", "--sweeps", "5"), {**EFFORTS["best"], "sweeps": 5}),
    (("--input-shapes", "x:1,3,6,6"), {"input_shapes": (("x", (1, 3, 6, 6)),)}),
    (("--providers", "cuda,cpu"), {"providers": ("cuda", "cpu")}),
    (("--time-limit", "5m"), {"time_limit": 300.0}),
    (("--latency-batch", "4", "--remeasure"), {"latency_batch": 4, "remeasure": True}),
])  # fmt: skip
def test_words_become_options(
    cli: Cli, model: Path, calib: Path, tmp_path: Path, asked: list[Any], words: tuple[str, ...], expected: Any
) -> None:
    cli("prune", model, tmp_path / "o.onnx", "--calib", calib, "--target", "macs=0.5", *words)
    ((options, others),) = asked
    assert str(options.target) == "macs=0.5"
    assert {name: getattr(options, name) for name in expected} == expected
    assert (others["model"], others["calib"], others["statistics"]) == (model, str(calib), None)
    assert others["evaluation"] is None


def test_labelled_data_are_opened_for_the_search(
    cli: Cli, model: Path, calib: Path, labelled: Path, tmp_path: Path, asked: list[Any]
) -> None:
    cli("prune", model, tmp_path / "o.onnx", "--calib", calib, "--target", "drop=0.01", "--data", labelled)
    ((options, others),) = asked
    assert options.target.kind == "drop"
    assert others["evaluation"].source == str(labelled)


@pytest.mark.parametrize(("words", "fragment"), [
    (("--dry-run", "--plan", "p.json"), "expected --dry-run to write nothing, found --plan too; leave one of them out"),
    (("--dry-run", "--report", "r.html"), "found --report too"),
    (("--dry-run", "--statistics", "s.safetensors"), "found --statistics too"),
    (("o.onnx", "--plan", "o.onnx"), "expected --plan to be another file than OUT"),
    (("o.onnx", "--report", "r.pdf"), "expected a report FILE.html or FILE.json, found 'r.pdf'"),
    (("gone/o.onnx",), "gone"),
    (("o.onnx", "--round-to", "often"), "found 'often'"),
    (("o.onnx", "--effort", "huge"), "huge"),
    (("o.onnx", "--cost", "macs"), "leave --cost out"),
    (("o.onnx", "--input-shapes", "x"), "x"),
])  # fmt: skip
def test_what_cannot_be_is_refused_before_the_long_work(
    cli: Cli, model: Path, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: list[Any],
    words: tuple[str, ...], fragment: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    outcome = cli("prune", model, *words, "--calib", calib, "--target", "macs=0.5")
    assert outcome.code == 1
    assert fragment in outcome.error
    assert asked == []
    assert sorted(tmp_path.iterdir()) == before


def test_out_may_be_left_out_of_a_dry_run_alone(cli: Cli, model: Path, calib: Path, asked: list[Any]) -> None:
    outcome = cli("prune", model, "--calib", calib, "--target", "macs=0.5")
    assert outcome.code == 2
    assert "OUT" in outcome.err
    assert asked == []
    cli("prune", model, "--calib", calib, "--target", "macs=0.5", "--dry-run")
    assert len(asked) == 1


def test_statistics_outlive_a_target_out_of_reach(
    cli: Cli, model: Path, calib: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They took long: what fails later must not cost them, and they serve a second try."""

    def unreachable(*_: Any, **others: Any) -> None:
        assert isinstance(others["statistics"], Statistics)
        raise TargetError("expected a target in reach, found macs=0.001; ask for macs=0.2", 0.2)

    path = tmp_path / "s.safetensors"
    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "prune", unreachable)
        outcome = cli(
            "prune", model, tmp_path / "o.onnx", "--calib", calib, "--target", "macs=0.001", "--statistics", path,
            *FAST,
        )  # fmt: skip
    assert outcome.code == 3
    assert outcome.error.endswith("ask for macs=0.2")
    assert not (tmp_path / "o.onnx").exists()
    assert Statistics.load(path).samples == 256
    again = cli("prune", model, tmp_path / "o.onnx", "--target", "units=0.5", "--statistics", path, *FAST)
    assert again.code == 0, again.err
    assert (tmp_path / "o.onnx").exists()


def test_a_fast_pruning_halves_every_group(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    out, plan = tmp_path / "o.onnx", tmp_path / "plan.json"
    words = (model, out, "--calib", calib, "--target", "units=0.5", "--plan", plan, "--json", *FAST)
    outcome = cli("prune", *words)
    assert outcome.code == 0, outcome.err
    document = json.loads(outcome.out)
    kept = {group["name"]: (group["units"], group["kept"]) for group in document["groups"]}
    assert sorted(kept.values()) == [(8, 4), (12, 6)]
    pruned = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(out).graph.initializer}
    assert {name: shape for name, shape in pruned.items() if name in ("w1", "w2", "w3")} == {
        "w1": (4, 3, 3, 3),
        "w2": (6, 4, 3, 3),
        "w3": (4, 6),
    }
    # 36 positions of both convolutions, padded to their size, and the head once.
    assert document["dense"]["macs"] == 36 * (8 * 3 * 9 + 12 * 8 * 9) + 12 * 4
    assert document["pruned"]["macs"] == 36 * (4 * 3 * 9 + 6 * 4 * 9) + 6 * 4
    assert document["command"][:3] == ["onnx-subprune", "prune", str(model)]


def test_a_limit_of_time_is_kept_by_leaving_out_and_told(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    """No run takes a millisecond: everything is left out, and the run is done all the same."""
    words = ("prune", model, tmp_path / "out.onnx", "--calib", calib, "--json", "--no-cache", "--target", "macs=0.5")
    outcome = cli(*words, "--time-limit", "0.001s")
    assert outcome.code == 0
    assert "note: expected to take " in outcome.err
    assert "nothing more to leave out" in outcome.err
    document = json.loads(outcome.out)
    course, options = document["forecast"], document["options"]
    assert (options["recovery"], options["time_limit"]) == ("channel", 0.001)
    assert "recovery channel in the place of exact" in course["left_out"]
    assert {"reading the model", "forecasting", "calibrating", "ranking units"} <= set(course["phases"])
    assert all(phase["taken_seconds"] > 0 for phase in course["phases"].values())
    assert course["taken_seconds"] >= sum(phase["taken_seconds"] for phase in course["phases"].values()) * 0.999
    quiet = cli(*words, "--time-limit", "0.001s", "--quiet")
    assert quiet.err == ""


def test_a_short_run_says_nothing_of_its_time(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    outcome = cli("prune", model, tmp_path / "out.onnx", "--calib", calib, "--target", "macs=0.5", "--json")
    assert "note: " not in outcome.err
    assert "forecast" not in json.loads(outcome.out)


def test_fewer_samples_of_a_limit_are_those_of_the_option(cli: Cli, model: Path, calib: Path, tmp_path: Path) -> None:
    words = ("--calib", calib, "--target", "macs=0.5", "--json", "--no-cache")
    limited = cli("prune", model, tmp_path / "limited.onnx", *words, "--time-limit", "0.001s")
    options = json.loads(limited.out)["options"]
    assert options["samples"] == 128
    chosen = ("--samples", 128, "--recovery", "channel")
    given = cli("prune", model, tmp_path / "given.onnx", *words, *chosen)
    assert given.code == 0
    calibrated = [json.loads(outcome.out)["calibration"]["samples"] for outcome in (limited, given)]
    assert calibrated == [128, 128]
