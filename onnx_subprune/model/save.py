"""Write model files: whole or not at all.

A file under the output's name is always complete, and never reads the weights of another model: the file of weights is
named by its content, and takes that name before the model takes its own.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import onnx

from onnx_subprune.errors import OutputError
from onnx_subprune.model.atomic import atomic_write, probe_writable, together
from onnx_subprune.model.data_files import Digest, data_name, older_data, remove_unread
from onnx_subprune.model.external import write_external_data
from onnx_subprune.model.protos import PROTOBUF_LIMIT, estimated_bytes, one_line, serialised
from onnx_subprune.model.stored import has_placed

__all__ = ["check_writable", "model_bytes", "save_model"]

_PathLike = str | os.PathLike[str]


def check_writable(path: _PathLike) -> None:
    """Try whether a model could be saved, before the long work starts; nothing is left there.

    Args:
        path: where it would be saved.

    Raises:
        OutputError: the one that saving would end in.

    """
    target = Path(os.path.realpath(path))
    with _os_errors(path):
        _check_target(target)
        probe_writable(target)


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


def save_model(model: onnx.ModelProto, path: _PathLike, *, threshold: int = PROTOBUF_LIMIT) -> None:
    """Write a model, whole or not at all; the same model always gives the same bytes.

    Weights in a file of their own are a part of it: the model finds its own weights there, and so does the one that
    stood there before until the new one takes its name. Then the older one's weights go, if this program wrote them
    and nothing else in the folder names them.

    Args:
        model: one whose weights stay in files is written with its weights beside it.
        path: of the file; a link is followed.
        threshold: bytes above which the weights go to `<name>.<digits>.data` beside the model; the digits are the start
            of the SHA-256 of that file.

    Raises:
        OutputError: the file cannot be written; what stood there before still does.

    """
    # A link is followed, so that what it names is replaced and not the link.
    target = Path(os.path.realpath(path))
    with _os_errors(path):
        _check_target(target)
        # Read now, and not once more at the end, when other processes wait.
        older_data(target)
        with together():
            graph, own = None if has_placed(model) else serialised(model), ""
            if graph is None or len(graph) > threshold:
                graph, own = _save_data(model, target)
            with atomic_write(target, after=partial(remove_unread, target, own)) as temporary:
                temporary.write_bytes(graph)


def _save_data(model: onnx.ModelProto, target: Path) -> tuple[bytes, str]:
    """Write the weights to a file beside `target`; return the graph and the name of that file."""
    digest = Digest()
    write_external_data(model, digest, "")
    data = target.with_name(data_name(target.name, digest.hexdigest()))
    _check_target(data)
    with atomic_write(data) as temporary, temporary.open("wb") as weights:
        graph = serialised(write_external_data(model, weights, data.name))
    if graph is None:
        raise OutputError(f"cannot write '{target}': the model is over 2 GB even without its weights")
    return graph, data.name


def model_bytes(model: onnx.ModelProto) -> int:
    """Return the bytes that a model takes on the disk.

    Args:
        model: its external data counts.

    """
    return estimated_bytes(model)
