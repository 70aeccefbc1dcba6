"""Least-squares recovery: removed features as affine functions of those that stay, from second moments alone.

With the mean m and the covariance C of the features x, the best affine map from the kept ones S to all of them is

    x ≈ A x_S + c,   A = C[:, S] (C[S, S] + ρI)⁻¹,   c = m − A m_S,   ρ = ridge · mean(diag C[S, S])

(the rows of kept features are the identity), and a consumer y = W x + b becomes y ≈ (W A) x_S + (b + W c). Without
`affine` the same holds with the second moments in the place of C, and c = 0. The Gram matrices of consumers that share
a weight are added before: the fit then serves them all.

Which directions are noise is judged against the second moments, not the variances, because the rounding error of
C_ij = M_ij − m_i m_j is proportional to sqrt(M_ii M_jj).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import blas, lapack

from onnx_subprune.errors import DataError, InternalError, OptionError
from onnx_subprune.subspace.ldl import checked_square, dead_features, symmetric

__all__ = ["Recovery", "centred", "recover"]

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]
Index = NDArray[np.intp]

# A variance below this share of the second moment is the rounding error of a feature that is constant.
_CONSTANT = 1e-12
_BAND = 64
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Recovery:
    """The affine map x ≈ coefficients @ x_S + intercept from k kept features to all d.

    Attributes:
        kept: bool [d].
        removed: [d - k, k] float64, the rows of the coefficients that belong to removed features.
        intercept: [d] float64; exactly 0 for kept features.
        error: what the map leaves unexplained, as a share of the total variance (second moment when not affine) of
            the d features; 0 is perfect.

    """

    kept: NDArray[np.bool_]
    removed: Matrix
    intercept: Vector
    error: float

    @property
    def coefficients(self) -> Matrix:
        """The coefficients [d, k] float64; the rows of kept features are the identity exactly."""
        whole = np.zeros((len(self.kept), self.removed.shape[1]))
        whole[self.kept] = np.eye(self.removed.shape[1])
        whole[~self.kept] = self.removed
        return whole


def recover(gram: ArrayLike, keep: ArrayLike, ridge: float = 0.0, affine: bool = True) -> Recovery:
    """Fit the removed features on the kept ones.

    Args:
        gram: [d + 1, d + 1] sums (or means) of products of the features with the constant 1 last.
        keep: [d] bool, or the indices of the kept features in ascending order.
        ridge: relative strength ρ / mean(diag) of the ridge penalty, >= 0; the intercept is not penalised.
        affine: fit an intercept; without it the constant is not used.

    Returns:
        A `Recovery`, always finite. Where kept features are linearly dependent and the ridge is 0, the solution of
        least norm (in units of each feature's own scale) is taken; dead and constant features get coefficients 0.

    Raises:
        DataError: the Gram matrix is not finite or was made from no samples.
        OptionError: the ridge is negative or not finite.
        InternalError: `keep` does not fit the matrix.

    Of three features the last is twice the first plus 1, so it can go:

    >>> x = np.array([[1.0, 2, 3, 4], [1, 0, 0, 1], [3, 5, 7, 9], [1, 1, 1, 1]])
    >>> map_of_all = recover(x @ x.T, [True, True, False])
    >>> map_of_all.coefficients.round(9)
    array([[1., 0.],
           [0., 1.],
           [2., 0.]])
    >>> map_of_all.intercept.round(9), round(map_of_all.error, 9)
    (array([0., 0., 1.]), 0.0)

    """
    if not np.isfinite(ridge) or ridge < 0:
        raise OptionError(f"expected a ridge strength of 0 or more, found {ridge}; use for example 1e-4")
    moments = _Moments(gram, affine=affine)
    kept = _mask(keep, len(moments.mean))
    A, error = _solve(moments, np.flatnonzero(kept), np.flatnonzero(~kept), ridge)
    intercept = np.zeros(len(kept))
    intercept[~kept] = moments.mean[~kept] - A @ moments.mean[kept]
    return Recovery(kept, A, intercept, error)


def centred(gram: ArrayLike) -> tuple[Vector, Matrix]:
    """Return the mean [d] and the covariance [d, d] of an affine Gram matrix; constant features get exact zeros.

    Args:
        gram: [d + 1, d + 1] sums (or means) of products of the features with the constant 1 last
            (docs/mathematics.md, 1).

    Raises:
        DataError: the Gram matrix is not finite or was made from no samples.

    >>> x = np.array([[1.0, 3], [5, 5], [1, 1]])
    >>> mean, covariance = centred(x @ x.T)
    >>> mean.tolist(), covariance.tolist()
    ([2.0, 5.0], [[1.0, 0.0], [0.0, 0.0]])

    """
    moments = _Moments(gram, affine=True)
    everything = np.arange(len(moments.mean))
    return moments.mean, moments.between(everything, everything)


class _Moments:
    """Means and covariances of features, worked out from their Gram matrix for as many pairs as are asked for.

    Args:
        gram: [d + 1, d + 1] sums of products, as for `recover`.
        affine: about the mean; else about the origin.

    Attributes:
        mean: [d], 0 where the moments are about the origin.
        second: [d] second moments of single features.
        variances: [d] the diagonal of the covariance.

    """

    def __init__(self, gram: ArrayLike, *, affine: bool) -> None:
        self._matrix = checked_square(gram)
        self._count = float(self._matrix[-1, -1]) if len(self._matrix) else 0.0
        if self._count <= 0:
            raise DataError(
                f"expected a Gram matrix of some samples, found a count of {self._count:g}; give calibration data"
            )
        self._affine = affine
        self.second: Vector = np.diagonal(self._matrix)[:-1] / self._count
        self.mean: Vector = affine * (self._matrix[:-1, -1] / self._count)
        self.variances: Vector = self.second - self.mean * self.mean
        self._constant = affine & (self.variances <= _CONSTANT * self.second)
        self.variances[self._constant] = 0.0

    def between(self, rows: Index, columns: Index) -> Matrix:
        """Return the covariances [rows, columns] of some features with others."""
        result = np.empty((len(rows), len(columns)))
        for start in range(0, len(rows), _BAND):
            band = rows[start : start + _BAND]
            part = self._matrix[np.ix_(band, columns)] / self._count
            if self._affine:
                part -= np.outer(self.mean[band], self.mean[columns])
            result[start : start + _BAND] = part
        result[self._constant[rows], :] = 0.0
        result[:, self._constant[columns]] = 0.0
        return result


def _mask(keep: ArrayLike, d: int) -> NDArray[np.bool_]:
    """Which features are kept: [d]."""
    given = np.asarray(keep)
    mask = given if given.dtype == np.bool_ else np.isin(np.arange(d), given)
    ascending = given.dtype == np.bool_ or np.array_equal(np.flatnonzero(mask), given)
    if mask.shape != (d,) or not ascending:
        raise InternalError(
            f"expected a mask or ascending indices of {d} features, found {given!r}; please report this"
        )
    return mask


def _solve(moments: _Moments, kept: Index, removed: Index, ridge: float) -> tuple[Matrix, float]:
    """Coefficients [r, k] of the removed features, and what they leave unexplained, as a share of all variance."""
    A = np.zeros((len(removed), len(kept)))
    total, rest = float(moments.variances.sum()), float(moments.variances[removed].sum())
    live = np.flatnonzero(~dead_features(moments.variances)[kept])
    if len(live) and len(removed):
        columns = kept[live]
        penalty = ridge * float(moments.variances[kept].mean())
        scale = np.sqrt(moments.second[columns] + penalty)
        R = moments.between(columns, columns)
        R[np.diag_indices(len(R))] += penalty
        R /= scale[:, None]
        R /= scale[None, :]
        target = moments.between(removed, columns).T
        target /= scale[:, None]
        # For R x = t the error is rest - t x less what the penalty takes: x R x = t x, so the matrix is not needed.
        solution, explained = _solve_scaled(R, target)
        solution /= scale[:, None]
        if len(live) == len(kept):
            A = solution.T
        else:
            A[:, live] = solution.T
        rest -= explained + penalty * float(np.vdot(solution, solution))
    return A, max(rest, 0.0) / total if total > 0 and len(removed) else 0.0


def _solve_scaled(R: Matrix, target: Matrix) -> tuple[Matrix, float]:
    """R⁻¹ target, by Cholesky, and the sum of their products; R and target, in Fortran order, are overwritten.

    It is the pseudo-inverse where a direction is within R's rounding error (diagonal <= 1).
    """
    cutoff = 8 * _EPS * max(len(R), 32)
    # The other triangle and the diagonal bring R back where it turns out not to be definite.
    diagonal = np.diagonal(R).copy()
    lower, failed = lapack.dpotrf(R.T, lower=1, clean=0, overwrite_a=1)
    if failed or float(np.diagonal(lower).min()) ** 2 <= cutoff:
        return _pseudo_solve(symmetric(R, diagonal), target, cutoff)
    halfway = blas.dtrsm(1.0, lower, target, lower=1, overwrite_b=1)
    explained = float(np.vdot(halfway.T, halfway.T))
    return blas.dtrsm(1.0, lower, halfway, lower=1, trans_a=1, overwrite_b=1), explained


def _pseudo_solve(R: Matrix, target: Matrix, cutoff: float) -> tuple[Matrix, float]:
    values, vectors = scipy.linalg.eigh(R, driver="evd", overwrite_a=True, check_finite=False)
    sound = vectors[:, values > cutoff]
    along = sound.T @ target
    solution = along / values[values > cutoff, None]
    return np.asarray(sound @ solution, dtype=np.float64), float(np.vdot(along, solution))
