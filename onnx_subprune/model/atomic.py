"""Files that are there whole or not at all: written beside their name, given it at the end, several together."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from onnx_subprune.errors import OutputError
from onnx_subprune.model.temporary import TemporaryFolder

__all__ = ["atomic_write", "check_regular", "probe_writable", "together"]

_LONGEST_WAIT = 10.0  # seconds
_PAUSE = 0.01
_PROBE_BYTES = 1 << 16
"""Less than any output that is worth pruning for."""


@dataclass(frozen=True)
class _Complete:
    """A file with all its bytes on the disk that waits for its name."""

    folder: TemporaryFolder
    temporary: Path
    target: Path
    after: Callable[[], None] | None


_waiting: ContextVar[list[_Complete] | None] = ContextVar("waiting", default=None)


@contextlib.contextmanager
def atomic_write(target: Path, after: Callable[[], None] | None = None) -> Iterator[Path]:
    """Give the path of an empty file that takes the place of `target` when the block ends well, and goes otherwise.

    The file is new and lies beside `target`, in a folder of its own that nobody can foresee, so that no link laid there
    is followed. All bytes are on the disk before the file takes its name: at the end of the block, or of the block
    `together` around it.

    Args:
        target: the file to replace; a link is replaced itself.
        after: called when the file has its name, while no other process of this program gives names in that folder; not
            called where that cannot be made sure. An OSError of it is passed over.

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
    with contextlib.ExitStack() as stack:
        folder = TemporaryFolder(target.parent)
        stack.callback(folder.close)
        temporary = folder.path / "whole"
        temporary.touch()
        yield temporary
        _flush(temporary)
        complete = _Complete(folder, temporary, target, after)
        waiting = _waiting.get()
        if waiting is None:
            _give_names([complete])
        else:
            waiting.append(complete)
            stack.pop_all()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Let the files that `atomic_write` completes inside the block take their names at its end: all of them, or none.

    They take them in the order of their completion. If one cannot take its name, those before it give theirs back to
    what stood there. A process killed in the midst of it leaves the first files new and the last ones old, each whole.
    A block inside such a block is a part of it.

    Raises:
        OutputError: a file cannot take its name.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     with together():
    ...         for name in ("plan.json", "out.onnx"):
    ...             with atomic_write(Path(folder, name)) as temporary:
    ...                 _ = temporary.write_text(name)
    ...         early = sorted(path.name for path in Path(folder).glob("[a-z]*"))
    ...     early, sorted(os.listdir(folder))
    ([], ['out.onnx', 'plan.json'])

    """
    if _waiting.get() is not None:
        yield
        return
    waiting: list[_Complete] = []
    token = _waiting.set(waiting)
    try:
        try:
            yield
        finally:
            _waiting.reset(token)
        try:
            _give_names(waiting)
        except OSError as error:
            path = error.filename2 or error.filename
            raise OutputError(f"cannot write '{path}': {error.strerror}; all outputs are left as they were") from error
    finally:
        for complete in waiting:
            complete.folder.close()


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
    """Raise the OSError that a file beside `target` could not be created with, or could not take its name.

    Args:
        target: of which nothing is changed.

    """
    with contextlib.suppress(FileNotFoundError):
        os.lstat(target)
    with TemporaryFolder(target.parent) as folder:
        # An empty file finds a place on a full disk.
        (folder / "probe").write_bytes(bytes(_PROBE_BYTES))
        _flush(folder / "probe")
        try:
            os.link(target, folder / "link", follow_symlinks=False)
        except OSError as error:  # nothing is there, or a file system without hard links
            if error.errno == errno.EXDEV:
                reason = "it is a mount of its own, which cannot be replaced"
                raise OSError(errno.EBUSY, reason, os.fspath(target)) from error


def _give_names(complete: Sequence[_Complete]) -> None:
    """Rename all files, or none; the folders are flushed as far as the file system can."""
    folders = sorted({file.target.parent for file in complete})
    with _alone_in(folders) as alone, contextlib.ExitStack() as undo:
        for file in complete:
            if len(complete) > 1:
                undo.callback(_way_back(file))
            os.replace(file.temporary, file.target)
        undo.pop_all()
        for file in complete:
            if alone and file.after is not None:
                with contextlib.suppress(OSError):
                    file.after()
    for folder in folders:
        # Not every file system lets a folder be flushed, and the files themselves are safe by now.
        with contextlib.suppress(OSError):
            _flush(folder)


def _way_back(file: _Complete) -> Callable[[], None]:
    """Return what puts back the file, or the link, that stands under the name now."""
    target, kept = file.target, file.folder.path / "before"
    if not os.path.lexists(target):
        return lambda: target.unlink(missing_ok=True)
    try:
        os.link(target, kept, follow_symlinks=False)
    except OSError:  # a file system without hard links
        shutil.copy2(target, kept, follow_symlinks=False)
    return lambda: os.replace(kept, target)


@contextlib.contextmanager
def _alone_in(folders: Sequence[Path]) -> Iterator[bool]:
    """Lock folders against other processes of this program; False where that cannot be, or takes too long."""
    with contextlib.ExitStack() as stack:
        try:
            descriptors = _opened(folders, stack)
        except OSError:  # files can be made there, but it cannot be read
            descriptors = [-1]
        deadline = time.monotonic() + _LONGEST_WAIT
        yield all(_locked(descriptor, deadline) for descriptor in descriptors)


def _opened(folders: Sequence[Path], stack: contextlib.ExitStack) -> list[int]:
    """Open every folder once, whatever its names, and in one order, so that no two processes wait for each other."""
    descriptors: dict[tuple[int, int], int] = {}
    for folder in folders:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, descriptor)
        status = os.fstat(descriptor)
        descriptors[status.st_dev, status.st_ino] = descriptor
    return [descriptors[place] for place in sorted(descriptors)]


def _locked(descriptor: int, deadline: float) -> bool:
    while descriptor >= 0:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(_PAUSE)
        except OSError:
            return False
        else:
            return True
    return False


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
