"""A folder of models becomes a table: what each gave, or why it gave nothing."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
import try_files
from try_files import Command, Trial

from onnx_subprune.cli import run

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,6] x) => (float[N,4] y) { a = Gemm(x, w1)  b = Relu(a)  y = Gemm(b, w2) }"""


def within(words: Sequence[str], limit: float) -> Command:
    """Run a command in this process."""
    assert limit > 0
    said, failed = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(failed):
        code = run([*words, "--json"])
    if code:
        return Command({}, failed.getvalue().splitlines()[-1], float("nan"))
    return Command(json.loads(said.getvalue()), None, 1.0)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of one model with fitting data and one whose data does not fit."""
    monkeypatch.setattr(try_files, "call", within)
    monkeypatch.setattr(try_files, "BENCH_SECONDS", 0.05)
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(TEXT)
    for name, shape in {"w1": (6, 16), "w2": (16, 4)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    for name, width in (("good", 6), ("unfit", 5)):
        onnx.save(model, tmp_path / f"{name}.onnx")
        for suffix in ("", ".held"):
            np.savez(tmp_path / f"{name}{suffix}.npz", x=rng.standard_normal((80, width)).astype(np.float32))
    return tmp_path


def test_every_model_gets_a_row_for_every_rounding(folder: Path) -> None:
    any_width, eights, *unfit = try_files.try_all(folder, [], [], 60)
    assert (any_width.name, any_width.round_to, eights.round_to) == ("good", 1, 8)
    for trial in (any_width, eights):
        assert trial.share == 1.0
        assert trial.macs is not None
        assert trial.macs <= 0.7
        assert trial.error is not None
        assert 0 < trial.error < 1
        assert all(speed is not None and speed > 0 for speed in trial.speed)
        assert trial.cost is not None
        assert trial.failure is None
    assert eights.macs == 0.5
    assert [trial.name for trial in unfit] == ["unfit", "unfit"]
    assert all(trial.failure is not None and "expected of shape" in trial.failure for trial in unfit)
    lines = try_files.table([any_width, eights, *unfit]).splitlines()
    assert len(lines) == 6
    assert len({line.count("|") for line in lines}) == 1
    assert lines[3].startswith("| good | 100% | x 8 | 0.50 |")


def test_figures_that_are_kept_are_not_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = try_files.try_all(folder, ["good"], [], 60)
    monkeypatch.setattr(try_files, "trials", lambda *_: [Trial("good", 1, failure="again")])
    kept = try_files.try_all(folder, ["good"], [], 60)
    assert [trial.error for trial in kept] == [trial.error for trial in first]
    (again,) = try_files.try_all(folder, ["good"], ["good"], 60)
    assert again.failure == "again"


def test_a_command_gives_its_document_or_says_why_it_failed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    good = try_files.call(["inspect", str(folder / "good.onnx")], 60)
    assert good.document["prunable_share"]["macs"] == 1.0
    assert good.seconds > 0
    missing = try_files.call(["inspect", str(folder / "none.onnx")], 60)
    assert missing.error is not None
    assert missing.error.startswith("error: model")
    stopped = try_files.call(["inspect", str(folder / "good.onnx")], 1)
    assert stopped.error == "stopped after 0 minutes"
