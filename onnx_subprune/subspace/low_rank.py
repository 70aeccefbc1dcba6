"""The best map of rank r in the place of a linear one, judged by the output: principal components of y = W x + b.

With the mean m of the outputs and the r leading eigenvectors U of their covariance, no affine map of rank r is nearer
to y, in the mean square over the samples, than

    y ≈ U Uᵀ (y - m) + m = U (Uᵀ W) x + b + s,   s = (I - U Uᵀ)(m - b)

so the layer becomes two: Uᵀ W without a bias, and U with the bias b + s. It is the singular value decomposition of
W C^(1/2), with C the covariance of the inputs, but it needs the outputs alone: with zero padding, strides and any
kernel it stays exact.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from onnx_subprune.errors import InternalError
from onnx_subprune.subspace.least_squares import centred

__all__ = ["Factors", "Spectrum", "factors", "input_spectrum", "output_spectrum", "share_of_variance"]

Matrix = NDArray[np.float64]
Vector = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Principal components of W x.

    Attributes:
        variances: [n] of the components, descending, >= 0.
        directions: [o, n] orthonormal columns with W x in their span; the largest entry of each is positive.
        mean: [o] of W x.

    """

    variances: Vector
    directions: Matrix
    mean: Vector


@dataclass(frozen=True, eq=False)
class Factors:
    """W x ≈ second @ (first @ x) + shift: first [r, d], second [o, r], shift [o], which is 0 at full rank."""

    first: Matrix
    second: Matrix
    shift: Vector


def output_spectrum(gram: ArrayLike, bias: ArrayLike) -> Spectrum:
    """Return the components of W x from the outputs y = W x + bias.

    Args:
        gram: [o + 1, o + 1] sums (or means) of products of the outputs y with the constant 1 last.
        bias: [o], of the layer.

    Raises:
        DataError: the Gram matrix is not finite or was made from no samples.

    >>> y = np.array([[3.0, 1.0], [0.0, 0.0], [1.0, 1.0]])  # two outputs and the constant, at two positions
    >>> spectrum = output_spectrum(y @ y.T, [0.5, 0.0])
    >>> spectrum.variances.round(9).tolist(), spectrum.mean.tolist()
    ([1.0, 0.0], [1.5, 0.0])

    """
    mean, covariance = centred(gram)
    variances, directions = _components(covariance)
    return Spectrum(variances, directions, mean - np.asarray(bias, np.float64))


def input_spectrum(weight: ArrayLike, gram: ArrayLike) -> Spectrum:
    """Return the d components of W x from its inputs; for fewer inputs than outputs, d < o, the smaller problem.

    With W = Q R, Q [o, d] orthonormal, the covariance of W x is Q (R C Rᵀ) Qᵀ.

    Args:
        weight: W, [o, d].
        gram: [d + 1, d + 1] sums (or means) of products of the inputs with the constant 1 last.

    Raises:
        DataError: the Gram matrix is not finite or was made from no samples.

    """
    W = np.asarray(weight, np.float64)
    mean, covariance = centred(gram)
    Q, R = scipy.linalg.qr(W, mode="economic", check_finite=False)
    variances, directions = _components(R @ covariance @ R.T)
    return Spectrum(variances, _signed(Q @ directions), W @ mean)


def share_of_variance(spectrum: Spectrum, ranks: Sequence[int]) -> Vector:
    """Return the share of the outputs' variance that the leading components hold, for each rank; 1 of nothing.

    Args:
        spectrum: of the outputs.
        ranks: each 0 to n, the number of components.

    >>> share_of_variance(Spectrum(np.array([3.0, 1.0]), np.eye(2), np.zeros(2)), [0, 1, 2]).tolist()
    [0.0, 0.75, 1.0]

    """
    sums = np.concatenate([[0.0], np.cumsum(spectrum.variances)])
    if sums[-1] <= 0.0:
        return np.where(np.asarray(ranks) > 0, 1.0, 0.0)
    return np.asarray(np.minimum(sums[list(ranks)] / sums[-1], 1.0), dtype=np.float64)


def factors(weight: ArrayLike, spectrum: Spectrum, rank: int) -> Factors:
    """Return two factors of W at a rank: `Uᵀ W` and `U`, the leading principal directions (docs/mathematics.md, 10).

    Args:
        weight: W [o, d].
        spectrum: of W x.
        rank: of 1 to n, the number of components.

    Raises:
        InternalError: there is no such rank.

    >>> flat = Spectrum(np.array([4.0, 0.0]), np.eye(2), np.array([0.0, 5.0]))
    >>> pair = factors([[2.0, 0.0], [0.0, 0.0]], flat, 1)
    >>> pair.first.tolist(), pair.second.tolist(), pair.shift.tolist()
    ([[2.0, 0.0]], [[1.0], [0.0]], [0.0, 5.0])

    """
    n = len(spectrum.variances)
    if not 1 <= rank <= n:
        raise InternalError(f"expected a rank of 1 to {n}, found {rank}; please report this")
    U = spectrum.directions[:, :rank]
    shift = np.zeros(len(U)) if rank == n else spectrum.mean - U @ (U.T @ spectrum.mean)
    return Factors(U.T @ np.asarray(weight, np.float64), U, shift)


def _components(covariance: Matrix) -> tuple[Vector, Matrix]:
    """Variances, descending, and directions."""
    variances, directions = scipy.linalg.eigh(covariance, driver="evd", check_finite=False)
    return np.maximum(variances[::-1], 0.0), _signed(directions[:, ::-1])


def _signed(directions: Matrix) -> Matrix:
    """Turn every column so that its largest entry is positive: its sign is arbitrary and must not depend on LAPACK."""
    largest = np.abs(directions).argmax(axis=0)
    signs = np.sign(directions[largest, np.arange(directions.shape[1])])
    return np.asarray(directions * np.where(signs == 0.0, 1.0, signs), dtype=np.float64)
