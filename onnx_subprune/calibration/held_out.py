"""Which samples are held out: fits are chosen between, and networks compared, on what they were not fitted on.

Samples are held out by whole runs of the network. Inside of it the batch may lie on any axis, or be folded into another
one, so that of a run with both kinds of samples nobody could tell which rows of a tensor belong to which.
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
    for feeds in data.batches(batch_size):
        samples = data.samples_in(feeds)
        units = samples if data.divisible else 1
        away = (seen + np.arange(units)) % every == every - 1 if every else np.zeros(units, np.bool_)
        seen += units
        if away.all() or not away.any():
            yield Portion(feeds, samples, units, bool(away[0]))
            continue
        for held in (False, True):
            rows = np.flatnonzero(away == held)
            yield Portion(data.rows_of(feeds, rows), len(rows), len(rows), held)


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
