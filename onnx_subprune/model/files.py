"""Model files: what is read is checked first, what is written appears whole or not at all.

External data may lie only in the model's own folder. A save writes temporary files in the target folder, flushes them
to the disk and renames them, so a file under the output's name is always complete.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import uuid
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from onnx_subprune.errors import ModelError, OutputError
from onnx_subprune.model.external import load_external_data, write_external_data
from onnx_subprune.model.identity import fingerprint
from onnx_subprune.model.protos import ONNX_DOMAINS, PROTOBUF_LIMIT, estimated_bytes, one_line, serialised
from onnx_subprune.model.session import open_session

__all__ = ["check_writable", "fingerprint", "load_model", "model_bytes", "save_model"]

_PathLike = str | os.PathLike[str]


def load_model(path: _PathLike) -> onnx.ModelProto:
    """Read the ONNX model at `path` with its external data in memory.

    Raises ModelError if the file is missing or no ONNX model, if its external data is missing, too short or outside
    the model's folder, if it has no outputs, or if its IR or opset version is beyond the installed ONNX Runtime.
    """
    model = _parse(path)
    if not model.graph.output:
        raise ModelError(f"model '{path}' must have at least one output, found none: export it anew")
    _check_versions(model, path)
    load_external_data(model, Path(path).parent)
    return model


def _parse(path: _PathLike) -> onnx.ModelProto:
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"model '{path}' does not exist: check the path") from error
    except IsADirectoryError as error:
        raise ModelError(f"model '{path}' must be a file, found a folder: name the .onnx file in it") from error
    except OSError as error:
        raise ModelError(f"model '{path}' cannot be read: {error.strerror or error}") from error
    if not data:
        raise ModelError(f"model '{path}' is empty: download or export it again")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"model '{path}' is not an ONNX model, or is cut off: export or download it again") from error
    if not model.HasField("graph") or not model.ir_version:
        raise ModelError(f"model '{path}' is not an ONNX model: it holds no graph")
    return model


def _check_versions(model: onnx.ModelProto, path: _PathLike) -> None:
    if not model.opset_import:
        raise ModelError(f"model '{path}' names no opset: export it anew")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS), default=None)
    if (refusal := _version_refusal(model.ir_version, opset)) is not None:
        raise ModelError(
            f"model '{path}' has IR version {model.ir_version} and opset {opset}, which the installed ONNX Runtime "
            f"does not support ({refusal}): update it or convert the model"
        )


@lru_cache(maxsize=64)
def _version_refusal(ir_version: int, opset: int | None) -> str | None:
    """Return why ONNX Runtime refuses the versions, asked with the smallest model that has them; or None."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "probe", [value], [value])
    # A model of custom operators alone need not import ONNX's own.
    imported = onnx.helper.make_opsetid("com.microsoft", 1) if opset is None else onnx.helper.make_opsetid("", opset)
    probe = onnx.helper.make_model(graph, ir_version=ir_version, opset_imports=[imported])
    try:
        open_session(probe)
    except ModelError as error:
        return re.sub(r"^.*refuses the model: ", "", str(error))
    return None


def check_writable(path: _PathLike) -> None:
    """Raise the OutputError that saving a model at `path` would end in, before the long work starts."""
    target = Path(path)
    with _os_errors(path):
        _check_target(target)
        probe = _temporary(target)
        with probe.open("xb"):
            probe.unlink()


def _check_target(target: Path) -> None:
    if not target.parent.is_dir():
        raise OutputError(f"cannot write '{target}': the folder '{target.parent}' does not exist: create it first")
    if target.is_dir():
        raise OutputError(f"cannot write '{target}': it is a folder: name a file in it")
    if target.exists() and not stat.S_ISREG(target.stat().st_mode):
        raise OutputError(f"cannot write '{target}': it is not a regular file: name another")


@contextlib.contextmanager
def _os_errors(path: _PathLike) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror or one_line(error)}") from error


def _temporary(target: Path) -> Path:
    # In the same folder, or the rename would not be atomic; a short name, because the target's may be the longest.
    return target.parent / f".onnx-subprune-{uuid.uuid4().hex[:12]}.tmp"


def save_model(model: onnx.ModelProto, path: _PathLike, *, threshold: int = PROTOBUF_LIMIT) -> None:
    """Write `model` to `path` atomically; the same model always gives the same bytes.

    A model of more than `threshold` bytes goes with its weights in `<name>.data` beside it. Raises OutputError if the
    file cannot be written; what stood at `path` before is then still there.
    """
    target = Path(path)
    with _os_errors(path):
        _check_target(target)
        data = serialised(model)
        if data is None or len(data) > threshold:
            _save_with_data(model, target)
            return
        with _replacing(target) as file:
            file.write(data)


def _save_with_data(model: onnx.ModelProto, target: Path) -> None:
    data = target.with_name(target.name + ".data")
    _check_target(data)
    with _replacing(target) as file:
        with _replacing(data, dependent=target) as weights:
            light = serialised(write_external_data(model, weights, data.name))
        if light is None:
            raise OutputError(f"cannot write '{target}': the model is over 2 GB even without its weights")
        file.write(light)


@contextlib.contextmanager
def _replacing(target: Path, dependent: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file that takes the place of `target` when the block ends well, and vanishes otherwise.

    `dependent` is the model that reads `target`: an older one is removed before its weights are replaced, because a
    model with the weights of another must never stand.
    """
    temporary = _temporary(target)
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if dependent is not None and target.exists():
            dependent.unlink(missing_ok=True)
        os.replace(temporary, target)
        _sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    # Not every file system lets a folder be flushed, and the file itself is safe by now.
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def model_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes that `model` takes on the disk, its external data included."""
    return estimated_bytes(model)
