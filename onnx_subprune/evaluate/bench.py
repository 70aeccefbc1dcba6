"""Latency and throughput of models side by side.

All sessions live in one process and take turns, in one order and then in the other, so that whatever slows the
machine slows them alike; threads of waiting sessions do not spin (`open_session` sees to that). A ratio is the median
over rounds of the paired ratio within a round, which repeats far better than the ratio of two medians, and of that
the median over sittings with new sessions (`rounds.py` says why).

The confidence interval of a ratio is made of order statistics of the sittings (`intervals.py`). It presumes nothing
of how times are distributed, only that sittings are independent of one another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.errors import OptionError
from onnx_subprune.evaluate.binding import runner
from onnx_subprune.evaluate.feeds import check_same_inputs
from onnx_subprune.evaluate.intervals import median_interval
from onnx_subprune.evaluate.rounds import Pace, Tell, Turn, fixed, paced, ratios
from onnx_subprune.formatting import html_table, milliseconds
from onnx_subprune.model import check_model, open_session

__all__ = ["Latency", "Pace", "bench"]

Array = NDArray[Any]


@dataclass(frozen=True)
class Latency:
    """Times of one model.

    Attributes:
        median_ms: median time of a run, in milliseconds.
        p90_ms: nine runs in ten were at most this long.
        mean_ms: mean time of a run.
        throughput: samples per second at the median, a sample being an entry of the first input's first axis.
        ratio_to_first: this model's time by the first model's, median over rounds and sittings; below 1 is faster.
        ratio_interval: what holds that median in 95 of 100 cases; None if there were fewer than six sittings.
        runs: how many runs were timed.
        sittings: with how many sessions, one after the other.
        providers: the execution providers that the session really has, most wanted first.

    """

    median_ms: float
    p90_ms: float
    mean_ms: float
    throughput: float
    ratio_to_first: float
    ratio_interval: tuple[float, float] | None = None
    runs: int = 0
    sittings: int = 0
    providers: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        rows = [
            ("median", milliseconds(self.median_ms)),
            ("p90", milliseconds(self.p90_ms)),
            ("throughput", f"{self.throughput:.1f} / s"),
            ("to the first", f"{self.ratio_to_first:.1%}"),
        ]
        return html_table(("latency", ""), rows)


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
    progress: Tell | None = None,
) -> list[Latency]:
    """Time `models` on the same inputs, taking turns; one Latency per model, in order.

    Args:
        models: what to compare, the reference first.
        feeds: an array per input.
        runs: timed rounds (in a round every model runs once); None for as many as `pace` asks for.
        warmup: rounds at the start of every sitting that are not counted.
        providers: execution providers, most wanted first.
        threads: intra-op threads of each session; None for the runtime's own choice.
        pace: when to stop where `runs` is None; by default as soon as ratios are within 1%, after 30 seconds at most.
        bound: whether inputs and outputs are buffers on the device, so that copies are not timed; None: on a GPU.
        progress: called between sittings with the runs done and their number; without a number of runs, with the
            seconds over and how many there may be.

    Raises:
        ModelError: a model is broken.
        OptionError: no models, no rounds, inputs that differ between the models, or feeds that do not name them.
        DataError: the feeds do not fit.

    """
    if not models or (runs is not None and runs < 1) or warmup < 0:
        raise OptionError(
            f"at least one model and one round expected, found {len(models)} models, {runs} runs and {warmup} warm-up "
            "rounds; change these options"
        )
    check_same_inputs(models, feeds)
    for model in models:
        check_model(model)
    ran: dict[int, tuple[str, ...]] = {}

    def turn(place: int) -> Turn:
        # Packed, because that is how the model will run where it is used.
        session = open_session(models[place], providers, threads=threads, packed=True, widen=False)
        ran[place] = tuple(session.get_providers())
        return runner(session, feeds, bound=bound)

    def turns(backwards: bool) -> list[Turn]:
        places = range(len(models))
        opened = {place: turn(place) for place in (reversed(places) if backwards else places)}
        return [opened[place] for place in places]

    if runs is not None:
        sittings = fixed(turns, runs, warmup, progress)
    else:
        sittings = paced(turns, pace or Pace(), warmup, progress)
    first = np.asarray(next(iter(feeds.values())))
    return _latencies(sittings, len(first) if first.ndim else 1, ran)


def _latencies(sittings: Sequence[Array], samples: int, ran: Mapping[int, tuple[str, ...]]) -> list[Latency]:
    seconds, compared = np.concatenate(sittings), ratios(sittings)
    medians = np.median(seconds, axis=0)
    return [
        Latency(
            median_ms=1e3 * float(medians[place]),
            p90_ms=1e3 * float(np.percentile(seconds[:, place], 90)),
            mean_ms=1e3 * float(np.mean(seconds[:, place])),
            throughput=samples / float(medians[place]),
            ratio_to_first=float(np.median(compared[:, place])),
            ratio_interval=median_interval(compared[:, place]),
            runs=len(seconds),
            sittings=len(sittings),
            providers=providers,
        )
        for place, providers in sorted(ran.items())
    ]
