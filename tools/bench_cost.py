"""What pruning costs and what it buys, on ResNet-56: wall time beside plain inference, peak memory, latency.

    python tools/bench_cost.py --out docs/cost.md

Time: the whole of `prune` (load, calibrate on 2,048 images, zca, macs=0.5, verify, save) over plain inference with ONNX
Runtime on the same images, with the same session options, batch size and threads. Both take turns in one process; the
figure is the median of the paired ratios, so that what slows the machine slows both. Sessions of plain inference are
opened before the clock starts.

Memory: the peak resident set of a fresh process that prunes, at 512 and at 4,096 images. They stream from a folder
of small .npy files, so that what they take is one batch. The peak is VmHWM of /proc/self/status, because ru_maxrss also
remembers the parent's size from before exec.

Latency: dense and pruned side by side, on one image and on 32.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from time import perf_counter
from typing import Any
from unittest.mock import patch

import numpy as np
import onnxruntime
from datasets import cifar10, data_folder

from onnx_subprune import pipeline
from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.evaluate import bench
from onnx_subprune.model import input_specs, load_model, open_session, run
from onnx_subprune.options import Options, Target
from onnx_subprune.result import Result

logger = logging.getLogger("bench_cost")

MODEL = "cifar10/resnet56_cifar10_ts17.onnx"
STAGES = {
    "load, normalise, structure": ("prepare",),
    "calibrate": ("pruning_statistics",),
    "rank": ("rank_groups",),
    "budget": ("measure_losses", "choose"),
    "recover, shrink": ("recover",),
    "verify": ("check_structure", "verify"),
}
METHOD: dict[str, Any] = {"select": "zca", "recovery": "channel", "allocation": "cutoff", "one_pass": True}
SAVE, REST = "save", "costs, stamp and the rest"
GOAL = 3.0
LARGE_MODELS = "## Large models\n"
MEMORY_SAMPLES = (512, 4096)
LATENCY_BATCHES = (1, 32)
FILE_SAMPLES = 128

TIME_TEXT = """\
# What pruning costs and what it buys

ResNet-56 on CIFAR-10 (`{model}`), ordering `zca`, recovery `channel`, target `macs=0.5`.
Measured on {machine}, CPU provider.
Load average before it started: {load:.1f}.

## Time

Pruning with {samples} calibration images takes **{ratio:.2f}** times as long as plain inference on the same images
(the median of {pairs} paired runs between {low:.2f} and {high:.2f}; the goal is at most {goal:g}). Plain inference
takes {plain:.2f} s. Both run in turns with the same session options, batches of {batch} and the same threads.
Other load on the machine changes this ratio. The efforts also fit every layer; their cost, and where their time
goes, stands with the [results](results.md#what-it-costs).
"""
MEMORY_TEXT = """\
## Memory

Peak resident set of a fresh process that loads, prunes and saves, the images streamed from files of {file} images. The
base is the same process with all modules imported and no model loaded.
"""
LATENCY_TEXT = """\
## Latency

Dense and pruned take turns; the ratio is the median of paired ratios over {runs} rounds. A layer of odd width can
be slower than a wider one, so the last row of each batch keeps widths that are multiples of eight (`round_to=8`), at
the same target.
"""


@dataclass
class Stopwatch:
    """Seconds by stage; a stage that runs inside another counts for the outer one."""

    seconds: dict[str, float] = field(default_factory=dict)
    _open: bool = False

    def wrap(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return `function`, timed."""

        @wraps(function)
        def timed(*args: Any, **keywords: Any) -> Any:
            with self.measure(stage):
                return function(*args, **keywords)

        return timed

    @contextmanager
    def measure(self, stage: str) -> Iterator[None]:
        """Add the time of the body to a stage, unless another is open."""
        if self._open:
            yield
            return
        self._open, start = True, perf_counter()
        try:
            yield
        finally:
            self._open = False
            self.seconds[stage] = self.seconds.get(stage, 0.0) + perf_counter() - start


def options_of(arguments: argparse.Namespace) -> Options:
    return Options(Target("macs", 0.5), threads=arguments.threads, batch_size=arguments.batch, **METHOD)


def timed_prune(model: Path, data: Any, options: Options, out: Path) -> tuple[Result, dict[str, float]]:
    """Prune and save; return the seconds of every stage, which add up to the whole."""
    watch = Stopwatch()
    with ExitStack() as patches:
        for stage, names in STAGES.items():
            for name in names:
                patches.enter_context(patch.object(pipeline, name, watch.wrap(stage, getattr(pipeline, name))))
        start = perf_counter()
        result = pipeline.prune(model, data, options)
        with watch.measure(SAVE):
            result.save(out)
        whole = perf_counter() - start
    return result, {**watch.seconds, REST: whole - sum(watch.seconds.values())}


def timed_inference(session: onnxruntime.InferenceSession, data: Dataset, batch: int) -> float:
    start = perf_counter()
    for feeds in data.batches(batch):
        run(session, feeds)
    return perf_counter() - start


def time_section(arguments: argparse.Namespace, folder: Path) -> tuple[Result, Iterator[str]]:
    """Time pruning and inference in turns."""
    path, options = data_folder() / MODEL, options_of(arguments)
    dense = load_model(path)
    arrays = {input_specs(dense)[0].name: cifar10("train", arguments.samples).inputs}
    data = open_data(arrays, input_specs(dense))
    session = open_session(dense, threads=options.threads)
    timed_inference(session, data, options.batch_size)
    result, _ = timed_prune(path, arrays, options, folder / "pruned.onnx")
    plain: list[float] = []
    stages: list[dict[str, float]] = []
    for number in range(arguments.pairs):
        turns: list[Callable[[], None]] = [
            lambda: plain.append(timed_inference(session, data, options.batch_size)),
            lambda: stages.append(timed_prune(path, arrays, options, folder / "pruned.onnx")[1]),
        ]
        for turn in reversed(turns) if number % 2 else turns:
            turn()
        logger.info("pair %d: inference %.2f s, pruning %.2f s", number + 1, plain[-1], sum(stages[-1].values()))
    return result, _time_text(arguments, plain, stages)


def _time_text(arguments: argparse.Namespace, plain: list[float], stages: list[dict[str, float]]) -> Iterator[str]:
    ratios = [sum(parts.values()) / seconds for parts, seconds in zip(stages, plain, strict=True)]
    yield TIME_TEXT.format(
        model=Path(MODEL).name,
        machine=f"{os.cpu_count()} CPU cores ({platform.machine()}), onnxruntime {onnxruntime.__version__}",
        load=arguments.load,
        samples=arguments.samples,
        batch=arguments.batch,
        ratio=float(np.median(ratios)),
        low=min(ratios),
        high=max(ratios),
        pairs=len(ratios),
        goal=GOAL,
        plain=float(np.median(plain)),
    )
    rows = []
    for stage in stages[0]:
        seconds = float(np.median([parts[stage] for parts in stages]))
        share = float(np.median([parts[stage] / whole for parts, whole in zip(stages, plain, strict=True)]))
        rows.append((stage, f"{seconds:.2f}", f"{share:.2f}"))
    yield _table(("stage", "seconds", "of plain inference"), rows)


def memory_section(arguments: argparse.Namespace, folder: Path) -> Iterator[str]:
    """Prune in fresh processes and read their peaks."""
    sizes = (0, *MEMORY_SAMPLES)
    peaks = {samples: _peak_of_child(arguments, _spread(folder, samples), samples) for samples in sizes}
    yield MEMORY_TEXT.format(file=FILE_SAMPLES)
    rows = [(str(samples) if samples else "base", f"{peak:.0f}") for samples, peak in peaks.items()]
    yield _table(("calibration images", "peak MiB"), rows)


def _spread(folder: Path, samples: int) -> Path:
    """Write calibration images as a folder of small files."""
    target = folder / f"images-{samples}"
    target.mkdir()
    inputs = cifar10("train", samples).inputs
    for start in range(0, samples, FILE_SAMPLES):
        np.save(target / f"{start:06d}.npy", inputs[start : start + FILE_SAMPLES])
    return target


def _peak_of_child(arguments: argparse.Namespace, data: Path, samples: int) -> float:
    command = [sys.executable, __file__, "--batch", str(arguments.batch), "--child", str(data if samples else "")]
    if arguments.threads is not None:
        command += ["--threads", str(arguments.threads)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    logger.info("peak with %d images: %s MiB", samples, done.stdout.strip())
    return float(done.stdout)


def child(arguments: argparse.Namespace) -> None:
    """Prune with the images of a folder (none: do nothing) and print the peak of this process in MiB."""
    if arguments.child:
        with tempfile.TemporaryDirectory() as folder:
            pipeline.prune(data_folder() / MODEL, arguments.child, options_of(arguments)).save(Path(folder) / "o.onnx")
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    print(f"{peak / 1024:.1f}")


def latency_section(arguments: argparse.Namespace, pruned: Result) -> Iterator[str]:
    """Time the dense model and its pruned forms on the same inputs."""
    dense = pruned.analysis.model
    wide = pipeline.prune(dense, None, replace(options_of(arguments), round_to=8), statistics=pruned.statistics)
    models = {"dense": dense, "macs=0.5": pruned.model, "macs=0.5, widths in eights": wide.model}
    images = cifar10("test", max(LATENCY_BATCHES)).inputs
    rows = []
    for batch in LATENCY_BATCHES:
        feeds = {input_specs(dense)[0].name: images[:batch]}
        timings = bench(list(models.values()), feeds, runs=arguments.runs, threads=arguments.threads)
        for name, timing in zip(models, timings, strict=True):
            cells = (f"{timing.median_ms:.2f}", f"{timing.p90_ms:.2f}", f"{timing.throughput:.0f}")
            rows.append((str(batch), name, *cells, f"{timing.ratio_to_first:.3f}"))
    yield LATENCY_TEXT.format(runs=arguments.runs)
    yield _table(("batch", "model", "median ms", "p90 ms", "images/s", "ratio"), rows)


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the parts of the Markdown file."""
    with tempfile.TemporaryDirectory() as name:
        result, texts = time_section(arguments, Path(name))
        yield from texts
        yield from memory_section(arguments, Path(name))
        yield from latency_section(arguments, result)
    yield f"Command: `{shlex.join(['python', 'tools/bench_cost.py', *sys.argv[1:]])}`.\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--samples", type=int, default=2048, help="calibration images for the time (2048)")
    parser.add_argument("--pairs", type=int, default=3, help="paired runs (3)")
    parser.add_argument("--runs", type=int, default=100, help="rounds of the latency measurement (100)")
    parser.add_argument("--batch", type=int, default=32, help="batch size of calibration and of plain inference (32)")
    parser.add_argument("--threads", type=int, help="threads of ONNX Runtime")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.load = os.getloadavg()[0]
    if arguments.child is not None:
        child(arguments)
        return
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    text = "\n".join(report(arguments))
    sys.stdout.write(text)
    if arguments.out:
        # The figures of tools/bench_memory.py come last in the same file, and stay.
        old = arguments.out.read_text(encoding="utf-8") if arguments.out.exists() else ""
        kept = old[old.index(LARGE_MODELS) :] if LARGE_MODELS in old else ""
        arguments.out.write_text(f"{text}\n{kept}" if kept else text, encoding="utf-8")


if __name__ == "__main__":
    main()
