"""Data sets: batches of model inputs that can be read again and again, and those whose samples lie in arrays."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from onnx_subprune.calibration.grouping import PlacedBatch
from onnx_subprune.calibration.layout import Array, Feeds, Layout, check_array, check_finite, converted
from onnx_subprune.errors import DataError
from onnx_subprune.progress import Progress, Watch, phase

__all__ = [
    "ArrayDataset",
    "Column",
    "Dataset",
    "WatchedDataset",
    "report_dropped",
    "usable_samples",
    "watched",
]

logger = logging.getLogger(__name__)


class Dataset(ABC):
    """Samples that fit a model, restartable.

    Attributes:
        source: what they came from, for messages and reports.
        samples: number of samples that one pass yields, None while unknown.
        labels: a label per sample in the order of the passes, or None.

    """

    source: str
    samples: int | None
    labels: Array | None
    _layout: Layout

    def batches(self, batch_size: int) -> Iterator[Feeds]:
        """Yield dicts of contiguous arrays by input name, from the first sample; all samples of one have equal shapes.

        They may be taken on another thread than the one that asks for them.

        Args:
            batch_size: samples in each but the last; a model with a fixed batch axis gets batches of that size instead.

        Raises:
            DataError: a sample does not fit the model.

        """
        return (batch.feeds for batch in self.placed(batch_size))

    @abstractmethod
    def placed(self, batch_size: int) -> Iterator[PlacedBatch]:
        """Yield the same as `batches`, with the places of the samples: where their labels stand.

        Args:
            batch_size: as for `batches`.

        Raises:
            DataError: a sample does not fit the model.

        """

    def numbers_of(self, places: Array) -> Array:
        """Return the numbers in the source, from 0, of the samples at these places."""
        return places

    @property
    def divisible(self) -> bool:
        """Whether a batch may be cut into samples: the first axis of the inputs counts them, and may have any size."""
        return not self._layout.whole and self._layout.batch is None

    def rows_of(self, feeds: Mapping[str, Array], rows: Array) -> Feeds:
        """Return some samples of a batch that may be cut.

        Args:
            feeds: a batch, by input name.
            rows: numbers of its samples.

        """
        return self._layout.rows_of(feeds, rows)

    def samples_in(self, feeds: Mapping[str, Array]) -> int:
        """Return how many samples a batch holds: its first axis, or one where the inputs share no batch axis.

        Args:
            feeds: a batch, by input name.

        """
        return self._layout.samples_in(feeds)


@dataclass(frozen=True)
class Column:
    """One array with samples on its first axis, and the rows of it that are read (None: all, in order)."""

    array: Array
    rows: Array | None = None

    def take(self, start: int, stop: int) -> Array:
        """Return the samples from `start` to before `stop`."""
        chosen = self.array[start:stop] if self.rows is None else self.array[self.rows[start:stop]]
        return np.asarray(chosen)


class ArrayDataset(Dataset):
    """Samples held in arrays, in memory or mapped from files.

    Args:
        columns: an array with samples on its first axis for each input that holds samples.
        layout: of the inputs.
        source: what the arrays came from, for messages.
        numbers: of the samples, in the source.
        labels: one for each sample.
        values: of the inputs that hold one for every run.

    """

    def __init__(
        self,
        columns: Mapping[str, Column],
        layout: Layout,
        source: str,
        numbers: Array,
        labels: Array | None,
        *,
        values: Mapping[str, Array] | None = None,
    ) -> None:
        self._columns, self._values = dict(columns), dict(values or {})
        self._layout = layout
        self._numbers = numbers
        self.source = source
        self.labels = labels
        for spec in layout.sampled:
            array = self._columns[spec.name].array
            check_array(spec, layout.stacked(spec), array.shape, array.dtype, source)
        self.samples = usable_samples(len(numbers), layout.batch, source)

    def placed(self, batch_size: int) -> Iterator[PlacedBatch]:
        """See `Dataset.placed`."""
        assert self.samples is not None
        step = 1 if self._layout.whole else self._layout.batch or batch_size
        for start in range(0, self.samples, step):
            stop = min(start + step, self.samples)
            yield PlacedBatch(self._batch(start, stop), np.arange(start, stop))

    def numbers_of(self, places: Array) -> Array:
        """See `Dataset.numbers_of`."""
        return self._numbers[places]

    def _batch(self, start: int, stop: int) -> Feeds:
        feeds: Feeds = {}
        for spec in self._layout.specs:
            if spec.name in self._values:
                feeds[spec.name] = self._values[spec.name]
                continue
            array = converted(self._columns[spec.name].take(start, stop), spec.dtype)
            check_finite(spec, array, self.source, self._numbers[start:stop])
            feeds[spec.name] = array.reshape(array.shape[1:]) if self._layout.whole else array
        return feeds


class WatchedDataset(Dataset):
    """Another data set; `progress` is called after each batch with the samples of this pass and their number.

    Args:
        data: the data set that is read.
        progress: called with two numbers of samples; None stands for a number that is not known.

    """

    def __init__(self, data: Dataset, progress: Progress) -> None:
        self._data = data
        self._layout = data._layout
        self._progress = progress
        self.source = data.source
        self.samples = data.samples
        self.labels = data.labels

    def placed(self, batch_size: int) -> Iterator[PlacedBatch]:
        """Yield the batches of the other data set, and report the samples after each.

        Args:
            batch_size: samples in each batch; the last one may have fewer.

        """
        done = 0
        for batch in self._data.placed(batch_size):
            self._progress(done, self._data.samples)
            yield batch
            done += len(batch.places)
        self._progress(done, done)

    def numbers_of(self, places: Array) -> Array:
        """See `Dataset.numbers_of`."""
        return self._data.numbers_of(places)

    def rows_of(self, feeds: Mapping[str, Array], rows: Array) -> Feeds:
        """See `Dataset.rows_of`."""
        return self._data.rows_of(feeds, rows)

    def samples_in(self, feeds: Mapping[str, Array]) -> int:
        """Return the number of samples in a batch, as the other data set counts them.

        Args:
            feeds: arrays of a batch by input name.

        """
        return self._data.samples_in(feeds)


def watched(data: Dataset, watch: Watch | None, name: str) -> Dataset:
    """Return the same data, whose passes are steps of a phase.

    Args:
        data: the samples.
        watch: who is told; None to return `data` itself.
        name: of the phase.

    """
    progress = phase(watch, name)
    return data if progress is None else WatchedDataset(data, progress)


def usable_samples(samples: int, batch: int | None, source: str) -> int:
    """Return how many samples can be fed to a model whose batch is fixed at `batch` (None: all)."""
    if not samples:
        raise DataError(f"{source}: at least one sample expected, found none; give some calibration data")
    if batch is None:
        return samples
    report_dropped(samples // batch, samples % batch, batch, source)
    return samples - samples % batch


def report_dropped(kept: int, dropped: int, size: int, source: str) -> None:
    """Warn of samples that do not fill a batch of the size that the model fixes; DataError if none is left."""
    if dropped and not kept:
        raise DataError(
            f"{source}: at least {size} samples expected, the batch size fixed in the model, found {dropped}; "
            "give more samples or make the batch axis dynamic"
        )
    if dropped:
        logger.warning("%s: %d samples dropped, the model's batch size is fixed at %d", source, dropped, size)
