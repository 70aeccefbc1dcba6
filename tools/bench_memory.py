"""What `onnx-subprune prune` takes of the memory for a model of more than 2 GB, stage by stage.

    python tools/bench_memory.py --gigabytes 2.4

A stack of residual MLP blocks with random weights is written with its weights beside it, tensor by tensor. A fresh
process then runs the whole command on it. Its peak resident set is `ru_maxrss` of the finished child; while it runs,
/proc tells every 10 ms what of the resident set is anonymous and what is pages of files, which the kernel may drop and
read again whenever memory is short. The stages are those of pipeline.py.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import onnx
from onnx import TensorProto, helper

STAGES = {
    "load, normalise, structure": ("prepare",),
    "calibrate": ("pruning_statistics",),
    "rank": ("rank_groups",),
    "budget": ("choose",),
    "cost": ("stamp",),
    "shrink": ("recover",),
    "check": ("check_structure",),
    "verify": ("verify",),
}
SAVE = "save"
INTERVAL = 0.01
MIB = 2**20
_GRAM_ENTRY = 8


@dataclass(frozen=True)
class Shape:
    """`blocks` residual blocks of `width` -> `hidden` -> `width`."""

    blocks: int
    width: int
    hidden: int

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return self.blocks * 2 * self.width * self.hidden * 4

    @property
    def statistics_bytes(self) -> int:
        """Bytes of all Gram matrices."""
        return self.blocks * (self.hidden + 1) ** 2 * _GRAM_ENTRY


def write_model(path: Path, shape: Shape) -> None:
    """Write the model with its weights in `<name>.data`; no more than one weight is ever in memory."""
    rng = np.random.default_rng(0)
    nodes, weights, source = [], [], "x"
    with path.with_name(path.name + ".data").open("wb") as data:
        for index in range(shape.blocks):
            for name, dims in (("up", (shape.width, shape.hidden)), ("down", (shape.hidden, shape.width))):
                values = rng.standard_normal(dims, np.float32) * np.float32(dims[0] ** -0.5)
                weights.append(_placed(f"{name}{index}", values, data.tell(), path.name + ".data"))
                data.write(values.tobytes())
            nodes += [
                helper.make_node("MatMul", [source, f"up{index}"], [f"h{index}"], f"up{index}"),
                helper.make_node("Relu", [f"h{index}"], [f"r{index}"], f"relu{index}"),
                helper.make_node("MatMul", [f"r{index}", f"down{index}"], [f"d{index}"], f"down{index}"),
                helper.make_node("Add", [source, f"d{index}"], [f"x{index + 1}"], f"add{index}"),
            ]
            source = f"x{index + 1}"
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", shape.width]) for name in ("x", source)]
    graph = helper.make_graph(nodes, "stack", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)]), path)


def _placed(name: str, values: np.ndarray, offset: int, location: str) -> TensorProto:
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=values.shape)
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", offset), ("length", values.nbytes)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def child(events: Path, words: Sequence[str]) -> None:
    """Run the command line with every stage writing down when it begins and ends."""
    # Here, because the process that watches is to stay small: ru_maxrss of a child remembers its size.
    from onnx_subprune import pipeline, result  # noqa: PLC0415
    from onnx_subprune.cli import main  # noqa: PLC0415

    with events.open("a", encoding="ascii", buffering=1) as log, ExitStack() as patches:
        for stage, names in STAGES.items():
            for name in names:
                wrapped = _noted(stage, getattr(pipeline, name), log.write)
                patches.enter_context(patch.object(pipeline, name, wrapped))
        patches.enter_context(patch.object(result, "save_model", _noted(SAVE, result.save_model, log.write)))
        sys.argv = ["onnx-subprune", *words]
        main()


def _noted(stage: str, function: Callable[..., Any], write: Callable[[str], Any]) -> Callable[..., Any]:
    @contextmanager
    def noting() -> Iterator[None]:
        start = time.monotonic()
        yield
        write(json.dumps([stage, start, time.monotonic()]) + "\n")

    @wraps(function)
    def noted(*args: Any, **keywords: Any) -> Any:
        with noting():
            return function(*args, **keywords)

    return noted


@dataclass(frozen=True)
class Sample:
    """Resident bytes of a process at one moment, in MiB."""

    moment: float
    anonymous: float
    file: float


def watch(process: subprocess.Popen[bytes]) -> list[Sample]:
    """Sample the process until it ends."""
    samples = []
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        fields = {line.split(":")[0]: line.split()[1] for line in status.splitlines() if line.startswith("Rss")}
        if fields:
            samples.append(Sample(time.monotonic(), int(fields["RssAnon"]) / 1024, int(fields["RssFile"]) / 1024))
        time.sleep(INTERVAL)
    return samples


def measure(folder: Path, words: Sequence[str]) -> tuple[float, list[Sample], list[tuple[str, float, float]]]:
    """Run the command in a fresh process; return its peak in MiB, the samples and the stages."""
    events = folder / "events"
    events.touch()
    command = [sys.executable, __file__, "--child", str(events), *words]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        samples = watch(process)
    if process.returncode:
        raise SystemExit(f"the command ended with exit code {process.returncode}")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return peak, samples, [tuple(json.loads(line)) for line in events.read_text(encoding="ascii").splitlines()]


def table(
    shape: Shape, peak: float, samples: Sequence[Sample], stages: Sequence[tuple[str, float, float]]
) -> Iterator[str]:
    """Yield the lines of a Markdown table: peaks of every stage and of the whole."""
    yield "| stage | seconds | peak MiB | anonymous MiB | files MiB |"
    yield "| --- | --- | --- | --- | --- |"
    for name in dict.fromkeys(stage for stage, _, _ in stages):
        spans = [(start, end) for stage, start, end in stages if stage == name]
        inside = [one for one in samples if any(start <= one.moment <= end for start, end in spans)]
        yield _row(name, sum(end - start for start, end in spans), inside)
    yield _row("whole command", samples[-1].moment - samples[0].moment, samples, peak)
    yield ""
    yield f"Weights {shape.weight_bytes / MIB:.0f} MiB, statistics {shape.statistics_bytes / MIB:.0f} MiB."


def _row(name: str, seconds: float, samples: Sequence[Sample], peak: float | None = None) -> str:
    highest = max((one.anonymous + one.file for one in samples), default=0.0) if peak is None else peak
    anonymous = max((one.anonymous for one in samples), default=0.0)
    file = max((one.file for one in samples), default=0.0)
    return f"| {name} | {seconds:.1f} | {highest:.0f} | {anonymous:.0f} | {file:.0f} |"


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.4, help="weights of the model, 10^9 bytes (2.4)")
    parser.add_argument("--width", type=int, default=8192, help="width of the residual stream (8192)")
    parser.add_argument("--hidden", type=int, default=1024, help="width inside a block (1024)")
    parser.add_argument("--samples", type=int, default=64, help="calibration samples (64)")
    parser.add_argument("--target", default="macs=0.5", help="target of the command (macs=0.5)")
    parser.add_argument("--threads", default="2", help="threads of ONNX Runtime (2)")
    parser.add_argument("--folder", type=Path, help="where to work; needs four times the model (the temporary folder)")
    parser.add_argument("rest", nargs="*", help="further options of the command, after --")
    arguments = parser.parse_args()
    blocks = max(1, round(arguments.gigabytes * 1e9 / (8 * arguments.width * arguments.hidden)))
    shape = Shape(blocks, arguments.width, arguments.hidden)
    with tempfile.TemporaryDirectory(prefix="bench-memory-", dir=arguments.folder) as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < 4 * shape.weight_bytes:
            raise SystemExit(f"{folder} has too little space: four times {shape.weight_bytes / 1e9:.1f} GB are needed")
        write_model(folder / "m.onnx", shape)
        inputs = np.random.default_rng(1).standard_normal((arguments.samples, shape.width), np.float32)
        np.savez(folder / "calib.npz", x=inputs)
        os.environ["TMPDIR"] = name
        words = ["prune", str(folder / "m.onnx"), str(folder / "out.onnx"), "--calib", str(folder / "calib.npz")]
        words += ["--target", arguments.target, "--threads", arguments.threads, "--quiet", *arguments.rest]
        print("\n".join(table(shape, *measure(folder, words))))


if __name__ == "__main__":
    main()
