"""Which samples are held out: fits are chosen between, and networks compared, on what they were not fitted on.

Samples are held out by whole runs of the network. Inside of it the batch may lie on any axis, or be folded into another
one, so that of a run with both kinds of samples nobody could tell which rows of a tensor belong to which. So samples of
either kind are gathered until they fill a run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_subprune.calibration.datasets import Dataset
from onnx_subprune.calibration.grouping import PlacedBatch
from onnx_subprune.calibration.layout import Array, Feeds

__all__ = ["HELD", "FittedDataset", "Portion", "portions"]

HELD = 5
"""One calibration sample in so many is held out where fits are chosen between."""


@dataclass(frozen=True, eq=False)
class Portion:
    """Inputs of one run.

    Attributes:
        feeds: the arrays by name.
        samples: how many it holds.
        units: how many parts are held out or not as one: samples, or one where the samples of a run go together.
        held: whether it is held out.

    """

    feeds: Feeds
    samples: int
    units: int
    held: bool


def portions(data: Dataset, batch_size: int, every: int = HELD) -> Iterator[Portion]:
    """Yield all samples in runs, each held out as a whole or not at all.

    Where the model fixes the size of a batch, or its inputs share no batch axis, whole runs are counted, not samples.

    Args:
        data: read once, from the start.
        batch_size: the most samples of a run.
        every: one sample in so many is held out; 0 to hold none out.

    """
    seen = 0
    waiting = {held: _Waiting(data, batch_size, held=held) for held in (False, True)}
    for feeds in data.batches(batch_size):
        samples = data.samples_in(feeds)
        units = samples if data.divisible else 1
        away = (seen + np.arange(units)) % every == every - 1 if every else np.zeros(units, np.bool_)
        seen += units
        if not data.divisible:
            yield Portion(feeds, samples, units, bool(away[0]))
            continue
        for held, samples_waiting in waiting.items():
            rows = np.flatnonzero(away == held)
            if len(rows):
                yield from samples_waiting.add(feeds if len(rows) == samples else data.rows_of(feeds, rows))
    for samples_waiting in waiting.values():
        yield from samples_waiting.rest()


class _Waiting:
    """Samples of one kind that wait until they fill a run: a run of a few samples costs nearly that of many.

    Args:
        data: that they are of.
        size: samples of a run.
        held: whether they are held out.

    """

    def __init__(self, data: Dataset, size: int, *, held: bool) -> None:
        self._data, self._size, self._held = data, size, held
        self._feeds: Feeds = {}

    def add(self, feeds: Feeds) -> Iterator[Portion]:
        """Take samples in, and yield the runs that are full."""
        if self._feeds and not self._joinable(feeds):
            yield from self.rest()
        per_run = self._per_run(feeds)
        joined = feeds
        if self._feeds:
            joined = {n: feeds[n] if n in per_run else np.concatenate([self._feeds[n], feeds[n]]) for n in feeds}
        count = self._data.samples_in(joined)
        for start in range(0, count - self._size + 1, self._size):
            yield self._portion(self._data.rows_of(joined, np.arange(start, start + self._size)))
        over = np.arange(count - count % self._size, count)
        self._feeds = self._data.rows_of(joined, over) if len(over) else {}

    def rest(self) -> Iterator[Portion]:
        """Yield what still waits."""
        if self._feeds:
            yield self._portion(self._feeds)
        self._feeds = {}

    def _portion(self, feeds: Feeds) -> Portion:
        samples = self._data.samples_in(feeds)
        return Portion(feeds, samples, samples, self._held)

    def _joinable(self, feeds: Feeds) -> bool:
        """Whether samples may stand in one run with those that wait."""
        per_run, waiting = self._per_run(feeds), self._feeds
        return all(
            np.array_equal(array, waiting[name]) if name in per_run else array.shape[1:] == waiting[name].shape[1:]
            for name, array in feeds.items()
        )

    def _per_run(self, feeds: Feeds) -> set[str]:
        """Return the inputs that hold one value for a run."""
        none = self._data.rows_of(feeds, np.arange(0))
        return {name for name, array in none.items() if array is feeds[name]}


class FittedDataset(Dataset):
    """The samples of another data set that are not held out, without their labels.

    Args:
        data: all samples.

    """

    def __init__(self, data: Dataset) -> None:
        self._data = data
        self._layout = data._layout
        self.source = data.source
        self.samples = None
        self.labels = None

    def placed(self, batch_size: int) -> Iterator[PlacedBatch]:
        """Yield the batches of the other data set without the samples that are held out; places count those that stay.

        Args:
            batch_size: the most samples of a batch.

        """
        place = 0
        for portion in portions(self._data, batch_size):
            if not portion.held:
                yield PlacedBatch(portion.feeds, np.arange(place, place + portion.samples))
                place += portion.samples

    def rows_of(self, feeds: Mapping[str, Array], rows: Array) -> Feeds:
        """See `Dataset.rows_of`."""
        return self._data.rows_of(feeds, rows)

    def samples_in(self, feeds: Mapping[str, Array]) -> int:
        """Return the number of samples in a batch, as the other data set counts them.

        Args:
            feeds: arrays of a batch by input name.

        """
        return self._data.samples_in(feeds)
