"""Whether a network takes the batches that it declares."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.calibration.batch_trial import single_sample_reason, tried_batch_size
from onnx_subprune.errors import ModelError
from onnx_subprune.model import InputSpec

SPECS = (InputSpec("x", ("N", 6), np.dtype(np.float32)),)
DATA = open_data({"x": np.zeros((5, 6), np.float32)}, SPECS)


def shaped(shape_of: Callable[[int], tuple[int, ...]]) -> Callable[..., dict[str, np.ndarray]]:
    """Return a network whose output has a shape that follows from the number of samples."""
    return lambda feeds: {"y": np.zeros(shape_of(len(feeds["x"])))}


def refusing(most: int) -> Callable[..., dict[str, np.ndarray]]:
    def attempt(feeds: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        if len(feeds["x"]) > most:
            raise ModelError("ONNX Runtime failed while running the model: too many") from RuntimeError(
                "Reshape 'r': too many"
            )
        return {"y": feeds["x"]}

    return attempt


def test_a_run_of_two_that_fails_says_why() -> None:
    assert single_sample_reason(DATA, refusing(1)) == "Reshape 'r': too many"
    assert single_sample_reason(DATA, refusing(2)) is None
    # What fails on one sample too has nothing to do with the batch.
    assert single_sample_reason(DATA, refusing(0)) is None


@pytest.mark.parametrize(
    ("shape_of", "single"),
    [
        (lambda n: (n, 4), False),
        (lambda n: (1, 12 * n, 4), True),
        (lambda n: (1, n, 4), False),
        (lambda n: (7, n, 4), False),
        (lambda n: (8 * n, 3), False),
        (lambda _: (1, 4), False),
        (lambda _: (), False),
        (lambda n: (1, 0 * n, 4), False),
    ],
)
def test_two_samples_must_not_be_read_as_one(shape_of: Callable[[int], tuple[int, ...]], single: bool) -> None:
    reason = single_sample_reason(DATA, shaped(shape_of))
    assert (reason is not None) is single
    assert not single or reason == "output 'y' of two samples is [1, 24, 4], of one [1, 12, 4]"


@pytest.mark.parametrize(("arrays", "shape"), [({"x": np.zeros((1, 6))}, ("N", 6)), ({"x": np.zeros((4, 6))}, (2, 6))])
def test_there_is_nothing_to_try_with_one_sample_or_a_fixed_batch(arrays: Any, shape: tuple[Any, ...]) -> None:
    def never(_: Any) -> Any:
        raise AssertionError("the network was run")

    data = open_data(arrays, [InputSpec("x", shape, np.dtype(np.float64))])
    assert single_sample_reason(data, never) is None
    assert tried_batch_size(DATA, 1, never) == 1


def test_whoever_asks_for_batches_is_told_and_gets_single_samples(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert tried_batch_size(DATA, 32, refusing(2)) == 32
    assert not caplog.records
    assert tried_batch_size(DATA, 32, refusing(1)) == 1
    assert "runs on one sample at a time only, as it is run here: Reshape 'r': too many" in caplog.text
