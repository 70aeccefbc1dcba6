"""Temporary folders that a killed process does not leave for ever: the next one removes them.

The owner of a folder holds a lock on it as long as it lives, and the system drops the lock with the process. Whoever
gets the lock of such a folder knows that its owner is gone. Numbers of processes would not tell: another container that
shares the disk has its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import tempfile
import weakref
from functools import partial
from pathlib import Path
from types import TracebackType

from onnx_subprune.cleanup import register

__all__ = ["TemporaryFolder", "sweep"]

_NAME = re.compile(r"\.onnx-subprune-[0-9a-f]{32}\.tmp")


class TemporaryFolder:
    """A new, empty folder for this user alone, with a name that nobody can foresee, until it is closed or gone.

    Args:
        parent: the folder that it lies in; None for the system's folder of temporary files. Those that killed
            processes left there are removed.

    Attributes:
        path: of the folder.

    Raises:
        OSError: it cannot be made.

    >>> with TemporaryFolder() as folder:
    ...     _ = Path(folder, "file").write_text("text")
    ...     sweep(folder.parent)
    ...     os.listdir(folder)
    ['file']
    >>> folder.exists()
    False

    """

    def __init__(self, parent: Path | None = None) -> None:
        parent = Path(tempfile.gettempdir()) if parent is None else parent
        sweep(parent)
        self.path, lock = _made(parent)
        self._close = weakref.finalize(self, register(partial(_remove, self.path, lock, os.getpid())))

    def close(self) -> None:
        """Remove the folder with all that is in it."""
        self._close()

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sweep(parent: Path) -> None:
    """Remove the temporary folders in `parent` that processes of this user left when they were killed.

    Args:
        parent: a folder; one that cannot be read is left as it is.

    """
    with contextlib.suppress(OSError):
        for name in os.listdir(parent):
            if _NAME.fullmatch(name):
                _remove_abandoned(parent / name)


def _remove_abandoned(folder: Path) -> None:
    with contextlib.suppress(OSError):
        lock = _opened(folder)
        try:
            if os.fstat(lock).st_uid == os.geteuid():
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(lock)


def _made(parent: Path) -> tuple[Path, int]:
    """Make a folder and return it with the descriptor that holds its lock."""
    while True:
        folder = parent / f".onnx-subprune-{secrets.token_hex(16)}.tmp"
        folder.mkdir(mode=0o700)
        # Between these steps another process may take the folder for abandoned.
        with contextlib.suppress(FileNotFoundError):
            lock = _opened(folder)
            if _locked(lock) and os.path.exists(folder):
                return folder, lock
            os.close(lock)


def _opened(folder: Path) -> int:
    # Nothing but a folder is opened: a link may lead anywhere, and a pipe waits for ever.
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)


def _locked(descriptor: int) -> bool:
    """Take the lock of a new folder; False where a process that sweeps has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        # A file system without such locks: nobody else can take it either, so that nothing is swept there.
        return True
    return True


def _remove(folder: Path, lock: int, owner: int) -> None:
    # A process that the owner forks has this object too, and ends earlier.
    if os.getpid() == owner:
        shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # it may be closed
        os.close(lock)
