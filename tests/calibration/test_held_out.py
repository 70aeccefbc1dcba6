"""Which samples are held out: by runs of which every sample is, or none."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.calibration import HELD, Dataset, FittedDataset, open_data, portions
from onnx_subprune.model import InputSpec

FLOAT = np.dtype(np.float32)


def spec(*shape: int | str | None) -> InputSpec:
    return InputSpec("x", shape, FLOAT)


def dataset(count: int, *shape: int | str | None) -> Dataset:
    """Return samples whose values are their numbers."""
    values = np.arange(count, dtype=np.float32).reshape(-1, 1) * np.ones((1, 3), np.float32)
    return open_data({"x": values}, [spec(*shape)])


@pytest.mark.parametrize("batch_size", [1, 4, 8, 100])
def test_every_fifth_sample_of_a_free_batch_is_held_out(batch_size: int) -> None:
    found = list(portions(dataset(23, "N", 3), batch_size))
    held = [int(number) for one in found if one.held for number in one.feeds["x"][:, 0]]
    rest = [int(number) for one in found if not one.held for number in one.feeds["x"][:, 0]]
    assert held == list(range(HELD - 1, 23, HELD))
    assert rest == [number for number in range(23) if number % HELD != HELD - 1]
    assert all(one.samples == one.units == len(one.feeds["x"]) <= batch_size for one in found)


def test_a_fixed_batch_is_held_out_as_a_whole() -> None:
    found = list(portions(dataset(22, 2, 3), 32))
    assert [one.held for one in found] == [index % HELD == HELD - 1 for index in range(11)]
    assert all((one.samples, one.units, one.feeds["x"].shape) == (2, 1, (2, 3)) for one in found)


def test_sets_of_inputs_without_a_batch_are_held_out_one_by_one() -> None:
    states = [InputSpec("x", ("time", 3), FLOAT), InputSpec("s", (), FLOAT)]
    data = open_data([{"x": np.zeros((5, 3), np.float32), "s": np.float32(1)}] * 6, states)
    assert [one.held for one in portions(data, 4)] == [False] * 4 + [True, False]


@pytest.mark.parametrize("every", [0, 9])
def test_of_few_samples_none_is_held_out(every: int) -> None:
    assert not any(one.held for one in portions(dataset(8, "N", 3), 4, every))


def test_a_sequence_whose_batch_is_another_axis_is_one_sample() -> None:
    for dims in (("seq", "batch", 3), ("T", "N", 3), (7, "batch_size", 3)):
        data = open_data([{"x": np.zeros((7, 2, 3), np.float32)}] * 6, [spec(*dims)])
        assert [one.feeds["x"].shape for one in portions(data, 4)] == [(7, 2, 3)] * 6
        assert [one.held for one in portions(data, 4)] == [False] * 4 + [True, False]
    data = open_data({"x": np.zeros((6, 2, 3), np.float32)}, [spec("batch", "decoder_batch", 3)])
    assert [one.samples for one in portions(data, 8)] == [5, 1]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_what_is_fitted_on_is_all_but_what_is_held_out(batch_size: int) -> None:
    data = dataset(23, "N", 3)
    fitted = FittedDataset(data)
    batches = list(fitted.batches(batch_size))
    numbers = [int(number) for feeds in batches for number in feeds["x"][:, 0]]
    assert numbers == [number for number in range(23) if number % HELD != HELD - 1]
    assert sum(map(fitted.samples_in, batches)) == len(numbers)
    assert (fitted.source, fitted.divisible) == (data.source, data.divisible)


def test_samples_of_either_kind_fill_their_runs() -> None:
    sizes = [(portion.held, portion.samples) for portion in portions(dataset(103, "N", 3), 8)]
    assert sorted(sizes) == [(False, 3), *[(False, 8)] * 10, (True, 4), *[(True, 8)] * 2]


def test_values_for_a_run_are_not_joined_with_others() -> None:
    ratio = InputSpec("ratio", (1,), FLOAT)
    data = open_data({"x": np.ones((10, 3), np.float32), "ratio": np.array([2.0], np.float32)}, [spec("N", 3), ratio])
    runs = list(portions(data, 4))
    assert [(run.held, run.samples) for run in runs] == [(False, 4), (False, 4), (True, 2)]
    assert all(run.feeds["ratio"].tolist() == [2.0] for run in runs)
