"""The paper's method on ResNet-56 and CIFAR-10: top-1 by ordering and recovery, no training, one calibration for all.

    python tools/bench_paper.py --out docs/results.md

Prints what it measured as Markdown and, with --out, puts it in the place of the section that is there. It takes about
ten minutes on two CPU cores.
The calibration images are the first of the training file, without their labels; the test images never calibrate.
"""

from __future__ import annotations

import argparse
import logging
import platform
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from datasets import cifar10, data_folder
from sections import put

from onnx_subprune.calibration import Dataset, Statistics, open_data
from onnx_subprune.evaluate import top1
from onnx_subprune.model import input_specs, load_model
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import Result, prune

logger = logging.getLogger("bench_paper")

MODEL = "cifar10/resnet56_cifar10_ts17.onnx"
INNER = "/layer?/layer?.?/conv1/Conv"
ORDERINGS = ("zca", "conditional-variance", "saw", "magnitude")
RECOVERIES = ("channel", "none")
RANDOM_SEEDS = (0, 1000, 2000)
REMOVED = (0.3, 0.5)
WHOLE_TARGETS = ("macs=0.7", "macs=0.5", "variance=0.99", "variance=0.95", "variance=0.9")

INTRODUCTION = """\
## The paper's tables

The paper's one-pass method by ordering and recovery. The network is ResNet-56 on CIFAR-10
(`{model}`); the measure is top-1 accuracy, in percent, on {test} test images. One calibration with
{calibration} unlabelled training images serves all rows. *Recovery* `channel` is the paper's least squares, which folds
what the removed channels contributed into the layers that read them; `none` only cuts.

The dense network reaches **{dense:.2f}**.
"""
INNER_TEXT = """\
### The inner channels of the residual blocks

Every block loses the same share of the channels between its two convolutions; the residual stream stays whole. All rows
of a column have the same size: {sizes}.
Random is the mean of {seeds} seeds with the standard deviation.
"""
WHOLE_TEXT = """\
### The whole network

All {groups} groups of channels may shrink, the residual streams too, and one global cut-off on the cumulative share of
variance decides by how much. `macs` is the share of the multiply-accumulates that may remain, `variance` the cut-off
itself. The columns MACs and parameters are measured on the result, as shares of the dense network's.
"""
FOOTER = """\
### How the paper's tables were measured

    {command}

onnx-subprune {subprune}, onnxruntime {runtime}, onnx {onnx}, numpy {numpy}, scipy {scipy}, Python {python}; float32 on
the CPU provider. Calibration: the first {calibration} images of the training file, in batches of {batch}. Test: the
first {test} images of the test file. All other options have their defaults, and nothing was tuned on the test images.
"""


@dataclass(frozen=True)
class Bench:
    """What all measurements share: the model, one calibration of it, the test images."""

    model: onnx.ModelProto
    statistics: Statistics
    test: Dataset
    options: Options

    def prune(self, options: Options) -> Result:
        """Prune with the one calibration."""
        return prune(self.model, None, options, statistics=self.statistics)

    def accuracy(self, model: onnx.ModelProto) -> float:
        """Top-1 on the test images, in percent."""
        return 100.0 * top1(model, self.test, threads=self.options.threads).accuracy


def open_bench(calibration: int, test: int, threads: int | None) -> Bench:
    """Load the data and calibrate by a pruning that removes nothing."""
    model = load_model(data_folder() / MODEL)
    options = Options(target=Target("units", 1.0), threads=threads)
    name = input_specs(model)[0].name
    statistics = prune(model, {name: cifar10("train", calibration).inputs}, options).statistics
    assert statistics is not None
    images = cifar10("test", test)
    dataset = open_data({name: images.inputs, "labels": images.labels}, input_specs(model))
    return Bench(model, statistics, dataset, options)


def inner_section(bench: Bench) -> Iterator[str]:
    """The paper's setting: equal shares of the inner channels."""
    rows = []
    sizes: dict[float, str] = {}
    for select, recovery in product((*ORDERINGS, "random"), RECOVERIES):
        options = replace(bench.options, select=select, recovery=recovery, only=(INNER,))
        cells = []
        for removed in REMOVED:
            cell, sizes[removed] = _inner_cell(bench, replace(options, target=Target("units", 1.0 - removed)))
            cells.append(cell)
            logger.info("%s, %s, %.0f%% out: %s", select, recovery, 100 * removed, cell)
        rows.append((select, recovery, *cells))
    said = ", ".join(f"{size} with {removed:.0%} out" for removed, size in sizes.items())
    yield INNER_TEXT.format(sizes=said, seeds=len(RANDOM_SEEDS))
    yield _table(("ordering", "recovery", *(f"{removed:.0%} out" for removed in REMOVED)), rows)


def _inner_cell(bench: Bench, options: Options) -> tuple[str, str]:
    """Accuracy, over several seeds where the ordering is random, and the size of the network."""
    seeds = RANDOM_SEEDS if options.select == "random" else (0,)
    results = [bench.prune(replace(options, seed=seed)) for seed in seeds]
    found = [bench.accuracy(result.model) for result in results]
    size = f"{_share(results[0].pruned.macs, results[0].dense.macs)} of the MACs"
    return f"{np.mean(found):.2f}" + (f" ± {np.std(found):.1f}" if len(found) > 1 else ""), size


def whole_section(bench: Bench) -> Iterator[str]:
    """The paper's global cut-off, over all groups."""
    rows = []
    groups = 0
    for target, select in product(WHOLE_TARGETS, ("zca", "saw")):
        options = replace(bench.options, target=Target.parse(target), select=select)
        results = [bench.prune(replace(options, recovery=recovery)) for recovery in RECOVERIES]
        accuracies = [f"{bench.accuracy(result.model):.2f}" for result in results]
        logger.info("%s, %s: %s", target, select, accuracies)
        groups, dense, pruned = len(results[0].plan.groups), results[0].dense, results[0].pruned
        shares = (_share(pruned.macs, dense.macs), _share(pruned.parameters, dense.parameters))
        rows.append((target, select, *shares, *accuracies))
    yield WHOLE_TEXT.format(groups=groups)
    yield _table(("target", "ordering", "MACs", "parameters", *(f"recovery {r}" for r in RECOVERIES)), rows)


def report(arguments: argparse.Namespace) -> Iterator[str]:
    """Yield the parts of the Markdown file."""
    bench = open_bench(arguments.calibration, arguments.test, arguments.threads)
    counts = {"calibration": bench.statistics.samples, "test": bench.test.samples}
    yield INTRODUCTION.format(model=Path(MODEL).name, dense=bench.accuracy(bench.model), **counts)
    yield from inner_section(bench)
    yield from whole_section(bench)
    names = {"subprune": "onnx-subprune", "onnx": "onnx", "numpy": "numpy", "scipy": "scipy"}
    versions = {key: version(name) for key, name in names.items()}
    runtime, python = onnxruntime.__version__, platform.python_version()
    command, batch = shlex.join(["python", "tools/bench_paper.py", *sys.argv[1:]]), bench.options.batch_size
    yield FOOTER.format(command=command, runtime=runtime, python=python, batch=batch, **counts, **versions)


def _share(part: float, whole: float) -> str:
    return f"{part / whole:.3f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown page to put the section in")
    parser.add_argument("--calibration", type=int, default=512, help="number of calibration images (512)")
    parser.add_argument("--test", type=int, default=10000, help="number of test images (10000)")
    parser.add_argument("--threads", type=int, help="threads of ONNX Runtime")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    text = "\n".join(report(arguments))
    sys.stdout.write(text)
    if arguments.out:
        put(text, arguments.out)


if __name__ == "__main__":
    main()
