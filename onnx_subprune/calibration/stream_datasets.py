"""A data set of samples that come as dicts, one sample or a batch each, of one size or of several."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from onnx_subprune.calibration.datasets import Dataset, report_dropped
from onnx_subprune.calibration.grouping import PlacedBatch, regroup
from onnx_subprune.calibration.layout import Array, Feeds, Layout, check_names, conform
from onnx_subprune.calibration.per_run import per_run_values
from onnx_subprune.errors import DataError, SubpruneError

__all__ = ["StreamDataset"]


class StreamDataset(Dataset):
    """Samples that come as dicts, one sample or a batch each, from something that can be opened anew.

    Args:
        items: opens the stream.
        layout: of the inputs.
        source: what the samples come from, for messages.
        limit: how many samples are read; None for all.
        labels: one for each sample.
        numbers: of the samples in the source, where they do not come in its order.

    """

    def __init__(
        self,
        items: Callable[[], Iterable[Mapping[str, Any]]],
        layout: Layout,
        source: str,
        limit: int | None = None,
        labels: Array | None = None,
        *,
        numbers: Array | None = None,
    ) -> None:
        self._items = items
        self._layout = layout
        self._sampled = replace(layout, specs=layout.sampled, per_run=frozenset())
        self._limit = limit
        self._labels = labels
        self._numbers = numbers
        self.source = source
        self.samples = None
        self.labels = labels if labels is None or limit is None else labels[:limit]

    def placed(self, batch_size: int) -> Iterator[PlacedBatch]:
        """See `Dataset.placed`."""
        batches = self._limited()
        fixed = self._layout.batch
        if self._layout.whole:
            yield from batches
        elif fixed is None:
            yield from regroup(batches, batch_size, self._layout)
        else:
            yield from _exactly(regroup(batches, fixed, self._layout, bounded=False), fixed, self.source)

    def numbers_of(self, places: Array) -> Array:
        """See `Dataset.numbers_of`."""
        return places if self._numbers is None else self._numbers[places]

    def _limited(self) -> Iterator[PlacedBatch]:
        """Conforming batches up to the limit; one that holds more samples than are left is cut."""
        seen = 0
        for item in self._guarded():
            for feeds in self._checked(item, seen):
                count = self.samples_in(feeds)
                if self._limit is not None and seen + count >= self._limit:
                    cut = feeds if self._layout.whole else self._layout.rows_of(feeds, slice(0, self._limit - seen))
                    yield PlacedBatch(cut, np.arange(seen, self._limit))
                    self._check_labels(self._limit, exhausted=False)
                    return
                yield PlacedBatch(feeds, np.arange(seen, seen + count))
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

    def _checked(self, item: Mapping[str, Any], seen: int) -> Iterator[Feeds]:
        """Yield an item as a batch, or as one for each sample where what holds for a run differs between them."""
        if not isinstance(item, Mapping):
            raise DataError(
                f"{self.source}: dicts of arrays by input name expected, found {type(item).__name__}; yield dicts"
            )
        check_names(item, self._layout.specs, self.source)
        sampled = self._with_batch_axis({spec.name: item[spec.name] for spec in self._sampled.specs})
        feeds = conform(sampled, self._sampled, self._sampled.fed, self.source, seen)
        samples = self._counted(feeds)
        held = [spec for spec in self._layout.specs if spec.name in self._layout.per_run]
        values = {spec.name: per_run_values(spec, np.asarray(item[spec.name]), samples, self.source) for spec in held}
        varying = {spec.name for spec in held if values[spec.name].shape != spec.shape}
        if not varying:
            yield self._ordered({**feeds, **values})
            return
        for place in range(samples):
            single = self._sampled.rows_of(feeds, slice(place, place + 1))
            own = {name: value[place] if name in varying else value for name, value in values.items()}
            yield self._ordered({**single, **own})

    def _ordered(self, feeds: Feeds) -> Feeds:
        return {spec.name: feeds[spec.name] for spec in self._layout.specs}

    def _with_batch_axis(self, item: Mapping[str, Any]) -> Mapping[str, Any]:
        """A single sample, one rank short in every input, as a batch of one."""
        ranks = {spec.name: len(spec.shape) for spec in self._sampled.specs}
        if self._layout.whole or any(_rank(item[name]) != rank - 1 for name, rank in ranks.items()):
            return item
        return {name: np.asarray(value)[None] for name, value in item.items()}

    def _counted(self, feeds: Feeds) -> int:
        """Return the number of samples in a batch, the same in every input."""
        if not self._layout.whole and len({len(array) for array in feeds.values()}) > 1:
            sizes = ", ".join(f"'{name}' {len(array)}" for name, array in feeds.items())
            raise DataError(
                f"{self.source}: the same number of samples expected in every input, found {sizes}; "
                "make the first axes equal"
            )
        return self._sampled.samples_in(feeds)

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


def _exactly(batches: Iterable[PlacedBatch], size: int, source: str) -> Iterator[PlacedBatch]:
    """The batches of `size` samples; the others are dropped with a warning, DataError if none is left."""
    kept = dropped = 0
    for batch in batches:
        if len(batch.places) == size:
            kept += 1
            yield batch
        else:
            dropped += len(batch.places)
    report_dropped(kept, dropped, size, source)
