"""Files of weights beside a model that this program wrote: named by what they hold, removed when nothing reads them.

A graph `out.onnx` has its weights in `out.onnx.<digits>.data`, whose digits are the start of the SHA-256 of that file.
Two graphs under one name never share such a file unless its content is the same: the older one has its weights until
the newer one takes the name. A file is taken for one of these if its name and its content agree.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import re
import stat
from functools import lru_cache
from pathlib import Path

from onnx_subprune.model.protos import PROTOBUF_LIMIT

__all__ = ["Digest", "data_name", "is_data_name", "older_data", "remove_unread"]

_DIGITS, _LONGEST_NAME = 12, 255
_ENDING = f".{'0' * _DIGITS}.data"


class Digest:
    """A stream that keeps of what is written to it the length and the hash."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._length = 0

    def write(self, data: bytes | memoryview) -> None:
        """Take more bytes in."""
        self._hash.update(data)
        self._length += len(data)

    def tell(self) -> int:
        """Return the number of bytes so far."""
        return self._length

    def hexdigest(self) -> str:
        """Return the SHA-256 of all bytes so far."""
        return self._hash.hexdigest()


def data_name(model: str, digest: str) -> str:
    """Return the name of the file of weights beside a model.

    Args:
        model: the file's name; of a very long one the start.
        digest: SHA-256 of the weights, as hexadecimal digits.

    >>> data_name("out.onnx", "0123456789abcdef")
    'out.onnx.0123456789ab.data'

    """
    return f"{_start(model)}.{digest[:_DIGITS]}.data"


def is_data_name(name: str, model: str) -> bool:
    """Whether `data_name` could give a name.

    Args:
        name: of any file.
        model: the name of the model's file.

    >>> is_data_name("out.onnx.0123456789ab.data", "out.onnx"), is_data_name("out.onnx.data", "out.onnx")
    (True, False)

    """
    return re.fullmatch(rf"{re.escape(_start(model))}\.[0-9a-f]{{{_DIGITS}}}\.data", name) is not None


def older_data(target: Path, own: str = "") -> list[Path]:
    """Return the files of weights that this program wrote beside the model `target` earlier.

    Args:
        target: of the model, which need not be there.
        own: the name of the file with its own weights, which is left out.

    """
    try:
        names = sorted(os.listdir(target.parent))
    except OSError:  # a folder to write to and not to look into
        return []
    named = [target.with_name(name) for name in names if is_data_name(name, target.name) and name != own]
    return [path for path in named if _holds_what_it_says(path)]


def remove_unread(target: Path, own: str = "") -> None:
    """Remove older files of weights that no other file of the folder names; what cannot be read is taken to name all.

    Args:
        target: of the model.
        own: the name of the file with its own weights.

    """
    for path in older_data(target, own):
        if not any(_names(other, path.name) for other in path.parent.iterdir() if other != path):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()


def _start(model: str) -> str:
    return os.fsdecode(os.fsencode(model)[: _LONGEST_NAME - len(_ENDING)])


def _holds_what_it_says(path: Path) -> bool:
    try:
        status = path.lstat()
        digest = _hash_of(path, status.st_ino, status.st_mtime_ns) if stat.S_ISREG(status.st_mode) else ""
        return path.name.endswith(f".{digest[:_DIGITS]}.data")
    except OSError:
        return False


@lru_cache
def _hash_of(path: Path, inode: int, changed: int) -> str:  # noqa: ARG001 - a file that changed is another
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _names(path: Path, name: str) -> bool:
    """Whether a file may be a model that has its weights in the file `name` beside it."""
    try:
        status = path.stat()
        # A graph cannot be larger, and nothing but files can be one.
        if not stat.S_ISREG(status.st_mode) or not 0 < status.st_size <= PROTOBUF_LIMIT:
            return False
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(os.fsencode(name)) >= 0
    except FileNotFoundError:
        return False
    except OSError:
        return True
