"""Whether a network takes the batches that it declares, found out by trying.

A first axis without a size says that any number of samples may run at once. A Reshape to [1, ...] inside, or a state of
one sample, says otherwise: then a run of two samples fails, or reads them as one twice as long.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from onnx_subprune.calibration.datasets import Dataset
from onnx_subprune.calibration.layout import Feeds
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.model import runtime_reason

__all__ = ["single_sample_reason", "single_sample_warning", "tried_batch_size"]

Attempt: TypeAlias = Callable[[Feeds], Mapping[str, Any]]
"""Runs the network on one batch and returns its outputs by name."""

_logger = logging.getLogger(__name__)


def single_sample_reason(data: Dataset, attempt: Attempt) -> str | None:
    """Return why the network runs on one sample at a time only; None where it runs on two, or on none at all.

    Args:
        data: samples for the network.
        attempt: runs it.

    """
    if not data.divisible:
        return None
    pair = next(iter(data.batches(2)))
    if data.samples_in(pair) < 2:
        return None
    both = _outputs_or_reason(pair, attempt)
    if not isinstance(both, str) and all(_counts_two(value) for value in both.values()):
        return None
    alone = _outputs_or_reason(data.rows_of(pair, np.array([0])), attempt)
    if isinstance(alone, str):
        return None
    return both if isinstance(both, str) else _joined_reason(alone, both)


def tried_batch_size(data: Dataset, batch_size: int, attempt: Attempt) -> int:
    """Return how many samples to run at once: 1, with a warning, where the network takes no more.

    Args:
        data: samples for the network.
        batch_size: how many there would be.
        attempt: runs the network.

    """
    reason = single_sample_reason(data, attempt) if batch_size > 1 else None
    if reason is None:
        return batch_size
    _logger.warning("%s", single_sample_warning(reason))
    return 1


def single_sample_warning(reason: str) -> str:
    """Return what to tell the user of a network that runs on one sample at a time only."""
    return f"the model declares a batch of any size, and runs on one sample at a time only, as it is run here: {reason}"


def _outputs_or_reason(feeds: Feeds, attempt: Attempt) -> dict[str, np.ndarray[Any, Any]] | str:
    try:
        outputs = attempt(feeds)
    except (DataError, ModelError) as error:
        return runtime_reason(error)
    return {name: value for name, value in outputs.items() if isinstance(value, np.ndarray)}


def _counts_two(value: np.ndarray[Any, Any]) -> bool:
    return value.ndim > 0 and len(value) == 2


def _joined_reason(alone: Mapping[str, np.ndarray[Any, Any]], both: Mapping[str, np.ndarray[Any, Any]]) -> str | None:
    """Return which output reads two samples as one twice as long; None where none does."""
    for name in alone.keys() & both.keys():
        one, two = alone[name].shape, both[name].shape
        if len(one) == len(two) > 1 and one[0] == two[0] == 1 and np.prod(two) == 2 * np.prod(one) > 0:
            grown = [axis for axis, sizes in enumerate(zip(one, two, strict=True)) if sizes[0] != sizes[1]]
            if len(grown) == 1 and one[grown[0]] > 1:
                return f"output '{name}' of two samples is {list(two)}, of one {list(one)}"
    return None
