"""How much each unit of a group matters: the orderings of subspace node pruning, and what becomes of them in a group.

    zca                   1 / ((C^-1/2)_ii)²    the variance left after symmetric (unnormalised ZCA) whitening
    conditional-variance  1 / (C^-1)_ii         the variance that all other features together leave unexplained
    saw                   sum_o |W_oi|          the sum of absolute weights by which a consumer reads the feature
    wanda                 sum_o |W_oi| ‖x_i‖    the same, each weight times the feature's root mean square
    magnitude             sum_j |V_ij|          the L1 norm of the weights by which a producer makes the feature
    random                a seeded permutation  the baseline

For every covariance, conditional-variance <= zca <= variance holds feature by feature (Jensen on the eigenvalues, with
weights v_ij²); the bound by the variance is also enforced, because eigenvalues below the floor are rounding noise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from onnx_subprune.errors import DataError, InternalError, OptionError
from onnx_subprune.subspace.ldl import checked_square, dead_features, equilibrate, ldl

__all__ = [
    "METHODS",
    "conditional_variance_scores",
    "cumulative_variance",
    "feature_scores",
    "joint_scores",
    "joint_share",
    "magnitude_scores",
    "random_scores",
    "rank",
    "saw_scores",
    "unit_scores",
    "wanda_scores",
    "zca_scores",
]

# obs weighs the units of a group jointly (`subspace.obs`); the others score features one by one.
METHODS = ("obs", "zca", "conditional-variance", "saw", "wanda", "magnitude", "random")

# What orderings need that do not look at the covariance alone.
_NEEDED = {"saw": ("weights",), "magnitude": ("weights",), "wanda": ("weights", "a covariance")}

Vector = NDArray[np.float64]
Units = int | Sequence[Sequence[int] | NDArray[np.intp]]

# Relative to the largest eigenvalue: below it a spectrum estimated from float32 activations is rounding noise.
_FLOOR = 1e-10
# Added to the unit diagonal so that Cholesky passes exact dependence: above its rounding error, below any signal.
_JITTER = 1e-11


def feature_scores(
    method: str, covariance: ArrayLike | None = None, weights: ArrayLike | None = None, *, seed: int = 0
) -> Vector:
    """Scores [d] >= 0 of the features at one consumer, the larger the more important.

    Args:
        method: one of `METHODS` but obs.
        covariance: [d, d], for zca and conditional-variance (and the number of features, for random); for wanda the
            second moments.
        weights: for saw and wanda the consumer's [o, d]; for magnitude the producer's [d, ...].
        seed: for random.

    Raises:
        OptionError: the method is not one of `METHODS`.
        InternalError: what the method needs is not there.
        DataError: the covariance or the weights hold NaN or infinity.

    >>> feature_scores("conditional-variance", [[1.0, 0.8], [0.8, 1.0]]).round(6).tolist()
    [0.36, 0.36]
    >>> feature_scores("saw", weights=[[1.0, -2.0], [3.0, 0.5]]).tolist()
    [4.0, 2.5]

    """
    if method not in METHODS:
        raise OptionError(f"expected an ordering among {', '.join(METHODS)}; found {method!r}; choose one of them")
    if method == "obs":
        raise InternalError("expected an ordering of single features, found 'obs'; please report this")
    missing = {"weights": weights, "a covariance": covariance}
    for needed in _NEEDED.get(method, ("a covariance",)):
        if missing[needed] is None:
            raise InternalError(f"expected {needed} for the ordering {method!r}, found none; please report this")
    given = covariance if weights is None or method not in _NEEDED else weights
    assert given is not None
    if method == "wanda":
        return wanda_scores(given, np.diagonal(np.asarray(covariance)))
    if method == "zca":
        return zca_scores(given)
    if method == "conditional-variance":
        return conditional_variance_scores(given)
    if method == "random":
        return random_scores(len(np.asarray(given)), seed)
    return saw_scores(given) if method == "saw" else magnitude_scores(given)


def zca_scores(C: ArrayLike) -> Vector:
    """Return the scores [d] of unnormalised ZCA whitening, `1 / ((C^-1/2)_ii)²`.

    Whitening by C^-1/2 with its diagonal scaled back to one; the scores are the variances of the whitened features.
    Features that are dead score 0; those in an exact linear dependence score almost 0.

    *Subspace Node Pruning* (arXiv 2405.17506); docs/mathematics.md, 3.

    Args:
        C: covariance [d, d] of the features.

    >>> zca_scores([[2.0, 0, 0], [0, 1, 0], [0, 0, 0]]).round(9).tolist()
    [2.0, 1.0, 0.0]
    >>> zca_scores([[1.0, 0.8], [0.8, 1.0]]).round(6).tolist()
    [0.45, 0.45]

    """
    matrix, alive = _alive(C)
    scores = np.zeros(len(np.asarray(C)))
    if len(alive):
        values, vectors = scipy.linalg.eigh(matrix, driver="evd", check_finite=False)
        values = np.maximum(values, _FLOOR * float(values[-1]))
        inverse_root = (vectors**2) @ (1.0 / np.sqrt(values))
        scores[alive] = np.minimum(inverse_root**-2.0, np.diagonal(matrix))
    return scores


def conditional_variance_scores(C: ArrayLike) -> Vector:
    """Return each feature's variance given all others, `1 / (C^-1)_ii`: [d].

    Dead features score 0; those that are exact linear combinations of others score almost 0.

    *Subspace Node Pruning* (arXiv 2405.17506); docs/mathematics.md, 3.

    Args:
        C: covariance [d, d] of the features.

    >>> conditional_variance_scores([[1.0, 0.8], [0.8, 1.0]]).round(6).tolist()
    [0.36, 0.36]

    """
    matrix, alive = _alive(C)
    scores = np.zeros(len(np.asarray(C)))
    if len(alive):
        R, scale = equilibrate(matrix)
        scores[alive] = np.minimum(1.0 / _inverse_diagonal(R), 1.0) * scale**2
    return scores


def saw_scores(W: ArrayLike) -> Vector:
    """Return the sum of absolute weights of each input feature: [d].

    SAW of *Subspace Node Pruning* (arXiv 2405.17506).

    Args:
        W: the consumer's weight [o, d].

    >>> saw_scores([[1.0, -2.0], [3.0, 0.5]]).tolist()
    [4.0, 2.5]

    """
    weight = np.asarray(W, dtype=np.float64)
    return _finite(np.abs(weight).sum(axis=0))


def wanda_scores(W: ArrayLike, squares: ArrayLike) -> Vector:
    """Return absolute weights times root mean squares, summed over the outputs: [d].

    Wanda (arXiv 2306.11695), whose scores of single weights are summed for every input feature.

    Args:
        W: the consumer's weight [o, d].
        squares: mean squares E[x²] of the features, [d].

    >>> wanda_scores([[1.0, -2.0], [3.0, 0.5]], [0.25, 4.0]).tolist()
    [2.0, 5.0]

    """
    return saw_scores(W) * np.sqrt(np.maximum(np.asarray(squares, dtype=np.float64), 0.0))


def magnitude_scores(V: ArrayLike) -> Vector:
    """Return the L1 norm of the weights of each output feature: [d].

    Args:
        V: the producer's weight [d, ...].

    >>> magnitude_scores([[1.0, -2.0], [3.0, 0.5]]).tolist()
    [3.0, 3.5]

    """
    weight = np.asarray(V, dtype=np.float64)
    return _finite(np.abs(weight).reshape(len(weight), -1).sum(axis=1))


def random_scores(d: int, seed: int) -> Vector:
    """Return scores [d] in (0, 1], no two alike: a random order that depends on the seed alone.

    Args:
        d: number of features.
        seed: of NumPy's default generator.

    >>> sorted(random_scores(4, seed=0).tolist())
    [0.25, 0.5, 0.75, 1.0]

    """
    return (np.random.default_rng(seed).permutation(d) + 1.0) / max(d, 1)


def unit_scores(scores: ArrayLike, units: Units) -> Vector:
    """Sum the feature scores [d] of every unit: [n].

    Args:
        scores: [d] feature scores of the whole axis.
        units: an int b when each unit is b consecutive features and they fill the axis; otherwise the feature indices
            of each unit (they may leave out features that belong to other groups, and a unit may have none).

    Raises:
        InternalError: the axis is not a multiple of the block.

    >>> unit_scores([1.0, 2.0, 3.0, 4.0], 2).tolist()
    [3.0, 7.0]
    >>> unit_scores([1.0, 2.0, 3.0, 4.0], [[0, 3], [], [2]]).tolist()
    [5.0, 0.0, 3.0]

    """
    values = np.asarray(scores, dtype=np.float64)
    if isinstance(units, int):
        if units < 1 or len(values) % units:
            raise InternalError(
                f"expected an axis of blocks of {units}, found {len(values)} features; please report this"
            )
        return np.asarray(values.reshape(-1, units).sum(axis=1), dtype=np.float64)
    return np.array([values[np.asarray(index, dtype=np.intp)].sum() for index in units], dtype=np.float64)


def joint_scores(scores: Sequence[ArrayLike]) -> Vector:
    """Return the scores [n] of a group's units: the mean over its consumers of their scores, as shares of their sum.

    Shares make consumers comparable whatever the scale of what they read; one at which every unit is dead has no say.

    Args:
        scores: for each consumer, [n] scores >= 0 of the units.

    Raises:
        InternalError: no consumer, or scores of different lengths.

    >>> joint_scores([[1.0, 3.0], [20.0, 20.0]]).tolist()
    [0.375, 0.625]

    """
    rows = [np.asarray(row, dtype=np.float64) for row in scores]
    if not rows or len({row.shape for row in rows}) != 1:
        raise InternalError(f"expected scores of one length, found {[row.shape for row in rows]}; please report this")
    totals = [float(row.sum()) for row in rows]
    shares = [row / (total if total > 0 else 1.0) for row, total in zip(rows, totals, strict=True)]
    return np.asarray(np.mean(shares, axis=0), dtype=np.float64)


def rank(scores: ArrayLike) -> NDArray[np.intp]:
    """Return unit indices [n], most important first; ties go to the lower index.

    Args:
        scores: [n], finite.

    >>> rank([0.5, 2.0, 0.5, 1.0]).tolist()
    [1, 3, 0, 2]

    """
    return np.argsort(-_finite(np.asarray(scores, dtype=np.float64)), kind="stable")


def cumulative_variance(C: ArrayLike, order: ArrayLike, units: Units) -> Vector:
    """Share of variance kept with the first k units, k = 0..n: the paper's curve (arXiv 2405.17506).

    D of C = L D Lᵀ in the given order is the variance that each feature adds to those before it; D is summed per unit,
    accumulated and normalised.

    Args:
        C: [d, d] covariance of the consumer's input.
        order: [n] unit indices, most important first.
        units: the features of each unit, as for `unit_scores`.

    Returns:
        [n + 1] from exactly 0 to exactly 1, never falling. Where nothing varies, one unit already is all there is.

    >>> cumulative_variance([[3.0, 0], [0, 1]], order=[0, 1], units=1).tolist()
    [0.0, 0.75, 1.0]

    """
    matrix, sequence = checked_square(C), np.asarray(order, dtype=np.intp)
    lists = _unit_lists(units, len(matrix))
    chosen = [lists[unit] for unit in sequence]
    share = np.ones(len(chosen) + 1)
    share[0] = 0.0
    _, D = ldl(matrix, np.concatenate([np.zeros(0, dtype=np.intp), *chosen]))
    kept = np.concatenate([[0.0], np.cumsum(D)])[np.cumsum([len(index) for index in chosen], dtype=np.intp)]
    if len(kept) and kept[-1] > 0:
        share[1:] = np.minimum(kept / kept[-1], 1.0)
    return share


def _unit_lists(units: Units, d: int) -> list[NDArray[np.intp]]:
    if isinstance(units, int):
        return list(np.arange(d, dtype=np.intp).reshape(-1, units))
    return [np.asarray(index, dtype=np.intp) for index in units]


def _alive(C: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """The covariance of the features that vary, and their indices."""
    matrix = checked_square(C)
    alive = np.flatnonzero(~dead_features(np.diagonal(matrix)))
    return matrix if len(alive) == len(matrix) else matrix[np.ix_(alive, alive)], alive


def _inverse_diagonal(R: NDArray[np.float64]) -> Vector:
    """Diagonal of R⁻¹ for a correlation matrix R; by eigenvalues where rounding made it clearly indefinite."""
    jittered = R.copy()
    np.fill_diagonal(jittered, 1.0 + _JITTER)
    try:
        lower = scipy.linalg.cholesky(jittered, lower=True, overwrite_a=True, check_finite=False)
    except scipy.linalg.LinAlgError:
        values, vectors = scipy.linalg.eigh(R, driver="evd", check_finite=False)
        return np.asarray((vectors**2) @ (1.0 / np.maximum(values, _FLOOR * float(values[-1]))), dtype=np.float64)
    inverse, _ = scipy.linalg.lapack.dtrtri(lower, lower=1, overwrite_c=1)
    return np.asarray((np.tril(inverse) ** 2).sum(axis=0), dtype=np.float64)


def _finite(scores: Vector) -> Vector:
    if not np.isfinite(scores).all():
        raise DataError(
            "expected finite scores, found NaN or infinity; check the model's weights and the calibration data"
        )
    return scores


def joint_share(shares: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """The curve [n + 1] of a group with several consumers: the mean of theirs, all taken in the group's one order.

    Raises:
        InternalError: no curve, or curves of different lengths.

    >>> joint_share([[0.0, 0.5, 1.0], [0.0, 0.75, 1.0]]).tolist()
    [0.0, 0.625, 1.0]

    """
    rows = [np.asarray(share, dtype=np.float64) for share in shares]
    if not rows or len({row.shape for row in rows}) != 1:
        raise InternalError(f"expected curves of one length, found {[row.shape for row in rows]}; please report this")
    mean = np.mean(rows, axis=0)
    mean[0], mean[-1] = 0.0, 1.0
    return np.asarray(np.maximum.accumulate(np.minimum(mean, 1.0)), dtype=np.float64)
