"""Sittings and rounds: which model runs when, and when there have been enough runs.

In a *round* every model runs once, one after the other; the next round goes the other way. A *sitting* is some rounds
with sessions that were opened for it. Where the threads and the memory of a session happen to lie makes it slower or
faster for as long as it lives: with several threads, two sessions of one small model differ by 20%, and no number of
rounds shows it. Only new sessions do, so several sittings are held, and the order in which sessions are opened
alternates too.
"""

from __future__ import annotations

import contextlib
import gc
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.errors import OptionError
from onnx_subprune.evaluate.intervals import FEWEST, median_interval

__all__ = ["Pace", "Tell", "Turn", "fixed", "paced", "ratios"]

Array = NDArray[Any]
Turn = Callable[[], object]
Tell = Callable[[int, int | None], None]
Open = Callable[[bool], Sequence[Turn]]
"""Opens a session for every model, backwards where the argument is true; a turn for each, in the models' order."""

_ROUNDS_OF_A_SITTING = 8


@dataclass(frozen=True)
class Pace:
    """When to stop, where the number of runs is not fixed.

    Sittings are held until there are six and the interval of every ratio is at most `precision` of it to either side
    (of a model that is alone: the interval of its median time), or until `most_seconds` are over; the first round
    forth and back is always finished. A sitting lasts `seconds` and `rounds` at least, and its warm-up as many rounds
    as are asked for, but both no longer than lets six of them be held: of fewer there is no interval.

    Attributes:
        precision: half the width of the interval, as a share of the ratio.
        most_seconds: over all sittings.
        seconds: of a sitting, at least.
        rounds: of a sitting, at least.

    Raises:
        OptionError: a number is out of range.

    """

    precision: float = 0.01
    most_seconds: float = 30.0
    seconds: float = 0.25
    rounds: int = 10

    def __post_init__(self) -> None:
        limits = (self.precision, self.most_seconds, self.rounds)
        if not (all(limit > 0 for limit in limits) and self.seconds >= 0):
            raise OptionError(f"expected a precision and limits of bench above 0, found {self}; give positive numbers")


def fixed(turns: Open, runs: int, warmup: int, tell: Tell | None = None) -> list[Array]:
    """Return seconds [rounds, models] by sitting: `runs` rounds in up to six sittings of eight rounds or more.

    Args:
        turns: opens a sitting: a session for every model.
        runs: timed rounds over all sittings.
        warmup: untimed runs of every model at the start of a sitting.
        tell: called with the rounds that are done, and their number.

    Returns:
        An array [rounds, models] for each sitting.

    """
    count = min(FEWEST, max(1, runs // _ROUNDS_OF_A_SITTING))
    sittings = []
    for number in range(count):
        _say(tell, runs * number // count, runs)
        with _sitting(turns, number, warmup) as ready:
            rounds = runs * (number + 1) // count - runs * number // count
            sittings.append(np.array([_round(ready, backwards=bool(at % 2)) for at in range(rounds)]))
    _say(tell, runs, runs)
    return sittings


def paced(turns: Open, pace: Pace, warmup: int, tell: Tell | None = None) -> list[Array]:
    """Return seconds [rounds, models] by sitting, as many as `pace` asks for, with an even number of rounds each."""
    sittings: list[Array] = []
    start, most = perf_counter(), math.ceil(pace.most_seconds)
    end = start + pace.most_seconds
    while not sittings or (perf_counter() < end and not _is_precise(sittings, pace.precision)):
        begun = perf_counter()
        _say(tell, min(most, int(begun - start)), most)
        share = pace.most_seconds / FEWEST
        with _sitting(turns, len(sittings), warmup, begun + share / 3) as ready:
            sittings.append(_timed_sitting(ready, pace, min(end, begun + share)))
    _say(tell, most, most)
    return sittings


def _say(tell: Tell | None, done: int, total: int) -> None:
    """Between sittings only: whatever listens must not run beside timed models."""
    if tell is not None:
        tell(done, total)


def ratios(sittings: Sequence[Array]) -> Array:
    """Return the median over the rounds of each sitting of every model's time by the first one's [sittings, models].

    >>> ratios([np.array([[2.0, 1.0], [4.0, 3.0], [8.0, 2.0]])])
    array([[1. , 0.5]])

    """
    return np.array([np.median(seconds / seconds[:, :1], axis=0) for seconds in sittings])


def _timed_sitting(turns: Sequence[Turn], pace: Pace, end: float) -> Array:
    """Return the seconds of the rounds of one sitting, which breaks off where two more would pass `end`."""
    rounds: list[list[float]] = []
    now = perf_counter()
    least = now + pace.seconds
    while True:
        before = now
        rounds += [_round(turns, backwards=False), _round(turns, backwards=True)]
        now = perf_counter()
        if 2 * now - before > end or (now >= least and len(rounds) >= pace.rounds):
            return np.array(rounds)


def _is_precise(sittings: Sequence[Array], precision: float) -> bool:
    """Return whether every ratio (or the one time) lies within `precision` of its median over the sittings."""
    several = sittings[0].shape[1] > 1
    compared = ratios(sittings)[:, 1:] if several else np.array([np.median(seconds, axis=0) for seconds in sittings])
    for values in compared.T:
        median, interval = float(np.median(values)), median_interval(values)
        if interval is None or max(interval[1] - median, median - interval[0]) > precision * median:
            return False
    return True


@contextlib.contextmanager
def _sitting(turns: Open, number: int, warmup: int, until: float = math.inf) -> Iterator[Sequence[Turn]]:
    """Open sessions and warm them up, until then at most; no garbage is collected in the middle of a round."""
    ready = turns(bool(number % 2))
    enabled = gc.isenabled()
    gc.disable()
    try:
        took = 0.0
        for done in range(warmup):
            # Where one more would be too long, one was enough.
            if done and perf_counter() + took > until:
                break
            took = sum(_round(ready, backwards=False))
        yield ready
    finally:
        if enabled:
            gc.enable()


def _round(turns: Sequence[Turn], *, backwards: bool) -> list[float]:
    """Return the seconds of one run of every model, by model."""
    seconds = [0.0] * len(turns)
    for place in reversed(range(len(turns))) if backwards else range(len(turns)):
        start = perf_counter()
        turns[place]()
        seconds[place] = perf_counter() - start
    return seconds
