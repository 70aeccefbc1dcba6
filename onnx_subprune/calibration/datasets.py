"""Data sets: batches of model inputs that can be read again and again, from arrays or from a stream."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_subprune.calibration.layout import Array, Feeds, Layout, check_array, check_finite, conform, converted
from onnx_subprune.errors import DataError, SubpruneError
from onnx_subprune.progress import Progress, Watch, phase

__all__ = ["ArrayDataset", "Column", "Dataset", "StreamDataset", "WatchedDataset", "regroup", "watched"]

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

    @abstractmethod
    def batches(self, batch_size: int) -> Iterator[Feeds]:
        """Yield dicts of contiguous arrays by input name, from the first sample.

        They may be taken on another thread than the one that asks for them.

        Args:
            batch_size: samples in each but the last; a model with a fixed batch axis gets batches of that size instead.

        Raises:
            DataError: a sample does not fit the model.

        """

    @property
    def divisible(self) -> bool:
        """Whether a batch may be cut into samples: the first axis of every input counts them, and may have any size."""
        return not self._layout.whole and self._layout.batch is None

    def rows_of(self, feeds: Mapping[str, Array], rows: Array) -> Feeds:
        """Return some samples of a batch that may be cut.

        Args:
            feeds: a batch, by input name.
            rows: numbers of its samples.

        """
        return {name: array[rows] for name, array in feeds.items()}

    def samples_in(self, feeds: Mapping[str, Array]) -> int:
        """Return how many samples a batch holds: its first axis, or one where the inputs share no batch axis.

        Args:
            feeds: a batch, by input name.

        """
        return 1 if self._layout.whole else len(next(iter(feeds.values())))


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
    """Samples held in arrays, in memory or mapped from files."""

    def __init__(
        self, columns: Mapping[str, Column], layout: Layout, source: str, numbers: Array, labels: Array | None
    ) -> None:
        self._columns = dict(columns)
        self._layout = layout
        self._numbers = numbers
        self.source = source
        self.labels = labels
        for spec in layout.specs:
            array = self._columns[spec.name].array
            check_array(spec, layout.stacked(spec), array.shape, array.dtype, source)
        self.samples = _usable_samples(len(numbers), layout.batch, source)

    def batches(self, batch_size: int) -> Iterator[Feeds]:
        """See `Dataset.batches`."""
        assert self.samples is not None
        step = 1 if self._layout.whole else self._layout.batch or batch_size
        for start in range(0, self.samples, step):
            yield self._batch(start, min(start + step, self.samples))

    def _batch(self, start: int, stop: int) -> Feeds:
        feeds: Feeds = {}
        for spec in self._layout.specs:
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
        self._progress = progress
        self.source = data.source
        self.samples = data.samples
        self.labels = data.labels

    def batches(self, batch_size: int) -> Iterator[Feeds]:
        """Yield the batches of the other data set, and report the samples after each.

        Args:
            batch_size: samples in each batch; the last one may have fewer.

        """
        done = 0
        for feeds in self._data.batches(batch_size):
            self._progress(done, self._data.samples)
            yield feeds
            done += self.samples_in(feeds)
        self._progress(done, done)

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


class StreamDataset(Dataset):
    """Samples that come as dicts, one sample or a batch each, from something that can be opened anew."""

    def __init__(
        self,
        items: Callable[[], Iterable[Mapping[str, Any]]],
        layout: Layout,
        source: str,
        limit: int | None = None,
        labels: Array | None = None,
    ) -> None:
        self._items = items
        self._layout = layout
        self._limit = limit
        self._labels = labels
        self.source = source
        self.samples = None
        self.labels = labels if labels is None or limit is None else labels[:limit]

    def batches(self, batch_size: int) -> Iterator[Feeds]:
        """See `Dataset.batches`."""
        items = self._limited()
        if self._layout.whole:
            yield from items
        else:
            fixed = self._layout.batch
            groups = regroup(items, fixed or batch_size)
            yield from groups if fixed is None else _exactly(groups, fixed, self.source)

    def _limited(self) -> Iterator[Feeds]:
        """Conforming items up to the limit; an item that holds more samples than are left is cut."""
        seen = 0
        for item in self._guarded():
            feeds = self._checked_sample(item, seen)
            count = self.samples_in(feeds)
            if self._limit is not None and seen + count >= self._limit:
                yield feeds if self._layout.whole else {k: v[: self._limit - seen] for k, v in feeds.items()}
                self._check_labels(self._limit, exhausted=False)
                return
            yield feeds
            seen += count
        if not seen:
            raise DataError(f"{self.source}: at least one sample expected, found none; check what it yields")
        self._check_labels(seen, exhausted=True)

    def _guarded(self) -> Iterator[Mapping[str, Any]]:
        """The items, with any exception of the user's code turned into a DataError that names the source."""
        try:
            yield from self._items()
        except SubpruneError:
            raise
        except Exception as error:
            reason = (str(error).splitlines() or [""])[0]
            raise DataError(
                f"{self.source}: a dict of inputs expected, it raised {type(error).__name__}: {reason}; mend the source"
            ) from error

    def _checked_sample(self, item: Mapping[str, Any], seen: int) -> Feeds:
        if not isinstance(item, Mapping):
            raise DataError(
                f"{self.source}: dicts of arrays by input name expected, found {type(item).__name__}; yield dicts"
            )
        feeds = conform(self._with_batch_axis(item), self._layout, self._layout.fed, self.source, seen)
        if not self._layout.whole and len({len(array) for array in feeds.values()}) > 1:
            sizes = ", ".join(f"'{name}' {len(array)}" for name, array in feeds.items())
            raise DataError(
                f"{self.source}: the same number of samples expected in every input, found {sizes}; "
                "make the first axes equal"
            )
        return feeds

    def _with_batch_axis(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """A single sample, one rank short in every input, as a batch of one."""
        ranks = {spec.name: len(spec.shape) for spec in self._layout.specs}
        if self._layout.whole or any(_rank(item.get(name)) != rank - 1 for name, rank in ranks.items()):
            return item
        return {name: np.asarray(value)[None] for name, value in item.items()}

    def _check_labels(self, seen: int, *, exhausted: bool) -> None:
        if self._labels is None:
            return
        count = len(self._labels)
        if count < seen or (exhausted and count != seen):
            raise DataError(
                f"{self.source}: a label for each of {seen} samples expected, found {count}; "
                "give as many labels as samples"
            )


def _rank(value: Any) -> int:
    return np.asarray(value).ndim


def regroup(items: Iterable[Feeds], size: int) -> Iterator[Feeds]:
    """Cut and join batches to one size; samples whose shapes differ past the first axis are never joined.

    Args:
        items: batches of any size.
        size: samples in each; fewer only where the shapes change and at the end.

    >>> batches = [{"x": np.arange(2)}, {"x": np.arange(2, 5)}]
    >>> [batch["x"].tolist() for batch in regroup(batches, 3)]
    [[0, 1, 2], [3, 4]]

    """
    parts: list[Feeds] = []
    count = 0
    for feeds in items:
        if parts and _trailing_shapes(parts[0]) != _trailing_shapes(feeds):
            yield _concatenated(parts)
            parts, count = [], 0
        start, stop = 0, len(next(iter(feeds.values())))
        while start < stop:
            taken = min(size - count, stop - start)
            parts.append({name: array[start : start + taken] for name, array in feeds.items()})
            start, count = start + taken, count + taken
            if count == size:
                yield _concatenated(parts)
                parts, count = [], 0
    if parts:
        yield _concatenated(parts)


def _exactly(batches: Iterable[Feeds], size: int, source: str) -> Iterator[Feeds]:
    """The batches of `size` samples; the others are dropped with a warning, DataError if none is left."""
    kept = dropped = 0
    for feeds in batches:
        count = len(next(iter(feeds.values())))
        if count == size:
            kept += 1
            yield feeds
        else:
            dropped += count
    _report_dropped(kept, dropped, size, source)


def _usable_samples(samples: int, batch: int | None, source: str) -> int:
    """Return how many samples can be fed to a model whose batch is fixed at `batch` (None: all)."""
    if not samples:
        raise DataError(f"{source}: at least one sample expected, found none; give some calibration data")
    if batch is None:
        return samples
    _report_dropped(samples // batch, samples % batch, batch, source)
    return samples - samples % batch


def _report_dropped(kept: int, dropped: int, size: int, source: str) -> None:
    if dropped and not kept:
        raise DataError(
            f"{source}: at least {size} samples expected, the batch size fixed in the model, found {dropped}; "
            "give more samples or make the batch axis dynamic"
        )
    if dropped:
        logger.warning("%s: %d samples dropped, the model's batch size is fixed at %d", source, dropped, size)


def _trailing_shapes(feeds: Feeds) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in feeds.values()]


def _concatenated(parts: list[Feeds]) -> Feeds:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
