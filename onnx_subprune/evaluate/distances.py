"""Distances of one tensor in two networks, summed over runs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["Distances"]

Array = NDArray[Any]


class Distances:
    """Sums over batches, in float64, from which the distances of floats follow; others are left out."""

    def __init__(self) -> None:
        self._error = self._dense = self._pruned = self._product = self._largest = 0.0
        self._runs = 0

    def add(self, dense: Array, pruned: Array) -> None:
        """Add one run, unless the shapes differ."""
        if dense.dtype.kind != "f" or dense.shape != pruned.shape:
            return
        self._runs += 1
        dense, pruned = dense.astype(np.float64), pruned.astype(np.float64)
        with np.errstate(invalid="ignore"):
            # Masked logits are -inf in both: equal, and no part of any norm.
            difference = np.where(dense == pruned, 0.0, pruned - dense).ravel()
        difference[np.isnan(difference)] = np.inf
        both = np.isfinite(dense) & np.isfinite(pruned)
        a, b = dense[both], pruned[both]
        self._error += float(difference @ difference)
        self._largest = max(self._largest, float(np.max(np.abs(difference), initial=0.0)))
        self._dense += float(a @ a)
        self._pruned += float(b @ b)
        self._product += float(a @ b)

    def result(self) -> tuple[float | None, float | None, float | None]:
        """Return relative error, cosine and largest difference; None where no run was added."""
        if not self._runs:
            return None, None, None
        norms = math.sqrt(self._dense * self._pruned)
        zero = 1.0 if self._dense == self._pruned else 0.0
        relative = math.sqrt(self._error / self._dense) if self._dense else (math.inf if self._error else 0.0)
        return relative, self._product / norms if norms else zero, self._largest
