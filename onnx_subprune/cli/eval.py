"""`onnx-subprune eval`: how accurate, or how close to the first model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import onnx
import typer
from rich.table import Table

from onnx_subprune import evaluate as metrics
from onnx_subprune import report
from onnx_subprune.calibration import open_data
from onnx_subprune.cli.options import (
    BatchSize,
    Data,
    Json,
    Models,
    Providers,
    Quiet,
    Samples,
    Seed,
    Threads,
    Verbose,
    names,
)
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.errors import OptionError
from onnx_subprune.model import input_specs, load_model
from onnx_subprune.options import Options

__all__ = ["evaluate"]

_Measure = Callable[[onnx.ModelProto, str, Options], Any]


def evaluate(
    models: Models,
    *,
    data: Data,
    metric: Annotated[
        str,
        typer.Option(
            "--metric",
            metavar="NAME",
            help="top1 (needs labels), or fidelity (outputs against those of the first MODEL).",
        ),
    ] = "top1",
    samples: Samples = None,
    seed: Seed = 0,
    batch_size: BatchSize = 32,
    providers: Providers = None,
    threads: Threads = None,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Measure models on the same data."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        options = Options(
            samples=samples, seed=seed, batch_size=batch_size, providers=names(providers), threads=threads
        )
        if metric not in _METRICS:
            raise OptionError(f"expected a metric among {', '.join(_METRICS)}, found '{metric}'; choose one of them")
        shown, found, table = _METRICS[metric](models, data, options)
        entries = [{"model": str(path), **asdict(one)} for path, one in zip(shown, found, strict=True)]
        document = {"format": "onnx_subprune.eval/1", "metric": metric, "data": data, "models": entries}
        screen.show(document, table)


def _top1(models: Sequence[Path], data: str, options: Options) -> tuple[Sequence[Path], list[Any], Table]:
    found = [
        metrics.top1(proto, _opened(proto, data, options), **_where(options))
        for proto in (load_model(path) for path in models)
    ]
    return models, found, report.accuracy_table([str(path) for path in models], found)


def _fidelity(models: Sequence[Path], data: str, options: Options) -> tuple[Sequence[Path], list[Any], Table]:
    if len(models) < 2:
        raise OptionError(
            "expected a reference and at least one model to compare with it, found one model; "
            "give the dense model first, then the pruned one"
        )
    dense = load_model(models[0])
    found = [
        metrics.fidelity(dense, load_model(path), _opened(dense, data, options), **_where(options))
        for path in models[1:]
    ]
    return models[1:], found, report.fidelity_table([str(path) for path in models[1:]], found)


_METRICS = {"top1": _top1, "fidelity": _fidelity}


def _opened(model: onnx.ModelProto, data: str, options: Options) -> Any:
    return open_data(data, input_specs(model), samples=options.samples, seed=options.seed)


def _where(options: Options) -> dict[str, Any]:
    return {"providers": options.providers, "batch_size": options.batch_size, "threads": options.threads}
