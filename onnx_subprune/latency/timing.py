"""How long models take against each other, on a machine that does other things too.

Sessions take turns as in `evaluate.bench`. A run from which the operating system takes the processor away is longer by
a whole slice of time (4 ms on Linux), however short it is: of two models the longer one is hit more often, and then not
even the median of paired ratios is theirs. With one thread on the CPU the processor time of the calling thread is what
a run takes without that. With more threads only rounds count in which nobody was interrupted, if there are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, thread_time
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.evaluate.binding import runner
from onnx_subprune.evaluate.intervals import FEWEST, median_interval
from onnx_subprune.model import open_session

try:
    import resource
except ImportError:  # not on Windows
    resource = None  # type: ignore[assignment]

__all__ = ["Effort", "Times", "interruptions", "take_turns", "times"]

Array = NDArray[Any]
_CPU = "CPUExecutionProvider"


@dataclass(frozen=True)
class Effort:
    """How long to measure: until so many rounds were left in peace, or for so many seconds, but at least six rounds.

    All of it once in each of so many sittings, with new sessions: where the memory of a session happens to lie makes it
    faster or slower for as long as it lives.

    Attributes:
        rounds: left in peace, for a sitting.
        seconds: for a sitting.
        sittings: at least one.

    """

    rounds: int = 40
    seconds: float = 5.0
    sittings: int = 1


@dataclass(frozen=True, eq=False)
class Times:
    """The times of runs in rounds; in a round every model runs once.

    Attributes:
        seconds: [rounds, models] of single runs.
        peaceful: [rounds, models], whether other processes left the run in peace.
        sitting: [rounds], the number of the sitting; None where all are of one.

    """

    seconds: NDArray[np.float64]
    peaceful: NDArray[np.bool_]
    sitting: NDArray[np.int64] | None = None

    @classmethod
    def joined(cls, several: Sequence[Times]) -> Times:
        """Return the rounds of several sittings.

        Args:
            several: times of the same models, one for each sitting.

        Returns:
            All rounds in this order, numbered by their sitting.

        """
        numbers = [np.full(len(times.seconds), number) for number, times in enumerate(several)]
        seconds, peaceful = (
            np.concatenate(part) for part in zip(*((t.seconds, t.peaceful) for t in several), strict=True)
        )
        return cls(seconds, peaceful, np.concatenate(numbers))

    @property
    def ratios(self) -> NDArray[np.float64]:
        """Time of a run [models] by that of the first model: the median over the sittings."""
        return np.array([self._ratio(model) for model in range(self.seconds.shape[1])])

    def _ratio(self, model: int) -> float:
        return float(np.median(self._by_sitting(model)))

    def _by_sitting(self, model: int) -> NDArray[np.float64]:
        """The median ratio to the first model in each sitting."""
        paired = self.paired(model)
        if self.sitting is None:
            return np.array([np.median(paired)])
        sitting = self.sitting[self._counted_rounds(model)]
        return np.array([np.median(paired[sitting == number]) for number in np.unique(sitting)])

    @property
    def milliseconds(self) -> NDArray[np.float64]:
        """Median time [models] of a run."""
        models = range(self.seconds.shape[1])
        return np.array([1e3 * np.median(self.seconds[self._counted_rounds(model), model]) for model in models])

    def paired(self, model: int) -> NDArray[np.float64]:
        """Return the ratios to the first model, within the rounds that count: [rounds].

        Args:
            model: its column.

        """
        rows = self._counted_rounds(model)
        return np.asarray(self.seconds[rows, model] / self.seconds[rows, 0])

    def interval(self, model: int) -> tuple[float, float] | None:
        """Return the interval that holds the median ratio in 95 of 100 cases; None if there are too few sittings.

        Args:
            model: its column.

        Returns:
            The ends as ratios to the first model. Sittings are compared where there are several, else rounds.

        """
        values = self._by_sitting(model)
        return median_interval(values if len(values) > 1 else self.paired(model))

    def blocks(self, number: int) -> NDArray[np.float64]:
        """Return median seconds [blocks, models] of successive rounds: of the runs left in peace, if there are any.

        On a machine so busy that there are fewer rounds than blocks, every round is a block.

        Args:
            number: of blocks, which have as many rounds each as can be.

        """
        number = min(number, len(self.seconds))
        parts = zip(np.array_split(self.seconds, number), np.array_split(self.peaceful, number), strict=True)
        return np.array([[_typical(*run) for run in zip(times.T, calm.T, strict=True)] for times, calm in parts])

    def _counted_rounds(self, model: int) -> NDArray[np.bool_]:
        rows = self.peaceful[:, 0] & self.peaceful[:, model]
        return rows if rows.sum() >= FEWEST else np.ones_like(rows)


def times(
    models: Sequence[onnx.ModelProto],
    feeds: Mapping[str, Array],
    *,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
    effort: Effort | None = None,
) -> Times:
    """Time models on the same inputs, taking turns.

    Args:
        models: the reference first.
        feeds: an array per input.
        providers: execution providers, most wanted first.
        threads: intra-op threads of the runtime; None for its own choice.
        effort: how long to measure.

    Raises:
        ModelError, OptionError, DataError: as `open_session` and `run`.

    """
    effort = effort or Effort()
    sittings = range(effort.sittings)
    return Times.joined(
        [_time_sitting(models, feeds, providers, threads, effort, backwards=bool(number % 2)) for number in sittings]
    )


def _time_sitting(
    models: Sequence[onnx.ModelProto],
    feeds: Mapping[str, Array],
    providers: Sequence[str],
    threads: int | None,
    effort: Effort,
    *,
    backwards: bool,
) -> Times:
    """Time models with sessions that live no longer, opened in one order or the other."""
    order = -1 if backwards else 1
    sessions = [open_session(model, providers, threads=threads, packed=True, widen=False) for model in models[::order]][
        ::order
    ]
    turns = [runner(session, feeds) for session in sessions]
    if threads == 1 and all(session.get_providers() == [_CPU] for session in sessions):
        # All is computed by the calling thread.
        return take_turns(turns, effort, clock=thread_time, interrupted=lambda: 0)
    return take_turns(turns, effort)


def take_turns(
    turns: Sequence[Callable[[], object]],
    effort: Effort,
    *,
    clock: Callable[[], float] = perf_counter,
    interrupted: Callable[[], int] | None = None,
) -> Times:
    """Call all `turns` in one order and then in the other.

    Args:
        turns: what to time.
        effort: when to stop.
        clock: seconds.
        interrupted: how often this process was interrupted so far.

    """
    count = interrupted or interruptions
    for turn in turns:
        turn()
    rows: list[list[tuple[float, bool]]] = []
    start = perf_counter()
    while len(rows) < FEWEST or (_in_peace(rows) < effort.rounds and perf_counter() - start < effort.seconds):
        for order in (1, -1):
            rows.append([_timed(turn, clock, count) for turn in turns[::order]][::order])
    measured = np.array(rows, np.float64)
    return Times(measured[..., 0], measured[..., 1].astype(bool))


def interruptions() -> int:
    """How often the operating system took the processor from this process; always 0 where it does not say."""
    return 0 if resource is None else resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def _typical(seconds: NDArray[np.float64], peaceful: NDArray[np.bool_]) -> float:
    return float(np.median(seconds[peaceful] if peaceful.any() else seconds))


def _timed(turn: Callable[[], object], clock: Callable[[], float], count: Callable[[], int]) -> tuple[float, bool]:
    before, start = count(), clock()
    turn()
    seconds = clock() - start
    return seconds, count() == before


def _in_peace(rows: Sequence[Sequence[tuple[float, bool]]]) -> int:
    """In how many rounds the first model and that other one were left in peace that had the fewest."""
    models = range(1, len(rows[0])) if len(rows[0]) > 1 else range(1)
    return min(sum(row[0][1] and row[model][1] for row in rows) for model in models)
