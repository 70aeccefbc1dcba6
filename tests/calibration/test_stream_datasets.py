"""Samples that come as dicts: their ends, labels and sizes, and what holds for a run."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import chain
from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration.layout import Layout, layout_of
from onnx_subprune.calibration.per_run import data_layout
from onnx_subprune.calibration.stream_datasets import StreamDataset
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

F32 = np.dtype(np.float32)
X = InputSpec("x", ("N", 1), F32)
FREE = layout_of([X])
RATED = data_layout([InputSpec("rate", (1,), F32), X], {"x": (1,)}, stacked=False)


def column(count: int) -> np.ndarray:
    return np.arange(count, dtype=np.float32)[:, None]


def stream(*sizes: int, layout: Layout = FREE, limit: int | None = None, labels: Any = None) -> StreamDataset:
    def items() -> Iterator[dict[str, np.ndarray]]:
        start = 0
        for size in sizes:
            yield {"x": column(start + size)[start:]}
            start += size

    return StreamDataset(items, layout, "d", limit, labels)


def rated(*items: dict[str, Any], limit: int | None = None) -> StreamDataset:
    return StreamDataset(lambda: items, RATED, "d", limit)


def values(data: StreamDataset, batch_size: int) -> list[list[float]]:
    return [batch["x"].ravel().tolist() for batch in data.batches(batch_size)]


@pytest.mark.parametrize(("size", "sizes"), [(1, [1] * 6), (4, [4, 2]), (6, [6]), (9, [6])])
def test_batches_are_joined_and_cut(size: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in values(stream(1, 2, 3), size)] == sizes
    assert list(chain.from_iterable(values(stream(1, 2, 3), size))) == [0, 1, 2, 3, 4, 5]


def test_labels_stand_at_the_places_of_samples_of_several_sizes() -> None:
    layout = layout_of([InputSpec("x", ("N", "T"), F32)])
    lengths = (3, 2, 3, 2, 2)
    items = [{"x": np.full(length, float(place))} for place, length in enumerate(lengths)]
    data = StreamDataset(lambda: items, layout, "d", labels=np.arange(5) * 10)
    found = [(batch.feeds["x"].shape, batch.places.tolist()) for batch in data.placed(2)]
    assert found == [((2, 3), [0, 2]), ((2, 2), [1, 3]), ((1, 2), [4])]
    assert all((batch.feeds["x"][:, 0] == batch.places).all() for batch in data.placed(2))


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


def test_samples_of_a_fixed_batch_and_of_several_sizes(caplog: pytest.LogCaptureFixture) -> None:
    layout = layout_of([InputSpec("x", (2, "T"), F32)])
    items = [{"x": np.ones((1, length))} for length in (3, 4, 3, 4, 4)]
    with caplog.at_level(logging.WARNING):
        shapes = [batch["x"].shape for batch in StreamDataset(lambda: items, layout, "d").batches(32)]
    assert shapes == [(2, 3), (2, 4)]
    assert "1 samples dropped, the model's batch size is fixed at 2" in caplog.text


@pytest.mark.parametrize("rate", [0.5, [0.5], np.array([[0.5]]), np.float32(0.5)])
def test_what_holds_for_a_run_comes_beside_a_sample_or_a_batch(rate: Any) -> None:
    single = rated({"x": np.ones(1), "rate": rate}, {"x": np.zeros(1), "rate": rate})
    batch = rated({"rate": rate, "x": column(2)[::-1]})
    for data in (single, batch):
        (feeds,) = data.batches(4)
        assert list(feeds) == ["rate", "x"]
        assert (feeds["rate"].tolist(), feeds["x"].tolist()) == ([0.5], [[1], [0]])
        assert data.samples_in(feeds) == 2
        assert data.rows_of(feeds, np.array([1]))["rate"].tolist() == [0.5]


def test_samples_run_with_those_of_the_same_value() -> None:
    data = rated({"x": column(4), "rate": [1.0, 2.0, 1.0, 2.0]}, {"x": column(1), "rate": [2.0]}, limit=5)
    found = [(feeds["rate"].tolist(), feeds["x"].ravel().tolist()) for feeds in data.batches(4)]
    assert found == [([1], [0, 2]), ([2], [1, 3, 0])]
    assert [feeds["x"].ravel().tolist() for feeds in rated({"x": column(4), "rate": 1.0}, limit=3).batches(4)] == [
        [0, 1, 2]
    ]


def test_values_per_run_are_one_or_as_many_as_samples() -> None:
    with pytest.raises(DataError, match="one value for input 'rate' expected, or one for each of 3 samples, found 2"):
        list(rated({"x": column(3), "rate": [1.0, 2.0]}).batches(4))
    with pytest.raises(DataError, match="input 'rate' expected, found nothing else"):
        list(rated({"x": column(3)}).batches(4))


def test_an_exception_of_the_source_names_it() -> None:
    def items() -> Iterator[dict[str, np.ndarray]]:
        yield {"x": column(1)}
        raise ZeroDivisionError("in the reader")

    with pytest.raises(DataError, match="d: a dict of inputs expected, it raised ZeroDivisionError: in the reader"):
        values(StreamDataset(items, FREE, "d"), 1)


def test_whole_samples_are_counted_one_by_one() -> None:
    data = StreamDataset(lambda: [{"x": column(2)}, {"x": column(5)}], Layout(FREE.specs, whole=True), "d")
    batches = list(data.batches(7))
    assert [data.samples_in(batch) for batch in batches] == [1, 1]
    assert not data.divisible
