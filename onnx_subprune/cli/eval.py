"""`onnx-subprune eval`: how accurate, or how close to the first model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import onnx
import typer
from rich.table import Table

from onnx_subprune import evaluate as metrics
from onnx_subprune import report
from onnx_subprune.calibration import Dataset, open_data, open_tokens, watched
from onnx_subprune.cli.parameters import (
    BatchSize,
    CustomOps,
    Data,
    Json,
    Models,
    OutputsAt,
    Providers,
    Quiet,
    Samples,
    Seed,
    Threads,
    Verbose,
    parsed,
)
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.errors import OptionError
from onnx_subprune.model import input_specs, load_model, register_custom_ops
from onnx_subprune.options import Options
from onnx_subprune.progress import Watch

__all__ = ["evaluate"]


Metric = Annotated[
    str,
    typer.Option(
        "--metric",
        metavar="NAME",
        help="top1 (needs labels), fidelity (outputs against those of the first MODEL), or perplexity (token ids).",
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        "--window",
        metavar="T",
        help="For perplexity: cut one stream of token ids into windows of this length.",
        show_default=False,
    ),
]
Outcome: TypeAlias = tuple[Sequence[Path], Sequence[metrics.Top1 | metrics.Fidelity | metrics.Perplexity], Table]


def evaluate(
    models: Models,
    *,
    data: Data,
    metric: Metric = "top1",
    window: Window = None,
    outputs_at: OutputsAt = None,
    samples: Samples = None,
    seed: Seed = Options.seed,
    batch_size: BatchSize = Options.batch_size,
    providers: Providers = None,
    threads: Threads = None,
    custom_ops: CustomOps = None,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Measure models on the same data."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        register_custom_ops(custom_ops or ())
        options = Options(
            **parsed(
                outputs_at=outputs_at,
                samples=samples,
                seed=seed,
                batch_size=batch_size,
                providers=providers,
                threads=threads,
            )
        )
        _check(metric, {"--window": window, "--outputs-at": outputs_at})
        with screen.progress() as progress:
            measured, values, table = _METRICS[metric](models, _Source(data, window, progress), options)
        entries = [
            {"model": str(path), **_entry(value, values[0])} for path, value in zip(measured, values, strict=True)
        ]
        document = {"format": "onnx_subprune.eval/1", "metric": metric, "data": data, "models": entries}
        screen.show(document, table)


_ONLY = {"--window": "perplexity", "--outputs-at": "fidelity"}
"""Options that belong to one metric."""


def _check(metric: str, given: Mapping[str, object]) -> None:
    if metric not in _METRICS:
        raise OptionError(f"expected a metric among {', '.join(_METRICS)}, found '{metric}'; choose one of them")
    for flag, value in given.items():
        if value not in (None, []) and metric != _ONLY[flag]:
            raise OptionError(f"expected {flag} with the metric {_ONLY[flag]} only, found '{metric}'; leave it out")


def _entry(value: Any, first: Any) -> dict[str, Any]:
    entry = value.document() if isinstance(value, metrics.Fidelity) else asdict(value)
    if isinstance(value, metrics.Perplexity):
        entry["difference"] = value.perplexity - first.perplexity
    return entry


@dataclass(frozen=True)
class _Source:
    """Where evaluation data comes from, how token ids are cut, and who watches."""

    data: str
    window: int | None
    progress: Watch | None

    def open(self, model: onnx.ModelProto, options: Options) -> Dataset:
        """Open it for a model."""
        opened = open_data(self.data, input_specs(model), samples=options.samples, seed=options.seed)
        return watched(opened, self.progress, "measuring")

    def tokens(self, model: onnx.ModelProto, options: Options) -> Dataset:
        """Open it as token ids."""
        opened = open_tokens(
            self.data, input_specs(model), window=self.window, samples=options.samples, seed=options.seed
        )
        return watched(opened, self.progress, "measuring")


def _top1(models: Sequence[Path], source: _Source, options: Options) -> Outcome:
    values = [
        metrics.top1(proto, source.open(proto, options), **vars(options.runtime))
        for proto in (load_model(path, resident=False) for path in models)
    ]
    return models, values, report.accuracy_table([str(path) for path in models], values)


def _fidelity(models: Sequence[Path], source: _Source, options: Options) -> Outcome:
    if len(models) < 2:
        raise OptionError(
            "expected a reference and at least one model to compare with it, found one model; "
            "give the dense model first, then the pruned one"
        )
    dense = load_model(models[0], resident=False)
    how = {**vars(options.runtime), "outputs_at": options.outputs_at}
    values = [
        metrics.fidelity(dense, load_model(path, resident=False), source.open(dense, options), **how)
        for path in models[1:]
    ]
    return models[1:], values, report.fidelity_table([str(path) for path in models[1:]], values)


def _perplexity(models: Sequence[Path], source: _Source, options: Options) -> Outcome:
    values = [
        metrics.perplexity(proto, source.tokens(proto, options), **vars(options.runtime))
        for proto in (load_model(path, resident=False) for path in models)
    ]
    return models, values, report.perplexity_table([str(path) for path in models], values)


_METRICS = {"top1": _top1, "fidelity": _fidelity, "perplexity": _perplexity}
