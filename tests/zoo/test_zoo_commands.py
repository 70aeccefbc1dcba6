"""Every command on graphs as exporters wrote them: it ends with a result or with one line that says why not."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import try_commands
from try_commands import COMMANDS, FORMS, RUNS, read_attempts, try_network, zoo_files

from onnx_subprune.evaluate import Pace
from onnx_subprune.model import load_model, open_session, run

ZOO = Path(__file__).resolve().parent
DOCS = ZOO.parents[1] / "docs"
NAMES = [row["name"] for row in json.loads((ZOO / "zoo.json").read_text(encoding="utf-8"))]
# One of each family, the exporters mixed; all others are among the slow tests.
EVERYDAY = (
    "albert_dynamo18", "option_a_resnet_ts17", "grouped_attention_dynamo23", "gan_generator_ts17", "bart_ts17",
    "tcn_ts17", "vit_dynamo18", "c3d_ts17", "clip_ort17", "crnn_ts17", "fcn_dynamo18", "denoiser_ts17",
    "yolo_decoded_dynamo18", "keras_mlp_tf17", "gcn_dynamo18", "lstm_seq2seq_ts17", "hourglass_ts17",
    "pointnet_dynamo18", "siamese_ts17", "text_cnn_dynamo18",
)  # fmt: skip
# Of these exact recovery, which takes seconds, and the replay of its plan are among the slow tests.
WIDE = ("bart_ts17", "clip_ort17", "yolo_decoded_dynamo18")


def everyday_runs(name: str) -> list[tuple[str, str]]:
    """Return every command in one form, tables and pages for one network, data for the next."""
    form = FORMS[EVERYDAY.index(name) % 2]
    forms = {command: form if (command, form) in RUNS else FORMS[1] for command in COMMANDS}
    return [run for run in forms.items() if name not in WIDE or run[0] not in ("prune balanced", "apply")]


@pytest.fixture(autouse=True)
def hurried_timing(brief_timing: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reports time networks for one round or two."""
    comparison = import_module("onnx_subprune.evaluate.comparison")
    monkeypatch.setattr(comparison, "_PACE", Pace(precision=0.5, most_seconds=0.02, rounds=1))


def test_every_family_is_in_the_everyday_run(entries: dict[str, Any]) -> None:
    families = {entry.family for entry in entries.values()}
    assert sorted(entries[name].family for name in EVERYDAY) == sorted(families)
    assert {run for name in EVERYDAY for run in everyday_runs(name)} == set(RUNS)


@pytest.mark.parametrize("name", EVERYDAY)
def test_commands_end_as_they_should(name: str, entries: dict[str, Any], tmp_path: Path) -> None:
    runs, files = everyday_runs(name), zoo_files(entries[name], tmp_path, batches=3)
    attempts = list(try_network(name, files, runs))
    assert not [str(attempt) for attempt in attempts if attempt.fault]
    assert {attempt.command for attempt in attempts if attempt.code == 0} >= {command for command, _ in runs} - {
        "factorise"
    }
    # What came out runs at another size too.
    session = open_session(load_model(files.pruned), threads=1)
    for which in (0, 1):
        for output, value in run(session, entries[name].feeds(which, seed=9)).items():
            assert np.isfinite(value).all(), output


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_commands_end_as_they_should_on_all(name: str, entries: dict[str, Any], tmp_path: Path) -> None:
    attempts = list(try_network(name, zoo_files(entries[name], tmp_path)))
    assert not [str(attempt) for attempt in attempts if attempt.fault]


@pytest.mark.slow
@pytest.mark.skipif(not try_commands.OUT.exists(), reason="all commands were not tried yet: run tools/try_commands.py")
def test_the_page_says_how_commands_end(zoo_table: ModuleType) -> None:
    attempts = read_attempts(try_commands.OUT)
    assert {attempt.network for attempt in attempts} == set(NAMES)
    assert not [str(attempt) for attempt in attempts if attempt.fault]
    page = (DOCS / "zoo.md").read_text(encoding="utf-8")
    assert zoo_table.command_table(attempts) in page
    assert zoo_table.refusals(attempts) in page
