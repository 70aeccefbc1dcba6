"""How cost grows with nodes, samples and widths: processor seconds and peak memory of pruning, a process for each case.

    python tools/bench_growth.py --out docs/cost.md

Chains of Conv and Relu grow in nodes (`--effort balanced`, `macs=0.7`, 500 samples); the network of the demo in samples
(`--effort balanced`, `macs=0.5`, streamed from files); a pair of Gemm layers in its inner width (`--effort fast`,
`macs=0.5`, 512 samples of 64 features). Everything runs on one thread. The peak is VmHWM of /proc/self/status.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from sections import put

from onnx_subprune import Options, Target, prune
from onnx_subprune.demo import load_demo

KINDS: Mapping[str, Sequence[int]] = {
    "nodes": (50, 100, 200, 500, 1000, 2000),
    "samples": (500, 2000, 5000, 20000),
    "width": (256, 1024, 4096, 8192, 11008),
}
TEXT = """\
## Growth

Processor seconds and peak memory of one run on one thread, each in a process of its own: chains of Conv and Relu by
nodes, the network of the demo by samples (both `--effort balanced`), a pair of Gemm layers by width (`--effort fast`).
The Gram matrix of a width is what statistics keep of it.
"""
_CHANNELS, _FILE_SAMPLES, _FEATURES, _ROWS = 16, 500, 64, 512


def chain(nodes: int) -> onnx.ModelProto:
    """Return a chain of so many nodes, Conv and Relu in turn, and a head."""
    rng = np.random.default_rng(0)
    lines, weights = [], {}
    for layer in range(nodes // 2):
        lines += [f"c{layer} = Conv<pads=[1,1,1,1]>({f'r{layer - 1}' if layer else 'x'}, w{layer})"]
        lines += [f"r{layer} = Relu(c{layer})"]
        inputs = _CHANNELS if layer else 3
        weights[f"w{layer}"] = rng.standard_normal((_CHANNELS, inputs, 3, 3)) * np.sqrt(2 / (9 * inputs))
    lines += [f"p = GlobalAveragePool(r{nodes // 2 - 1})", "y = Flatten(p)"]
    return _model(f"float[N,3,8,8] x) => (float[N,{_CHANNELS}] y", lines, weights)


def pair(width: int) -> onnx.ModelProto:
    """Return two Gemm layers with so many units between them."""
    rng = np.random.default_rng(0)
    lines = ["h = Gemm(x, A)", "r = Relu(h)", "y = Gemm(r, B)"]
    shapes = {"A": (_FEATURES, width), "B": (width, _FEATURES)}
    weights = {name: rng.standard_normal(shape) / np.sqrt(shape[0]) for name, shape in shapes.items()}
    return _model(f"float[N,{_FEATURES}] x) => (float[N,{_FEATURES}] y", lines, weights)


def _model(signature: str, lines: Sequence[str], weights: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    text = f'<ir_version: 8, opset_import: ["": 17]>\nbench ({signature}) {{\n' + "\n".join(lines) + "\n}"
    model = onnx.parser.parse_model(text)
    for name, values in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32), name))
    return model


def measured(kind: str, size: int, folder: Path) -> tuple[float, float]:
    """Prune one case in this process; return processor seconds and the peak in MiB."""
    rng = np.random.default_rng(1)
    common = {"threads": 1, "cache": False}
    if kind == "samples":
        _write_samples(size, folder)
        job = (load_demo().model_path, folder, Options(Target("macs", 0.5), **common))
    elif kind == "nodes":
        data = {"x": rng.standard_normal((500, 3, 8, 8)).astype(np.float32)}
        job = (chain(size), data, Options(Target("macs", 0.7), **common))
    else:
        data = {"x": rng.standard_normal((_ROWS, _FEATURES)).astype(np.float32)}
        job = (pair(size), data, Options.of_effort("fast", target=Target("macs", 0.5), **common))
    start = time.process_time()
    prune(*job)
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (peak,) = (int(line.split()[1]) for line in status if line.startswith("VmHWM:"))
    return seconds, peak / 1024


def _write_samples(samples: int, folder: Path) -> None:
    """Write noisy copies of the demo's images as files of some hundreds."""
    (images,) = load_demo().calibration.values()
    rng = np.random.default_rng(2)
    for start in range(0, samples, _FILE_SAMPLES):
        copies = images[rng.integers(0, len(images), min(_FILE_SAMPLES, samples - start))]
        np.save(folder / f"{start:06d}.npy", (copies + rng.normal(0, 0.02, copies.shape)).astype(images.dtype))


def rows(sizes: Mapping[str, Sequence[int]]) -> Iterator[tuple[str, str, str, str, str]]:
    """Yield the cells of every case, run in a process of its own on one thread."""
    for kind, values in sizes.items():
        for size in values:
            command = [sys.executable, __file__, "--child", kind, str(size)]
            environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
            done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
            seconds, peak = map(float, done.stdout.split())
            gram = f"{peak / ((size + 1) ** 2 * 8 / 2**20):.1f}" if kind == "width" and size >= 4096 else ""
            yield kind, f"{size:,}", f"{seconds:.1f}", f"{peak:,.0f}", gram


def section(table: Sequence[Sequence[str]]) -> str:
    """Return the section of the documentation."""
    head = ("grows", "size", "processor s", "peak MiB", "of the Gram matrix")
    lines = ["| " + " | ".join(cells) + " |" for cells in (head, ["---"] * len(head), *table)]
    return TEXT + "\n" + "\n".join(lines) + "\n\nCommand: `python tools/bench_growth.py --out docs/cost.md`.\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file whose section is replaced")
    for kind, values in KINDS.items():
        parser.add_argument(f"--{kind}", type=int, nargs="*", default=values, help=f"sizes ({values})")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        with tempfile.TemporaryDirectory() as folder:
            print(*measured(arguments.child[0], int(arguments.child[1]), Path(folder)))
        return
    text = section(list(rows({kind: getattr(arguments, kind) for kind in KINDS})))
    sys.stdout.write(text)
    if arguments.out:
        put(text, arguments.out)


if __name__ == "__main__":
    main()
