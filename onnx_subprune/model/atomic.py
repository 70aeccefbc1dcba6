"""Files that are there whole or not at all: written beside their name, and given it at the end."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from onnx_subprune.cleanup import cleanup

__all__ = ["atomic_write", "check_regular", "probe_writable"]


@contextlib.contextmanager
def atomic_write(target: Path, before: Callable[[], None] | None = None) -> Iterator[Path]:
    """Give the path of an empty file that takes the place of `target` when the block ends well, and goes otherwise.

    The file is new, lies in the folder of `target` and has a name that nobody can foresee, so that no link laid there
    is followed. All bytes are on the disk before the file takes its name.

    Args:
        target: the file to replace; a link is replaced itself.
        before: called when the file is complete, right before it takes its name.

    Raises:
        OSError: the file cannot be written, or not in that place.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     target = Path(folder, "plan.json")
    ...     with atomic_write(target) as temporary:
    ...         _ = temporary.write_text("{}")
    ...         early = target.exists()
    ...     early, target.read_text(), len(os.listdir(folder))
    (False, '{}', 1)

    """
    temporary = _temporary_path(target)
    # Not `touch`: it would open what is there already.
    temporary.open("xb").close()
    with cleanup(partial(temporary.unlink, missing_ok=True)):
        yield temporary
        _flush(temporary)
        if before is not None:
            before()
        os.replace(temporary, target)
    # Not every file system lets a folder be flushed, and the file itself is safe by now.
    with contextlib.suppress(OSError):
        _flush(target.parent)


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise an OSError for a pipe, a socket or a device: opening one may wait for ever.

    Args:
        path: of a file that is about to be read; folders and missing files are left to the reading.

    """
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        mode = os.stat(path).st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise OSError(errno.EINVAL, "not a regular file", os.fspath(path))


def probe_writable(target: Path) -> None:
    """Raise the OSError that a file beside `target` could not be created with."""
    probe = _temporary_path(target)
    probe.open("xb").close()
    probe.unlink()


def _temporary_path(target: Path) -> Path:
    # In the same folder, or the rename would not be atomic; a short name, because the target's may be the longest.
    return target.parent / f".onnx-subprune-{uuid.uuid4().hex}.tmp"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
