"""`onnx-subprune bench`: how fast, side by side, and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any, TypeAlias

import onnx
import typer
from numpy.typing import NDArray
from rich.console import RenderableType

from onnx_subprune import evaluate, report
from onnx_subprune.calibration import open_data
from onnx_subprune.cli.parameters import (
    RUNTIME,
    CustomOps,
    InputShapes,
    Json,
    Models,
    Providers,
    Quiet,
    Seed,
    Threads,
    Verbose,
    names,
    shapes,
)
from onnx_subprune.cli.sizes import assumed, batched
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.evaluate import Latency, Memory, Pace, Profile
from onnx_subprune.evaluate.feeds import made_up, sizes_that_run
from onnx_subprune.model import (
    InputSpec,
    Runtime,
    input_specs,
    is_failed_run,
    load_model,
    register_custom_ops,
    runtime_reason,
)
from onnx_subprune.model.made_inputs import BETTER_INPUTS
from onnx_subprune.options import Options
from onnx_subprune.progress import Watch, begin, phase

__all__ = ["bench"]

Feeds: TypeAlias = dict[str, NDArray[Any]]

_MEASUREMENT = "Measurement"

BatchSizes = Annotated[
    list[int] | None,
    typer.Option(
        "--batch", metavar="N", help="Samples per run, on the dynamic first axis; repeatable.", show_default="1"
    ),
]
TimedData = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="DATA",
        help="Run on the first samples of this (.npz, .npy, a folder, or file.py:function), not on random numbers.",
        show_default=False,
    ),
]
Runs = Annotated[
    int | None,
    typer.Option(
        "--runs",
        metavar="N",
        help="Timed runs of every model; as many as --precision asks for by default.",
        rich_help_panel=_MEASUREMENT,
        show_default=False,
    ),
]
Precision = Annotated[
    float,
    typer.Option(
        "--precision",
        metavar="X",
        help="Go on until every ratio is sure (95%) to this share of itself.",
        rich_help_panel=_MEASUREMENT,
    ),
]
MaxSeconds = Annotated[
    float,
    typer.Option(
        "--max-seconds",
        metavar="S",
        help="But for each batch size no longer than this.",
        rich_help_panel=_MEASUREMENT,
    ),
]
ProfileNodes = Annotated[
    bool,
    typer.Option(
        "--profile",
        help="Show the time of every operator and of the longest nodes, in runs of their own; with --json of all.",
        rich_help_panel=_MEASUREMENT,
    ),
]
PeakMemory = Annotated[
    bool,
    typer.Option(
        "--memory",
        help="Measure the peak memory of every model, in a process of its own.",
        rich_help_panel=_MEASUREMENT,
    ),
]
IoBinding = Annotated[
    bool | None,
    typer.Option(
        "--io-binding/--no-io-binding",
        help="Keep inputs and outputs in buffers on the device, so that copies are not timed; on a GPU by default.",
        rich_help_panel=RUNTIME,
        show_default=False,
    ),
]


def bench(
    models: Models,
    *,
    batch: BatchSizes = None,
    data: TimedData = None,
    runs: Runs = None,
    precision: Precision = Pace.precision,
    max_seconds: MaxSeconds = Pace.most_seconds,
    profile: ProfileNodes = False,
    memory: PeakMemory = False,
    input_shapes: InputShapes = None,
    providers: Providers = None,
    io_binding: IoBinding = None,
    threads: Threads = None,
    custom_ops: CustomOps = None,
    seed: Seed = Options.seed,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Time models on the same inputs, taking turns; the speed-up is the median of paired ratios."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        register_custom_ops(custom_ops or ())
        protos = [load_model(path, resident=False) for path in models]
        given = dict(shapes(input_shapes or ()))
        where = _Where(names(providers or ()), threads)
        made = {} if data is not None else sizes_that_run(protos[0], given, Runtime(where.providers, where.threads))
        inputs = _Inputs(tuple(input_specs(protos[0])), given, made, data, seed)
        screen.warn(inputs.warnings())
        measurement = _Measurement(runs, Pace(precision, most_seconds=max_seconds), io_binding, profile, memory)
        sizes: list[int | None] = [*(batch or [])] or [None]
        with screen.progress() as progress:
            batches = [inputs.measured(size, measurement, protos, where, progress) for size in sizes]
        paths = [str(path) for path in models]
        document = {
            "format": "onnx_subprune.bench/1",
            "data": data,
            "seed": seed,
            **asdict(measurement),
            **asdict(where),
            "versions": report.versions(),
            "batches": [measured.document(paths) for measured in batches],
        }
        screen.show(document, *(table for measured in batches for table in measured.tables(paths, profile=profile)))


@dataclass(frozen=True)
class _Where:
    """Where the sessions run."""

    providers: tuple[str, ...]
    threads: int | None


@dataclass(frozen=True)
class _Measurement:
    """How the time is measured, and what beside it."""

    runs: int | None
    pace: Pace
    io_binding: bool | None
    profile: bool
    memory: bool

    def run(self, models: Sequence[onnx.ModelProto], feeds: Feeds, where: _Where, progress: Watch | None) -> _Batch:
        """Measure the models on one batch."""
        rounds = phase(progress, "timing, seconds at most" if self.runs is None else "timing")
        latencies = evaluate.bench(
            models, feeds, runs=self.runs, pace=self.pace, bound=self.io_binding, progress=rounds, **vars(where)
        )
        # A session with a provider may still leave nodes to the CPU, and only a profile tells.
        profiled = self.profile or any(len(latency.providers) > 1 for latency in latencies)
        if profiled or self.memory:
            begin(progress, "looking at nodes and memory")
        return _Batch(
            {name: array.shape for name, array in feeds.items()},
            latencies,
            [evaluate.profile(model, feeds, **vars(where)) for model in models] if profiled else [],
            [evaluate.peak_memory(model, feeds, **vars(where)) for model in models] if self.memory else [],
        )


@dataclass(frozen=True)
class _Inputs:
    """The inputs of the models: the user's data, or random numbers."""

    specs: Sequence[InputSpec]
    given: Mapping[str, tuple[int, ...]]
    made: dict[str, tuple[int, ...]]
    data: str | None
    seed: int

    def warnings(self) -> list[str]:
        """Return a line for each size that is only a guess."""
        if self.data is not None and self.given:
            raise OptionError("expected --input-shapes or --data, found both; data brings its shapes, give one of them")
        return [] if self.data is not None else assumed(self.specs, self.given, self.made)

    def measured(
        self,
        size: int | None,
        measurement: _Measurement,
        models: Sequence[onnx.ModelProto],
        where: _Where,
        progress: Watch | None,
    ) -> _Batch:
        """Measure the models on one batch of `size` samples; see `feeds`."""
        feeds = self.feeds(size)
        try:
            with made_up(made=self.data is None and size is None):
                return measurement.run(models, feeds, where, progress)
        except (DataError, ModelError) as error:
            if size is None or not is_failed_run(error):
                raise
            advice = "" if self.data is not None else f", or {BETTER_INPUTS}"
            raise ModelError(
                f"a batch of {size} expected to run, the model refuses it: {runtime_reason(error)}; "
                f"leave --batch out{advice}"
            ) from error

    def feeds(self, size: int | None) -> Feeds:
        """Return one batch of `size` samples; of one, or of the model's own size, where it is None."""
        sizes = batched(self.specs, self.made or self.given, size)
        if self.data is None:
            return evaluate.random_feeds(self.specs, sizes, self.seed)
        data = open_data(self.data, self.specs, seed=self.seed)
        feeds: Feeds = next(data.batches(size or 1))
        if size is not None and (samples := data.samples_in(feeds)) != size:
            raise DataError(
                f"{self.data}: {size} samples of one shape expected, found {samples}; give more, or a smaller --batch"
            )
        return feeds


@dataclass(frozen=True)
class _Batch:
    """Measurements of one batch, by model; `profiles` and `memory` may be empty."""

    sizes: Mapping[str, Sequence[int]]
    latencies: Sequence[Latency]
    profiles: Sequence[Profile]
    memory: Sequence[Memory]

    def document(self, paths: Sequence[str]) -> dict[str, Any]:
        entries = [{"model": path, **asdict(latency)} for path, latency in zip(paths, self.latencies, strict=True)]
        for entry, profile in zip(entries, self.profiles, strict=False):
            operators = [asdict(operator) for operator in profile.operators]
            entry["profile"] = {**asdict(profile), "operators": operators, "fallen": len(profile.fallen)}
        for entry, memory in zip(entries, self.memory, strict=False):
            entry["memory"] = asdict(memory)
        return {"input_shapes": {name: list(shape) for name, shape in self.sizes.items()}, "models": entries}

    def tables(self, paths: Sequence[str], *, profile: bool) -> list[RenderableType]:
        sizes = ", ".join(f"{name} {list(shape)}" for name, shape in self.sizes.items())
        providers = dict.fromkeys(provider for latency in self.latencies for provider in latency.providers)
        title = f"{sizes}, on {', '.join(providers)}"
        tables: list[RenderableType] = [report.latency_table(paths, self.latencies, title, self.memory)]
        tables += [line for pair in zip(paths, self.profiles, strict=False) for line in _fallback_lines(*pair)]
        if profile:
            tables.append(report.operator_table(paths, self.profiles))
            tables += [report.node_table(*pair) for pair in zip(paths, self.profiles, strict=True)]
        return tables


def _fallback_lines(name: str, profile: Profile) -> list[str]:
    """A line on the nodes that did not run on the provider that was wanted most, if there are any."""
    fallen = profile.fallen
    if not fallen:
        return []
    kinds = ", ".join(sorted({node.operator for node in fallen}))
    where = ", ".join(sorted({node.provider for node in fallen}))
    return [f"{name}: {len(fallen)} of {len(profile.nodes)} nodes ran on {where}: {kinds}"]
