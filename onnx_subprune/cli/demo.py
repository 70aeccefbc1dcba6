"""`onnx-subprune demo`: the main job on the model and the data in the package."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from importlib import resources
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from onnx_subprune import pipeline, report
from onnx_subprune.calibration import open_data
from onnx_subprune.cli.outputs import check_outputs
from onnx_subprune.cli.parameters import Json, Quiet, Threads, Verbose, option, parsed
from onnx_subprune.cli.terminal import terminal
from onnx_subprune.demo import Demo, load_demo
from onnx_subprune.errors import OutputError
from onnx_subprune.evaluate.comparison import Measured
from onnx_subprune.model import atomic_write, input_specs, save_model, together
from onnx_subprune.options import Options
from onnx_subprune.progress import Watch

__all__ = ["demo"]

_SOURCE = "512 unlabelled training images of Fashion-MNIST in the package"
_FILES = ("dense.onnx", "pruned.onnx", "report.html", "report.json", "calibration.npz", "test.npz")
_TIMES = ("timing", "forecast")
_TEST = "1,000 test images of Fashion-MNIST in the package"

Folder = Annotated[Path, typer.Option("--out", metavar="DIR", help="Folder for the models, the data and the report.")]
DemoTarget = Annotated[str, option("target", "KIND=F", None, help="As for `prune`.")]
DemoMultiple = Annotated[int, option("round_to", "N", None, help="Keep multiples of N units: what vector units like.")]


def demo(
    context: typer.Context,
    *,
    out: Folder = Path("onnx-subprune-demo"),
    target: DemoTarget = "macs=0.5",
    round_to: DemoMultiple = 16,
    threads: Threads = None,
    json: Json = False,
    verbose: Verbose = 0,
    quiet: Quiet = False,
) -> None:
    """Prune the model in the package to half its MACs and compare the two on 1,000 test images."""
    with terminal(json=json, verbose=verbose, quiet=quiet) as screen:
        options = Options(**parsed(target=target, round_to=round_to, threads=threads))
        paths = _paths(out)
        material = load_demo()
        with screen.progress() as progress:
            result = pipeline.prune(material.model_path, material.calibration, options, progress=progress)
            measured = _measured(result, material, threads or 1, progress)
        screen.warn(result.warnings)
        command = context.obj or ()
        document = result.document(measured=measured, command=command, source=_SOURCE)
        table = report.cost_table(document, f"Fashion-MNIST classifier pruned to {result.plan.target}")
        with together():
            _save(result, document, material, paths)
            screen.show(document, table, f"written to {out}: {', '.join(paths)}")


def _paths(folder: Path) -> dict[str, Path]:
    """Return the files of the demo by name, in a folder that exists and can be written."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder '{folder}': {error.strerror}; give --out a folder you can write to"
        ) from error
    paths = {name: folder / name for name in _FILES}
    check_outputs({"the package": Path(str(resources.files("onnx_subprune.demo")))}, dict(paths))
    return paths


def _save(result: pipeline.Result, document: report.Document, material: Demo, paths: Mapping[str, Path]) -> None:
    """Write all files, the pruned model last."""
    save_model(result.analysis.model, paths["dense.onnx"])
    _save_arrays(paths["calibration.npz"], material.calibration)
    _save_arrays(paths["test.npz"], {**material.test, "labels": material.labels})
    report.write_report(document, paths["report.html"])
    report.write_json({name: value for name, value in document.items() if name not in _TIMES}, paths["report.json"])
    result.save(paths["pruned.onnx"])


def _save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    try:
        with atomic_write(Path(os.path.realpath(path))) as temporary, temporary.open("wb") as file:
            # No other keyword: NumPy before 2.1 would store it as one more array.
            np.savez(file, **arrays)  # type: ignore[arg-type]  # no array is called allow_pickle
    except OSError as error:
        raise OutputError(f"cannot write '{path}': {error.strerror}; give --out a folder with room") from error


def _measured(result: pipeline.Result, material: Demo, threads: int, progress: Watch | None) -> Measured:
    """Measure accuracy on the test images and the time of one image; a model this small is fastest on one thread."""
    result = replace(result, options=replace(result.options, threads=threads))
    test = open_data({**material.test, "labels": material.labels}, input_specs(result.model))
    test.source = _TEST
    return result.measure(material.calibration, labelled=test, progress=progress)
