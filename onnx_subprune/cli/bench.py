"""`onnx-subprune bench`: how fast, side by side, and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import onnx
import typer
from numpy.typing import NDArray
from rich.console import RenderableType

from onnx_subprune import evaluate, report
from onnx_subprune.calibration import open_data
from onnx_subprune.cli.parameters import (
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
from onnx_subprune.errors import DataError, OptionError
from onnx_subprune.evaluate import Latency, Memory, Pace, Profile
from onnx_subprune.model import InputSpec, input_specs, load_model
from onnx_subprune.progress import Watch, begin, phase

__all__ = ["bench"]

Feeds = dict[str, NDArray[Any]]
_MEASUREMENT = "Measurement"
_RUNTIME = "Runtime"


def bench(
    models: Models,
    *,
    batch: Annotated[
        list[int] | None,
        typer.Option(
            "--batch", metavar="N", help="Samples per run, on the dynamic first axis; repeatable.", show_default="1"
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            "--data",
            metavar="DATA",
            help="Run on the first samples of this (.npz, .npy, a folder, or file.py:function), not on random numbers.",
            show_default=False,
        ),
    ] = None,
    runs: Annotated[
        int | None,
        typer.Option(
            "--runs",
            metavar="N",
            help="Timed runs of every model; as many as --precision asks for by default.",
            rich_help_panel=_MEASUREMENT,
            show_default=False,
        ),
    ] = None,
    precision: Annotated[
        float,
        typer.Option(
            "--precision",
            metavar="X",
            help="Go on until every ratio is sure (95%) to this share of itself.",
            rich_help_panel=_MEASUREMENT,
        ),
    ] = Pace.precision,
    max_seconds: Annotated[
        float,
        typer.Option(
            "--max-seconds",
            metavar="S",
            help="But for each batch size no longer than this.",
            rich_help_panel=_MEASUREMENT,
        ),
    ] = Pace.most_seconds,
    profile: Annotated[
        bool,
        typer.Option(
            "--profile",
            help="Show the time of every operator and of the longest nodes, in runs of their own; with --json of all.",
            rich_help_panel=_MEASUREMENT,
        ),
    ] = False,
    memory: Annotated[
        bool,
        typer.Option(
            "--memory",
            help="Measure the peak memory of every model, in a process of its own.",
            rich_help_panel=_MEASUREMENT,
        ),
    ] = False,
    input_shapes: InputShapes = None,
    providers: Providers = None,
    io_binding: Annotated[
        bool | None,
        typer.Option(
            "--io-binding/--no-io-binding",
            help="Keep inputs and outputs in buffers on the device, so that copies are not timed; on a GPU by default.",
            rich_help_panel=_RUNTIME,
            show_default=False,
        ),
    ] = None,
    threads: Threads = None,
    seed: Seed = 0,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Time models on the same inputs, taking turns; the speed-up is the median of paired ratios."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        protos = [load_model(path, resident=False) for path in models]
        inputs = _Inputs(tuple(input_specs(protos[0])), dict(shapes(input_shapes)), data, seed)
        screen.warn(inputs.warnings())
        where = _Where(names(providers), threads)
        how = _How(runs, Pace(precision, most_seconds=max_seconds), io_binding, profile, memory)
        sizes: list[int | None] = [*(batch or [])] or [None]
        with screen.progress() as progress:
            found = [_measure(protos, inputs.feeds(size), where, how, progress) for size in sizes]
        shown = [str(path) for path in models]
        document = {
            "format": "onnx_subprune.bench/1",
            "data": data,
            "seed": seed,
            **asdict(how),
            **asdict(where),
            "versions": report.versions(),
            "batches": [one.as_dict(shown) for one in found],
        }
        screen.show(document, *(table for one in found for table in one.tables(shown, profile=profile)))


@dataclass(frozen=True)
class _Where:
    """What the sessions run on."""

    providers: tuple[str, ...]
    threads: int | None


@dataclass(frozen=True)
class _How:
    """How it is measured, and what beside the time."""

    runs: int | None
    pace: Pace
    io_binding: bool | None
    profile: bool
    memory: bool


@dataclass(frozen=True)
class _Inputs:
    """What the models are run on: the user's data, or random numbers."""

    specs: Sequence[InputSpec]
    given: Mapping[str, tuple[int, ...]]
    data: str | None
    seed: int

    def warnings(self) -> list[str]:
        """Of sizes that are only a guess."""
        if self.data is not None and self.given:
            raise OptionError("expected --input-shapes or --data, found both; data brings its shapes, give one of them")
        return [] if self.data is not None else assumed(self.specs, self.given)

    def feeds(self, size: int | None) -> Feeds:
        """One batch of `size` samples; of one, or of the model's own size, where it is None."""
        sizes = batched(self.specs, self.given, size)
        if self.data is None:
            return evaluate.random_feeds(self.specs, sizes, self.seed)
        data = open_data(self.data, self.specs, seed=self.seed)
        feeds: Feeds = next(data.batches(size or 1))
        if size is not None and (found := data.samples_in(feeds)) != size:
            raise DataError(
                f"{self.data}: {size} samples of one shape expected, found {found}; give more, or a smaller --batch"
            )
        return feeds


@dataclass(frozen=True)
class _Batch:
    """What was measured on one batch, by model; `profiles` and `memory` may be empty."""

    sizes: Mapping[str, Sequence[int]]
    latencies: Sequence[Latency]
    profiles: Sequence[Profile]
    memory: Sequence[Memory]

    def as_dict(self, names: Sequence[str]) -> dict[str, Any]:
        entries = [{"model": name, **asdict(one)} for name, one in zip(names, self.latencies, strict=True)]
        for entry, profile in zip(entries, self.profiles, strict=False):
            operators = [asdict(one) for one in profile.operators]
            entry["profile"] = {**asdict(profile), "operators": operators, "fallen": len(profile.fallen)}
        for entry, memory in zip(entries, self.memory, strict=False):
            entry["memory"] = asdict(memory)
        return {"input_shapes": {name: list(shape) for name, shape in self.sizes.items()}, "models": entries}

    def tables(self, names: Sequence[str], *, profile: bool) -> list[RenderableType]:
        sizes = ", ".join(f"{name} {list(shape)}" for name, shape in self.sizes.items())
        ran = dict.fromkeys(provider for one in self.latencies for provider in one.providers)
        title = f"{sizes}, on {', '.join(ran)}"
        tables: list[RenderableType] = [report.latency_table(names, self.latencies, title, self.memory)]
        tables += [line for name, one in zip(names, self.profiles, strict=False) for line in _fallen(name, one)]
        if profile:
            tables.append(report.operator_table(names, self.profiles))
            tables += [report.node_table(name, one) for name, one in zip(names, self.profiles, strict=True)]
        return tables


def _measure(
    models: Sequence[onnx.ModelProto], feeds: Feeds, where: _Where, how: _How, progress: Watch | None
) -> _Batch:
    tell = phase(progress, "timing, seconds at most" if how.runs is None else "timing")
    latencies = evaluate.bench(
        models, feeds, runs=how.runs, pace=how.pace, bound=how.io_binding, progress=tell, **vars(where)
    )
    # A session with a provider may still leave nodes to the CPU, and only a profile tells.
    looked = how.profile or any(len(one.providers) > 1 for one in latencies)
    if looked or how.memory:
        begin(progress, "looking at nodes and memory")
    return _Batch(
        {name: array.shape for name, array in feeds.items()},
        latencies,
        [evaluate.profile(model, feeds, **vars(where)) for model in models] if looked else [],
        [evaluate.peak_memory(model, feeds, **vars(where)) for model in models] if how.memory else [],
    )


def _fallen(name: str, profile: Profile) -> list[str]:
    """A line on the nodes that did not run on the provider that was wanted most, if there are any."""
    fallen = profile.fallen
    if not fallen:
        return []
    kinds = ", ".join(sorted({node.operator for node in fallen}))
    where = ", ".join(sorted({node.provider for node in fallen}))
    return [f"{name}: {len(fallen)} of {len(profile.nodes)} nodes ran on {where}: {kinds}"]
