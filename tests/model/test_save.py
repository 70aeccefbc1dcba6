"""Models are written whole or not at all, the same model always to the same bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
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
)

Saver = Callable[..., Path]


def outputs(source: onnx.ModelProto | Path) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(2, 20)).astype(np.float32)
    return run(open_session(source, threads=1), {"x": x})["y"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_large_model_goes_with_external_data(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_model(model, path, threshold=1000)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
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
    for name in ("m.onnx", "m.onnx.data"):
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
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    assert not outputs(path).any()


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
    external: Saver, model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = external(model, tmp_path)
    replaced: list[str] = []

    def replace(source: Path, target: Path) -> None:
        replaced.append(target.name)
        if target == path:
            raise OSError(5, "Input/output error")
        Path(source).rename(target)

    monkeypatch.setattr(atomic.os, "replace", replace)
    with pytest.raises(OutputError, match="Input/output error"):
        save_model(model, path, threshold=0)
    assert replaced == ["m.onnx.data", "m.onnx"]
    assert names(tmp_path) == ["m.onnx.data"]


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
