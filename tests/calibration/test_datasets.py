"""Batches from arrays: sizes, ends, places, and what watches them."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from onnx_subprune.calibration import watched
from onnx_subprune.calibration.datasets import ArrayDataset, Column
from onnx_subprune.calibration.layout import Layout, layout_of
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

F32 = np.dtype(np.float32)
FREE = layout_of([InputSpec("x", ("N", 1), F32)])
FIXED = layout_of([InputSpec("x", (3, 1), F32)])


def column(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32)[:, None]


def arrays(count: int, layout: Layout = FREE, rows: np.ndarray | None = None) -> ArrayDataset:
    numbers = np.arange(count) if rows is None else rows
    return ArrayDataset({"x": Column(column(count), rows)}, layout, "d", numbers, None)


def values(data: ArrayDataset, batch_size: int) -> list[list[float]]:
    return [batch["x"].ravel().tolist() for batch in data.batches(batch_size)]


def test_chosen_rows_are_read_in_their_order() -> None:
    data = arrays(6, rows=np.array([4, 0, 5]))
    assert values(data, 2) == [[4, 0], [5]]
    assert (data.samples, data.divisible) == (3, True)
    assert Column(column(6)).take(1, 3).ravel().tolist() == [1, 2]


def test_samples_have_a_place_among_those_read_and_a_number_in_the_source() -> None:
    data = arrays(6, rows=np.array([4, 0, 5]))
    for each in (data, watched(data, lambda *_: None, "reading")):
        places = [batch.places for batch in each.placed(2)]
        assert [part.tolist() for part in places] == [[0, 1], [2]]
        assert each.numbers_of(places[1]).tolist() == [5]


def test_a_fixed_batch_leaves_the_rest_out(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert values(arrays(7, FIXED), 100) == [[0, 1, 2], [3, 4, 5]]
    assert "1 samples dropped, the model's batch size is fixed at 3" in caplog.text
    with pytest.raises(DataError, match="at least 3 samples expected"):
        arrays(2, FIXED)
    with pytest.raises(DataError, match="at least one sample expected"):
        arrays(0)


def test_passes_over_watched_data_are_told() -> None:
    told: list[tuple[str, int, int | None]] = []
    data = watched(arrays(5), lambda *step: told.append(step), "reading")
    assert [len(batch["x"]) for batch in data.batches(2)] == [2, 2, 1]
    assert told == [("reading", 0, 5), ("reading", 2, 5), ("reading", 4, 5), ("reading", 5, 5)]
    assert data.divisible
    plain = arrays(5)
    assert watched(plain, None, "reading") is plain
