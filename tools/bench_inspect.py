"""How the time of `inspect` grows with the size of a network.

    python tools/bench_inspect.py [--sizes 500 1000 2000 5000] [--initializers 5000 20000]

Measures the processor time of `inspect --json` (load the model, take it apart, count its cost, write the document) on
chains of many nodes, and on graphs with many initializers. The exponent is that of the growth from one size to the
next: 1 is linear, 2 is quadratic.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx

from onnx_subprune.cli.inspect import inspect


def chain(nodes: int) -> onnx.ModelProto:
    """Return residual blocks of Conv, Relu, Conv, Add and Relu, `nodes` nodes in all."""
    rng, width = np.random.default_rng(0), 4
    made: list[onnx.NodeProto] = []
    weights: list[onnx.TensorProto] = []

    def convolution(source: str, name: str) -> str:
        kernel = rng.standard_normal((width, width, 1, 1)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(kernel, f"{name}_w"))
        made.append(onnx.helper.make_node("Conv", [source, f"{name}_w"], [name], name))
        return name

    stream, block = "x", 0
    while len(made) + 5 <= nodes - 1:
        inner = convolution(stream, f"block{block}_a")
        made.append(onnx.helper.make_node("Relu", [inner], [f"{inner}_r"], f"{inner}_r"))
        outer = convolution(f"{inner}_r", f"block{block}_b")
        made.append(onnx.helper.make_node("Add", [stream, outer], [f"{outer}_s"], f"{outer}_s"))
        made.append(onnx.helper.make_node("Relu", [f"{outer}_s"], [f"{outer}_t"], f"{outer}_t"))
        stream, block = f"{outer}_t", block + 1
    while len(made) < nodes - 1:
        made.append(onnx.helper.make_node("Relu", [stream], [f"{stream}'"], f"{stream}'"))
        stream = f"{stream}'"
    convolution(stream, "y")
    return _model(made, weights, (1, width, 8, 8))


def sums(initializers: int) -> onnx.ModelProto:
    """Return a network of Add nodes, each with an initializer of its own, between two convolutions."""
    rng, width = np.random.default_rng(0), 4
    kernel = rng.standard_normal((width, width, 1, 1)).astype(np.float32)
    weights = [onnx.numpy_helper.from_array(kernel, name) for name in ("first_w", "last_w")]
    made = [onnx.helper.make_node("Conv", ["x", "first_w"], ["h0"], "first")]
    for index in range(initializers - len(weights)):
        summand = rng.standard_normal((width, 1, 1)).astype(np.float32)
        weights.append(onnx.numpy_helper.from_array(summand, f"c{index}"))
        made.append(onnx.helper.make_node("Add", [f"h{index}", f"c{index}"], [f"h{index + 1}"], f"add{index}"))
    made.append(onnx.helper.make_node("Conv", [f"h{len(made) - 1}", "last_w"], ["y"], "last"))
    return _model(made, weights, (1, width, 8, 8))


def _model(
    nodes: Sequence[onnx.NodeProto], weights: Sequence[onnx.TensorProto], shape: tuple[int, ...]
) -> onnx.ModelProto:
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("x", "y")]
    graph = onnx.helper.make_graph(list(nodes), "bench", ends[:1], ends[1:], list(weights))
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)


def inspect_seconds(model: onnx.ModelProto) -> float:
    """Return the processor time of `inspect` on a network."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        onnx.save(model, path)
        begin = time.process_time()
        with contextlib.redirect_stdout(io.StringIO()):
            inspect(path, json=True, quiet=True)
        return time.process_time() - begin


def growth(name: str, build: Callable[[int], onnx.ModelProto], sizes: Sequence[int]) -> None:
    """Print a line for each size."""
    before: tuple[int, float] | None = None
    for size in sizes:
        seconds = inspect_seconds(build(size))
        exponent = "" if before is None else f"{math.log(seconds / before[1]) / math.log(size / before[0]):10.2f}"
        print(f"{name:<16}{size:>8}{seconds:>12.2f} s{exponent}", flush=True)
        before = size, seconds


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="*", default=[500, 1000, 2000, 5000])
    parser.add_argument("--initializers", type=int, nargs="*", default=[5000, 20000])
    options = parser.parse_args()
    print(f"{'network':<16}{'size':>8}{'processor':>14}{'exponent':>10}")
    growth("nodes", chain, options.sizes)
    growth("initializers", sums, options.initializers)


if __name__ == "__main__":
    main()
