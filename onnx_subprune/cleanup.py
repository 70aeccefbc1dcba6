"""What must not outlive this process: its temporary files and its child processes.

Each goes when the block that made it ends. The list of those under way is for an end that unwinds no blocks
(`cli/interrupt.py`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

__all__ = ["cleanup", "register", "run_all"]

_pending: dict[object, Callable[[], object]] = {}


def register(undo: Callable[[], object]) -> Callable[[], None]:
    """Note what is to be done if the process ends at once; return a function that does it and forgets it.

    Args:
        undo: may be called a second time, and from any thread.

    >>> done = register(lambda: print("removed"))
    >>> done()
    removed
    >>> run_all()

    """
    key = object()
    _pending[key] = undo

    def done() -> None:
        try:
            undo()
        finally:
            _pending.pop(key, None)

    return done


@contextlib.contextmanager
def cleanup(undo: Callable[[], object]) -> Iterator[None]:
    """Call `undo` at the end of the block, whatever happens in it.

    Args:
        undo: may be called a second time, and from any thread.

    """
    done = register(undo)
    try:
        yield
    finally:
        done()


def run_all() -> None:
    """Do all that is noted, the latest first; what cannot be done is left."""
    for undo in reversed(list(_pending.values())):
        with contextlib.suppress(Exception):
            undo()


if hasattr(os, "register_at_fork"):
    # What a process has under way is not its child's to remove.
    os.register_at_fork(after_in_child=_pending.clear)
