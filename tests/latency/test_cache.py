"""Measurements that are kept: found again by what they depend on, and never believed when they are not whole."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnx_subprune.latency import Record, cache_folder, machine


def test_what_was_saved_is_found_by_the_same_key_only(measurements: Path) -> None:
    record = Record("latency", {"model": "a", "threads": None})
    assert record.data == {}
    record.data = {"ratios": [0.5]}
    record.save()
    assert Record("latency", {"threads": None, "model": "a"}).data == {"ratios": [0.5]}
    assert Record("latency", {"model": "b", "threads": None}).data == {}
    assert Record("multiples", {"model": "a", "threads": None}).data == {}
    assert Record("latency", {"model": "a", "threads": None}, anew=True).data == {}
    assert [path.suffix for path in measurements.iterdir()] == [".json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "other"}', "\x00\xff"])
def test_a_damaged_file_is_told_of_and_not_believed(measurements: Path, text: str) -> None:
    record = Record("latency", {"model": "a"})
    record.save()
    (path,) = measurements.iterdir()
    path.write_text(text, encoding="utf-8")
    again = Record("latency", {"model": "a"})
    assert again.data == {}
    assert len(again.warnings) == 1
    assert "measured anew" in again.warnings[0]
    again.save()
    assert Record("latency", {"model": "a"}).warnings == []


def test_a_file_of_another_key_under_this_name_is_not_believed(measurements: Path) -> None:
    Record("latency", {"model": "a"}).save()
    (path,) = measurements.iterdir()
    held = json.loads(path.read_text(encoding="utf-8"))
    held["key"] = {"model": "b"}
    path.write_text(json.dumps(held), encoding="utf-8")
    assert Record("latency", {"model": "a"}).warnings


def test_a_digit_that_was_changed_is_found_out(measurements: Path) -> None:
    record = Record("losses", {"model": "a"})
    record.data = {"conv1": {3: 0.25}}
    record.save()
    (path,) = measurements.iterdir()
    assert Record("losses", {"model": "a"}).data == {"conv1": {"3": 0.25}}
    path.write_text(path.read_text(encoding="utf-8").replace("0.25", "0.35"), encoding="utf-8")
    again = Record("losses", {"model": "a"})
    assert (again.data, len(again.warnings)) == ({}, 1)
    assert "does not fit its checksum" in again.warnings[0]


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    monkeypatch.setenv("ONNX_SUBPRUNE_CACHE", str(tmp_path / "file"))
    Record("latency", {}).save()
    assert (tmp_path / "file").read_text(encoding="utf-8") == "in the way"


def test_the_folder_is_where_the_platform_wants_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ONNX_SUBPRUNE_CACHE")
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "onnx-subprune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "onnx-subprune"
    monkeypatch.setattr("sys.platform", "darwin")
    assert cache_folder() == Path.home() / "Library" / "Caches" / "onnx-subprune"


def test_a_machine_is_known_by_its_processor_runtime_and_threads() -> None:
    found = machine(("cpu",), 1)
    assert found["processor"]
    assert found["onnxruntime"]
    assert found != machine(("cpu",), 2)
    assert found != machine(("cuda",), 1)
    json.dumps(found)
