"""The standard streams: there from the start, and quiet at the end."""

from __future__ import annotations

import contextlib
import io
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TextIO

__all__ = ["UNREAD", "abandon", "flushed", "open_streams"]

UNREAD = 141
"""Exit code where nobody reads what is printed: what the shell says of a program that SIGPIPE ends."""


def open_streams() -> None:
    """Give the process the streams that it was started without: no file it opens may be taken for one of them.

    Letters that stdout has no code for are escaped, as stderr does it.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free: this one
    sys.stdout = sys.stdout or os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", encoding="utf-8", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def flushed(code: int) -> int:
    """Print what is still to be printed; return the exit code: `code` where that works or something failed before."""
    for stream in (sys.stderr, sys.stdout):
        try:
            stream.flush()
        except OSError:
            abandon(stream)
            if stream is sys.stdout:
                return code or UNREAD
    return code


def abandon(stream: TextIO) -> None:
    """Lead a stream that takes no more to nowhere, so that the interpreter does not complain at its end."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
