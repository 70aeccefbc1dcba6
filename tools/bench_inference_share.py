"""How often a run infers structure and shapes and imports graphs, and the share of its processor time that this takes.

    python tools/bench_inference_share.py
    python tools/bench_inference_share.py --effort best --images 512

It prunes the CIFAR-10 ResNet-56 to half of its MACs. Every call of the functions below is counted, and its processor
time taken on the thread that makes it. The network never changes while it is pruned, so that a run should make few
calls, however many networks it tries.
"""

from __future__ import annotations

import argparse
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import wraps
from time import process_time, thread_time
from typing import Any

import onnx
import onnx_graphsurgeon as gs
from datasets import cifar10, data_folder

from onnx_subprune import model, pipeline, structure
from onnx_subprune.options import Options, Target

MODEL = "cifar10/resnet56_cifar10_ts17.onnx"


@dataclass
class Calls:
    """Calls of one function: how many, and their processor time in seconds on the threads that made them."""

    name: str
    number: int = 0
    seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def counting(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Return the function, with every call counted."""

        @wraps(function)
        def counted(*args: Any, **kwargs: Any) -> Any:
            start = thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                with self._lock:
                    self.number += 1
                    self.seconds += thread_time() - start

        return counted


@contextmanager
def counted(name: str, function: Callable[..., Any], owner: Any = None) -> Iterator[Calls]:
    """Count calls of a function through every module that has imported it, or through its `owner` (a class)."""
    calls = Calls(name)
    replacement = calls.counting(function)
    owners = [owner] if owner is not None else [module for module in list(sys.modules.values()) if module is not None]
    places = [
        (place, attribute)
        for place in owners
        for attribute, value in list(vars(place).items())
        if value is function and attribute != "__wrapped__"
    ]
    for place, attribute in places:
        setattr(place, attribute, replacement)
    try:
        yield calls
    finally:
        for place, attribute in places:
            setattr(place, attribute, function)


def measured(options: Options, images: int) -> tuple[float, list[Calls]]:
    """Return the processor time of a run in seconds, and the calls that were made in it."""
    path = data_folder() / MODEL
    data = {model.input_specs(model.load_model(path))[0].name: cifar10("train", images).inputs}
    with (
        counted("structure inferences", structure.infer) as inferences,
        counted("graph imports", gs.import_onnx) as imports,
        counted("shape inferences", onnx.shape_inference.infer_shapes) as shapes,
        counted("measurements of costs", model.measure_cost) as costs,
        counted("sessions opened", model.open_session) as sessions,
    ):
        start = process_time()
        pipeline.prune(path, data, options)
        return process_time() - start, [inferences, imports, shapes, costs, sessions]


def table(total: float, counts: Sequence[Calls]) -> str:
    """Return the calls, their seconds and their share of the run's processor time, a line for each function."""
    lines = [f"processor time of the run: {total:.1f} s"]
    lines += [f"{c.name:<24}{c.number:>6} calls{c.seconds:>9.2f} s{c.seconds / total:>8.1%}" for c in counts]
    return "\n".join(lines)


def main() -> None:
    """Prune and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256, help="calibration images")
    parser.add_argument("--effort", default="balanced", help="effort of the run")
    arguments = parser.parse_args()
    options = Options.of_effort(arguments.effort, target=Target("macs", 0.5))
    print(table(*measured(options, arguments.images)))


if __name__ == "__main__":
    main()
