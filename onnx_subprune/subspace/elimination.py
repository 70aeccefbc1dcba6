"""One consumer's squared error while units go: the inverse covariance P and the weight W of the others.

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

from onnx_subprune.subspace.inverse import inverse, mirrored, natural

__all__ = ["Elimination", "Local", "Term", "reduced", "scaled_columns"]

Matrix = NDArray[np.float64]
Index = NDArray[np.intp]

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
        spare: whether the covariance may be overwritten, so that no second matrix of its size is needed.
        rank: of the covariance, at most; None where no more is known than its size.

    """

    covariance: Matrix
    weight: Matrix
    units: NDArray[np.int64]
    spare: bool = False
    rank: int | None = None


class Local:
    """P and M = Wᵀ W of a few units, where each removal costs little.

    After j features are gone, P = P₀ - Zᵀ Z and M = M₀ - Zᵀ U - Uᵀ Z with Z, U [j, u b]: only the blocks on the
    diagonals, which the scores need, and the rows of the unit that goes are ever worked out.

    Args:
        P: [u b, u b] symmetric, b features for each of u units.
        M: likewise.
        slots: [u], the place of each unit in the pool, ascending.

    """

    def __init__(self, P: Matrix, M: Matrix, slots: Index) -> None:
        self._P, self._M, self._slots = P, M, slots
        self._width = len(P) // len(slots)
        self._Z, self._U = np.empty_like(P), np.empty_like(P)
        self._gone = 0
        self._blocks = [_diagonal_blocks(matrix, self._width) for matrix in (P, M)]

    def add_scores(self, scores: Matrix) -> None:
        """Add to `scores`, one for each unit of the pool, what it would cost to take it out now."""
        scores[self._slots] += _costs(*self._blocks)

    def remove(self, slot: int) -> None:
        """Take a unit out, if it is here."""
        place = int(np.searchsorted(self._slots, slot))
        if place == len(self._slots) or self._slots[place] != slot:
            return
        j, b = self._gone, slice(place * self._width, (place + 1) * self._width)
        Z, U = self._Z[:j], self._U[:j]
        root = lapack.dpotrf(self._blocks[0][place], lower=1)[0]
        z = blas.dtrsm(1.0, root, self._P[b] - Z[:, b].T @ Z, lower=1)
        y = blas.dtrsm(1.0, root, self._M[b] - Z[:, b].T @ U - U[:, b].T @ Z, lower=1)
        u = y - 0.5 * blas.dtrsm(1.0, root, y[:, b].T, lower=1) @ z
        self._gone = j + self._width
        self._Z[j : self._gone], self._U[j : self._gone] = z, u
        self._update(place, z, u)

    def _update(self, place: int, z: Matrix, u: Matrix) -> None:
        """Bring the diagonal blocks up to date; the unit that went costs nothing more."""
        P, M = self._blocks
        z, u = (part.reshape(self._width, -1, self._width).transpose(1, 2, 0) for part in (z, u))
        P -= z @ z.transpose(0, 2, 1)
        cross = z @ u.transpose(0, 2, 1)
        M -= cross
        M -= cross.transpose(0, 2, 1)
        P[place], M[place] = np.eye(self._width), 0.0


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
        self._P, scale = inverse(
            *(term.covariance, index, ridge),
            fixed=len(fixed),
            width=self.width,
            spare=term.spare,
            rank=term.rank,
        )
        weight = reduced(scaled_columns(term.weight, layout.ravel(), scale[len(fixed) :]))
        self._W: NDArray[Any] = weight.astype(np.float32) if self._P.wide else weight
        self._live = np.ones(len(self.units), dtype=np.bool_)

    def add_scores(self, scores: Matrix) -> None:
        """Add to `scores`, one for each unit of the group, what it would cost to take it out now."""
        places = np.flatnonzero(self._live)
        index = self._features(places).reshape(-1, self.width)
        P = self._P.blocks(index)
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
        M = blas.dsyrk(1.0, W, trans=1, lower=1)
        return Local(self._P.among(index), mirrored(M), slots)

    def eliminate(self, units: Index) -> None:
        """Take units out of P and W."""
        places = self._places(units[np.isin(units, self.units)])
        self._live[places] = False
        if not len(places) or not self._live.any():
            return
        index = self._features(places)
        rows = self._P.rows(index)
        root = scipy.linalg.cholesky(rows[:, index], lower=True, check_finite=False)
        Z = scipy.linalg.solve_triangular(root, rows, lower=True, check_finite=False)
        V = scipy.linalg.solve_triangular(root, self._W[:, index].T, lower=True, check_finite=False).T
        gemm = blas.get_blas_funcs("gemm", [self._W])
        self._P.remove(index, root, Z)
        self._W = gemm(-1.0, V, Z, beta=1.0, c=self._W, overwrite_c=1)
        if (~self._live).mean() > _STALE:
            self._compact()

    def _places(self, units: Index) -> Index:
        """Return where units stand, which must be here; those that are here are in ascending order."""
        return np.searchsorted(self.units, units)

    def _features(self, places: Index) -> Index:
        return np.asarray((places[:, None] * self.width + np.arange(self.width)).ravel(), dtype=np.intp)

    def _compact(self) -> None:
        keep = self._features(np.flatnonzero(self._live))
        self._P = self._P.compacted(keep)
        self._W = self._W.T[keep].T
        self.units = self.units[self._live]
        self._live = np.ones(len(self.units), dtype=np.bool_)


def scaled_columns(weight: Matrix, index: Index, deviation: Matrix) -> Matrix:
    """Return columns of a weight in units of each feature's own size, in Fortran order."""
    columns = weight if natural(index, weight) else weight[:, index]
    return np.multiply(columns, deviation, order="F")


def reduced(weight: Matrix) -> Matrix:
    """Return a weight of at most [d, d] with the same Wᵀ W as one of [o, d], in Fortran order.

    >>> tall = np.arange(6.0).reshape(3, 2)
    >>> reduced(tall).shape, np.allclose(reduced(tall).T @ reduced(tall), tall.T @ tall)
    ((2, 2), True)
    """
    o, d = weight.shape
    if o <= d:
        return np.asfortranarray(weight)
    R = np.zeros((0, d))
    for rows in _chunks(weight, max(d, _ROWS)):
        R = np.asarray(np.linalg.qr(np.concatenate([R, rows]), mode="r"), dtype=np.float64)
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


def _diagonal_blocks(matrix: Matrix, width: int) -> Matrix:
    """Return a copy of the blocks [u, b, b] on the diagonal."""
    u = len(matrix) // width
    return np.asarray(np.einsum("ibic->ibc", matrix.reshape(u, width, u, width))).copy()


def _costs(P: Matrix, M: Matrix) -> Matrix:
    """tr(P_BB⁻¹ M_BB) of blocks [u, b, b]: [u], never below 0."""
    ratios = M / P if P.shape[1] == 1 else np.linalg.solve(P, M)
    return np.asarray(np.maximum(np.trace(ratios, axis1=1, axis2=2), 0.0), dtype=np.float64)
