"""`onnx-subprune demo`: the main job on the model and the data in the package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx
import typer
from rich.table import Table

from onnx_subprune import evaluate, pipeline, report
from onnx_subprune.calibration import open_data
from onnx_subprune.cli.files import check_outputs
from onnx_subprune.cli.options import Json, Quiet, Threads, Verbose
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.data import Demo, load_demo
from onnx_subprune.errors import OutputError
from onnx_subprune.evaluate import Latency, Top1
from onnx_subprune.model import input_specs, save_model
from onnx_subprune.options import Options, Target

__all__ = ["demo"]

_SOURCE = "512 unlabelled training images of Fashion-MNIST in the package"
_FILES = ("dense.onnx", "pruned.onnx", "report.json", "calibration.npz", "test.npz")
_COLUMNS = ("dense", "pruned", "pruned / dense")


def demo(
    context: typer.Context,
    *,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Folder for the models, the data and the report.")
    ] = Path("onnx-subprune-demo"),
    target: Annotated[str, typer.Option("--target", metavar="KIND=F", help="As for `prune`.")] = "macs=0.5",
    round_to: Annotated[
        int, typer.Option("--round-to", metavar="N", help="Keep multiples of N units: what vector units like.")
    ] = 8,
    threads: Threads = None,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Prune the model in the package to half its MACs and compare the two on 1,000 test images."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        options = Options(target=Target.parse(target), round_to=round_to, threads=threads)
        paths = _paths(out)
        material = load_demo()
        with screen.progress() as progress:
            result = pipeline.prune(material.model_path, material.calibration, options, progress=progress)
        screen.warn(result.warnings)
        models = (result.analysis.model, result.model)
        accuracies = [_accuracy(model, material, options) for model in models]
        document = report.as_dict(result, command=context.obj or (), source=_SOURCE)
        document["top1"] = dict(zip(("dense", "pruned"), map(asdict, accuracies), strict=True))
        save_model(models[0], paths["dense.onnx"])
        result.save(paths["pruned.onnx"])
        report.write_json(document, paths["report.json"])
        _save_arrays(paths["calibration.npz"], material.calibration)
        _save_arrays(paths["test.npz"], {**material.test, "labels": material.labels})
        times = _times(models, threads or 1)
        timed = {"latency": dict(zip(("dense", "pruned"), map(asdict, times), strict=True))}
        screen.show(document | timed, _table(result, accuracies, times), f"written to {out}: {', '.join(paths)}")


def _paths(folder: Path) -> dict[str, Path]:
    """Return the files of the demo by name, in a folder that exists and can be written."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder '{folder}': {error.strerror}; give --out a folder you can write to"
        ) from error
    paths = {name: folder / name for name in _FILES}
    check_outputs({}, dict(paths))
    return paths


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        np.savez(path, allow_pickle=False, **arrays)
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}; give --out a folder with room") from error


def _accuracy(model: onnx.ModelProto, material: Demo, options: Options) -> Top1:
    data = open_data({**material.test, "labels": material.labels}, input_specs(model))
    return evaluate.top1(model, data, batch_size=100, threads=options.threads)


def _times(models: Sequence[onnx.ModelProto], threads: int) -> list[Latency]:
    """Time one image; a model this small is fastest on one thread."""
    specs = input_specs(models[0])
    feeds = evaluate.random_feeds(specs, {"image": (1, 1, 28, 28)})
    return evaluate.bench(models, feeds, runs=200, warmup=20, threads=threads)


def _table(result: pipeline.Result, accuracies: Sequence[Top1], times: Sequence[Latency]) -> Table:
    dense, pruned = accuracies
    rows: list[Any] = [
        ("top-1 on 1,000 test images", *(f"{a.accuracy:.1%}" for a in accuracies), _points(dense, pruned)),
        *report.cost_rows(result.dense, result.pruned),
        ("latency, one image (median)", *(f"{t.median_ms:.3f} ms" for t in times), f"{times[1].ratio_to_first:.1%}"),
    ]
    return report.side_by_side(rows, _COLUMNS, f"Fashion-MNIST classifier pruned to {result.plan.target}")


def _points(dense: Top1, pruned: Top1) -> str:
    return f"{100 * (pruned.accuracy - dense.accuracy):+.1f} points"
