"""Parts of the work tried on a few samples: every figure is measured, nothing of the run changes."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import DataError
from onnx_subprune.network.inputs import prepare
from onnx_subprune.options import Options, Target
from onnx_subprune.planning import rehearsal
from onnx_subprune.planning.rehearsal import Rehearsal, made_up_curves, rehearse


def rehearsed(model: onnx.ModelProto, effort: str = "balanced") -> Rehearsal | None:
    options = Options.of_effort(effort, target=Target("macs", 0.7), threads=1, round_to=1)
    samples = {"x": np.random.default_rng(1).standard_normal((400, 6)).astype(np.float32)}
    analysis, dataset = prepare(model, samples, options)
    assert dataset is not None
    return rehearse(analysis, analysis.structure.prunable, dataset, options)


def test_every_part_takes_time(small_network: onnx.ModelProto) -> None:
    found = rehearsed(small_network)
    assert found is not None
    figures = asdict(found)
    assert all(value > 0 for name, value in figures.items() if name not in ("tapped_bytes", "before_calibrating"))
    # The widths that are read: 8 and 5 features with the row of ones, in double precision.
    assert found.gram_bytes == 8 * (9 * 9 + 6 * 6)
    assert found.tapped_bytes == (4 * (8 + 5), 4 * 8)
    assert found.passes == 1.0


def test_what_an_effort_does_not_do_is_not_tried(small_network: onnx.ModelProto) -> None:
    found = rehearsed(small_network, "fast")
    assert found is not None
    assert (found.probing, found.sharing) == (0.0, 0.0)


def test_a_twentieth_of_the_samples_is_read(small_network: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    original = rehearsal.take_statistics

    def counted(*arguments: Any) -> Any:
        statistics = original(*arguments)
        read.append(statistics.samples)
        return statistics

    monkeypatch.setattr(rehearsal, "take_statistics", counted)
    rehearsed(small_network)
    assert read == [24]


def test_a_part_that_fails_is_left_to_the_run(small_network: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: Any) -> Any:
        raise DataError("a sample expected, found none; give one")

    monkeypatch.setattr(rehearsal, "take_statistics", failing)
    assert rehearsed(small_network) is None


def test_made_up_curves_have_the_widths_of_the_run(small_network: onnx.ModelProto) -> None:
    options = Options(Target("macs", 0.7), round_to=2)
    analysis, _ = prepare(small_network, {"x": np.zeros((8, 6), np.float32)}, options)
    curves = made_up_curves(analysis, analysis.structure.prunable, options)
    assert [(curve.size, curve.round_to) for curve in curves] == [(8, 2), (5, 2)]
    # Nobody can do without either layer.
    assert [curve.minimum for curve in curves] == [1, 1]
    assert made_up_curves(analysis, [], replace(options, allocation="loss")) == []
