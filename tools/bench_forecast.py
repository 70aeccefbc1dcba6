"""The forecast of a run beside what it took, by phase: a table on stdout.

    python tools/bench_forecast.py MODEL DATA --target macs=0.5 --effort balanced --clock processor
    python tools/bench_forecast.py resnet56 512 --time-limit 30

DATA is anything that `prune --calib` takes; `resnet32` and `resnet56` take a number of CIFAR-10 images. By default
phases are timed by the clock on the wall, as users see it; `--clock processor` counts the processor's seconds, on one
thread, which other programs disturb less. `--terms` prints the five terms of a sweep of fits as they were forecast: the
time of the fits is their sum, each times its factor in `planning/forecast.py`, and the factors were found by that.
"""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any
from unittest.mock import patch

from datasets import cifar10, data_folder

from onnx_subprune import pipeline, progress
from onnx_subprune.formatting import count, duration
from onnx_subprune.model import input_specs, load_model
from onnx_subprune.options import Options, Target
from onnx_subprune.planning import forecast

CLOCKS = {"wall": time.perf_counter, "processor": time.process_time}
NETWORKS = {name: f"cifar10/{name}_cifar10_ts17.onnx" for name in ("resnet32", "resnet56")}
_DAY = 86400.0
TERMS = ("runs", "products", "copies", "openings", "solutions")


def opened(name: str, data: str) -> tuple[str, Any]:
    """Return the path of a model and its calibration data."""
    if name not in NETWORKS:
        return name, data
    path = str(data_folder() / NETWORKS[name])
    return path, {input_specs(load_model(path))[0].name: cifar10("train", int(data)).inputs}


def table(course: dict[str, Any]) -> list[str]:
    """Return the lines of a Markdown table of what was expected and what was taken."""
    lines = ["| phase | expected | taken | ratio | memory, expected | taken |", "|---|---:|---:|---:|---:|---:|"]
    for name, phase in {**course["phases"], "**all**": course}.items():
        expected, taken = phase["expected_seconds"] or 0.0, phase["taken_seconds"]
        ratio = f"{taken / expected:.2f}" if expected else "-"
        memory = (count(phase[f"{side}_bytes"] or 0, "B") for side in ("expected", "taken"))
        lines.append("| " + " | ".join([name, duration(expected), duration(taken), ratio, *memory]) + " |")
    return lines


def run(arguments: argparse.Namespace) -> list[str]:
    """Prune once and return the table."""
    path, data = opened(arguments.model, arguments.data)
    # With a limit, short runs are forecast too.
    chosen = {"threads": arguments.threads, "time_limit": arguments.time_limit or _DAY, "cache": False}
    options = Options.of_effort(arguments.effort, target=Target.parse(arguments.target), **chosen)
    terms: list[tuple[float, ...]] = []
    original = forecast._Model.terms

    def noted(model: Any) -> Any:
        terms.append(original(model))
        return terms[-1]

    with patch.object(progress, "_clock", CLOCKS[arguments.clock]), patch.object(forecast._Model, "terms", noted):
        result = pipeline.prune(path, data, options)
    course = result.course.document()
    if course is None:
        return ["no forecast was made: the rehearsal failed (see the log)"]
    lines = [*table(course), *(f"left out: {line}" for line in course["left_out"])]
    if arguments.terms and terms:
        lines += [f"{name}: {term:.3f} s" for name, term in zip(TERMS, terms[-1], strict=True)]
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help=f"an ONNX file, or one of {', '.join(NETWORKS)}")
    parser.add_argument("data", help="calibration data, or a number of images")
    parser.add_argument("--target", default="macs=0.5", help="(macs=0.5)")
    parser.add_argument("--effort", default="balanced", help="(balanced)")
    parser.add_argument("--threads", type=int, default=1, help="threads of ONNX Runtime (1)")
    parser.add_argument("--time-limit", type=float, help="seconds")
    parser.add_argument("--clock", choices=sorted(CLOCKS), default="wall", help="what phases are timed by (wall)")
    parser.add_argument("--terms", action="store_true", help="print the terms of the fits")
    sys.stdout.write("\n".join(run(parser.parse_args())) + "\n")


if __name__ == "__main__":
    main()
