"""Models are written whole or not at all, the same model always to the same bytes."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextvars import Context
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune.errors import OutputError
from onnx_subprune.model import (
    atomic,
    check_writable,
    fingerprint,
    load_model,
    model_bytes,
    open_session,
    run,
    save_model,
    together,
)
from onnx_subprune.model.data_files import data_name

Saver = Callable[..., Path]


def outputs(source: onnx.ModelProto | Path) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(2, 20)).astype(np.float32)
    return run(open_session(source, threads=1), {"x": x})["y"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_large_model_goes_with_external_data(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_model(model, path, threshold=1000)
    (data,) = tmp_path.glob("m.onnx.*.data")
    assert names(tmp_path) == ["m.onnx", data.name]
    assert data.name == data_name("m.onnx", hashlib.sha256(data.read_bytes()).hexdigest())
    assert path.stat().st_size < 500
    onnx.checker.check_model(path, full_check=True)
    np.testing.assert_array_equal(outputs(path), outputs(model))
    loaded = load_model(path)
    assert loaded.graph.initializer[0].doc_string == "trained"
    assert fingerprint(loaded) == fingerprint(model)


def test_constants_in_nodes_and_typed_weights_go_outside_too(tmp_path: Path, model: onnx.ModelProto) -> None:
    value = np.random.default_rng(2).normal(size=(20, 30)).astype(np.float32)
    model.graph.node[0].input[1] = "k"
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(value))
    model.graph.node.insert(0, constant)
    typed = helper.make_tensor("w", TensorProto.FLOAT16, [600], np.arange(600))
    model.graph.initializer[0].CopyFrom(typed)
    path = tmp_path / "m.onnx"
    save_model(model, path, threshold=0)
    assert path.stat().st_size < 700
    np.testing.assert_array_equal(outputs(path), outputs(model))
    assert fingerprint(load_model(path)) == fingerprint(model)


def test_the_same_model_gives_the_same_bytes(model: onnx.ModelProto, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_model(model, tmp_path / name / "m.onnx", threshold=0)
    assert len(names(tmp_path / "a")) == 2
    assert names(tmp_path / "a") == names(tmp_path / "b")
    for name in names(tmp_path / "a"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_saved_file_has_the_permissions_of_any_new_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.onnx")
    (tmp_path / "other").touch()
    assert (tmp_path / "m.onnx").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_input_may_be_overwritten(external: Saver, model: onnx.ModelProto, tmp_path: Path) -> None:
    path = external(model, tmp_path)
    loaded = load_model(path)
    loaded.graph.initializer[0].raw_data = bytes(2400)
    save_model(loaded, path, threshold=0)
    (data,) = tmp_path.glob("m.onnx.*.data")
    assert names(tmp_path) == ["m.onnx", data.name, "m.onnx.data"], "a file that another program may have written stays"
    assert not outputs(path).any()


@pytest.mark.parametrize("threshold", [0, 10**9])
def test_weights_of_before_go_with_the_last_graph_that_names_them(
    model: onnx.ModelProto, tmp_path: Path, threshold: int
) -> None:
    path, copy = tmp_path / "m.onnx", tmp_path / "copy.onnx"
    save_model(model, path, threshold=0)
    copy.write_bytes(path.read_bytes())
    before, (data,) = outputs(path), tmp_path.glob("m.onnx.*.data")
    model.graph.initializer[0].raw_data = bytes(2400)
    save_model(model, path, threshold=threshold)
    np.testing.assert_array_equal(outputs(copy), before)
    assert not outputs(path).any()
    copy.unlink()
    model.graph.initializer[0].raw_data = bytes(2399) + b"1"
    save_model(model, path, threshold=threshold)
    assert not data.exists()
    assert len(names(tmp_path)) == (2 if threshold == 0 else 1)


def test_weights_that_a_killed_save_left_go_with_the_next(model: onnx.ModelProto, tmp_path: Path) -> None:
    content = b"weights of a graph that never took its name"
    data = tmp_path / data_name("m.onnx", hashlib.sha256(content).hexdigest())
    data.write_bytes(content)
    save_model(model, tmp_path / "m.onnx")
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize("length", [237, 250, 255])
def test_a_long_name_has_its_weights_beside_it(model: onnx.ModelProto, tmp_path: Path, length: int) -> None:
    path = tmp_path / ("é" * 5 + "m" * (length - 15) + ".onnx")
    assert len(os.fsencode(path.name)) == length
    for _ in range(2):
        save_model(model, path, threshold=0)
        np.testing.assert_array_equal(outputs(path), outputs(model))
        model.graph.initializer[0].raw_data = bytes(2400)
    assert len(names(tmp_path)) == 2


def test_two_writers_leave_the_pair_of_one(model: onnx.ModelProto, tmp_path: Path) -> None:
    """The weights of one are in their place before the other's, and the graphs follow in any order."""
    path = tmp_path / "m.onnx"
    expected = []
    with together():
        for value in (b"1", b"2"):
            model.graph.initializer[0].raw_data = 2400 * value
            expected.append(outputs(model))
            save_model(model, path, threshold=0)
            model.graph.initializer[0].raw_data = 2400 * b"3"
            expected.append(outputs(model))
            Context().run(save_model, model, path, threshold=0)
            np.testing.assert_array_equal(outputs(path), expected[-1])
    np.testing.assert_array_equal(outputs(path), expected[2])


@pytest.mark.parametrize("check", [check_writable, lambda path: save_model(onnx.ModelProto(), path)])
def test_places_that_cannot_be_written_are_refused(check: object, tmp_path: Path) -> None:
    assert callable(check)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, message in {
        "none/m.onnx": "none' does not exist: create it first",
        "folder.onnx": "it is a folder: name a file in it",
        "file/m.onnx": "file' does not exist",
        "pipe": "it is not a regular file",
        "n" * 300: "File name too long",
    }.items():
        with pytest.raises(OutputError, match=message):
            check(tmp_path / path)
    assert names(tmp_path) == ["file", "folder.onnx", "pipe"]


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("older")
    check_writable(tmp_path / "m.onnx")
    check_writable(tmp_path / "new.onnx")
    assert names(tmp_path) == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "older"


@pytest.mark.parametrize("threshold", [0, 10**9])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_what_was_there(
    model: onnx.ModelProto,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threshold: int,
    error: BaseException,
) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("older")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(atomic.os, "fsync", fail)
    with pytest.raises((OutputError, KeyboardInterrupt), match=r"No space left on device|^$"):
        save_model(model, path, threshold=threshold)
    assert names(tmp_path) == ["m.onnx"]
    assert path.read_text() == "older"


def test_a_model_never_stands_with_the_weights_of_another(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "m.onnx"
    save_model(model, path, threshold=0)
    before, expected = names(tmp_path), outputs(path)
    replaced: list[str] = []
    rename = os.replace

    def replace(source: Path, target: Path) -> None:
        replaced.append(target.name)
        np.testing.assert_array_equal(outputs(path), expected)
        if target == path and source.name == "whole":
            raise OSError(5, "Input/output error", str(source), None, str(target))
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    model.graph.initializer[0].raw_data = bytes(2400)
    with pytest.raises(OutputError, match="Input/output error"):
        save_model(model, path, threshold=0)
    assert replaced[0] not in before
    assert replaced[1] == "m.onnx"
    assert names(tmp_path) == before
    np.testing.assert_array_equal(outputs(path), expected)


def test_a_killed_save_leaves_no_half_written_file(tmp_path: Path) -> None:
    script = """
import os, signal, sys, onnx
from onnx_subprune.model import save
real = os.fsync
def killed(descriptor):
    real(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)
os.fsync = killed
save.save_model(onnx.ModelProto(ir_version=8, doc_string="new"), sys.argv[1])
"""
    path = tmp_path / "m.onnx"
    path.write_text("older")
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "older"


def test_bytes_are_those_on_the_disk(model: onnx.ModelProto, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.onnx")
    assert model_bytes(model) == (tmp_path / "m.onnx").stat().st_size
