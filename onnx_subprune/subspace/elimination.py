"""One consumer's squared error while units go: the inverse covariance P and the weight W of what is left.

With P = (C + λ diag C)⁻¹ over the features, W [o, d] and B the features of a unit, the least squared error that taking
the unit out adds to the output is tr(W_B (P_BB)⁻¹ W_Bᵀ), and what stays is then

    W <- W - W_B (P_BB)⁻¹ P_B:      P <- P - P_:B (P_BB)⁻¹ P_B:

(Optimal Brain Surgeon, Hassibi and Stork 1993, for blocks of features). Features that may not go, those of other groups
on the same axis, are conditioned on at the start. All is computed in units of each feature's own size, as in `ldl`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from onnx_subprune.subspace.ldl import checked_square, dead_features

__all__ = ["Elimination", "Local", "Term", "factor", "reduced"]

Matrix = NDArray[np.float64]
Index = NDArray[np.intp]

# Wider terms keep W in float32: it decides which unit goes next, to 1e-6 of its score, and losses are sums of many.
_DOUBLE = 2048
# Units that are gone are cut out of P and W once they are this share of them.
_STALE = 1 / 16
_ROWS = 4096


@dataclass(frozen=True, eq=False)
class Term:
    """What one consumer (or one block of a grouped one) adds to the loss of a group.

    Attributes:
        covariance: [d, d] of the features it reads; second moments where it is fitted without an intercept.
        weight: [o, d], scaled so that squares of the output are in units of the loss.
        units: int [d], the unit that each feature belongs to, -1 for a feature that stays.

    """

    covariance: Matrix
    weight: Matrix
    units: NDArray[np.int64]


class Local:
    """P and M = Wᵀ W of a few units, small enough to be updated after each removal.

    Args:
        P: [u b, u b] symmetric, b features for each of u units.
        M: likewise.
        slots: [u], the place of each unit in the pool.

    """

    def __init__(self, P: Matrix, M: Matrix, slots: Index) -> None:
        self._P, self._M, self._slots = P, M, slots
        self._width = len(P) // len(slots)

    def add_scores(self, scores: Matrix) -> None:
        """Add to `scores`, one for each unit of the pool, what it would cost to take it out now."""
        scores[self._slots] += _costs(_diagonal_blocks(self._P, self._width), _diagonal_blocks(self._M, self._width))

    def remove(self, slot: int) -> None:
        """Take a unit out, if it is here."""
        found = np.flatnonzero(self._slots == slot)
        if not len(found):
            return
        b = slice(int(found[0]) * self._width, (int(found[0]) + 1) * self._width)
        gain = np.linalg.solve(self._P[b, b], self._P[b])
        self._P -= self._P[:, b] @ gain
        rows = self._M[b] - 0.5 * (self._M[b, b] @ gain)
        change = gain.T @ rows
        self._M -= change
        self._M -= change.T
        self._drop(int(found[0]), b)

    def _drop(self, position: int, b: slice) -> None:
        """Put the last unit in the place of one that went."""
        last = slice(len(self._P) - self._width, len(self._P))
        for matrix in (self._P, self._M):
            matrix[b] = matrix[last]
            matrix[:, b] = matrix[:, last]
        self._P, self._M = (matrix[: last.start, : last.start] for matrix in (self._P, self._M))
        self._slots[position] = self._slots[-1]
        self._slots = self._slots[:-1]


class Elimination:
    """One term of the loss, for as long as units go.

    Args:
        term: what the consumer reads and by which weight.
        ridge: λ, relative to the variance of each feature.

    """

    def __init__(self, term: Term, ridge: float) -> None:
        self.units, layout = _layout(term.units)
        self.width = layout.shape[1]
        fixed = np.flatnonzero(term.units < 0)
        index = np.concatenate([fixed, layout.ravel()])
        L, scale = factor(term.covariance, index, ridge)
        if len(fixed):
            # The lower right block of the factor is that of the covariance given the features that stay.
            L = np.asfortranarray(L[len(fixed) :, len(fixed) :])
        self._P: Matrix = lapack.dpotri(L, lower=1, overwrite_c=1)[0]
        weight = reduced(np.asfortranarray(term.weight[:, layout.ravel()] * scale[len(fixed) :]))
        self._W: NDArray[Any] = weight if weight.shape[1] <= _DOUBLE else weight.astype(np.float32, order="F")
        self._live = np.ones(len(self.units), dtype=np.bool_)

    def add_scores(self, scores: Matrix) -> None:
        """Add to `scores`, one for each unit of the group, what it would cost to take it out now."""
        places = np.flatnonzero(self._live)
        index = self._features(places).reshape(-1, self.width)
        P = _lower(self._P, index[:, :, None], index[:, None, :])
        if self.width == 1:
            M = np.einsum("ij,ij->i", self._W.T, self._W.T)[places, None, None].astype(np.float64)
        else:
            blocks = self._W.T[index].astype(np.float64)
            M = blocks @ blocks.transpose(0, 2, 1)
        scores[self.units[places]] += _costs(P, M)

    def local(self, pool: Index) -> Local | None:
        """Return the part of the ascending units of a pool, None if none of them is here."""
        slots = np.flatnonzero(np.isin(pool, self.units))
        if not len(slots):
            return None
        index = self._features(self._places(pool[slots]))
        W = self._W[:, index].astype(np.float64)
        return Local(_lower(self._P, index[:, None], index[None, :]), W.T @ W, slots)

    def eliminate(self, units: Index) -> None:
        """Take units out of P and W."""
        places = self._places(units[np.isin(units, self.units)])
        self._live[places] = False
        if not len(places) or not self._live.any():
            return
        index = self._features(places)
        rows = _lower(self._P, index[:, None], np.arange(len(self._P))[None, :])
        root = scipy.linalg.cholesky(rows[:, index], lower=True, check_finite=False)
        Z = scipy.linalg.solve_triangular(root, rows, lower=True, check_finite=False)
        V = scipy.linalg.solve_triangular(root, self._W[:, index].T, lower=True, check_finite=False).T
        self._P = blas.dsyrk(-1.0, Z, beta=1.0, c=self._P, trans=1, lower=1, overwrite_c=1)
        gemm = blas.dgemm if self._W.dtype == np.float64 else blas.sgemm
        self._W = gemm(-1.0, V, Z, beta=1.0, c=self._W, overwrite_c=1)
        if (~self._live).mean() > _STALE:
            self._compact()

    def _places(self, units: Index) -> Index:
        """Return where units stand, which must be here."""
        sorter = np.argsort(self.units)
        return sorter[np.searchsorted(self.units, units, sorter=sorter)]

    def _features(self, places: Index) -> Index:
        return np.asarray((places[:, None] * self.width + np.arange(self.width)).ravel(), dtype=np.intp)

    def _compact(self) -> None:
        keep = self._features(np.flatnonzero(self._live))
        self._P = _cut(self._P, keep)
        self._W = np.asfortranarray(self._W[:, keep])
        self.units = self.units[self._live]
        self._live = np.ones(len(self.units), dtype=np.bool_)


def factor(covariance: Matrix, index: Index, ridge: float) -> tuple[Matrix, Matrix]:
    """Cholesky factor of the correlations of features, in a given order, with a ridge on the diagonal.

    Dead features, and places with index -1, are uncorrelated with all others.

    Args:
        covariance: [d, d], positive semi-definite up to rounding.
        index: [n] features, -1 for none.
        ridge: what is added to the diagonal of ones; ten times as much, and again, until the matrix is definite.

    Returns:
        L [n, n] lower triangular, and [n] the standard deviation of each feature, 0 for a dead one.

    """
    checked_square(covariance)
    while True:
        R, deviation = _correlations(covariance, index)
        R[np.diag_indices(len(R))] += ridge
        L, failed = lapack.dpotrf(R.T, lower=1, clean=1, overwrite_a=1)
        if not failed:
            return L, deviation
        ridge = max(10.0 * ridge, 1e-12)


def _correlations(covariance: Matrix, index: Index) -> tuple[Matrix, Matrix]:
    natural = np.array_equal(index, np.arange(len(covariance)))
    R = covariance.copy() if natural else covariance[np.ix_(index, index)]
    dead = dead_features(np.diagonal(R)) | (index < 0)
    deviation = np.sqrt(np.where(dead, 0.0, np.diagonal(R)))
    scale = np.where(dead, 1.0, deviation)
    R /= scale[:, None]
    R /= scale[None, :]
    R[dead, :] = 0.0
    R[:, dead] = 0.0
    np.fill_diagonal(R, 1.0)
    return R, deviation


def reduced(weight: Matrix) -> Matrix:
    """Return a weight of at most [d, d] with the same Wᵀ W as one of [o, d], in Fortran order."""
    o, d = weight.shape
    if o <= d:
        return np.asfortranarray(weight)
    R = np.zeros((0, d))
    for rows in _chunks(weight, max(d, _ROWS)):
        R = np.linalg.qr(np.concatenate([R, rows]), mode="r")
    return np.asfortranarray(R)


def _chunks(weight: Matrix, rows: int) -> Iterator[Matrix]:
    for start in range(0, len(weight), rows):
        yield weight[start : start + rows]


def _layout(units: NDArray[np.int64]) -> tuple[Index, Index]:
    """Return the units that are there, ascending, and their features [u, b]; -1 fills up units with fewer."""
    present, counts = np.unique(units[units >= 0], return_counts=True)
    layout = np.full((len(present), int(np.max(counts))), -1, dtype=np.intp)
    for row, unit in enumerate(present):
        layout[row, : counts[row]] = np.flatnonzero(units == unit)
    return present.astype(np.intp), layout


def _lower(matrix: Matrix, rows: Index, columns: Index) -> Matrix:
    """Return entries of a symmetric matrix of which the lower triangle is kept."""
    return np.asarray(matrix[np.maximum(rows, columns), np.minimum(rows, columns)])


def _cut(matrix: Matrix, keep: Index) -> Matrix:
    """Return the rows and columns `keep` of a matrix in Fortran order, in the same order."""
    return np.asfortranarray(matrix.T[np.ix_(keep, keep)].T)


def _diagonal_blocks(matrix: Matrix, width: int) -> Matrix:
    """Return a view of the blocks [u, b, b] on the diagonal."""
    u = len(matrix) // width
    return np.einsum("ibic->ibc", matrix.reshape(u, width, u, width)) if width > 1 else _entries(matrix)


def _entries(matrix: Matrix) -> Matrix:
    return np.diagonal(matrix)[:, None, None]


def _costs(P: Matrix, M: Matrix) -> Matrix:
    """tr(P_BB⁻¹ M_BB) of blocks [u, b, b]: [u], never below 0."""
    ratios = M / P if P.shape[1] == 1 else np.linalg.solve(P, M)
    return np.asarray(np.maximum(np.trace(ratios, axis1=1, axis2=2), 0.0), dtype=np.float64)
