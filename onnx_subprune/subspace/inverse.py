"""The inverse correlations P of features that go one after the other: as a matrix, or by a few vectors.

Taking the features B out leaves P - P_:B (P_BB)⁻¹ P_B: of the others. With a factor L Lᵀ of P_BB and Z = L⁻¹ P_B:, that
is P - Zᵀ Z.

Where there are far fewer samples than features, the correlations are V Vᵀ with V [d, r], found by a Cholesky
factorisation with pivots, and with the ridge λ on their diagonal

    P = (λ I + V Vᵀ)⁻¹ = (I - U Uᵀ) / λ,   U = V C⁻ᵀ,   C Cᵀ = λ I + Vᵀ V

Without the features B the middle of U Q Uᵀ, which starts as Q = I, grows to (Q⁻¹ - U_Bᵀ U_B)⁻¹ = Q + Yᵀ Y, where
Y = L⁻¹ U_B Q / sqrt(λ). That is work of d r for a feature, in the place of d². Once features are nearly as
few as vectors, P is worked out anew as a matrix.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas, lapack

from onnx_subprune.subspace.ldl import checked_square, dead_features, symmetric

__all__ = ["DenseInverse", "Inverse", "LowRankInverse", "factor", "inverse", "mirrored", "natural"]

Matrix = NDArray[np.float64]
Index = NDArray[np.intp]

# Wider terms keep W in float32, and P too once no feature has less than 1 / _SAFE of its variance to itself: an error
# in P is relative to the features' entries on the diagonal, which are at least 1 (none left to explain it) and fall.
_DOUBLE = 2048
_SAFE = 1e3
_BAND = 16
# From so many features on, and for at most one vector in so many features, vectors are less work than a matrix.
_WIDE, _FEATURES_PER_VECTOR = 1024, 6
# What pivots leave of a feature, relative to the ridge, is rounding.
_LEFT = 1e-5


class Inverse(Protocol):
    """What the search asks of P; features are given by their places.

    Attributes:
        wide: whether it began with so many features that float32 does for what is not accumulated.

    """

    wide: bool

    def blocks(self, index: Index) -> Matrix:
        """Return P_BB of units [u, b]: [u, b, b]."""
        ...

    def among(self, index: Index) -> Matrix:
        """Return P of some features [n]: [n, n]."""
        ...

    def rows(self, index: Index) -> Matrix:
        """Return rows of P: [n, d]."""
        ...

    def remove(self, index: Index, root: Matrix, Z: Matrix) -> None:
        """Take features out, given the factor [n, n] of P among them and Z [n, d]; their places stay."""
        ...

    def compacted(self, keep: Index) -> Inverse:
        """Return the inverse with these places alone, whose features are all that are left."""
        ...


class DenseInverse:
    """P as a matrix, in Fortran order; its lower triangle counts.

    Args:
        L: [d, d] Cholesky factor of the correlations, overwritten; its upper triangle is ignored.

    """

    def __init__(self, L: Matrix) -> None:
        self.wide = len(L) > _DOUBLE
        self._P: NDArray[Any] = _inverted(L, single=self.wide)

    def blocks(self, index: Index) -> Matrix:
        """Return P_BB of units [u, b]: [u, b, b]."""
        rows, columns = index[:, :, None], index[:, None, :]
        return self._P[np.maximum(rows, columns), np.minimum(rows, columns)].astype(np.float64)

    def among(self, index: Index) -> Matrix:
        """Return P of some features [n], ascending: [n, n]."""
        return mirrored(self._P.T[np.ix_(index, index)].T.astype(np.float64))

    def rows(self, index: Index) -> Matrix:
        """Return rows of P: [n, d]."""
        rows = np.take(self._P.T, index, axis=1)
        for row, feature in enumerate(index):
            rows[feature:, row] = self._P[feature:, feature]
        return rows.T.astype(np.float64)

    def remove(self, index: Index, root: Matrix, Z: Matrix) -> None:  # noqa: ARG002 - Z is all that a matrix needs
        """Take features out, given Z [n, d]; their places stay."""
        syrk = blas.get_blas_funcs("syrk", [self._P])
        self._P = syrk(-1.0, Z, beta=1.0, c=self._P, trans=1, lower=1, overwrite_c=1)

    def compacted(self, keep: Index) -> Inverse:
        """Return the inverse with these places alone, in the same memory."""
        self._P = _submatrix(self._P, keep)
        if self.wide and self._P.dtype == np.float64 and float(np.diagonal(self._P).max()) < _SAFE:
            self._P = self._P.astype(np.float32)
        return self


class LowRankInverse:
    """P = (λ I + V Vᵀ)⁻¹ by the vectors V.

    Args:
        V: [d, r].
        ridge: λ > 0.
        width: features of a unit; they lie beside each other.

    """

    def __init__(self, V: Matrix, ridge: float, width: int) -> None:
        self._V, self._ridge, self._width = V, ridge, width
        self.wide = len(V) > _DOUBLE
        self._U, self._Q, self._blocks = self._renewed()
        self._since = len(V)

    def blocks(self, index: Index) -> Matrix:
        """Return P_BB of units [u, b]: [u, b, b]."""
        return np.asarray(self._blocks[index[:, 0] // self._width])

    def among(self, index: Index) -> Matrix:
        """Return P of some features [n]: [n, n]."""
        explained = (self._U[index] @ self._Q) @ self._U[index].T
        return np.asarray((np.eye(len(index)) - explained) / self._ridge)

    def rows(self, index: Index) -> Matrix:
        """Return rows of P: [n, d]."""
        rows: Matrix = (self._U[index] @ self._Q) @ self._U.T
        rows *= -1.0 / self._ridge
        rows[np.arange(len(index)), index] += 1.0 / self._ridge
        return rows

    def remove(self, index: Index, root: Matrix, Z: Matrix) -> None:
        """Take features out, given the factor [n, n] of P among them and Z [n, d]; their places stay."""
        by_unit = Z.reshape(len(Z), -1, self._width).transpose(1, 2, 0)
        self._blocks -= by_unit @ by_unit.transpose(0, 2, 1)
        Y = blas.dtrsm(1.0 / np.sqrt(self._ridge), root, self._U[index] @ self._Q, lower=1)
        self._Q += Y.T @ Y
        self._U[index] = 0.0

    def compacted(self, keep: Index) -> Inverse:
        """Return the inverse with these places alone; as a matrix where they are few."""
        self._V, self._U = self._V[keep], self._U[keep]
        self._blocks = self._blocks[keep[:: self._width] // self._width]
        if len(keep) <= 2 * self._V.shape[1]:
            return DenseInverse(_definite_factor(self._V @ self._V.T, self._ridge))
        if len(keep) <= self._since / 2:
            self._U, self._Q, self._blocks = self._renewed()
            self._since = len(keep)
        return self

    def _renewed(self) -> tuple[Matrix, Matrix, Matrix]:
        """Work U, Q and P_BB out for the features that are left: rounding errors of what is gone are gone too."""
        V = self._V
        middle = V.T @ V
        middle[np.diag_indices(len(middle))] += self._ridge
        C = lapack.dpotrf(middle, lower=1, clean=1)[0]
        U = np.ascontiguousarray(blas.dtrsm(1.0, C, V.T, lower=1).T)
        by_unit = U.reshape(-1, self._width, V.shape[1])
        blocks = (np.eye(self._width) - by_unit @ by_unit.transpose(0, 2, 1)) / self._ridge
        return U, np.eye(V.shape[1]), blocks


def inverse(
    covariance: Matrix, index: Index, ridge: float, *, fixed: int, width: int, spare: bool, rank: int | None
) -> tuple[Inverse, Matrix]:
    """Invert the correlations of features, in a given order, with a ridge on the diagonal.

    Args:
        covariance: [d, d], positive semi-definite up to rounding.
        index: [n] features, -1 for none.
        ridge: as for `factor`.
        fixed: so many features at the start of the index stay; the inverse is that of the others given these.
        width: features of a unit.
        spare: as for `factor`.
        rank: of the covariance, at most; None where no more is known.

    Returns:
        The inverse of all but the fixed features, and [n] the standard deviation of each feature, 0 for a dead one.

    """
    R, deviation = _correlations(covariance, index, spare=spare)
    if not fixed and ridge > 0.0 and rank is not None and len(R) >= max(_WIDE, _FEATURES_PER_VECTOR * rank):
        V = _vectors(R, deviation, _LEFT * ridge)
        if V is not None and V.shape[1]:
            return LowRankInverse(V, ridge, width), deviation
    L = _definite_factor(R, ridge)
    # The lower right block of the factor is that of the covariance given the features that stay.
    return DenseInverse(np.asfortranarray(L[fixed:, fixed:]) if fixed else L), deviation


def factor(covariance: Matrix, index: Index, ridge: float, *, spare: bool = False) -> tuple[Matrix, Matrix]:
    """Cholesky factor of the correlations of features, in a given order, with a ridge on the diagonal.

    Dead features, and places with index -1, are uncorrelated with all others.

    Args:
        covariance: [d, d], positive semi-definite up to rounding.
        index: [n] features, -1 for none.
        ridge: added to the diagonal of ones; ten times as much, and again, until the matrix is definite.
        spare: the covariance, in C order, may be overwritten; it is where the index leaves the features in their order.

    Returns:
        L [n, n], its upper triangle to be ignored, and [n] the standard deviation of each feature, 0 for a dead one.

    """
    checked_square(covariance)
    R, deviation = _correlations(covariance, index, spare=spare)
    return _definite_factor(R, ridge), deviation


def _definite_factor(R: Matrix, ridge: float) -> Matrix:
    """Return the Cholesky factor of R with a ridge on its diagonal of ones, in the memory of R."""
    while True:
        np.fill_diagonal(R, 1.0 + ridge)
        L, failed = lapack.dpotrf(R.T, lower=1, clean=0, overwrite_a=1)
        if not failed:
            return np.asarray(L)
        symmetric(R, np.ones(len(R)))
        ridge = max(10.0 * ridge, 1e-12)


def _correlations(covariance: Matrix, index: Index, *, spare: bool) -> tuple[Matrix, Matrix]:
    """Return the correlations [n, n], their diagonal to be ignored, and the deviations [n]."""
    checked_square(covariance)
    in_order = natural(index, covariance)
    variances = np.diagonal(covariance)[index]
    dead = dead_features(variances) | (index < 0)
    deviation = np.sqrt(np.where(dead, 0.0, variances))
    inverse = np.where(dead, 0.0, 1.0 / np.where(dead, 1.0, deviation))
    R = covariance if spare and in_order else np.empty((len(index), len(index)))
    for start in range(0, len(index), _BAND):
        # A band at a time, so that it is still in the cache when it is scaled again.
        band = slice(start, start + _BAND)
        rows = covariance[band] if in_order else covariance[index[band]]
        np.multiply(rows if in_order else rows[:, index], inverse, out=R[band])
        R[band] *= inverse[band, None]
    return R, deviation


def _vectors(R: Matrix, deviation: Matrix, left: float) -> Matrix | None:
    """Return V [d, r] with R = V Vᵀ, but for `left` of any feature, or None for more vectors than are worth it.

    The largest pivot is taken first; the correlations' upper triangle is overwritten.
    """
    np.fill_diagonal(R, deviation > 0)
    L, order, rank, _ = lapack.dpstrf(R.T, tol=left, lower=1, overwrite_a=1)
    if rank * _FEATURES_PER_VECTOR > len(R):
        symmetric(R, np.ones(len(R)))
        return None
    V = np.empty((len(R), rank))
    V[order - 1] = np.tril(L[:, :rank])
    return V


def natural(index: Index, matrix: Matrix) -> bool:
    """Whether an index names the columns of a matrix in their order.

    Args:
        index: [n].
        matrix: [rows, d].

    """
    return np.array_equal(index, np.arange(matrix.shape[1]))


def _inverted(L: Matrix, *, single: bool) -> NDArray[Any]:
    """Return (L Lᵀ)⁻¹, its lower triangle, from a factor that is overwritten; where `single` in float32 if safe."""
    N = lapack.dtrtri(L, lower=1, overwrite_c=1)[0]
    if single and max(float(N[i:, i] @ N[i:, i]) for i in range(len(N))) < _SAFE:
        return np.asarray(lapack.slauum(N.astype(np.float32), lower=1, overwrite_c=1)[0])
    return np.asarray(lapack.dlauum(N, lower=1, overwrite_c=1)[0])


def mirrored(matrix: Matrix) -> Matrix:
    """Return the symmetric matrix of a lower triangle.

    Args:
        matrix: [n, n].

    >>> mirrored(np.array([[1.0, 9], [2, 3]])).tolist()
    [[1.0, 2.0], [2.0, 3.0]]

    """
    lower = np.tril(matrix)
    return np.asarray(lower + np.tril(lower, -1).T)


def _submatrix(matrix: NDArray[Any], keep: Index) -> NDArray[Any]:
    """Return the lower triangle of rows and columns `keep`, ascending, of a matrix in Fortran order, in its memory."""
    memory, size = matrix.reshape(-1, order="F"), len(keep)
    for place, feature in enumerate(keep):
        # Every column moves to the left, over none that is still to come.
        memory[place * size + place : (place + 1) * size] = matrix[:, feature][keep[place:]]
    cut: NDArray[Any] = memory[: size * size].reshape((size, size), order="F")
    return cut
