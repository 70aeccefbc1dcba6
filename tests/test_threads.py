"""Work beside other work: in order, no further ahead than asked, errors where they are read, the same sums."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from signal import alarm

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from onnx_subprune.threads import ahead, shared, side_by_side


def blas_threads() -> set[int]:
    return {int(one["num_threads"]) for one in threadpool_info() if one["user_api"] == "blas"}


def test_items_come_in_order_and_are_made_on_another_thread() -> None:
    makers = set[int]()

    def items() -> Iterator[int]:
        for number in range(50):
            makers.add(threading.get_ident())
            yield number

    with side_by_side(2):
        assert list(ahead(items())) == list(range(50))
    assert makers.isdisjoint({threading.get_ident()})


def test_of_one_thread_and_outside_nothing_is_made_ahead() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(3):
            made.append(number)
            yield number

    with side_by_side(1):
        for number in ahead(items()):
            assert made == list(range(number + 1))
    made.clear()
    for number in ahead(items()):
        assert made == list(range(number + 1))


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_items_are_made_than_there_is_room_for(depth: int) -> None:
    made = 0

    def items() -> Iterator[int]:
        nonlocal made
        for number in range(20):
            made += 1
            yield number

    with side_by_side(2):
        for number in ahead(items(), depth):
            # The item in use, and those that wait.
            assert made <= number + 1 + depth


def test_an_error_is_raised_where_the_items_are_read() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("broken")

    with side_by_side(2):
        found = ahead(items())
        assert next(found) == 1
        with pytest.raises(ValueError, match="broken"):
            next(found)


def test_who_stops_reading_leaves_no_thread_and_no_open_source() -> None:
    closed = threading.Event()

    def items() -> Iterator[int]:
        try:
            yield from range(1000)
        finally:
            closed.set()

    before = threading.active_count()
    with side_by_side(2):
        found = ahead(items())
        assert next(found) == 0
        found.close()
    assert closed.is_set()
    assert threading.active_count() == before


def test_one_pipeline_may_feed_another() -> None:
    with side_by_side(3):
        assert list(ahead(2 * one for one in ahead(iter(range(30))))) == list(range(0, 60, 2))


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_are_in_order_whatever_the_number_of_threads(threads: int) -> None:
    with side_by_side(threads):
        assert shared(lambda number: number * number, range(40)) == [number * number for number in range(40)]
        with pytest.raises(ZeroDivisionError):
            shared(lambda number: 1 / number, [1, 0, 2])


def test_work_that_overlaps_gives_the_blas_its_threads_back() -> None:
    before = threadpool_info()
    first, second = side_by_side(), side_by_side()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert blas_threads() == {1}
    second.__exit__(None, None, None)
    assert threadpool_info() == before


def test_what_is_ignored_here_is_ignored_by_the_threads() -> None:
    with side_by_side(2), np.errstate(over="ignore"):
        assert np.isinf(shared(lambda number: np.float32(1e38) * np.float32(number), [10, 20])).all()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_child_process_has_threads_of_its_own() -> None:
    with side_by_side(2):
        assert shared(str, [1, 2]) == ["1", "2"]
        child = os.fork()
        if not child:
            alarm(20)
            os._exit(0 if shared(str, [3, 4]) == ["3", "4"] else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_a_blas_keeps_to_one_thread_within_and_gets_its_own_back() -> None:
    np.ones((2, 2)) @ np.ones((2, 2))
    before = threadpool_info()
    with side_by_side():
        assert blas_threads() == {1}
        with side_by_side(1):
            assert blas_threads() == {1}
        assert blas_threads() == {1}
    assert threadpool_info() == before
