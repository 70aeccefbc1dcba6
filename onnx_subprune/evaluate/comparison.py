"""A pruned model and the dense one measured side by side, for reports: how close, how accurate, how fast, and where.

What could not be measured is told with its reason: a report comes after a long run, which it must not lose.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias, TypeVar

import onnx
from numpy.typing import NDArray

from onnx_subprune.calibration import Dataset, watched
from onnx_subprune.errors import SubpruneError
from onnx_subprune.evaluate.bench import Latency, Pace, bench
from onnx_subprune.evaluate.feeds import made_up, random_feeds
from onnx_subprune.evaluate.fidelity import Fidelity, fidelity
from onnx_subprune.evaluate.runtime_profile import Profile, profile
from onnx_subprune.evaluate.top1 import Top1, top1
from onnx_subprune.formatting import html_table, milliseconds
from onnx_subprune.model import Runtime, input_specs
from onnx_subprune.progress import Watch, begin, phase

__all__ = ["Conditions", "Measured", "Timing", "measure", "not_faster"]

_T = TypeVar("_T")
_Feeds: TypeAlias = Mapping[str, NDArray[Any]]
_Models: TypeAlias = tuple[onnx.ModelProto, onnx.ModelProto]

# A few seconds: a report is no benchmark, `bench` is.
_RANDOM = "random numbers"
_PACE = Pace(precision=0.02, most_seconds=6.0)
# A second or so: enough to tell a model that is faster from one that is not.
_BRIEF = Pace(precision=0.05, most_seconds=1.2, seconds=0.02, rounds=6)


@dataclass(frozen=True)
class Conditions:
    """How models are run to be measured.

    Attributes:
        shapes: of the random inputs that are timed where there are no data.
        runtime: where networks run, and with how many samples at once where outputs and accuracy are compared.
        timed_samples: samples per run that is timed, where there are data.
        seed: of random inputs.
        outputs_at: tensors inside at which outputs are compared (`fidelity`).

    """

    shapes: Mapping[str, Sequence[int]]
    runtime: Runtime = field(default_factory=Runtime)
    timed_samples: int = 1
    seed: int = 0
    outputs_at: tuple[str, ...] = ()


@dataclass(frozen=True)
class Timing:
    """How fast both models are, on this machine at that time.

    Attributes:
        latency: of the dense and the pruned model, in turns.
        profiles: where their time goes; None where it was not asked for.
        shapes: of the inputs.
        inputs: what they were.
        threads: intra-op threads; None for the runtime's own choice.

    """

    latency: tuple[Latency, Latency]
    profiles: tuple[Profile, Profile] | None
    shapes: Mapping[str, tuple[int, ...]]
    inputs: str
    threads: int | None

    def document(self) -> dict[str, Any]:
        """Return the same as plain data."""
        dense, pruned = self.latency
        return {
            "inputs": self.inputs,
            "input_shapes": {name: list(shape) for name, shape in self.shapes.items()},
            "threads": self.threads,
            "dense": asdict(dense),
            "pruned": asdict(pruned),
            "profile": None if self.profiles is None else _profile_document(self.profiles),
        }


@dataclass(frozen=True)
class Measured:
    """The measurements; None where nothing was asked for, or where `left` says why it could not be had.

    Attributes:
        fidelity: of the pruned model's outputs to the dense model's, on the calibration samples.
        top1: accuracy of the dense and the pruned model on labelled data.
        labelled: where that data came from.
        timing: how fast both are.
        left: what could not be measured, and why.
        warnings: about the measurements, for the user.

    """

    fidelity: Fidelity | None = None
    top1: tuple[Top1, Top1] | None = None
    labelled: str | None = None
    timing: Timing | None = None
    left: Mapping[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def document(self) -> dict[str, Any]:
        """Return the same as plain data: `fidelity`, `top1`, `timing`, and what could not be under `not_measured`."""
        entries: dict[str, Any] = {}
        if self.fidelity is not None:
            entries["fidelity"] = self.fidelity.document()
        if self.top1 is not None:
            dense, pruned = self.top1
            entries["top1"] = {"source": self.labelled, "dense": asdict(dense), "pruned": asdict(pruned)}
        if self.timing is not None:
            entries["timing"] = {**self.timing.document(), "warnings": list(self.warnings)}
        if self.left:
            entries["not_measured"] = dict(self.left)
        return entries

    def _repr_html_(self) -> str:
        rows = []
        if self.top1 is not None:
            rows.append(("top-1", *(f"{model.accuracy:.2%}" for model in self.top1)))
        if self.timing is not None:
            rows.append(("latency", *(milliseconds(model.median_ms) for model in self.timing.latency)))
        rows += [(metric, "not measured", reason) for metric, reason in self.left.items()]
        table = html_table(("measured", "dense", "pruned"), rows)
        return table if self.fidelity is None else table + self.fidelity._repr_html_()


def measure(
    dense: onnx.ModelProto,
    pruned: onnx.ModelProto,
    conditions: Conditions,
    data: Dataset | None = None,
    *,
    labelled: Dataset | None = None,
    latency: bool = True,
    brief: bool = False,
    macs_share: float = 1.0,
    progress: Watch | None = None,
) -> Measured:
    """Measure the dense and the pruned model side by side.

    Args:
        dense: the reference.
        pruned: takes the same inputs.
        conditions: how both are run.
        data: unlabelled inputs: the first samples are what latency is measured on (random numbers without), and all
            of them how close the outputs are.
        labelled: data with labels to measure top-1 accuracy on.
        latency: whether to measure how fast both are.
        brief: whether latency takes a second or so, without a profile, and outputs are not compared.
        macs_share: MACs of the pruned model by those of the dense one; below 1 a model that is not faster is warned of.
        progress: called with the name of a phase, the steps done in it and their number.

    """
    models = (dense, pruned)
    failures: dict[str, str] = {}

    def attempt(metric: str, work: Callable[[], _T]) -> _T | None:
        begin(progress, f"measuring {metric}")
        try:
            return work()
        except SubpruneError as error:
            failures[metric] = str(error)
            return None

    closeness = accuracies = timing = None
    if data is not None and not brief:
        samples = watched(data, progress, "measuring fidelity")
        closeness = attempt("fidelity", lambda: _fidelity(models, samples, conditions))
    if labelled is not None:
        examples = watched(labelled, progress, "measuring accuracy")
        accuracies = attempt("accuracy", lambda: _accuracies(models, examples, conditions.runtime))
    if latency:
        feeds = None if data is None else next(iter(data.batches(conditions.timed_samples)))
        timing = attempt("latency", lambda: _timing(models, feeds, conditions, progress, brief=brief))
    warnings = () if timing is None else tuple(not_faster(timing, macs_share))
    source = None if labelled is None else labelled.source
    return Measured(closeness, accuracies, source, timing, failures, warnings)


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


def _fidelity(models: _Models, data: Dataset, conditions: Conditions) -> Fidelity:
    return fidelity(*models, data, outputs_at=conditions.outputs_at, **vars(conditions.runtime))


def _accuracies(models: _Models, data: Dataset, runtime: Runtime) -> tuple[Top1, Top1]:
    dense, pruned = (top1(model, data, batch_size=runtime.batch_size, **_runtime_entries(runtime)) for model in models)
    return dense, pruned


def _timing(
    models: _Models, feeds: _Feeds | None, conditions: Conditions, progress: Watch | None, *, brief: bool
) -> Timing:
    """Time both on real inputs; on random numbers of the same shapes where there are none."""
    where = _runtime_entries(conditions.runtime)
    inputs = "the first of the calibration data"
    if feeds is None:
        feeds = random_feeds(input_specs(models[0]), conditions.shapes, conditions.seed)
        inputs = _RANDOM
    rounds = phase(progress, "timing both models, seconds at most")
    with made_up(made=inputs == _RANDOM):
        dense, pruned = bench(models, feeds, runs=None, pace=_BRIEF if brief else _PACE, progress=rounds, **where)
    profiles = None
    if not brief:
        begin(progress, "profiling")
        profiles = (profile(models[0], feeds, **where), profile(models[1], feeds, **where))
    shapes = {name: tuple(array.shape) for name, array in feeds.items()}
    return Timing((dense, pruned), profiles, shapes, inputs, conditions.runtime.threads)


def _runtime_entries(runtime: Runtime) -> dict[str, Any]:
    return {"providers": runtime.providers, "threads": runtime.threads}


def _profile_document(profiles: tuple[Profile, Profile]) -> dict[str, Any]:
    dense, pruned = profiles
    return {
        "runs": dense.runs,
        "dense_ms": 1e3 * dense.seconds,
        "pruned_ms": 1e3 * pruned.seconds,
        "operators": _operator_rows(profiles),
    }


def _operator_rows(profiles: Sequence[Profile]) -> list[dict[str, Any]]:
    """Return nodes and milliseconds of every operator in both models, those that cost most at first."""
    sides = [{(entry.operator, entry.provider): entry for entry in times.operators} for times in profiles]
    rows = []
    for operator, provider in dict.fromkeys(key for side in sides for key in side):
        row: dict[str, Any] = {"operator": operator, "provider": provider}
        for model, side in zip(("dense", "pruned"), sides, strict=True):
            entry = side.get((operator, provider))
            row[model] = {
                "nodes": 0 if entry is None else entry.nodes,
                "ms": 0.0 if entry is None else 1e3 * entry.seconds,
            }
        rows.append(row)
    return sorted(rows, key=lambda row: (-row["dense"]["ms"] - row["pruned"]["ms"], row["operator"], row["provider"]))
