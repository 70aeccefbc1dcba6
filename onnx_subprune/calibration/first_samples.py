"""The first samples of a data set: what a trial reads before the whole is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np

from onnx_subprune.calibration.datasets import Dataset
from onnx_subprune.calibration.grouping import PlacedBatch
from onnx_subprune.calibration.layout import Array, Feeds

__all__ = ["FirstSamples"]


class FirstSamples(Dataset):
    """The first samples of another data set; whole batches where these cannot be cut.

    Args:
        data: the other data set, of which no more is read.
        count: of samples.

    """

    def __init__(self, data: Dataset, count: int) -> None:
        self._data, self._count = data, count
        self._layout = data._layout
        self.source, self.samples, self.labels = data.source, None, None

    def placed(self, batch_size: int) -> Iterator[PlacedBatch]:
        """See `Dataset.placed`."""
        wanted = self._count
        for batch in self._data.placed(batch_size):
            samples = len(batch.places)
            if samples > wanted and self._data.divisible:
                yield PlacedBatch(self._data.rows_of(batch.feeds, np.arange(wanted)), batch.places[:wanted])
            else:
                yield batch
            wanted -= samples
            if wanted <= 0:
                return

    def rows_of(self, feeds: Mapping[str, Array], rows: Array) -> Feeds:
        """See `Dataset.rows_of`."""
        return self._data.rows_of(feeds, rows)

    def samples_in(self, feeds: Mapping[str, Array]) -> int:
        """See `Dataset.samples_in`."""
        return self._data.samples_in(feeds)
