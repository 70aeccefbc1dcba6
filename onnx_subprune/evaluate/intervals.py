"""Confidence intervals of a median that presume no distribution.

Of `n` independent values the number that lie below the true median is binomial(n, 1/2), whatever they are distributed
like. So with `k` the largest number such that `2 P(B <= k - 1) <= 1 - confidence`, the k-th smallest and the k-th
largest value hold the median between them with at least that confidence (Conover, *Practical Nonparametric
Statistics*, section 3.2).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = ["CONFIDENCE", "FEWEST", "median_interval"]

CONFIDENCE = 0.95
"""How often an interval holds the median that it is for."""

FEWEST = 6
"""Fewer values than this give no interval at 95%: 2 / 2^5 is more than 5%."""


def median_interval(values: NDArray[Any], confidence: float = CONFIDENCE) -> tuple[float, float] | None:
    """Return the interval that holds the median of what `values` are drawn from; None if they are too few."""
    ordered = np.sort(np.asarray(values, float))
    below = special.bdtr(np.arange(len(ordered) // 2), len(ordered), 0.5)
    k = int(np.searchsorted(below, (1 - confidence) / 2, side="right"))
    return (float(ordered[k - 1]), float(ordered[-k])) if k else None
