"""The first samples of a data set, and no more of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from onnx_subprune.calibration import FirstSamples, open_data
from onnx_subprune.model import InputSpec

SPEC = InputSpec("x", ("N", 2), np.dtype(np.float32))


@pytest.mark.parametrize(("count", "sizes"), [(3, [3]), (4, [4]), (6, [4, 2]), (30, [4, 4, 2])])
def test_so_many_samples_are_read_in_batches(count: int, sizes: list[int]) -> None:
    samples = np.arange(20, dtype=np.float32).reshape(10, 2)
    first = FirstSamples(open_data({"x": samples}, [SPEC]), count)
    read = [feeds["x"] for feeds in first.batches(4)]
    assert [len(batch) for batch in read] == sizes
    assert np.array_equal(np.concatenate(read), samples[:count])


def test_a_batch_that_cannot_be_cut_is_whole() -> None:
    fixed = InputSpec("x", (4, 2), np.dtype(np.float32))
    first = FirstSamples(open_data({"x": np.zeros((8, 2), np.float32)}, [fixed]), 3)
    assert [len(feeds["x"]) for feeds in first.batches(4)] == [4]


def test_no_more_is_read_than_is_asked_for() -> None:
    drawn: list[int] = []

    def samples() -> Iterator[dict[str, np.ndarray]]:
        for number in range(100):
            drawn.append(number)
            yield {"x": np.zeros(2, np.float32)}

    assert sum(first["x"].shape[0] for first in FirstSamples(open_data(samples, [SPEC]), 4).batches(2)) == 4
    assert len(drawn) < 20
