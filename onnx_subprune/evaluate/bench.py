"""Latency and throughput of models side by side.

All sessions live in one process and take turns, in one order and then in the other, so that whatever slows the machine
slows them alike. A ratio is the median over rounds of the paired ratio within a round; it repeats far better than the
ratio of two medians. Threads of waiting sessions do not spin (`open_session` sees to that).

Its confidence interval is made of order statistics of the paired ratios (`intervals.py`): it presumes nothing of how
times are distributed, only that rounds are independent of one another. A slow drift of the machine is no matter,
because it cancels within a round. Without a fixed number of runs, rounds go on until that interval is as narrow as is
asked for.
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.errors import OptionError
from onnx_subprune.evaluate.binding import runner
from onnx_subprune.evaluate.feeds import check_same_inputs
from onnx_subprune.evaluate.intervals import FEWEST, median_interval
from onnx_subprune.model import open_session

__all__ = ["Latency", "Pace", "bench"]

Array = NDArray[Any]
_Turn = Callable[[], object]
_GROWTH = 1.1


@dataclass(frozen=True)
class Latency:
    """Times of one model.

    Attributes:
        median_ms: median time of a run, in milliseconds.
        p90_ms: nine runs in ten were at most this long.
        mean_ms: mean time of a run.
        throughput: samples per second at the median, a sample being an entry of the first input's first axis.
        ratio_to_first: median over rounds of this model's time by the first model's; below 1 is faster.
        ratio_interval: what holds that median in 95 of 100 cases; None if there were too few rounds to say.
        runs: how many runs were timed.
        providers: the execution providers that the session really has, most wanted first.

    """

    median_ms: float
    p90_ms: float
    mean_ms: float
    throughput: float
    ratio_to_first: float
    ratio_interval: tuple[float, float] | None = None
    runs: int = 0
    providers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pace:
    """When rounds have been enough, where their number is not fixed.

    Rounds end as soon as they are `rounds` and took `seconds` and every interval is at most `precision` of the median
    to either side; or when they took `most_seconds`, with six rounds at least, because fewer give no interval. What
    is held to the precision is the ratio of every model to the first, or the median time of a model that is alone.

    Raises:
        OptionError: a number is out of range.

    """

    precision: float = 0.01
    rounds: int = 30
    seconds: float = 1.0
    most_seconds: float = 30.0

    def __post_init__(self) -> None:
        if not (self.precision > 0 and self.rounds > 0 and self.seconds >= 0 and self.most_seconds > 0):
            raise OptionError(f"expected a precision and limits of bench above 0, found {self}; give positive numbers")


def bench(
    models: Sequence[onnx.ModelProto],
    feeds: Mapping[str, Array],
    *,
    runs: int | None = 50,
    warmup: int = 5,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
    pace: Pace | None = None,
    bound: bool | None = None,
) -> list[Latency]:
    """Time `models` on the same inputs, taking turns; one Latency per model, in order.

    Args:
        models: what to compare, the reference first.
        feeds: an array per input.
        runs: timed rounds, in each of which every model runs once; None for as many as `pace` asks for.
        warmup: rounds before those, not counted.
        providers: execution providers, most wanted first.
        threads: intra-op threads of each session.
        pace: when to stop where `runs` is None; by default within 1%, after 1 to 30 seconds.
        bound: whether inputs and outputs are buffers on the device, so that copies are not timed; None: on a GPU.

    Raises:
        OptionError: no models, no rounds, inputs that differ between the models, or feeds that do not name them.
        DataError: the feeds do not fit.

    """
    if not models or (runs is not None and runs < 1) or warmup < 0:
        raise OptionError(
            f"at least one model and one round expected, found {len(models)} models, {runs} runs and {warmup} warm-up "
            "rounds; change these options"
        )
    check_same_inputs(models, feeds)
    # Packed, because that is how the model will run where it is used.
    sessions = [open_session(model, providers, threads=threads, packed=True) for model in models]
    turns = [runner(session, feeds, bound=bound) for session in sessions]
    with _uncollected():
        for _ in range(warmup):
            _round(turns, backwards=False)
        seconds = _fixed(turns, runs) if runs is not None else _paced(turns, pace or Pace())
    first = np.asarray(next(iter(feeds.values())))
    samples = len(first) if first.ndim else 1
    where = [tuple(session.get_providers()) for session in sessions]
    return [_latency(column, seconds[:, 0], samples, names) for column, names in zip(seconds.T, where, strict=True)]


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Keep Python's collector of garbage from running in the middle of a round."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _fixed(turns: Sequence[_Turn], runs: int) -> Array:
    """Seconds [rounds, models] of `runs` rounds."""
    return np.array([_round(turns, backwards=bool(number % 2)) for number in range(runs)])


def _paced(turns: Sequence[_Turn], pace: Pace) -> Array:
    """Seconds [rounds, models] of as many rounds as `pace` asks for, an even number: both orders count the same."""
    rounds: list[list[float]] = []
    spent, due = 0.0, float(pace.rounds)
    while True:
        for backwards in (False, True):
            rounds.append(_round(turns, backwards=backwards))
            spent += sum(rounds[-1])
        if spent >= pace.most_seconds and len(rounds) >= FEWEST:
            return np.array(rounds)
        if len(rounds) >= due and spent >= pace.seconds:
            if _widest(np.array(rounds)) <= pace.precision:
                return np.array(rounds)
            # To look after every round would be to stop at the first lucky one.
            due = len(rounds) * _GROWTH


def _widest(seconds: Array) -> float:
    """The longer half of the widest interval, as a share of its median."""
    compared = seconds[:, 1:] / seconds[:, :1] if seconds.shape[1] > 1 else seconds
    widths = []
    for values in compared.T:
        median, interval = float(np.median(values)), median_interval(values)
        widths.append(max(interval[1] - median, median - interval[0]) / median if interval else np.inf)
    return max(widths)


def _round(turns: Sequence[_Turn], *, backwards: bool) -> list[float]:
    """Seconds of one run of every model, by model."""
    seconds = [0.0] * len(turns)
    for place in reversed(range(len(turns))) if backwards else range(len(turns)):
        start = perf_counter()
        turns[place]()
        seconds[place] = perf_counter() - start
    return seconds


def _latency(seconds: Array, first: Array, samples: int, providers: tuple[str, ...]) -> Latency:
    median = float(np.median(seconds))
    ratios = seconds / first
    return Latency(
        median_ms=1e3 * median,
        p90_ms=1e3 * float(np.percentile(seconds, 90)),
        mean_ms=1e3 * float(np.mean(seconds)),
        throughput=samples / median,
        ratio_to_first=float(np.median(ratios)),
        ratio_interval=median_interval(ratios),
        runs=len(seconds),
        providers=providers,
    )
