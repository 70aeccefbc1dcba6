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
    """Return the interval that holds the median of the distribution that `values` are drawn from.

    Args:
        values: [n] independent draws.
        confidence: how often the interval holds that median, at least.

    Returns:
        The k-th smallest and the k-th largest value; None if `values` are too few for any.

    >>> median_interval(np.array([5.0, 1.0, 4.0, 2.0, 3.0, 9.0]))
    (1.0, 9.0)
    >>> median_interval(np.arange(1.0, 10.0))
    (2.0, 8.0)
    >>> print(median_interval(np.arange(5.0)))
    None

    """
    ordered = np.sort(np.asarray(values, float))
    below = special.bdtr(np.arange(len(ordered) // 2), len(ordered), 0.5)
    k = int(np.searchsorted(below, (1 - confidence) / 2, side="right"))
    return (float(ordered[k - 1]), float(ordered[-k])) if k else None
