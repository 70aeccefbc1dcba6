"""Batches of one size out of samples as they come: those of equal shapes run together, and no others.

A batch is full when enough samples of its shapes have come by, whatever came between them. So the order is that of the
source where all samples are alike, and otherwise depends on the source and the size of the batches alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import numpy as np

from onnx_subprune.calibration.layout import Array, Feeds, Layout

__all__ = ["PlacedBatch", "regroup"]

_Shapes: TypeAlias = tuple[tuple[tuple[int, ...], bytes], ...]

# Samples that wait for others of their shapes take no more memory than this.
_MOST_BYTES = 1 << 28


class PlacedBatch(NamedTuple):
    """A batch, and where its samples stand in the data.

    Attributes:
        feeds: the arrays by input name.
        places: the place of each sample among all that are read, from 0: where its label stands.

    """

    feeds: Feeds
    places: Array


@dataclass
class _Waiting:
    """Samples of equal shapes that do not fill a batch yet."""

    parts: list[PlacedBatch] = field(default_factory=list)
    samples: int = 0
    nbytes: int = 0

    def add(self, part: PlacedBatch) -> None:
        self.parts.append(part)
        self.samples += len(part.places)
        self.nbytes += sum(array.nbytes for array in part.feeds.values())


def regroup(
    batches: Iterable[PlacedBatch], size: int, layout: Layout, *, bounded: bool = True
) -> Iterator[PlacedBatch]:
    """Cut and join batches to one size; samples of other shapes, or with another value per run, are never joined.

    Args:
        batches: of any size.
        size: samples in each; fewer in the last one of each shape.
        layout: of the inputs, whose first axis counts samples.
        bounded: whether a batch may be smaller where samples of very many shapes would wait in memory.

    >>> from onnx_subprune.model import InputSpec
    >>> layout = Layout((InputSpec("x", ("N", "T"), np.dtype(np.int64)),))
    >>> shapes = [(1, 2), (1, 3), (2, 2)]
    >>> batches = [PlacedBatch({"x": np.zeros(shape)}, np.arange(shape[0])) for shape in shapes]
    >>> [batch.feeds["x"].shape for batch in regroup(batches, 2, layout)]
    [(2, 2), (1, 3), (1, 2)]

    """
    waiting: dict[_Shapes, _Waiting] = {}
    for batch in batches:
        shapes = _shapes_of(batch.feeds, layout)
        start = 0
        while start < len(batch.places):
            group = waiting.setdefault(shapes, _Waiting())
            stop = min(start + size - group.samples, len(batch.places))
            group.add(_part(batch, slice(start, stop), layout))
            start = stop
            if group.samples == size:
                yield _joined(waiting.pop(shapes), layout)
        if bounded and sum(group.nbytes for group in waiting.values()) > _MOST_BYTES:
            yield _joined(waiting.pop(max(waiting, key=lambda shapes: waiting[shapes].nbytes)), layout)
    for group in waiting.values():
        yield _joined(group, layout)


def _shapes_of(feeds: Feeds, layout: Layout) -> _Shapes:
    """Return what samples of one run have in common: shapes past the first axis, and the values per run."""
    return tuple(
        (array.shape, array.tobytes()) if name in layout.per_run else (array.shape[1:], b"")
        for name, array in feeds.items()
    )


def _part(batch: PlacedBatch, rows: slice, layout: Layout) -> PlacedBatch:
    return PlacedBatch(layout.rows_of(batch.feeds, rows), batch.places[rows])


def _joined(group: _Waiting, layout: Layout) -> PlacedBatch:
    first = group.parts[0]
    if len(group.parts) == 1:
        return first
    feeds = {
        name: array if name in layout.per_run else np.concatenate([part.feeds[name] for part in group.parts])
        for name, array in first.feeds.items()
    }
    return PlacedBatch(feeds, np.concatenate([part.places for part in group.parts]))
