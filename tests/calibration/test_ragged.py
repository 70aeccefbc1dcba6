"""Arrays whose samples differ in size, or in what holds for a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration import open_data, open_tokens
from onnx_subprune.calibration.ragged import as_samples
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

INT, FLOAT = np.dtype(np.int64), np.dtype(np.float32)
IDS = InputSpec("input_ids", ("batch", "t"), INT)
RATE = InputSpec("rate", (), FLOAT)
LISTS = [[1, 2, 3], [4, 5], [6, 7, 8], [9, 10]]


def objects(samples: list[Any]) -> np.ndarray:
    array = np.empty(len(samples), object)
    array[:] = [np.asarray(sample) for sample in samples]
    return array


@pytest.mark.parametrize("ids", [LISTS, objects(LISTS), [np.array([row]) for row in LISTS], tuple(LISTS)])
def test_samples_of_several_lengths_run_with_those_of_their_length(ids: Any) -> None:
    data = open_data({"input_ids": ids, "labels": np.arange(4)}, [IDS])
    found = [(feeds["input_ids"].tolist(), places.tolist()) for feeds, places in data.placed(8)]
    assert found == [([[1, 2, 3], [6, 7, 8]], [0, 2]), ([[4, 5], [9, 10]], [1, 3])]
    assert data.labels is not None
    assert data.labels.tolist() == [0, 1, 2, 3]


def test_a_seed_chooses_samples_and_their_labels_and_numbers() -> None:
    data = open_data({"input_ids": LISTS, "labels": np.arange(4) * 10}, [IDS], samples=3, seed=5)
    rows = np.random.default_rng(5).permutation(4)[:3]
    assert data.labels is not None
    assert data.labels.tolist() == (rows * 10).tolist()
    for feeds, places in data.placed(8):
        assert feeds["input_ids"].tolist() == [LISTS[number] for number in data.numbers_of(places)]


def test_lengths_and_masks_go_together_and_what_is_missing_is_filled_in() -> None:
    specs = [IDS, InputSpec("token_type_ids", ("batch", "t"), INT), InputSpec("use_cache_branch", (1,), np.dtype(bool))]
    shapes = [
        {name: array.shape for name, array in feeds.items()}
        for feeds in open_data({"input_ids": LISTS}, specs).batches(8)
    ]
    assert shapes == [
        {"input_ids": (2, length), "token_type_ids": (2, length), "use_cache_branch": (1,)} for length in (3, 2)
    ]


@pytest.mark.parametrize("saved", [False, True])
def test_values_per_run_that_differ_split_the_samples(saved: bool, tmp_path: Path) -> None:
    arrays = {"input_ids": np.arange(8).reshape(4, 2), "rate": np.array([1, 2, 1, 2], np.float32)}
    np.savez(tmp_path / "data.npz", **arrays)
    data = open_data(str(tmp_path / "data.npz") if saved else arrays, [RATE, IDS])
    found = [(float(feeds["rate"]), feeds["input_ids"].tolist()) for feeds in data.batches(8)]
    assert found == [(1, [[0, 1], [4, 5]]), (2, [[2, 3], [6, 7]])]
    assert data.source == (str(tmp_path / "data.npz") if saved else "dict")


def test_windows_of_several_lengths() -> None:
    assert [feeds["input_ids"].shape for feeds in open_tokens(LISTS, [IDS]).batches(8)] == [(2, 3), (2, 2)]


def test_what_is_no_sample_is_named() -> None:
    with pytest.raises(DataError, match="list: an array expected for input 'x' in sample 1, found lists of several"):
        as_samples([[1], [[1], [2, 3]]], "x", "list")
    with pytest.raises(DataError, match=r"'input_ids' expected of shape \[\?, t\], found \[1, 1, 1\]"):
        list(open_data({"input_ids": [[[1, 2]], [[[3]]]]}, [IDS]).batches(1))
    with pytest.raises(DataError, match="found 'input_ids' 4, 'mask' 3"):
        open_data({"input_ids": LISTS, "mask": LISTS[:3]}, [IDS, InputSpec("mask", ("batch", "t"), INT)])


def test_text_stays_an_array() -> None:
    column = as_samples(np.array([["a"], ["b"]], object), "x", "dict", text=True)
    assert isinstance(column, np.ndarray)
    assert column.shape == (2, 1)
