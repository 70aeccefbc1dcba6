"""What libraries in C++ print by themselves, past Python: it is kept off the terminal and goes to the log.

Such lines come on stdout or stderr, hold names of a model as they are, and say nothing that no error says.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from threading import RLock

from onnx_subprune.formatting import printable

__all__ = ["hushed"]

_logger = logging.getLogger(__name__)

_STDOUT, _STDERR = 1, 2
_MOST_LOGGED = 1 << 16  # bytes
_lock = RLock()


@contextlib.contextmanager
def hushed() -> Iterator[None]:
    """Keep what is printed inside the block off stdout and stderr of the process; it is logged at the end, for `-vv`.

    All threads are hushed, so the block should be short. Where there is no room for what is printed, it is printed.
    """
    with _lock, contextlib.ExitStack() as stack:
        try:
            caught = stack.enter_context(tempfile.TemporaryFile())
        except OSError:
            yield
            return
        try:
            with _led(_STDOUT, caught.fileno()), _led(_STDERR, caught.fileno()):
                yield
        finally:
            caught.seek(0)
            for line in caught.read(_MOST_LOGGED).decode("utf-8", "replace").splitlines():
                _logger.debug("a library printed: %s", printable(line))


@contextlib.contextmanager
def _led(descriptor: int, elsewhere: int) -> Iterator[None]:
    """Let what is written to a descriptor go elsewhere inside the block; one that is closed stays closed."""
    _flush()
    try:
        kept = os.dup(descriptor)
    except OSError:
        yield
        return
    os.dup2(elsewhere, descriptor)
    try:
        yield
    finally:
        _flush()
        os.dup2(kept, descriptor)
        os.close(kept)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
