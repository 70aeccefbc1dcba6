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

from onnx_subprune.errors import DataError, InternalError, OptionError
from onnx_subprune.subspace.ldl import checked_square, dead_features

__all__ = ["Recovery", "centred", "recover"]

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]

# A variance below this share of the second moment is the rounding error of a feature that is constant.
_CONSTANT = 1e-12
_EPS = float(np.finfo(np.float64).eps)


@dataclass(frozen=True, eq=False)
class Recovery:
    """The affine map x ≈ coefficients @ x_S + intercept from k kept features to all d.

    Attributes:
        coefficients: [d, k] float64; the rows of kept features are the identity exactly.
        intercept: [d] float64; exactly 0 for kept features.
        error: what the map leaves unexplained, as a share of the total variance (second moment when not affine) of
            the d features; 0 is perfect.

    """

    coefficients: Matrix
    intercept: Vector
    error: float


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
    mean, second, C = _moments(gram)
    if not affine:
        mean, C = np.zeros_like(mean), second
    # Of the second moments only the diagonal is needed from here on: at 10,000 features the rest is 800 MB.
    scales = np.diagonal(second).copy()
    del second
    kept, removed = _split(keep, len(mean))
    A = np.zeros((len(mean), len(kept)))
    A[kept, np.arange(len(kept))] = 1.0
    A[removed] = _solve(C, scales, kept, removed, ridge)
    intercept = np.zeros(len(mean))
    intercept[removed] = mean[removed] - A[removed] @ mean[kept]
    return Recovery(A, intercept, _error(C, A[removed], kept, removed))


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
    mean, _, C = _moments(gram)
    return mean, C


def _moments(gram: ArrayLike) -> tuple[Vector, Matrix, Matrix]:
    matrix = checked_square(gram)
    count = float(matrix[-1, -1]) if len(matrix) else 0.0
    if count <= 0:
        raise DataError(f"expected a Gram matrix of some samples, found a count of {count:g}; give calibration data")
    mean, second = matrix[:-1, -1] / count, matrix[:-1, :-1] / count
    C = np.outer(mean, mean)
    np.subtract(second, C, out=C)
    constant = np.diagonal(C) <= _CONSTANT * np.diagonal(second)
    C[constant, :] = 0.0
    C[:, constant] = 0.0
    return mean, second, C


def _split(keep: ArrayLike, d: int) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Indices of the kept and of the removed features, each ascending."""
    given = np.asarray(keep)
    mask = given if given.dtype == np.bool_ else np.isin(np.arange(d), given)
    ascending = given.dtype == np.bool_ or np.array_equal(np.flatnonzero(mask), given)
    if mask.shape != (d,) or not ascending:
        raise InternalError(
            f"expected a mask or ascending indices of {d} features, found {given!r}; please report this"
        )
    return np.flatnonzero(mask), np.flatnonzero(~mask)


def _solve(C: Matrix, second: Vector, kept: NDArray[np.intp], removed: NDArray[np.intp], ridge: float) -> Matrix:
    """Coefficients [r, k] of the removed features."""
    A = np.zeros((len(removed), len(kept)))
    live = np.flatnonzero(~dead_features(np.diagonal(C))[kept])
    if not len(live) or not len(removed):
        return A
    columns = kept[live]
    penalty = ridge * float(np.diagonal(C)[kept].mean())
    scale = np.sqrt(second[columns] + penalty)
    R = C[np.ix_(columns, columns)]
    R[np.diag_indices(len(R))] += penalty
    target = C[np.ix_(columns, removed)] / scale[:, None]
    A[:, live] = (_solve_scaled(R / scale[:, None] / scale[None, :], target) / scale[:, None]).T
    return A


def _solve_scaled(R: Matrix, target: Matrix) -> Matrix:
    """R⁻¹ target by Cholesky; by the pseudo-inverse where a direction is within R's rounding error (diagonal <= 1)."""
    cutoff = 8 * _EPS * max(len(R), 32)
    try:
        lower = scipy.linalg.cholesky(R, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return _pseudo_solve(R, target, cutoff)
    if float(np.diagonal(lower).min()) ** 2 <= cutoff:
        return _pseudo_solve(R, target, cutoff)
    return np.asarray(scipy.linalg.cho_solve((lower, True), target, check_finite=False), dtype=np.float64)


def _pseudo_solve(R: Matrix, target: Matrix, cutoff: float) -> Matrix:
    values, vectors = scipy.linalg.eigh(R, driver="evd", check_finite=False)
    sound = vectors[:, values > cutoff]
    return np.asarray(sound @ ((sound.T @ target) / values[values > cutoff, None]), dtype=np.float64)


def _error(C: Matrix, A: Matrix, kept: NDArray[np.intp], removed: NDArray[np.intp]) -> float:
    """tr(Cov(x_R − A x_S)) / tr(C), evaluated for the A that is used, ridge and cut-offs included."""
    total = float(np.trace(C))
    if total <= 0 or not len(removed):
        return 0.0
    cross = C[np.ix_(removed, kept)]
    quadratic = ((A @ C[np.ix_(kept, kept)] - 2.0 * cross) * A).sum()
    return max(float(np.diagonal(C)[removed].sum() + quadratic), 0.0) / total
