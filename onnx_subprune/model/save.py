"""Write model files: whole or not at all.

A save writes temporary files in the target folder, flushes them to the disk and renames them, so a file under the
output's name is always complete.
"""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import onnx

from onnx_subprune.errors import OutputError
from onnx_subprune.model.external import write_external_data
from onnx_subprune.model.protos import PROTOBUF_LIMIT, estimated_bytes, one_line, serialised
from onnx_subprune.model.stored import has_placed

__all__ = ["check_writable", "model_bytes", "save_model"]

_PathLike = str | os.PathLike[str]


def check_writable(path: _PathLike) -> None:
    """Raise the OutputError that saving a model at `path` would end in, before the long work starts."""
    target = Path(os.path.realpath(path))
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

    A model of more than `threshold` bytes, or whose weights stay in files, goes with its weights in `<name>.data`
    beside it. Raises OutputError if the file cannot be written; what stood at `path` before is then still there.
    """
    # A link is followed, so that what it names is replaced and not the link.
    target = Path(os.path.realpath(path))
    with _os_errors(path):
        _check_target(target)
        data = None if has_placed(model) else serialised(model)
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
