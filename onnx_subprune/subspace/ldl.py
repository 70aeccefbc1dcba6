"""The LDL decomposition of a Gram matrix: Gram-Schmidt on the features, in the order given.

With G = X Xᵀ / N and G = L D Lᵀ (L unit lower triangular), Z = L⁻¹ X has uncorrelated rows of second moment D: each
feature less what the features before it explain linearly. Keeping the first k features and setting the rest of Z to
zero turns the weight W into W L[:, :k] L[:k, :k]⁻¹, which is the least-squares weight W G[:, S] G[S, S]⁻¹.

Everything is computed on the equilibrated matrix G_ij / sqrt(G_ii G_jj): rounding errors of G are proportional to
sqrt(G_ii G_jj), so a pivot is compared with its own diagonal to tell noise from signal, at any scale of the features.
"""

from __future__ import annotations

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from onnx_subprune.errors import DataError, InternalError

__all__ = ["equilibrate", "fold", "ldl"]

Matrix = NDArray[np.float64]

# A feature whose amplitude is 1e-15 of the largest one's is dead: beside it, it is below the resolution of a sum.
_DEAD = 1e-30
_PANEL = 64
_EPS = float(np.finfo(np.float64).eps)


def ldl(G: ArrayLike, order: ArrayLike | None = None) -> tuple[Matrix, NDArray[np.float64]]:
    """Decompose `G[order][:, order] = L @ diag(D) @ L.T`.

    A pivot within rounding error becomes D = 0 with an empty column of L (but for its 1); nothing is divided by it.

    Args:
        G: [d, d] symmetric positive semi-definite second moments or covariances, up to rounding.
        order: [d] permutation of the features (or a selection of some), most important first; None keeps theirs.

    Returns:
        L [d, d] unit lower triangular and D [d] >= 0, where D[i] is the second moment of feature i that the features
        before it in the order leave unexplained (subspace node pruning, arXiv 2405.17506): 0 for a dependent feature
        or, where the features before it are ill-conditioned, the rounding error that they amplify. Always finite.

    Raises:
        DataError: G holds NaN or infinity.
        InternalError: G is not a square matrix.

    >>> L, D = ldl([[4.0, 2], [2, 3]])
    >>> L.tolist(), D.round(9).tolist()
    ([[1.0, 0.0], [0.5, 1.0]], [4.0, 2.0])

    The second feature is the first one doubled: it adds nothing.

    >>> ldl([[1.0, 2], [2, 4]])[1].tolist()
    [1.0, 0.0]

    """
    matrix = checked_square(G)
    if order is not None:
        index = np.asarray(order, dtype=np.intp)
        matrix = matrix[np.ix_(index, index)]
    scaled, scale = equilibrate(matrix)
    alive = np.flatnonzero(np.diagonal(scaled) > 0)
    L, D = np.eye(len(matrix)), np.zeros(len(matrix))
    if len(alive) == len(matrix) > 0:
        L, D = _factor(scaled)
    elif len(alive):
        L[np.ix_(alive, alive)], D[alive] = _factor(scaled[np.ix_(alive, alive)])
    L *= scale[:, None]
    L /= scale[None, :]
    np.fill_diagonal(L, 1.0)
    return L, D * scale**2


def fold(W: ArrayLike, L: ArrayLike, k: int) -> Matrix:
    """The paper's recovered weight `W L[:, :k] L[:k, :k]⁻¹` of the first k features.

    Args:
        W: [o, d] consumer weight whose columns are in the order that L was made with.
        L: [d, d] from `ldl`.
        k: how many features stay, 0 to d.

    Returns:
        [o, k] float64.

    >>> G = np.array([[4.0, 2], [2, 3]])
    >>> L, _ = ldl(G)
    >>> fold([[1.0, 1.0]], L, 1).tolist()
    [[1.5]]

    """
    weight, lower = np.asarray(W, dtype=np.float64), np.asarray(L, dtype=np.float64)
    if k == 0:
        return np.zeros((len(weight), 0))
    product = weight @ lower[:, :k]
    solved = scipy.linalg.solve_triangular(lower[:k, :k], product.T, lower=True, trans="T", unit_diagonal=True)
    return np.asarray(solved.T, dtype=np.float64)


def equilibrate(G: Matrix) -> tuple[Matrix, NDArray[np.float64]]:
    """Scale G to a unit diagonal: `G = scale[:, None] * R * scale`; rows and columns of dead features become zero.

    Args:
        G: [d, d] symmetric positive semi-definite, up to rounding.

    Returns:
        R [d, d] with a diagonal of ones (zeros for dead features) and scale [d] > 0 (one for dead features).

    >>> R, scale = equilibrate(np.array([[4.0, 2], [2, 4]]))
    >>> R.tolist(), scale.tolist()
    ([[1.0, 0.5], [0.5, 1.0]], [2.0, 2.0])

    """
    diagonal = np.diagonal(G)
    dead = dead_features(diagonal)
    scale = np.sqrt(np.where(dead, 1.0, diagonal))
    R = G / scale[:, None]
    R /= scale[None, :]
    R[dead, :] = 0.0
    R[:, dead] = 0.0
    live = np.flatnonzero(~dead)
    R[live, live] = 1.0
    return R, scale


def dead_features(moments: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the features with second moments (or variances) [d] carry no signal: mask [d]."""
    threshold = max(float(np.max(moments, initial=0.0)) * _DEAD, float(np.finfo(np.float64).tiny))
    return np.asarray(moments <= threshold, dtype=np.bool_)


def checked_square(G: ArrayLike) -> Matrix:
    """G as a float64 matrix, or an error that says why it cannot be one."""
    matrix = np.asarray(G, dtype=np.float64)
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise InternalError(f"expected a square Gram matrix, found shape {matrix.shape}; please report this")
    if not np.isfinite(matrix).all():
        raise DataError(
            "expected finite activations, found NaN or infinity in a Gram matrix; check the calibration data"
        )
    return matrix


def symmetric(R: Matrix, diagonal: NDArray[np.float64]) -> Matrix:
    """Bring a symmetric matrix back, in place, whose upper triangle and diagonal a factorisation has overwritten.

    Args:
        R: [d, d] in C order; its lower triangle is as it was.
        diagonal: [d] what stood there.

    >>> symmetric(np.array([[9.0, 9], [0.5, 9]]), np.ones(2)).tolist()
    [[1.0, 0.5], [0.5, 1.0]]

    """
    for start in range(0, len(R), _PANEL):
        stop = min(start + _PANEL, len(R))
        block = R[start:stop, start:stop]
        block[:] = np.tril(block, -1) + np.tril(block, -1).T
        R[start:stop, stop:] = R[stop:, start:stop].T
    np.fill_diagonal(R, diagonal)
    return R


def _factor(R: Matrix) -> tuple[Matrix, NDArray[np.float64]]:
    """LDL of a matrix with unit diagonal: LAPACK where every pivot is sound, else by panels that pass over zeros."""
    tolerance = 8 * _EPS * max(len(R), 16)
    try:
        C = scipy.linalg.cholesky(R, lower=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        return _semidefinite(R, tolerance)
    root = np.diagonal(C).copy()
    if float(root.min()) ** 2 <= tolerance:
        return _semidefinite(R, tolerance)
    return np.asarray(C / root[None, :], dtype=np.float64), root**2


def _semidefinite(R: Matrix, tolerance: float) -> tuple[Matrix, NDArray[np.float64]]:
    """Left-looking LDL by panels of columns; matrix products do the work between panels."""
    n = len(R)
    L, D = np.eye(n), np.zeros(n)
    for start in range(0, n, _PANEL):
        stop = min(start + _PANEL, n)
        panel = R[start:, start:stop] - (L[start:, :start] * D[:start]) @ L[start:stop, :start].T
        for j in range(stop - start):
            if panel[j, j] > tolerance:
                D[start + j] = panel[j, j]
                L[start + j + 1 :, start + j] = _eliminate(panel, j)
    return L, D


def _eliminate(panel: Matrix, j: int) -> NDArray[np.float64]:
    """L's entries below pivot j of the panel; their outer product is subtracted from the panel's later columns."""
    raw = panel[j + 1 :, j]
    column = np.asarray(raw / panel[j, j], dtype=np.float64)
    panel[j + 1 :, j + 1 :] -= np.outer(raw, column[: panel.shape[1] - j - 1])
    return column
