"""The attempts of every command: their table is read as it was written, and a fault is seen."""

from __future__ import annotations

import importlib
from pathlib import Path

import onnx
import pytest
import try_commands
from command_faults import Printed
from try_commands import RUNS, Attempt, Files, read_attempts, try_network, write_attempts
from zoo import read_entries

ENTRIES = {entry.name: entry for entry in read_entries(try_commands.ZOO / "zoo.json")}


def test_attempts_are_read_as_they_were_written(tmp_path: Path) -> None:
    attempts = [
        Attempt("a", "inspect", "text", 0, 0.4),
        Attempt("a", "prune fast", "json", 3, 1.0, said="error: expected macs=0.7, found more; ask for more"),
        Attempt("b", "inspect", "text", 0, 2.5, fault='no JSON: "x", y'),
    ]
    write_attempts(reversed(attempts), tmp_path / "tried.csv")
    assert read_attempts(tmp_path / "tried.csv") == attempts
    assert len((tmp_path / "tried.csv").read_text(encoding="utf-8").splitlines()) == 3, "a line for each network"


def test_inputs_are_made_up_at_the_sizes_of_the_network(tmp_path: Path) -> None:
    files = try_commands.zoo_files(ENTRIES["gru_classifier_ts17"], tmp_path, batches=2)
    onnx.checker.check_model(onnx.load(files.model))
    batches = sorted(files.data.glob("*/*.pb"))
    assert len(batches) == 2
    first, second = (onnx.TensorProto.FromString(path.read_bytes()) for path in batches)
    assert list(first.dims) == list(ENTRIES["gru_classifier_ts17"].shapes(0)[first.name])
    assert first.raw_data != second.raw_data


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Return the command lines that are run; none of them does anything, and pruning is out of reach but for 0.9."""
    lines: list[list[str]] = []

    def run_command(words: list[object]) -> Printed:
        lines.append([str(word) for word in words])
        if words[0] == "prune" and "macs=0.9000" not in lines[-1]:
            return Printed(3, "", "error: out of reach; ask for macs=0.9000 or more\n", 0.1)
        for option in ("--plan", "--report"):
            if option in words:
                Path(str(words[words.index(option) + 1])).write_text("{}")
        if words[0] in ("prune", "apply", "factorise"):
            Path(lines[-1][3 if words[0] == "apply" else 2]).write_bytes(words[0].encode())
        return Printed(0, "{}", "", 0.1)

    monkeypatch.setattr(try_commands, "run_command", run_command)
    return lines


def test_every_command_is_tried_on_what_the_others_wrote(tmp_path: Path, said: list[list[str]]) -> None:
    attempts = list(try_network("net", Files(tmp_path / "dense.onnx", tmp_path / "data", tmp_path)))
    assert [(attempt.command, attempt.form) for attempt in attempts] == list(RUNS)
    lines = [line for line in said if line[0] != "prune"]
    assert sum(line[0] == "prune" for line in said) == 2 * 3, "once more with what is in reach"
    assert [line[0] for line in lines] == [command for command, _ in RUNS if not command.startswith("prune")]
    assert sum("--json" in line for line in lines) == len(lines) / 2
    pruned = str(tmp_path / "prune balanced json.onnx")
    assert all(pruned in line for line in lines if line[0] in ("eval", "bench"))
    faults = {attempt.command: attempt.fault for attempt in attempts if attempt.fault}
    assert faults == {"apply": "other bytes than those of prune balanced json.onnx"}


def test_without_a_plan_there_is_nothing_to_apply(tmp_path: Path, said: list[list[str]]) -> None:
    files = Files(tmp_path / "dense.onnx", tmp_path / "data", tmp_path)
    runs = [run for run in RUNS if not run[0].startswith("prune")]
    attempts = list(try_network("net", files, runs))
    assert {attempt.command for attempt in attempts} == {"inspect", "eval", "bench", "factorise"}
    assert all(str(files.model) in line[2] for line in said if line[0] in ("eval", "bench"))


def test_reports_time_networks_for_a_moment_only(monkeypatch: pytest.MonkeyPatch) -> None:
    comparison = importlib.import_module("onnx_subprune.evaluate.comparison")
    monkeypatch.setattr(comparison, "_PACE", None)
    monkeypatch.setattr(try_commands.warnings, "simplefilter", lambda _: None)
    monkeypatch.setattr(try_commands.warnings, "filterwarnings", lambda *_, **__: None)
    try_commands.prepare()
    assert comparison._PACE.most_seconds < 1
