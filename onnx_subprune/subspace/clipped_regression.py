"""Layers whose output only a clip reads: what the clip takes away need not be right.

Behind a Relu every negative value is as good as any other. So the error that counts is ‖clip(p + s) - clip(d)‖², with p
what the layer gives, s what that is added to and d the dense sum, and where d is clipped the fit is free on that side.
The nonlinear reconstruction of Zhang et al., *Accelerating Very Deep Convolutional Networks for Classification and
Detection* (arXiv 1505.06798, section 3.2) has the same aim. Here the loss where d is not clipped stays (p + s - d)²,
which makes the problem convex; it is minimised by majorisation: where d is clipped, the target of each step is the
present value, as far as the clip allows. Every step is a least-squares problem with one and the same Gram matrix.

With e the target of the plain fit, t(D) that of a step at the correction D and z the inputs and a one, a step solves

    (mean(z zᵀ) + λ R) D' = mean(z e) + mean(z (t(D) - e))

The first two means are those of the plain fit, over all rows. The last one, which is zero where nothing is clipped,
takes few rows: it is a small change of a sum that is known well, and so is its error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import scipy.linalg
from numpy.typing import NDArray

from onnx_subprune.subspace.residual_ridge import EVEN, ROUNDING, WEAKEST_IN_SINGLE, Refined
from onnx_subprune.subspace.residual_sums import Pairs, total_of
from onnx_subprune.threads import shared

__all__ = ["Examples", "Limits", "fit_behind_clip"]

Array = NDArray[Any]

_STEPS = 3
# Rows that are worked on at once.
_PIECE = 4096
# Of the ridge where no fit says which.
_STRENGTH = 1e-2
# A share of the error that must go, for the fit is chosen by the rows that tell; once a step is worse by as much, no
# further one is tried.
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
    sums: tuple[Pairs, Pairs],
    fitted: Examples,
    held: Examples,
    limits: Limits,
    *,
    rounding: float = ROUNDING,
) -> Refined:
    """Fit a layer to what counts behind a clip, from a fit to all of its output.

    Args:
        fit: to all of the output; its ridge and its factors are kept to, if it has any.
        sums: that it was made of: over the rows that it was fitted on, and over those held out.
        fitted: some of the rows that it was fitted on.
        held: some of the rows held out, which choose between the steps.
        limits: of the clip.
        rounding: a layer that misses no more than this share of its target stays as it is.

    Returns:
        The best step, made once more of all rows, with `before` and `after` as shares of what the clip lets through,
        on the rows that chose; or `fit` itself where none is better.

    """
    if fit.after <= rounding:
        return fit
    settled = np.isfinite(fit.strength)
    # No fit to the whole output was better than the layer as it is; one to less of it may be.
    how = fit if settled else replace(fit, strength=_STRENGTH, factors=(1.0,) * len(fitted.parts))
    # What is not finite is no better.
    with np.errstate(invalid="ignore", over="ignore"):
        return _best_step(how, sums, fitted, held, limits, settled=settled) or fit


def _best_step(
    fit: Refined, sums: tuple[Pairs, Pairs], fitted: Examples, held: Examples, limits: Limits, *, settled: bool
) -> Refined | None:
    """Return the best step; None where none is better than the layer as it is, or as it was fitted (`settled`)."""
    first, seen = sums[0], _HeldOut(held, sums[0], limits)
    rows = _Rows.of(fitted, first, fit.factors, limits)
    problem = _Problem(fit, [first])
    start = problem.solve()
    if start is None:
        return None
    least = seen.error(start if settled else np.zeros_like(start))
    excesses: list[tuple[Array, Array]] = []

    def following(point: Array) -> Array | None:
        excesses.append((point, rows.excess(point)))
        return problem.solve(excesses[-1][1])

    best = _best_point(following, seen.error, start, least)
    if best is None:
        return None
    point, error = best
    others = _Rows.of(held, first, fit.factors, limits)
    share = rows.count / (rows.count + others.count)
    excess = next(excess for behind, excess in excesses if behind is point)
    step = _Problem(fit, sums).solve(share * excess + (1 - share) * others.excess(point))
    if step is None or not np.isfinite(step).all():
        return None
    change = step[:, :, :-1]
    shift = step[:, :, -1] - np.einsum("bof,bf->bo", change, first.pivots[0])
    return replace(
        fit,
        weight=first.weight + change,
        bias=first.bias + shift.reshape(first.bias.shape),
        before=seen.error(np.zeros_like(step)) / seen.scale,
        after=error / seen.scale,
    )


def _best_point(
    step: Callable[[Array], Array | None], error_of: Callable[[Array], float], start: Array, first: float
) -> tuple[Array, float] | None:
    """Return the point that the best step was made from, and the error behind that step; None where none is better."""
    least, best = first, None
    now = ahead = start
    pace = 1.0
    for _ in range(_STEPS):
        following = step(ahead)
        error = np.inf if following is None else error_of(following)
        # Steps fit the rows that they are made of better and better, and after a few of them others worse.
        if following is None or not error <= (1 + _MARGIN) * least:
            break
        if error < least:
            least, best = error, ahead
        # Nesterov's momentum.
        faster = (1 + np.sqrt(1 + 4 * pace * pace)) / 2
        ahead = following + (pace - 1) / faster * (following - now)
        now, pace = following, faster
    return None if best is None or least > (1 - _MARGIN) * first else (best, least)


class _Problem:
    """The ridge regression of every step: of sums over all rows, but for what the clip changes.

    Args:
        fit: says which ridge, and how far each part of the error counts.
        sums: over some rows, or over several sets of rows with one pivot.

    """

    def __init__(self, fit: Refined, sums: Sequence[Pairs]) -> None:
        gram = np.asarray(sum(pairs.gram for pairs in sums))
        cross = np.asarray(sum(pairs.cross for pairs in sums))
        count = gram[:, -1:, -1:]
        self._matrix = gram / count
        # As far as the held-out rows trusted each part of the error.
        self._wanted = np.tensordot(fit.factors, cross, axes=1).transpose(0, 2, 1) / count
        diagonal = np.einsum("bii->bi", self._matrix)
        variance = np.maximum(diagonal[:, :-1] - np.square(self._matrix[:, -1, :-1]), 0.0)
        usual = np.maximum(variance.mean(axis=1, keepdims=True), np.finfo(np.float32).tiny)
        diagonal[:, :-1] += max(fit.strength, WEAKEST_IN_SINGLE) * (variance + EVEN * usual)
        self._factor: Any = None

    def solve(self, excess: Array | float = 0.0) -> Array | None:
        """Return a correction [blocks, o, f + 1]; None where the moments are not sound.

        Args:
            excess: [blocks, f + 1, o], what the clip adds to the products of the inputs with their targets.

        """
        wanted = self._wanted + excess
        try:
            if len(wanted) > 1:
                return np.asarray(np.linalg.solve(self._matrix, wanted)).transpose(0, 2, 1)
            self._factor = self._factor or scipy.linalg.cho_factor(self._matrix[0], lower=True, check_finite=False)
            return np.asarray(scipy.linalg.cho_solve(self._factor, wanted[0], check_finite=False)).T[None]
        except np.linalg.LinAlgError:
            return None


@dataclass(frozen=True, eq=False)
class _Rows:
    """Rows whose targets the clip changes."""

    pieces: list[_Piece]
    count: int

    @classmethod
    def of(cls, rows: Examples, sums: Pairs, factors: Sequence[float], limits: Limits) -> _Rows:
        """Return rows with what is wanted of them.

        Args:
            rows: some of those that are fitted on.
            sums: have the weight that was there, and the pivot.
            factors: how far each part of the error counts.
            limits: of the clip.

        """
        present = _present(sums)
        pieces = shared(lambda chunk: _Piece(chunk, sums, present, factors, limits), list(_chunks(rows)))
        return cls(pieces, rows.x.shape[1])

    def excess(self, now: Array) -> Array:
        """Return the mean product of z with what the clip adds to its target, [blocks, f + 1, o].

        Args:
            now: the correction [blocks, o, f + 1] that is made at present.

        """
        turned = now.transpose(0, 2, 1).astype(np.float32)
        return np.asarray(sum(shared(lambda piece: piece.excess(turned), self.pieces))) / self.count


class _Piece:
    """Some of the rows that are fitted on; all targets are those of a correction."""

    def __init__(self, rows: Examples, sums: Pairs, present: Array, factors: Sequence[float], limits: Limits) -> None:
        self._z = _with_ones(rows.x, sums.pivots[0])
        given = self._z @ present
        wanted = factors[0] * (rows.parts[0] - given)
        wanted += sum(factor * part for factor, part in zip(factors[1:], rows.parts[1:], strict=True))
        self._wanted = wanted.astype(np.float32)
        own = total_of(rows.parts) - rows.total - given
        # Where the sum is clipped the layer may give anything up to, or down from, here; elsewhere what is wanted.
        low, high = rows.total <= limits.low, rows.total >= limits.high
        free = low | high
        self._most = np.where(free, np.where(low, own + limits.low, np.inf), wanted).astype(np.float32)
        self._least = np.where(free, np.where(high, own + limits.high, -np.inf), wanted).astype(np.float32)

    def excess(self, turned: Array) -> Array:
        """Return the sum of products of z with what the clip adds to its target: [blocks, f + 1, o]."""
        targets = self._z @ turned
        np.clip(targets, self._least, self._most, out=targets)
        targets -= self._wanted
        return np.asarray(self._z.transpose(0, 2, 1) @ targets, np.float64)


class _HeldOut:
    """The error behind the clip, on rows that no step is fitted on."""

    def __init__(self, rows: Examples, sums: Pairs, limits: Limits) -> None:
        pivot, present = sums.pivots[0], _present(sums)
        self._pieces = []
        for some in _chunks(rows):
            z = _with_ones(some.x, pivot)
            beside, passed = _base_and_passed(some, limits)
            self._pieces.append((z, beside + z @ present, passed))
        self._limits = limits
        # Where all is clipped away the error is told by what there was.
        expected = sum(float(np.square(clear, dtype=np.float64).sum()) for _, _, clear in self._pieces)
        squares = (expected, float(np.square(rows.total, dtype=np.float64).sum()))
        self.scale = next((square for square in squares if square > 0), 1.0)

    def error(self, correction: Array) -> float:
        """Return the sum of squares for a correction [blocks, o, f + 1]."""
        turned = correction.transpose(0, 2, 1).astype(np.float32)

        def missed(piece: tuple[Array, Array, Array]) -> float:
            z, beside, expected = piece
            given = z @ turned
            given += beside
            np.clip(given, *self._limits, out=given)
            given -= expected
            return float(np.square(given, out=given).sum(dtype=np.float64))

        return sum(shared(missed, self._pieces))


def _present(sums: Pairs) -> Array:
    """Return the layer as it was, on inputs about the pivot and a one: [blocks, f + 1, o]."""
    level = sums.bias.reshape(sums.weight.shape[:2]) + np.einsum("bof,bf->bo", sums.weight, sums.pivots[0])
    return np.concatenate([sums.weight.transpose(0, 2, 1), level[:, None, :]], axis=1).astype(np.float32)


def _base_and_passed(rows: Examples, limits: Limits) -> tuple[Array, Array]:
    """Return what the layer is added to, and what the clip lets through of the dense sum."""
    beside = (rows.total - total_of(rows.parts)).astype(np.float32)
    return beside, np.clip(rows.total, *limits).astype(np.float32)


def _chunks(rows: Examples) -> Iterator[Examples]:
    """Yield the rows in pieces, the same on every machine."""
    for start in range(0, rows.x.shape[1], _PIECE):
        some = slice(start, start + _PIECE)
        yield Examples(rows.x[:, some], tuple(part[:, some] for part in rows.parts), rows.total[:, some])


def _with_ones(x: Array, pivot: Array) -> Array:
    z = np.ones((*x.shape[:2], x.shape[2] + 1), np.float32)
    np.subtract(x, pivot[:, None, :].astype(x.dtype), out=z[:, :, :-1], casting="same_kind")
    return z
