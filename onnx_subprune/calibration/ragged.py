"""Arrays whose samples differ in size, or in what holds for a run: read row by row, as a stream of samples."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from onnx_subprune.calibration.layout import Array
from onnx_subprune.calibration.streams import Items
from onnx_subprune.errors import DataError

__all__ = ["Samples", "as_samples", "row_items"]

Samples: TypeAlias = Array | list[Array]
"""An array with samples on its first axis, or a list of samples that differ in size."""


def as_samples(value: Any, name: str, source: str, *, text: bool = False) -> Samples:
    """Return array-like samples as an array, or as a list where they differ in size.

    Args:
        value: an array, an array of arrays, or nested lists.
        name: of the input.
        source: what the samples came from, for messages.
        text: whether the input takes text, which NumPy holds as objects.

    Raises:
        DataError: a sample is no array.

    >>> [sample.shape for sample in as_samples([[1, 2, 3], [4]], "ids", "list")]
    [(3,), (1,)]

    """
    try:
        array = np.asarray(value)
    except ValueError:
        array = None
    if array is not None and (array.dtype != object or text or array.ndim == 0):
        return array
    return [_as_sample(sample, number, name, source) for number, sample in enumerate(value)]


def _as_sample(sample: Any, number: int, name: str, source: str) -> Array:
    try:
        return np.asarray(sample)
    except ValueError as error:
        raise DataError(
            f"{source}: an array expected for input '{name}' in sample {number}, found lists of several lengths; make "
            "each sample an array"
        ) from error


def row_items(columns: Mapping[str, Samples], per_run: Collection[str], numbers: Sequence[int] | Array) -> Items:
    """Return a stream of the samples with these numbers, in this order.

    Args:
        columns: the samples of each input.
        per_run: names of inputs that may hold one value for all samples.
        numbers: of the samples.

    """

    def items() -> Iterator[dict[str, Array]]:
        for number in numbers:
            yield {
                name: np.asarray(column if name in per_run and np.size(column) == 1 else column[int(number)])
                for name, column in columns.items()
            }

    return items
