"""Samples that are far larger than all others: one alone can decide second moments, and with them what is pruned.

A sample is an outlier if its largest magnitude at a float input is more than ten thousand times that of the median
sample (of at least 1), and few samples are like it. What it does to the statistics is measured: values that mask
something out, such as -1e9 in a few samples, do not reach them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from onnx_subprune.calibration.datasets import Dataset
from onnx_subprune.calibration.grouping import PlacedBatch
from onnx_subprune.calibration.layout import Array, Feeds

__all__ = ["Magnitudes", "Outliers", "PickedDataset"]

_TIMES = 1e4
_FEW = 20
_NAMED = 3


@dataclass(frozen=True)
class Outliers:
    """Samples that are far larger than the others at one input.

    Attributes:
        input: its name.
        places: of the samples, the largest first.
        largest: the largest magnitude of these samples.
        others: the largest magnitude of all other samples.

    """

    input: str
    places: tuple[int, ...]
    largest: float
    others: float

    def describe(self, data: Dataset) -> str:
        """Return which samples of the data they are, and how large, in words."""
        numbers = [str(int(number)) for number in data.numbers_of(np.array(self.places[:_NAMED]))]
        rest = len(self.places) - len(numbers)
        listed = ", ".join(numbers) + (f" and {rest} more" if rest else "")
        noun, verb = ("sample", "has") if len(self.places) == 1 else ("samples", "have")
        return (
            f"{noun} {listed} of '{data.source}' {verb} magnitudes up to {self.largest:.3g} in input '{self.input}', "
            f"the others at most {self.others:.3g}"
        )


@dataclass
class Magnitudes:
    """The largest magnitude of every sample at every float input, taken down as batches come by."""

    _places: list[Array] = field(default_factory=list)
    _largest: dict[str, list[Array]] = field(default_factory=dict)

    def add(self, feeds: Mapping[str, Array], places: Array) -> None:
        """Take down a batch.

        Args:
            feeds: the arrays by input name.
            places: of its samples.

        """
        self._places.append(places)
        for name, array in feeds.items():
            if array.dtype.kind == "f":
                self._largest.setdefault(name, []).append(_largest(array, len(places)))

    def outliers(self) -> list[Outliers]:
        """Return the outliers of every input that has any."""
        if not self._places:
            return []
        places = np.concatenate(self._places)
        named = ((name, np.concatenate(parts)) for name, parts in self._largest.items())
        return [outliers for name, largest in named if (outliers := _outliers(name, places, largest)) is not None]


class PickedDataset(Dataset):
    """Some samples of another data set, or the batches that hold them where these cannot be cut.

    Args:
        data: the other data set.
        places: of the samples.

    """

    def __init__(self, data: Dataset, places: Sequence[int]) -> None:
        self._data, self._wanted = data, np.asarray(places)
        self._layout = data._layout
        self.source, self.samples, self.labels = data.source, None, None

    def placed(self, batch_size: int) -> Iterator[PlacedBatch]:
        """See `Dataset.placed`."""
        for feeds, places in self._data.placed(batch_size):
            rows = np.flatnonzero(np.isin(places, self._wanted))
            if not len(rows):
                continue
            whole = not self._data.divisible
            yield PlacedBatch(feeds, places) if whole else PlacedBatch(self._data.rows_of(feeds, rows), places[rows])

    def rows_of(self, feeds: Mapping[str, Array], rows: Array) -> Feeds:
        """See `Dataset.rows_of`."""
        return self._data.rows_of(feeds, rows)

    def samples_in(self, feeds: Mapping[str, Array]) -> int:
        """See `Dataset.samples_in`."""
        return self._data.samples_in(feeds)


def _largest(array: Array, samples: int) -> np.ndarray[Any, Any]:
    """Return the largest magnitude of every sample; that of all for each where the first axis does not count them."""
    if not array.size:
        return np.zeros(samples)
    rows = array.reshape(samples if array.ndim and len(array) == samples else 1, -1)
    # A copy of the magnitudes would be as large as the batch.
    return np.broadcast_to(np.maximum(rows.max(axis=1), -rows.min(axis=1)).astype(np.float64), (samples,))


def _outliers(name: str, places: Array, largest: Array) -> Outliers | None:
    limit = _TIMES * max(float(np.median(largest)), 1.0)
    large = np.flatnonzero(largest > limit)
    if not len(large) or len(large) > max(1, len(largest) // _FEW):
        return None
    ordered = large[np.argsort(-largest[large], kind="stable")]
    others = np.delete(largest, large)
    return Outliers(
        name, tuple(int(place) for place in places[ordered]), float(largest[ordered[0]]), float(others.max())
    )
