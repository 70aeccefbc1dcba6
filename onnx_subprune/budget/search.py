"""The smallest budget whose measured metric falls by no more than is allowed, found in few measurements."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from onnx_subprune.errors import OptionError

__all__ = ["Searched", "Trial", "smallest"]


@dataclass(frozen=True)
class Trial:
    """A budget, the fall of the metric measured there, and whether it is allowed."""

    fraction: float
    fall: float
    accepted: bool


@dataclass(frozen=True)
class Searched:
    """The smallest accepted trial, None where none was accepted, and all trials in the order they were made in."""

    best: Trial | None
    tried: tuple[Trial, ...]


def smallest(
    evaluate: Callable[[float], float],
    low: float,
    high: float,
    drop: float,
    *,
    evaluations: int = 8,
    tolerance: float = 0.01,
) -> Searched:
    """Search the smallest budget fraction at which the metric falls by at most `drop`.

    `high` is measured first; where it fails, so would the rest, and the search ends. Then the gap between the largest
    failed and the smallest accepted fraction is narrowed, by interpolation of the falls measured at its ends. If the
    first step down passes too, `low` is measured next. Measurements are noisy and need not be monotone: only
    measurements count, no fraction is measured twice, and none that failed is ever returned.

    Args:
        evaluate: the fall of the metric at a budget fraction, higher is worse; NaN or infinity where it failed.
        low: the smallest fraction of interest.
        high: the largest.
        drop: the fall allowed.
        evaluations: at most so many calls, at least 1.
        tolerance: the search ends when the gap is no wider.

    Raises:
        OptionError: the bounds are not 0 < low <= high, or there are no evaluations.

    >>> searched = smallest(lambda fraction: 1.0 - fraction, low=0.25, high=1.0, drop=0.4)
    >>> 0.6 <= searched.best.fraction < 0.62, searched.tried[0]
    (True, Trial(fraction=1.0, fall=0.0, accepted=True))

    """
    if not 0.0 < low <= high or evaluations < 1:
        raise OptionError(
            f"expected 0 < low <= high and at least 1 evaluation, found {low}, {high}, {evaluations}; widen the bounds"
        )
    tried: list[Trial] = []
    following: float | None = high
    while following is not None and len(tried) < evaluations:
        fall = float(evaluate(following))
        tried.append(Trial(following, fall, fall <= drop))
        following = _next(tried, low, drop, tolerance)
    accepted = [trial for trial in tried if trial.accepted]
    return Searched(min(accepted, key=lambda trial: trial.fraction, default=None), tuple(tried))


def _next(tried: list[Trial], low: float, drop: float, tolerance: float) -> float | None:
    """The fraction to measure next; None where the search is over."""
    passed = min((t for t in tried if t.accepted), key=lambda t: t.fraction, default=None)
    if passed is None or passed.fraction <= low:
        return None
    # A failure above the smallest accepted one was noise, or this was luck: the measured pass stands.
    failed = max((t for t in tried if not t.accepted and t.fraction < passed.fraction), key=_fraction, default=None)
    if failed is None:
        return low if len(tried) > 1 else 0.5 * (low + passed.fraction)
    gap = passed.fraction - failed.fraction
    return None if gap <= tolerance else failed.fraction + gap * _share(failed.fall, passed.fall, drop)


def _share(failed: float, passed: float, drop: float) -> float:
    """How far from the failed end to look: well inside, and where a parabola would meet the allowed fall if it can."""
    far, allowed, near = (math.sqrt(max(0.0, fall)) for fall in (failed, drop, passed))
    return min(0.75, max(0.25, (far - allowed) / (far - near))) if near < far < math.inf else 0.5


def _fraction(trial: Trial) -> float:
    return trial.fraction
