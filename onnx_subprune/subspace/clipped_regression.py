"""Layers whose output only a clip reads: what the clip takes away need not be right.

Behind a Relu every negative value is as good as any other. So the error that counts is ‖clip(p + s) - clip(d)‖², with p
what the layer gives, s what that is added to and d the dense sum, and where d is clipped the fit is free on that side.
The nonlinear reconstruction of Zhang et al., *Accelerating Very Deep Convolutional Networks for Classification and
Detection* (arXiv 1505.06798, section 3.2) has the same aim. Here the loss where d is not clipped stays (p + s - d)²,
which makes the problem convex; it is minimised by majorisation: where d is clipped, the target of each step is the
present value, as far as the clip allows. Every step is a least-squares problem with one and the same Gram matrix.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from onnx_subprune.subspace.residual_ridge import EVEN, ROUNDING, WEAKEST_IN_SINGLE, Refined
from onnx_subprune.subspace.residual_sums import total_of
from onnx_subprune.threads import shared

__all__ = ["Examples", "Limits", "fit_behind_clip"]

Array = NDArray[Any]

_STEPS = 8
# Rows that are worked on at once.
_PIECE = 4096
# Of the ridge where no fit says which.
_STRENGTH = 1e-2
# A share of the error that must go, for the fit is chosen by the rows that tell.
_MARGIN = 0.001


class Limits(NamedTuple):
    """What values are clipped to; infinite for no limit."""

    low: float
    high: float


@dataclass(frozen=True, eq=False)
class Examples:
    """Rows: inputs x [blocks, rows, f], parts of the target and the dense sum, each [blocks, rows, o].

    The sum is what the clip reads in the dense network. The target is what the layer itself should give: the sum, less
    what the layer is added to in the pruned network.
    """

    x: Array
    parts: tuple[Array, ...]
    total: Array

    @classmethod
    def joined(cls, several: Sequence[Examples]) -> Examples:
        """Return the rows of several as one."""
        parts = zip(*(examples.parts for examples in several), strict=True)
        return cls(
            np.concatenate([examples.x for examples in several], axis=1),
            tuple(np.concatenate(part, axis=1) for part in parts),
            np.concatenate([examples.total for examples in several], axis=1),
        )


def fit_behind_clip(
    fit: Refined,
    present: tuple[Array, Array],
    fitted: Examples,
    held: Examples,
    limits: Limits,
    *,
    rounding: float = ROUNDING,
) -> Refined:
    """Fit a layer to what counts behind a clip, from a fit to all of its output.

    Args:
        fit: to all of the output; its ridge and its factors are kept to, if it has any.
        present: weight [blocks, o, f] and bias [blocks, o] before any fit, towards which the ridge pulls.
        fitted: rows to fit on.
        held: rows that choose between the steps.
        limits: of the clip.
        rounding: a layer that misses no more than this share of its target stays as it is.

    Returns:
        The best step, with `before` and `after` as shares of what the clip lets through, on the rows that chose; or
        `fit` itself where none is better.

    """
    untouched = fit
    if np.isinf(fit.strength):
        if fit.before <= rounding:
            return fit
        # No fit to the whole output was better than the layer as it is; one to less of it may be.
        fit = replace(fit, strength=_STRENGTH, factors=(1.0,) * len(fitted.parts))
    # What is not finite is no better.
    with np.errstate(invalid="ignore", over="ignore"):
        return _best_blend(fit, present, fitted, held, limits) or untouched


def _best_blend(
    fit: Refined, present: tuple[Array, Array], fitted: Examples, held: Examples, limits: Limits
) -> Refined | None:
    """Return the best step; None where none is better."""
    work = _ClipProblem(fit, present, fitted, limits)
    seen = _HeldOut(held, work.mean, limits)
    start = np.concatenate([fit.weight, work.level(fit.weight, fit.bias)], axis=2)
    first = least = seen.error(start)
    best: Array | None = None
    now = ahead = start
    pace = 1.0
    for _ in range(_STEPS):
        following = work.step(ahead)
        if following is None:
            return None
        # Nesterov's momentum.
        faster = (1 + np.sqrt(1 + 4 * pace * pace)) / 2
        ahead = following + (pace - 1) / faster * (following - now)
        now, pace = following, faster
        error = seen.error(now)
        if error < least:
            least, best = error, now
    if best is None or least > (1 - _MARGIN) * first:
        return None
    weight = best[:, :, :-1]
    bias = best[:, :, -1] - np.einsum("bof,bf->bo", weight, work.mean)
    before = seen.error(np.concatenate([present[0], work.level(*present)], axis=2))
    return replace(fit, weight=weight, bias=bias, before=before / seen.scale, after=least / seen.scale)


class _Piece:
    """Some of the rows that are fitted on."""

    def __init__(self, rows: Examples, mean: Array, towards: Array, factors: Sequence[float], limits: Limits) -> None:
        self.z = _with_ones(rows.x, mean)
        # As far as the held-out rows trusted each part of the error.
        given = self._layer_outputs(towards)
        wanted = given + factors[0] * (rows.parts[0] - given)
        wanted += sum(factor * part for factor, part in zip(factors[1:], rows.parts[1:], strict=True))
        self._wanted = wanted.astype(np.float32)
        own = total_of(rows.parts)
        low, high = rows.total <= limits.low, rows.total >= limits.high
        # Where the sum is clipped the layer may give anything up to, or down from, here.
        self._most = np.where(low, own - rows.total + limits.low, np.inf).astype(np.float32)
        self._least = np.where(high, own - rows.total + limits.high, -np.inf).astype(np.float32)
        self._free = low | high

    def cross(self, now: Array) -> Array:
        """Return the products of z with the targets that a weight [blocks, o, f + 1] leads to: [blocks, f + 1, o]."""
        given = self._layer_outputs(now)
        targets = np.where(self._free, np.maximum(np.minimum(given, self._most), self._least), self._wanted)
        return (self.z.transpose(0, 2, 1) @ targets).astype(np.float64)

    def _layer_outputs(self, weight: Array) -> Array:
        return np.asarray(self.z @ weight.transpose(0, 2, 1).astype(np.float32))


class _ClipProblem:
    """The least-squares problem of every step."""

    def __init__(self, fit: Refined, present: tuple[Array, Array], rows: Examples, limits: Limits) -> None:
        weight, bias = present
        self.mean = rows.x.mean(axis=1, dtype=np.float64)
        self._towards = np.concatenate([weight, self.level(weight, bias)], axis=2)
        self._pieces = shared(
            lambda piece: _Piece(piece, self.mean, self._towards, fit.factors, limits), list(_chunks(rows))
        )
        self._count = rows.x.shape[1]
        gram = sum(shared(lambda piece: (piece.z.transpose(0, 2, 1) @ piece.z).astype(np.float64), self._pieces))
        gram = np.asarray(gram) / self._count
        variance = np.einsum("bii->bi", gram)[:, :-1]
        usual = np.maximum(variance.mean(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        ridge = max(fit.strength, WEAKEST_IN_SINGLE) * (variance + EVEN * usual)
        self._ridge = np.concatenate([ridge, np.zeros((len(ridge), 1))], axis=1)
        self._matrix = gram + self._ridge[:, None, :] * np.eye(gram.shape[1])
        self._factor: Any = None

    def level(self, weight: Array, bias: Array) -> Array:
        """Return what the layer gives at the mean of its inputs: [blocks, o, 1]."""
        return np.asarray(bias + np.einsum("bof,bf->bo", weight, self.mean))[:, :, None]

    def step(self, now: Array) -> Array | None:
        """Return the next [blocks, o, f + 1]; None where the moments are not sound."""
        wanted = np.asarray(sum(shared(lambda piece: piece.cross(now), self._pieces))) / self._count
        wanted += self._ridge[:, :, None] * self._towards.transpose(0, 2, 1)
        try:
            if len(wanted) > 1:
                return np.asarray(np.linalg.solve(self._matrix, wanted)).transpose(0, 2, 1)
            self._factor = self._factor or scipy.linalg.cho_factor(self._matrix[0], lower=True, check_finite=False)
            return np.asarray(scipy.linalg.cho_solve(self._factor, wanted[0], check_finite=False)).T[None]
        except np.linalg.LinAlgError:
            return None


class _HeldOut:
    """The error behind the clip, on rows that no step is fitted on."""

    def __init__(self, rows: Examples, mean: Array, limits: Limits) -> None:
        self._pieces = [(_with_ones(some.x, mean), *_base_and_passed(some, limits)) for some in _chunks(rows)]
        self._limits = limits
        # Where all is clipped away the error is told by what there was.
        expected = sum(float(np.square(clear, dtype=np.float64).sum()) for _, _, clear in self._pieces)
        squares = (expected, float(np.square(rows.total, dtype=np.float64).sum()))
        self.scale = next((square for square in squares if square > 0), 1.0)

    def error(self, weight: Array) -> float:
        """Return the sum of squares for a weight [blocks, o, f + 1]."""
        turned = weight.transpose(0, 2, 1).astype(np.float32)

        def missed(piece: tuple[Array, Array, Array]) -> float:
            z, beside, expected = piece
            given = np.clip(z @ turned + beside, *self._limits)
            return float(np.square(given - expected).sum(dtype=np.float64))

        return sum(shared(missed, self._pieces))


def _base_and_passed(rows: Examples, limits: Limits) -> tuple[Array, Array]:
    """Return what the layer is added to, and what the clip lets through of the dense sum."""
    beside = (rows.total - total_of(rows.parts)).astype(np.float32)
    return beside, np.clip(rows.total, *limits).astype(np.float32)


def _chunks(rows: Examples) -> Iterator[Examples]:
    """Yield the rows in pieces, the same on every machine."""
    for start in range(0, rows.x.shape[1], _PIECE):
        some = slice(start, start + _PIECE)
        yield Examples(rows.x[:, some], tuple(part[:, some] for part in rows.parts), rows.total[:, some])


def _with_ones(x: Array, mean: Array) -> Array:
    ones = np.ones((*x.shape[:2], 1), np.float32)
    return np.concatenate([(x - mean[:, None, :].astype(x.dtype)).astype(np.float32), ones], axis=2)
