"""Statistics and measured losses are taken once for the same model, data and options."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune import Options, Result, Target, prune
from onnx_subprune.calibration import Gram, Statistics
from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.network import kept_work
from onnx_subprune.network.adjustable import Adjustable
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.network.kept_work import data_digest, has_statistics, kept_losses, kept_statistics

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,6] x) => (float[N,3] y) { a = Gemm(x, w1) b = Relu(a) c = Gemm(b, w2) d = Relu(c) y = Gemm(d, w3) }"""
DATA = {"x": np.random.default_rng(1).standard_normal((80, 6)).astype(np.float32)}
OPTIONS = Options(Target("macs", 0.6), threads=1, batch_size=16)


def network() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(TEXT)
    for name, shape in {"w1": (6, 16), "w2": (16, 16), "w3": (16, 3)}.items():
        weights = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weights, name))
    return model


@pytest.fixture
def calibrations(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the calibrations that were made since, and the networks that were run to measure losses."""
    made: list[int] = []
    pipeline = import_module("onnx_subprune.pipeline")
    take = pipeline.pruning_statistics

    def counted(*arguments: Any) -> Statistics:
        made.append(1)
        return take(*arguments)  # type: ignore[no-any-return]

    monkeypatch.setattr(pipeline, "pruning_statistics", counted)
    return made


@pytest.fixture
def probes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    run: list[int] = []
    without = Adjustable.without

    def counted(*arguments: Any) -> Any:
        run.append(1)
        return without(*arguments)

    monkeypatch.setattr(Adjustable, "without", counted)
    return run


def _bytes(result: Result) -> bytes:
    return result.model.SerializeToString(deterministic=True)


def test_another_target_starts_from_what_was_measured(calibrations: list[int], probes: list[int]) -> None:
    first = prune(network(), DATA, OPTIONS)
    measured = len(probes)
    again = prune(network(), DATA, OPTIONS)
    assert (calibrations, len(probes)) == ([1], measured)
    assert _bytes(first) == _bytes(again)
    prune(network(), DATA, Options(Target("macs", 0.8), threads=1, batch_size=16))
    assert (calibrations, len(probes)) == ([1], measured)


@pytest.mark.parametrize("changed", [{"seed": 1}, {"batch_size": 8}, {"samples": 64}, {"cache": False}])
def test_other_options_measure_anew_and_without_a_cache_all_is_as_with_it(
    calibrations: list[int], changed: Mapping[str, Any]
) -> None:
    first = prune(network(), DATA, OPTIONS)
    other = prune(network(), DATA, Options(Target("macs", 0.6), **{"threads": 1, "batch_size": 16, **changed}))
    assert calibrations == [1, 1]
    assert "cache" not in changed or _bytes(first) == _bytes(other)


def test_a_run_that_breaks_off_keeps_what_it_has_measured(
    monkeypatch: pytest.MonkeyPatch, calibrations: list[int], probes: list[int]
) -> None:
    whole = prune(network(), DATA, Options(Target("macs", 0.6), threads=1, batch_size=16, cache=False))
    measured = len(probes)
    probes.clear()
    between = OutputDistance.between

    def broken(compared: Any) -> float:
        if len(probes) > 2:
            raise KeyboardInterrupt
        return between(compared)

    with monkeypatch.context() as patched:
        patched.setattr(OutputDistance, "between", staticmethod(broken))
        with pytest.raises(KeyboardInterrupt):
            prune(network(), DATA, OPTIONS)
    probes.clear()
    resumed = prune(network(), DATA, OPTIONS)
    assert len(calibrations) == 2
    assert 0 < len(probes) < measured
    assert _bytes(resumed) == _bytes(whole)


def _statistics(size: int = 2) -> Statistics:
    gram = Gram(4, 4 * np.eye(size)[None])
    return Statistics({"x": gram}, 4, "none")


@pytest.fixture
def analysis() -> Analysis:
    return analyse(network())


def _kept(analysis: Analysis, number: int, take: Callable[[], Statistics]) -> Statistics:
    return kept_statistics(analysis, {"x": np.full(3, number)}, OPTIONS, take)


def test_a_damaged_file_is_taken_anew(analysis: Analysis, measurements: Path) -> None:
    _kept(analysis, 0, _statistics)
    (path,) = measurements.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-3])
    assert _kept(analysis, 0, lambda: _statistics(3)).grams["x"].features == 2
    assert _kept(analysis, 0, _statistics).grams["x"].features == 2


def test_the_oldest_statistics_go_where_there_are_too_many(
    analysis: Analysis, measurements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _kept(analysis, 0, lambda: _statistics(20))
    (first,) = measurements.glob("*.safetensors")
    monkeypatch.setattr(kept_work, "MOST_BYTES", int(2.5 * first.stat().st_size))
    os.utime(first, ns=(0, 0))
    for number in (1, 2):
        _kept(analysis, number, lambda: _statistics(20))
    assert len(list(measurements.glob("*.safetensors"))) == 2
    assert not first.exists()
    _kept(analysis, 3, lambda: _statistics(100))
    assert all(path.stat().st_size < 10_000 for path in measurements.glob("*.safetensors"))


def test_a_folder_that_cannot_be_written_is_no_error(
    analysis: Analysis, measurements: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measurements.parent.mkdir(parents=True, exist_ok=True)
    blocked = measurements.with_name("file")
    blocked.write_text("")
    monkeypatch.setenv("ONNX_SUBPRUNE_CACHE", str(blocked / "below"))
    assert _kept(analysis, 0, _statistics).samples == 4


def test_data_are_known_by_content_and_files_by_their_facts(tmp_path: Path) -> None:
    ones, twos = np.ones(3, np.float32), np.full(3, 2, np.float32)
    assert data_digest({"x": ones}) == data_digest({"x": ones.copy()}) != data_digest({"x": twos})
    assert data_digest({"x": ones}) != data_digest({"y": ones})
    assert data_digest(ones) is not None
    folder = tmp_path / "data"
    folder.mkdir()
    np.save(folder / "a.npy", ones)
    before = data_digest(str(folder))
    assert before == data_digest(folder) is not None
    np.save(folder / "b.npy", twos)
    assert data_digest(folder) != before
    os.utime(folder / "b.npy", ns=(0, 0))
    assert len({data_digest(folder), data_digest(folder / "a.npy"), before}) == 3


@pytest.mark.parametrize("data", [None, "script.py:samples", iter(()), [1], {"x": [1]}, np.array([None])])
def test_nothing_is_kept_of_data_that_may_change(analysis: Analysis, data: Any, measurements: Path) -> None:
    assert data_digest(data) is None
    assert kept_losses(analysis, data, _statistics(), OPTIONS) is None
    kept_statistics(analysis, data, OPTIONS, _statistics)
    assert not list(measurements.glob("*"))


def test_whether_there_are_statistics_is_known_before_they_are_taken(analysis: Analysis) -> None:
    assert not has_statistics(analysis, DATA, OPTIONS)
    prune(network(), DATA, OPTIONS)
    assert has_statistics(analysis, DATA, OPTIONS)
    assert not has_statistics(analysis, DATA, replace(OPTIONS, cache=False))
    assert not has_statistics(analysis, DATA, replace(OPTIONS, samples=8))
