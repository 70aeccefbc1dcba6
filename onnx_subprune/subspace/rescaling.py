"""What a normalisation lost with the units that went: one factor and one offset that stand for the dense statistics.

With n = (x - mean) / spread over all units and n' over the units S that stay, for each position

    n_i = s n'_i + m,    m = mean of n over S,    s^2 = mean of n^2 over S  - m^2

exactly, for n' does not change when x is scaled and shifted (the epsilon aside). s and m differ from position to
position; the factor and the offset are sqrt(E[s^2]) and E[m], from the Gram matrix of n alone. Without a mean m is 0;
for a sum of squares the sums over S and over all take the place of the means. docs/mathematics.md has the argument.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Rescaling", "rescaling", "unscaled"]

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Rescaling:
    """The normalised values of all units are about `factor` times those over the units that stay, plus `offset`."""

    factor: float
    offset: float

    @property
    def trivial(self) -> bool:
        """Whether nothing changes."""
        return self.factor == 1.0 and self.offset == 0.0


def rescaling(
    second: Matrix, mean: Vector, keep: NDArray[np.bool_], *, centred: bool, averaged: bool, pooled: bool
) -> Rescaling:
    """Return what stands for the statistics of all units, from the moments of the normalised values n.

    Args:
        second: E[n nᵀ], [d, d]; a common factor on n makes no difference.
        mean: E[n], [d].
        keep: which features stay, bool [d].
        centred: whether n has its mean subtracted.
        averaged: whether the spread is of a mean, not of a sum, of squares.
        pooled: whether a statistic runs over many positions, so that its mean is the mean over all of them.

    Of four values that RMSNorm divides by their root mean square two hold a quarter of the squares:

    >>> squares = np.diag([1.5, 1.5, 0.5, 0.5])
    >>> keep = np.array([False, False, True, True])
    >>> round(rescaling(squares, np.zeros(4), keep, centred=False, averaged=True, pooled=False).factor ** 2, 9)
    0.5

    """
    if not averaged:
        squares = np.diagonal(second)
        whole, rest = float(squares.sum()), float(squares[keep].sum())
    else:
        whole, rest = (_variance(second, mean, part, centred, pooled) for part in (np.ones_like(keep), keep))
    if not (whole > 0 and rest > 0):
        # Nothing varies, or nothing that stays does: there is no scale to restore.
        return Rescaling(1.0, 0.0)
    offset = float(mean[keep].mean() - mean.mean()) / np.sqrt(whole) if centred else 0.0
    return Rescaling(float(np.sqrt(rest / whole)), float(offset))


def unscaled(second: Matrix, mean: Vector, scale: Vector, shift: Vector) -> tuple[Matrix, Vector]:
    """Return the moments of n from those of scale * n + shift (docs/mathematics.md, 8).

    Where a scale is 0 its n cannot be seen. As the mean of E[n^2] over all units is 1, what the others leave of it is
    shared out among them, and they count as uncorrelated.

    Args:
        second: E[x xᵀ] [d, d], with x = scale * n + shift.
        mean: E[x] [d].
        scale: [d]; 0 hides a unit.
        shift: [d].

    Returns:
        E[n nᵀ] [d, d] and E[n] [d].

    >>> n = np.array([[1.0, -1.0], [-1.0, 1.0]])  # two units at two positions
    >>> x = np.array([2.0, 3.0])[:, None] * n + 1.0
    >>> second, mean = unscaled(x @ x.T / 2, x.mean(axis=1), np.array([2.0, 3.0]), np.ones(2))
    >>> second.tolist(), mean.tolist()
    ([[1.0, -1.0], [-1.0, 1.0]], [0.0, 0.0])

    """
    live = scale != 0
    divisor = np.where(live, scale, 1.0)
    moved = second - np.outer(mean, shift) - np.outer(shift, mean) + np.outer(shift, shift)
    n = np.where(live, (mean - shift) / divisor, 0.0)
    N = moved / np.outer(divisor, divisor)
    N[~live, :] = 0.0
    N[:, ~live] = 0.0
    missing = max(len(scale) - float(np.trace(N)), 0.0)
    N[~live, ~live] = missing / max(int((~live).sum()), 1)
    return N, n


def _variance(second: Matrix, mean: Vector, keep: NDArray[np.bool_], centred: bool, pooled: bool) -> float:
    squares = np.diagonal(second)[keep]
    if not centred:
        return float(squares.mean())
    middle = mean[keep].mean() ** 2 if pooled else second[np.ix_(keep, keep)].mean()
    return float(squares.mean() - middle)
