"""Work on several cores at once: runs of a network beside sums over what earlier runs gave, and sums in pieces.

A BLAS and ONNX Runtime have threads of their own, which wait for work by spinning: taking turns on the same
cores they are in each other's way. So while networks run, every call of a BLAS keeps to the thread that made it, and
what can be done at the same time is given to threads here. In which pieces work is done does not depend on how many
threads there are, so that sums are the same on all machines that compute alike.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import cache
from queue import SimpleQueue
from threading import Event, Lock, Semaphore, Thread
from typing import Any, TypeVar

import numpy as np
from threadpoolctl import ThreadpoolController

__all__ = ["ahead", "cores", "shared", "side_by_side"]

_T = TypeVar("_T")
_U = TypeVar("_U")

# Outside of `side_by_side` a BLAS has all cores for itself.
_most: ContextVar[int] = ContextVar("most", default=1)


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def side_by_side(threads: int | None = None) -> Iterator[None]:
    """Within, a call of a BLAS keeps to the thread that made it, and `ahead` and `shared` to so many threads.

    The limit is of the process, and holds until all who asked for it are done. A BLAS that threadpoolctl does not know
    (Accelerate) goes its own way.

    Args:
        threads: as many as there are cores for None.

    """
    before = _most.set(threads or cores())
    _limit.take()
    try:
        yield
    finally:
        _limit.give_back()
        _most.reset(before)


class _Limit:
    """One thread for every BLAS, as long as somebody asks for it."""

    def __init__(self) -> None:
        self._lock, self._holders = Lock(), 0
        self._limiter: Any = None

    def take(self) -> None:
        with self._lock:
            if not self._holders:
                self._limiter = _blas().limit(limits=1, user_api="blas")
            self._holders += 1

    def give_back(self) -> None:
        with self._lock:
            self._holders -= 1
            if not self._holders:
                self._limiter.restore_original_limits()


_limit = _Limit()


@cache
def _blas() -> ThreadpoolController:
    # NumPy and SciPy each bring one, and both have to be loaded to be found.
    import scipy.linalg  # noqa: F401, PLC0415

    return ThreadpoolController()


def ahead(items: Iterable[_T], depth: int = 1) -> Generator[_T]:
    """Yield the same items, in order; a thread makes the next ones while the last one is being used.

    Outside of `side_by_side`, or with one thread, the items are made by the caller's thread.

    Args:
        items: what to make; an exception in it is raised where the item was due.
        depth: how many items are made ahead at most.

    >>> list(ahead(range(3)))
    [0, 1, 2]

    """
    if _most.get() < 2:
        yield from items
        return
    results: SimpleQueue[tuple[_T] | BaseException | None] = SimpleQueue()
    room, stop = Semaphore(depth), Event()

    def make() -> None:
        iterator = iter(items)
        try:
            # Room is waited for before an item is made: none is held that nobody may read yet.
            while room.acquire() and not stop.is_set():
                results.put((next(iterator),))
        except StopIteration:
            results.put(None)
        except BaseException as error:
            results.put(error)
        finally:
            if isinstance(iterator, Generator):
                iterator.close()

    thread = Thread(target=copy_context().run, args=(make,), daemon=True)
    thread.start()
    try:
        while (entry := results.get()) is not None:
            if isinstance(entry, BaseException):
                raise entry
            room.release()
            yield entry[0]
    finally:
        stop.set()
        room.release()
        thread.join()


def shared(function: Callable[[_T], _U], items: Iterable[_T]) -> list[_U]:
    """Return the results of a function for all items, in order; several at a time where there are threads for it.

    Args:
        function: of one item; NumPy's handling of errors is that of the caller.
        items: the pieces of the work.

    >>> shared(abs, [-1, 2, -3])
    [1, 2, 3]

    """
    pieces, most = list(items), _most.get()
    if most < 2 or len(pieces) < 2:
        return [function(piece) for piece in pieces]
    state = np.geterr()

    def work(piece: _T) -> _U:
        with np.errstate(**state):
            return function(piece)

    return list(_pool(most).map(work, pieces))


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="onnx-subprune")


if hasattr(os, "register_at_fork"):
    # A child has the pool and none of its threads.
    os.register_at_fork(after_in_child=_pool.cache_clear)
