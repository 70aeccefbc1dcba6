"""Fitting a layer anew to targets that its own inputs cannot quite reach, as far as held-out samples confirm it.

A layer y = W x + b of a pruned network sees inputs x that differ from the dense network's. Its target t is what the
dense layer gives, plus what else has to be made up for (the drift of a shortcut it is added to). With e = t - (W x + b)
the correction is the ridge regression of e on x,

    D = Cov(e, x) (Cov(x, x) + λ diag Cov(x, x))⁻¹,    W' = W + D,   b' = b + mean(e) - D mean(x)

so that λ leads from the full least squares (asymmetric, λ -> 0) back to the weight that was there (λ -> ∞), which is
the one fitted to the dense network's inputs. The error is linear in its parts: each part (the layer's own, the drift)
has a correction of its own, and both are taken with factors between 0 and 1. λ and the factors are those with the least
error on samples that were held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

__all__ = ["STRENGTHS", "Pairs", "Refined", "refine"]

Matrix = NDArray[np.float64]
Array = NDArray[Any]

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0, 3.0)
# A part of the target that explains less than this of it is rounding error.
_NOTHING = 1e-7


class Pairs:
    """Sums of products of inputs x with themselves and with the parts of their targets, over rows.

    Args:
        parts: how many parts a target has: the layer's own output, and what it has to make up for.

    Attributes:
        count: number of rows.
        gram: [blocks, f + 1, f + 1] float64 of [x; 1].
        cross: [parts, blocks, o, f + 1] of each part with [x; 1].
        square: the sum of squares of the whole target.

    """

    def __init__(self, blocks: int, outputs: int, features: int, parts: int) -> None:
        self.count = 0
        self.gram = np.zeros((blocks, features + 1, features + 1))
        self.cross = np.zeros((parts, blocks, outputs, features + 1))
        self.square = 0.0

    def add(self, x: Array, parts: Sequence[Array], weights: Array | None = None) -> None:
        """Add rows x [blocks, rows, f] and the parts of their targets, each [blocks, rows, o].

        The squares of a row count `weights` [rows] times, once where there are none.
        """
        f, ones = x.shape[2], np.ones(x.shape[1], x.dtype)
        if weights is not None:
            ones = np.sqrt(weights).astype(x.dtype)
            x, parts = x * ones[:, None], [part * ones[:, None] for part in parts]
        sums = np.einsum("brf,r->bf", x, ones, dtype=np.float64)
        self.gram[:, :f, :f] += x.transpose(0, 2, 1) @ x
        self.gram[:, f, :f] += sums
        self.gram[:, :f, f] += sums
        self.gram[:, f, f] += float(np.vdot(ones, ones))
        for cross, part in zip(self.cross, parts, strict=True):
            cross[:, :, :f] += part.transpose(0, 2, 1) @ x
            cross[:, :, f] += np.einsum("bro,r->bo", part, ones, dtype=np.float64)
        whole = parts[0] if len(parts) == 1 else sum(parts[1:], start=parts[0])
        self.square += float(np.vdot(whole, whole))
        self.count += x.shape[1]


@dataclass(frozen=True, eq=False)
class Refined:
    """A layer fitted anew.

    Attributes:
        weight: [blocks, o, f] float64.
        bias: [blocks, o] float64.
        strength: λ of the ridge; infinite where the weight stayed as it was.
        factors: how far each part of the error is corrected, 0 to 1.
        before, after: share of the targets' squares that is missed on the samples that chose, with the weight
            that was there and with this one.

    """

    weight: Matrix
    bias: Matrix
    strength: float
    factors: tuple[float, ...]
    before: float
    after: float


def refine(
    fitted: Pairs, held: Pairs, weight: Matrix, bias: Matrix, *, affine: bool, strengths: Sequence[float] = STRENGTHS
) -> Refined:
    """Correct a layer by ridge regression of its error, as far as the samples held out confirm.

    Args:
        fitted: of the samples that the correction is fitted on.
        held: of the samples that choose its strength; the same as `fitted` where there are none to spare.
        weight: [blocks, o, f], the present one.
        bias: [blocks, o], the present one.
        affine: whether the bias may change.
        strengths: of the ridge to choose from, relative to the variance of each feature.

    """
    present = np.concatenate([weight, bias[:, :, None]], axis=2)
    errors, unseen = _errors(fitted, present), _errors(held, present)
    base = _missed(held, present)
    scale = max(held.square, np.finfo(np.float64).tiny)
    best = Refined(weight, bias, float("inf"), (0.0,) * len(errors), base / scale, base / scale)
    if base <= _NOTHING * scale:
        return best
    moments = _Centred(fitted.gram, errors, affine=affine)
    for strength in strengths:
        parts = moments.solve(strength)
        if parts is None:
            continue
        factors, gain = _blend(parts, held.gram, unseen.sum(axis=0))
        if base - gain < best.after * scale:
            whole = present + np.tensordot(factors, parts, axes=1)
            error = max(base - gain, 0.0) / scale
            best = Refined(whole[:, :, :-1], whole[:, :, -1], strength, tuple(factors.tolist()), base / scale, error)
    return best


def _errors(pairs: Pairs, present: Matrix) -> Matrix:
    """Return the products of the parts of the error with [x; 1]: the present layer's output leaves the first."""
    errors = pairs.cross.copy()
    errors[0] -= present @ pairs.gram
    return errors


def _missed(pairs: Pairs, present: Matrix) -> float:
    """Return the sum of squares of the targets less the present outputs."""
    predicted = present @ pairs.gram
    whole = pairs.cross.sum(axis=0)
    return max(pairs.square - 2.0 * float(np.vdot(present, whole)) + float(np.vdot(present, predicted)), 0.0)


class _Centred:
    """Moments of x and of the errors' parts about their means, scaled to a unit diagonal."""

    def __init__(self, gram: Matrix, errors: Matrix, *, affine: bool) -> None:
        count = gram[:, -1:, -1:]
        self._mean = gram[:, :-1, -1] / count[:, 0] if affine else np.zeros((gram.shape[0], gram.shape[1] - 1))
        self._means = errors[..., -1] / count[:, 0] if affine else np.zeros(errors.shape[:3])
        second = gram[:, :-1, :-1] / count - self._mean[:, :, None] * self._mean[:, None, :]
        cross = errors[..., :-1] / count - self._means[..., None] * self._mean[:, None, :]
        variance = np.einsum("bii->bi", second)
        raw = np.einsum("bii->bi", gram[:, :-1, :-1] / count)
        dead = variance <= 1e-10 * np.maximum(raw, np.finfo(np.float64).tiny)
        self._scale = np.sqrt(np.where(dead, 1.0, variance))
        live = ~dead
        self._matrix = second / (self._scale[:, :, None] * self._scale[:, None, :])
        self._matrix *= live[:, :, None] & live[:, None, :]
        self._cross = cross / self._scale[:, None, :] * live[:, None, :]

    def solve(self, strength: float) -> Matrix | None:
        """Return the corrections [parts, blocks, o, f + 1] of all parts; None where the moments are not sound."""
        parts, blocks, outputs, features = self._cross.shape
        targets = self._cross.transpose(1, 3, 0, 2).reshape(blocks, features, -1)
        matrix = self._matrix + strength * np.eye(features)
        solved = _solved(matrix, targets)
        if solved is None:
            return None
        D = solved.reshape(blocks, features, parts, outputs).transpose(2, 0, 3, 1) / self._scale[:, None, :]
        shift = self._means - np.einsum("pbof,bf->pbo", D, self._mean)
        return np.concatenate([D, shift[..., None]], axis=3)


def _solved(matrix: Matrix, targets: Matrix) -> Matrix | None:
    try:
        if len(matrix) == 1:
            factor = scipy.linalg.cho_factor(matrix[0], lower=True, overwrite_a=True, check_finite=False)
            return np.asarray(scipy.linalg.cho_solve(factor, targets[0], check_finite=False))[None]
        return np.linalg.solve(matrix, targets)
    except np.linalg.LinAlgError:
        return None


def _blend(parts: Matrix, gram: Matrix, errors: Matrix) -> tuple[NDArray[np.float64], float]:
    """Return how far to go with each part, 0 to 1, and by how much the squared error of `errors` falls then."""
    seen = parts @ gram
    slopes = np.array([float(np.vdot(part, errors)) for part in parts])
    curves = np.array([[float(np.vdot(one, other)) for other in parts] for one in seen])
    best, gain = np.zeros(len(parts)), 0.0
    for free in product((False, True), repeat=len(parts)):
        # The least on the box is the least on one of its faces: factors that are not free are 0 or 1.
        for fixed in product((0.0, 1.0), repeat=len(parts) - sum(free)):
            factors = _face(np.array(free), fixed, slopes, curves)
            found = float(2.0 * slopes @ factors - factors @ curves @ factors)
            if found > gain:
                best, gain = factors, found
    return best, gain


def _face(
    free: NDArray[np.bool_], fixed: Sequence[float], slopes: NDArray[np.float64], curves: Matrix
) -> NDArray[np.float64]:
    factors = np.zeros(len(slopes))
    factors[~free] = fixed
    if free.any():
        rest = slopes[free] - curves[np.ix_(free, ~free)] @ factors[~free]
        factors[free] = np.clip(np.linalg.lstsq(curves[np.ix_(free, free)], rest, rcond=None)[0], 0.0, 1.0)
    return factors
