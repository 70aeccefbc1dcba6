"""Batches out of samples as they come: equal shapes together, and no others."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.calibration import grouping
from onnx_subprune.calibration.grouping import PlacedBatch, regroup
from onnx_subprune.calibration.layout import Layout, layout_of
from onnx_subprune.calibration.per_run import data_layout
from onnx_subprune.model import InputSpec

IDS = InputSpec("ids", ("N", "T"), np.dtype(np.int64))
RATE = InputSpec("rate", (), np.dtype(np.float32))
LAYOUT = layout_of([IDS])


def coming(*lengths: int, rates: tuple[float, ...] = ()) -> list[PlacedBatch]:
    """Return a batch of one sample for each length; every id is the sample's place."""
    batches = []
    for place, length in enumerate(lengths):
        feeds = {"ids": np.full((1, length), place)}
        if rates:
            feeds["rate"] = np.float32(rates[place])
        batches.append(PlacedBatch(feeds, np.array([place])))
    return batches


def places(batches: list[PlacedBatch], size: int, layout: Layout = LAYOUT, *, bounded: bool = True) -> list[list[int]]:
    grouped = list(regroup(batches, size, layout, bounded=bounded))
    for batch in grouped:
        assert batch.feeds["ids"][:, 0].tolist() == batch.places.tolist()
    return [batch.places.tolist() for batch in grouped]


def test_samples_of_one_shape_run_together_whatever_comes_between_them() -> None:
    assert places(coming(5, 7, 5, 7, 7, 5), 2) == [[0, 2], [1, 3], [4], [5]]
    assert places(coming(5, 7, 5, 7, 7, 5), 3) == [[1, 3, 4], [0, 2, 5]]
    assert places(coming(5, 5, 5), 2) == [[0, 1], [2]]


def test_a_value_per_run_keeps_samples_apart() -> None:
    layout = data_layout([IDS, RATE], {"ids": (9, 3), "rate": ()})
    batches = coming(3, 3, 3, 3, rates=(0.5, 1, 0.5, 1))
    assert places(batches, 4, layout) == [[0, 2], [1, 3]]
    first = next(iter(regroup(batches, 4, layout))).feeds
    assert (first["rate"].shape, float(first["rate"])) == ((), 0.5)


def test_samples_that_wait_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(grouping, "_MOST_BYTES", 8 * 10)
    batches = coming(5, 6, 2, 5, 6)
    # 11 ids wait after the second sample: those of the largest group run alone.
    assert places(batches, 2) == [[1], [0, 3], [2], [4]]
    assert places(batches, 2, bounded=False) == [[0, 3], [1, 4], [2]]
