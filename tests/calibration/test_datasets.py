"""Batches from arrays and streams: sizes, ends, labels, and what watches them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration import watched
from onnx_subprune.calibration.datasets import ArrayDataset, Column, StreamDataset, regroup
from onnx_subprune.calibration.layout import Layout, layout_of
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

F32 = np.dtype(np.float32)
FREE = layout_of([InputSpec("x", ("N", 1), F32)])
FIXED = layout_of([InputSpec("x", (3, 1), F32)])
WHOLE = Layout(FREE.specs, whole=True)


def column(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32)[:, None]


def arrays(count: int, layout: Layout = FREE, rows: np.ndarray | None = None) -> ArrayDataset:
    numbers = np.arange(count) if rows is None else rows
    return ArrayDataset({"x": Column(column(count), rows)}, layout, "d", numbers, None)


def stream(*sizes: int, layout: Layout = FREE, limit: int | None = None, labels: Any = None) -> StreamDataset:
    def items() -> Iterator[dict[str, np.ndarray]]:
        start = 0
        for size in sizes:
            yield {"x": column(start + size)[start:]}
            start += size

    return StreamDataset(items, layout, "d", limit, labels)


def values(data: ArrayDataset | StreamDataset, batch_size: int) -> list[list[float]]:
    return [batch["x"].ravel().tolist() for batch in data.batches(batch_size)]


def test_chosen_rows_are_read_in_their_order() -> None:
    data = arrays(6, rows=np.array([4, 0, 5]))
    assert values(data, 2) == [[4, 0], [5]]
    assert (data.samples, data.divisible) == (3, True)
    assert Column(column(6)).take(1, 3).ravel().tolist() == [1, 2]


def test_a_fixed_batch_leaves_the_rest_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert values(arrays(7, FIXED), 100) == [[0, 1, 2], [3, 4, 5]]
    assert "1 samples dropped, the model's batch size is fixed at 3" in caplog.text
    with pytest.raises(DataError, match="at least 3 samples expected"):
        arrays(2, FIXED)
    with pytest.raises(DataError, match="at least one sample expected"):
        arrays(0)


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 6), (4, [4, 2]), (6, [6]), (9, [6])])
def test_batches_are_joined_and_cut(size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in values(stream(1, 2, 3), size)] == sizes
    assert list(chain.from_iterable(values(stream(1, 2, 3), size))) == [0, 1, 2, 3, 4, 5]


def test_samples_of_other_shapes_end_a_batch() -> None:
    batches = [{"x": np.zeros((2, 3))}, {"x": np.zeros((2, 4))}, {"x": np.zeros((1, 4))}]
    assert [batch["x"].shape for batch in regroup(batches, 4)] == [(2, 3), (3, 4)]


def test_a_stream_ends_at_its_limit_with_the_labels_that_go_with_it() -> None:
    data = stream(2, 2, 2, limit=3, labels=np.arange(6))
    assert values(data, 2) == [[0, 1], [2]]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize("count", [3, 5])
def test_a_stream_has_as_many_labels_as_samples(count: int) -> None:
    with pytest.raises(DataError, match=f"a label for each of 4 samples expected, found {count}"):
        values(stream(2, 2, labels=np.arange(count)), 2)


def test_a_single_sample_is_a_batch_of_one() -> None:
    data = StreamDataset(lambda: [{"x": np.ones(1)}, {"x": np.zeros(1)}], FREE, "d")
    assert values(data, 2) == [[1, 0]]


def test_an_exception_of_the_source_names_it() -> None:
    def items() -> Iterator[dict[str, np.ndarray]]:
        yield {"x": column(1)}
        raise ZeroDivisionError("in the reader")

    with pytest.raises(DataError, match="d: a dict of inputs expected, it raised ZeroDivisionError: in the reader"):
        values(StreamDataset(items, FREE, "d"), 1)


def test_whole_samples_are_counted_one_by_one() -> None:
    data = StreamDataset(lambda: [{"x": column(2)}, {"x": column(5)}], WHOLE, "d")
    batches = list(data.batches(7))
    assert [data.samples_in(batch) for batch in batches] == [1, 1]
    assert not data.divisible


def test_passes_over_watched_data_are_told() -> None:
    told: list[tuple[str, int, int | None]] = []
    data = watched(arrays(5), lambda *step: told.append(step), "reading")
    assert [len(batch["x"]) for batch in data.batches(2)] == [2, 2, 1]
    assert told == [("reading", 0, 5), ("reading", 2, 5), ("reading", 4, 5), ("reading", 5, 5)]
    plain = arrays(5)
    assert watched(plain, None, "reading") is plain
