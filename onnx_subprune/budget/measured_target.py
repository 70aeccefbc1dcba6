"""A budget of a cost that can only be measured, met by correcting a budget of one that can be computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from onnx_subprune.errors import TargetError

__all__ = ["MEETINGS", "TOLERANCE", "Met", "meet"]

TOLERANCE = 0.03
"""A latency within this share of the target meets it."""

MEETINGS = 8
"""At most so many widths are measured."""

_REPEATS = 2
_AIM = 0.985
_GAP = 2e-3
_LEAST = 1e-6


@dataclass(frozen=True, eq=False)
class Met:
    """Widths whose measured cost meets the target.

    Attributes:
        counts: the units that every group keeps.
        limit: of the computed cost, that they were found with.
        ratio: their measured cost.
        tried: every limit with the cost measured there.

    """

    counts: dict[str, int]
    limit: float
    ratio: float
    tried: tuple[tuple[float, float], ...] = field(default=())


def meet(
    allocate: Callable[[float], dict[str, int]],
    measure: Callable[[Mapping[str, int], int], float],
    target: float,
    *,
    start: float | None = None,
    trials: int = MEETINGS,
) -> Met:
    """Find widths whose measured cost is within the target, and not below it for nothing.

    The limit of the computed cost is corrected on a line through the last two measurements, and kept between the
    largest limit that was met and the smallest that was missed. It ends within `TOLERANCE` below the target, or where
    widths no longer change. A network that was measured as no faster than the dense one is never taken. Of several
    noisy measurements the one that meets the target is the luckiest: it counts only together with a second one.

    Args:
        allocate: the widths within a limit of the computed cost; raises TargetError where there are none, with the
            least cost as `nearest`.
        measure: the real cost of widths, as the mean of so many measurements.
        target: as a share of the dense network's, below 1.
        start: the first limit; by default the target.
        trials: at most so many widths are measured.

    Raises:
        TargetError: no widths were measured within the target; `nearest` is the least cost that was measured.

    >>> allocate = lambda limit: {"conv1": round(100 * limit)}
    >>> met = meet(allocate, lambda counts, _: 0.1 + 0.8 * counts["conv1"] / 100, 0.5)
    >>> met.counts, round(met.ratio, 3)
    ({'conv1': 50}, 0.5)

    """
    search = _Search(target)
    limit = start or target
    measured: list[Met] = []
    while len(measured) < trials and not search.over and all(limit != met.limit for met in measured):
        limit, counts, least = _allocated(allocate, limit)
        ratio = measure(counts, 1)
        if ratio <= target * (1 + TOLERANCE):
            ratio = measure(counts, _REPEATS)
        measured.append(Met(dict(counts), limit, ratio))
        limit = search.after(limit, ratio, least=least)
    return _best(measured, measure, target)


def _allocated(allocate: Callable[[float], dict[str, int]], limit: float) -> tuple[float, dict[str, int], bool]:
    """The limit and the widths within it, and whether these are the least there are: then with the limit they need."""
    try:
        return limit, allocate(limit), False
    except TargetError as refusal:
        # What the least cost is computed as, rounded up: the least widths are to be within it.
        needed = math.nextafter(refusal.nearest, math.inf)
        return needed, allocate(needed), True


class _Search:
    """Which limit to try next."""

    def __init__(self, target: float) -> None:
        self._target = target
        self._met, self._missed = 0.0, math.inf
        self._last: tuple[float, float] | None = None
        self.over = False

    def after(self, limit: float, ratio: float, *, least: bool) -> float:
        """The next limit, after one was tried; `least`: there are no smaller widths."""
        if ratio <= self._target:
            self._met = max(self._met, limit)
        else:
            self._missed = min(self._missed, limit)
        close = self._target * (1 - TOLERANCE) <= ratio <= self._target
        self.over = close or self._missed - self._met <= _GAP * self._target or (least and ratio > self._target)
        following = self._on_a_line(limit, ratio)
        self._last = (limit, ratio)
        if not self._met <= following < self._missed:
            following = 0.5 * (self._met + min(self._missed, 1.0))
        # At a limit of 1 all is whole: there is nothing beyond.
        return min(max(following, _LEAST), 1.0)

    def _on_a_line(self, limit: float, ratio: float) -> float:
        """Where a line through the last two points, or through zero, comes to the target."""
        aim = _AIM * self._target
        before, seen = self._last or (0.0, 0.0)
        slope = (ratio - seen) / (limit - before) if limit != before else 0.0
        return limit + (aim - ratio) / slope if slope > 0 else limit * aim / ratio


def _best(measured: Sequence[Met], measure: Callable[[Mapping[str, int], int], float], target: float) -> Met:
    tried = tuple((met.limit, met.ratio) for met in measured)
    within = [met for met in measured if met.ratio <= min(target * (1 + TOLERANCE), 1.0)]
    if not within:
        fastest = min(measured, key=_ratio)
        least = measure(fastest.counts, _REPEATS)
        nearest = math.ceil(least * 1e3) / 1e3
        raise TargetError(
            f"expected to reach latency={target:g}, but the fastest network that was measured takes {least:.3f} of the "
            f"time of the dense one; ask for latency={min(nearest, 1.0):g} or more",
            nearest,
        )
    best = max((met for met in within if met.ratio <= target), default=None, key=_ratio)
    best = best or min(within, key=_ratio)
    return Met(best.counts, best.limit, best.ratio, tried)


def _ratio(met: Met) -> float:
    return met.ratio
