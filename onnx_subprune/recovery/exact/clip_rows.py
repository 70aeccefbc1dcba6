"""Rows that a fit behind a clip is made on: kept as they are, for its steps read them again and again."""

from __future__ import annotations

import numpy as np

from onnx_subprune.calibration import ROWS_PER_FEATURE
from onnx_subprune.recovery.exact.rows import Rows
from onnx_subprune.recovery.exact.sample_size import LEAST_FEATURES
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.subspace.clipped_regression import Examples

__all__ = ["ClipRows"]

# Rows for each feature, and the memory that they may take.
_CLIPPED_ROWS, _CLIPPED_BYTES = 40, 1 << 29


class ClipRows:
    """Rows to fit on and rows held out, as many as are worth their time and memory, from all over the data.

    Args:
        settings: its seed draws the rows.
        features: of the layer.
        samples: whose rows will be added.
        readers: how many layers will add rows of each sample.

    """

    def __init__(self, settings: Settings, features: int, samples: int, readers: int = 1) -> None:
        self._rng = np.random.default_rng(settings.seed)
        self._features, self._samples, self._readers = features, samples, readers
        self._share: float | None = None
        self._rows: tuple[list[Examples], list[Examples]] = ([], [])

    def add(self, number: int, rows: Rows, samples: int) -> None:
        """Add rows of so many samples, to fit on (0) or that are held out (1)."""
        if rows.total is None:
            return
        if self._share is None:
            self._share = self._part(rows, samples)
        mask = self._rng.random(rows.x.shape[1]) < self._share
        if mask.any():
            part = rows if mask.all() else rows.chosen(mask)
            assert part.total is not None
            self._rows[number].append(Examples(part.x, part.parts, part.total))

    def _part(self, rows: Rows, samples: int) -> float:
        """Return which part of the rows to keep, seeing those of some samples."""
        expected = max(1.0, rows.x.shape[1] * self._samples * self._readers / max(samples, 1))
        row_bytes = sum(value[:, 0].nbytes for value in (rows.x, rows.total, *rows.parts) if value is not None)
        wanted = _CLIPPED_ROWS * max(self._features, LEAST_FEATURES)
        possible = _CLIPPED_BYTES / max(row_bytes, 1)
        # Too few to fit on are not worth keeping.
        return min(wanted, possible, expected) / expected if possible > ROWS_PER_FEATURE * self._features else 0.0

    @property
    def enough(self) -> bool:
        """Whether there are rows to fit on, and some to choose by."""
        counts = [sum(some.x.shape[1] for some in rows) for rows in self._rows]
        return bool(counts[0] >= ROWS_PER_FEATURE * self._features and counts[1] > 0)

    def joined(self) -> tuple[Examples, Examples]:
        """Return the rows to fit on and those held out, which are no longer kept here."""
        fitted, held = (Examples.joined(rows) for rows in self._rows)
        self._rows = ([], [])
        return fitted, held
