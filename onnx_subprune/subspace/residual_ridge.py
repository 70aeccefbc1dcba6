"""Fitting a layer anew to targets that its own inputs cannot quite reach, as far as held-out samples confirm it.

A layer y = W x + b of a pruned network sees inputs x that differ from the dense network's. Its target t is what the
dense layer gives, plus what else has to be made up for (the drift of a shortcut it is added to). With e = t - (W x + b)
the correction is the ridge regression of e on x,

    D = Cov(e, x) (Cov(x, x) + λ R)⁻¹,   R = diag Cov(x, x) + 0.1 v,    W' = W + D,   b' = b + mean(e) - D mean(x)

where v is the mean variance of the features (what hardly varies is not to get weights as large as it is small), so
that λ leads from the full least squares (asymmetric, λ -> 0) back to the weight that was there (λ -> ∞), which is
the one fitted to the dense network's inputs. The error is linear in its parts: each part (the layer's own, the drift)
has a correction of its own, and both are taken with factors between 0 and 1. λ and the factors are those with the least
error on samples that were held out; the correction is then solved for once more on all samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from typing import Any

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from onnx_subprune.subspace.residual_sums import Pairs

__all__ = ["EVEN", "ROUNDING", "STRENGTHS", "WEAKEST_IN_SINGLE", "Refined", "refine"]

Matrix = NDArray[np.float64]
Array = NDArray[Any]

STRENGTHS = (3.0, 1.0, 3e-1, 1e-1, 3e-2, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-8)
ROUNDING = 1e-10
"""A share of a target's squares that is no more than the rounding of single precision."""

# Sums in single precision say nothing of weaker ridges.
WEAKEST_IN_SINGLE = 1e-5
# What is won by a weaker ridge must be this share of the error that is left, and more where few rows say so: each step
# further from the weight that was there has to pay.
_MARGIN = 0.001
_MARGIN_OF_A_ROW = 0.5
# Share of the mean variance in the ridge of each feature, beside its own.
EVEN = 0.1
# Once so many ridges in a row are worse than the best, weaker ones are not tried.
_PATIENCE = 2


@dataclass(frozen=True, eq=False)
class Refined:
    """A layer fitted anew.

    Attributes:
        weight: [blocks, o, f] float64.
        bias: [blocks, o] float64, of several readers [readers, blocks, o].
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


@dataclass(frozen=True)
class _Choice:
    """How far the outputs of one layer are corrected, and the squared error that this takes away."""

    strength: float
    factors: tuple[float, ...]
    gain: float = 0.0


def refine(
    fitted: Pairs,
    held: Pairs,
    *,
    affine: bool,
    bounds: Sequence[int] | None = None,
    rounding: float = ROUNDING,
    whole: bool = True,
    strengths: Sequence[float] = STRENGTHS,
) -> list[Refined]:
    """Correct layers that read the same inputs by ridge regression of their errors, as far as held-out rows confirm.

    Args:
        fitted: of the rows that the correction is fitted on.
        held: of the rows that choose its strength, with the same pivot; `fitted` itself where there are none to spare.
        affine: whether biases may change; without, the pivot must be zero.
        bounds: where the outputs of each layer begin, and where the last end; one layer where None.
        rounding: a layer that misses no more than this share of its target stays as it is.
        whole: whether the last solution is of all rows. Where they are few, one that was measured on rows it has not
            seen is worth more than one of some rows more that nobody measured.
        strengths: of the ridge to choose from, strongest first, relative to the variance of each feature.

    Returns:
        For each layer the best of these; the layer as it was where none is better.

    """
    bounds = bounds or (0, fitted.weight.shape[1])
    layers = [slice(*ends) for ends in pairwise(bounds)]
    best = [_Choice(float("inf"), (0.0,) * len(fitted.cross)) for _ in layers]
    if fitted.count and held.count and fitted.finite and held.finite:
        misses = [_missed(held, outputs) > rounding * _scale(held, outputs) for outputs in layers]
        open_layers = [number for number, misses_some in enumerate(misses) if misses_some]
        _choose(best, layers, open_layers, (fitted, held), strengths, affine=affine)
    last = [fitted] if held is fitted or not whole else [fitted, held]
    final = _Centred.of(last, affine=affine) if _any_gain(best) else None
    return [_refined(fitted, held, outputs, choice, final) for outputs, choice in zip(layers, best, strict=True)]


def _any_gain(choices: Sequence[_Choice]) -> bool:
    return any(choice.gain > 0 for choice in choices)


def _choose(
    best: list[_Choice],
    layers: Sequence[slice],
    numbers: Sequence[int],
    pairs: tuple[Pairs, Pairs],
    strengths: Sequence[float],
    *,
    affine: bool,
) -> None:
    """Put the best choice of each of the numbered layers into `best`."""
    fitted, held = pairs
    moments = _Centred.of([fitted], affine=affine) if numbers else None
    unseen = held.cross.sum(axis=0)
    margin = min(_MARGIN + _MARGIN_OF_A_ROW / max(held.count, 1), 1.0)
    waited = 0
    for strength in strengths if not fitted.single else [s for s in strengths if s >= WEAKEST_IN_SINGLE]:
        parts = None if moments is None else moments.solve(strength)
        if parts is None or waited > _PATIENCE:
            return
        seen = parts @ held.gram
        waited += 1
        for number in numbers:
            outputs = layers[number]
            factors, gain = _blend(parts[:, :, outputs], seen[:, :, outputs], unseen[:, outputs])
            missed = _missed(held, outputs) - best[number].gain
            if gain - best[number].gain > margin * max(missed, 0.0):
                best[number], waited = _Choice(strength, tuple(factors.tolist()), gain), 0


def _refined(fitted: Pairs, held: Pairs, outputs: slice, choice: _Choice, final: _Centred | None) -> Refined:
    weight, bias = fitted.weight[:, outputs], fitted.bias[..., outputs]
    missed, scale = _missed(held, outputs), _scale(held, outputs)
    parts = final.solve(choice.strength, outputs) if final is not None and choice.gain > 0 else None
    if parts is None:
        return Refined(weight, bias, float("inf"), (0.0,) * len(fitted.cross), missed / scale, missed / scale)
    D = np.tensordot(choice.factors, parts, axes=1)
    f = fitted.features
    shifts = [D[:, :, f + n] - np.einsum("bof,bf->bo", D[:, :, :f], pivot) for n, pivot in enumerate(fitted.pivots)]
    shift = np.stack(shifts).reshape(bias.shape)
    after = max(missed - choice.gain, 0.0) / scale
    return Refined(weight + D[:, :, :f], bias + shift, choice.strength, choice.factors, missed / scale, after)


def _missed(pairs: Pairs, outputs: slice) -> float:
    return float(pairs.missed[:, outputs].sum())


def _scale(pairs: Pairs, outputs: slice) -> float:
    return max(float(pairs.square[:, outputs].sum()), float(np.finfo(np.float64).tiny))


class _Centred:
    """Moments of z and of the errors' parts about their means, scaled to a unit diagonal."""

    @classmethod
    def of(cls, pairs: Sequence[Pairs], *, affine: bool) -> _Centred:
        """Return the moments of the rows of all `pairs`, which share their pivots."""
        gram, cross = sum(sums.gram for sums in pairs), sum(sums.cross for sums in pairs)
        return cls(np.asarray(gram), np.asarray(cross), pairs[0].pivots, affine=affine)

    def __init__(self, gram: Matrix, errors: Matrix, pivots: Matrix, *, affine: bool) -> None:
        f, (readers, blocks) = pivots.shape[2], pivots.shape[:2]
        counts = np.maximum(np.einsum("bii->bi", gram)[:, f:], np.finfo(np.float64).tiny)
        count = counts.sum(axis=1)[:, None, None]
        # Of each reader: its rows' means, [blocks, f] and [parts, blocks, o].
        self._mean, self._means = np.zeros((readers, blocks, f)), np.zeros((readers, *errors.shape[:3]))
        second, cross = gram[:, :f, :f] / count, errors[..., :f] / count
        for reader in range(readers if affine else 0):
            own = counts[:, reader, None]
            mean = self._mean[reader] = gram[:, :f, f + reader] / own
            means = self._means[reader] = errors[..., f + reader] / own
            share = (own / count[:, 0])[:, :, None]
            second -= share * (mean[:, :, None] * mean[:, None, :])
            cross -= share * (means[..., None] * mean[:, None, :])
        variance = np.einsum("bii->bi", second).copy()
        raw = np.einsum("bii->bi", gram)[:, :f] / count[:, 0]
        # Such a feature is constant, but for the rounding of these sums or of what it was computed in.
        dead = variance <= np.maximum(1e-10 * raw, 1e-10 * np.square(pivots).max(axis=0))
        self._scale = np.sqrt(np.where(dead, 1.0, variance))
        live = ~dead
        usual = np.sum(variance * live, axis=1, keepdims=True) / np.maximum(live.sum(axis=1, keepdims=True), 1)
        self._ridge = 1.0 + EVEN * usual / np.where(dead, 1.0, variance)
        second /= self._scale[:, :, None] * self._scale[:, None, :]
        self._matrix = second
        self._matrix *= live[:, :, None] & live[:, None, :]
        self._cross = cross / self._scale[:, None, :] * live[:, None, :]

    def solve(self, strength: float, layer: slice = slice(None)) -> Matrix | None:
        """Return the corrections [parts, blocks, o, f + readers] of all parts; None where the moments are not sound."""
        wanted, means = self._cross[:, :, layer], self._means[:, :, :, layer]
        parts, blocks, outputs, features = wanted.shape
        targets = wanted.transpose(1, 3, 0, 2).reshape(blocks, features, -1)
        matrix = self._matrix.copy()
        np.einsum("bii->bi", matrix)[:] += strength * self._ridge
        solved = _solved(matrix, targets)
        if solved is None:
            return None
        D = solved.reshape(blocks, features, parts, outputs).transpose(2, 0, 3, 1) / self._scale[:, None, :]
        shifts = [y - np.einsum("pbof,bf->pbo", D, x) for y, x in zip(means, self._mean, strict=True)]
        return np.concatenate([D, np.stack(shifts, axis=3)], axis=3)


def _solved(matrix: Matrix, targets: Matrix) -> Matrix | None:
    try:
        if len(matrix) == 1:
            factor = scipy.linalg.cho_factor(matrix[0], lower=True, overwrite_a=True, check_finite=False)
            return np.asarray(scipy.linalg.cho_solve(factor, targets[0], check_finite=False))[None]
        return np.asarray(np.linalg.solve(matrix, targets), dtype=np.float64)
    except np.linalg.LinAlgError:
        return None


def _blend(parts: Matrix, seen: Matrix, errors: Matrix) -> tuple[NDArray[np.float64], float]:
    """Return how far to go with each part, 0 to 1, and by how much the squared error falls then.

    `seen` are the parts times the Gram matrix of the rows that choose, `errors` the products of these rows with their
    whole error.
    """
    slopes = np.array([float(np.vdot(part, errors)) for part in parts])
    curves = np.array([[float(np.vdot(product_part, other)) for other in parts] for product_part in seen])
    best, gain = np.zeros(len(parts)), 0.0
    for free in product((False, True), repeat=len(parts)):
        # The least on the box is the least on one of its faces: factors that are not free are 0 or 1.
        for fixed in product((0.0, 1.0), repeat=len(parts) - sum(free)):
            factors = _face(np.array(free), fixed, slopes, curves)
            fall = float(2.0 * slopes @ factors - factors @ curves @ factors)
            if fall > gain:
                best, gain = factors, fall
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
