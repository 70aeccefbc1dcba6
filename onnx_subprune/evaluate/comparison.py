"""A pruned model and the dense one measured side by side, for reports: how close, how accurate, how fast, and where.

What could not be measured is told with its reason: a report comes after a long run, which it must not lose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from onnx_subprune import evaluate
from onnx_subprune.calibration import Dataset, open_data, watched
from onnx_subprune.errors import SubpruneError
from onnx_subprune.evaluate import Fidelity, Latency, Pace, Profile, Top1
from onnx_subprune.formatting import html_table, milliseconds
from onnx_subprune.model import InputSpec, input_specs
from onnx_subprune.progress import Watch, begin, phase
from onnx_subprune.result import Result

__all__ = ["Measured", "Timing", "measure", "not_faster"]

_T = TypeVar("_T")
# A few seconds: a report is no benchmark, `bench` is.
_PACE = Pace(precision=0.02, most_seconds=6.0)


@dataclass(frozen=True)
class Timing:
    """How fast both models are, on this machine at that time.

    Attributes:
        latency: of the dense and the pruned model, in turns.
        profiles: where their time goes.
        shapes: of the inputs.
        inputs: what they were.
        threads: intra-op threads; None for the runtime's own choice.

    """

    latency: tuple[Latency, Latency]
    profiles: tuple[Profile, Profile]
    shapes: Mapping[str, tuple[int, ...]]
    inputs: str
    threads: int | None


@dataclass(frozen=True)
class Measured:
    """What was measured; None where nothing was asked for, or where `left` says why it could not be.

    Attributes:
        fidelity: of the pruned model's outputs to the dense model's, on the calibration samples.
        top1: accuracy of the dense and the pruned model on labelled data.
        labelled: where that data came from.
        timing: how fast both are.
        left: what could not be measured, and why.
        warnings: what the user should know of what was measured.

    """

    fidelity: Fidelity | None = None
    top1: tuple[Top1, Top1] | None = None
    labelled: str | None = None
    timing: Timing | None = None
    left: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def _repr_html_(self) -> str:
        rows = []
        if self.top1 is not None:
            rows.append(("top-1", *(f"{one.accuracy:.2%}" for one in self.top1)))
        if self.timing is not None:
            rows.append(("latency", *(milliseconds(one.median_ms) for one in self.timing.latency)))
        rows += [(what, "not measured", why) for what, why in self.left.items()]
        table = html_table(("measured", "dense", "pruned"), rows)
        return table if self.fidelity is None else table + self.fidelity._repr_html_()


def measure(
    result: Result, data: Any = None, *, labelled: Any = None, latency: bool = True, progress: Watch | None = None
) -> Measured:
    """Measure the dense and the pruned model side by side, with the providers and threads of the run.

    Args:
        result: of `prune` or `apply`.
        data: calibration inputs: the first sample, or as many as `latency_batch` says, is what latency is measured on
            (random numbers without), and all of them how close the outputs are.
        labelled: labelled data to measure top-1 accuracy on.
        latency: whether to measure how fast both are.
        progress: called with the name of a phase, the steps done in it and their number.

    Raises:
        DataError: the data does not fit the model.

    """
    specs, options = input_specs(result.analysis.model), result.options
    dataset = _opened(data, result, samples=options.samples, seed=options.seed)
    test = _opened(labelled, result)
    left: dict[str, str] = {}

    def tried(what: str, work: Callable[[], _T]) -> _T | None:
        begin(progress, f"measuring {what}")
        try:
            return work()
        except SubpruneError as error:
            left[what] = str(error)
            return None

    near = top1 = None
    if dataset is not None:
        seen = watched(dataset, progress, "measuring fidelity")
        near = tried("fidelity", lambda: _fidelity(result, seen))
    if test is not None:
        judged = watched(test, progress, "measuring accuracy")
        top1 = tried("accuracy", lambda: _top1(result, judged))
    feeds = next(iter(dataset.batches(options.latency_batch or 1))) if dataset is not None else None
    timing = tried("latency", lambda: _timing(result, feeds, specs, progress)) if latency else None
    slow = [] if timing is None else not_faster(timing, result.pruned.macs / max(result.dense.macs, 1))
    return Measured(near, top1, None if test is None else test.source, timing, left, tuple(slow))


def not_faster(timing: Timing, macs: float) -> list[str]:
    """Return a warning where a network of that share of the MACs takes as long as the dense one, or longer."""
    pruned = timing.latency[1]
    least = pruned.ratio_interval[0] if pruned.ratio_interval else pruned.ratio_to_first
    if macs >= 1.0 or least < 1.0:
        return []
    return [
        f"with {macs:.0%} of the MACs the pruned model takes {pruned.ratio_to_first:.0%} of the dense one's time here: "
        "kernels are slow on odd widths; prune with --round-to auto, or to a time with --target latency=F"
    ]


def _opened(data: Any, result: Result, **chosen: Any) -> Dataset | None:
    if data is None or isinstance(data, Dataset):
        return data
    return open_data(data, input_specs(result.analysis.model), **chosen)


def _where(result: Result) -> dict[str, Any]:
    return {"providers": result.options.providers, "threads": result.options.threads}


def _fidelity(result: Result, dataset: Dataset) -> Fidelity:
    size = result.options.batch_size
    return evaluate.fidelity(result.analysis.model, result.model, dataset, batch_size=size, **_where(result))


def _top1(result: Result, data: Dataset) -> tuple[Top1, Top1]:
    size = result.options.batch_size
    dense, pruned = (
        evaluate.top1(model, data, batch_size=size, **_where(result)) for model in (result.analysis.model, result.model)
    )
    return dense, pruned


def _timing(
    result: Result, feeds: Mapping[str, np.ndarray] | None, specs: Sequence[InputSpec], progress: Watch | None
) -> Timing:
    """Time both on real inputs; on random numbers of the same shapes where there are none."""
    inputs = "the first of the calibration data"
    if feeds is None:
        shapes = result.analysis.input_shapes if result.latency is None else result.latency.shapes
        feeds = evaluate.random_feeds(specs, shapes, result.options.seed)
        inputs = "random numbers"
    models, where = (result.analysis.model, result.model), _where(result)
    timed = phase(progress, "timing both models, seconds at most")
    dense, pruned = evaluate.bench(models, feeds, runs=None, pace=_PACE, progress=timed, **where)
    begin(progress, "profiling")
    profiles = (evaluate.profile(models[0], feeds, **where), evaluate.profile(models[1], feeds, **where))
    run = {name: tuple(value.shape) for name, value in feeds.items()}
    return Timing((dense, pruned), profiles, run, inputs, result.options.threads)
