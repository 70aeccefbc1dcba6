"""A small network and its data as files, and the command line in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_subprune.cli import run

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
small (float[N, 3, 6, 6] x) => (float[N, 4] logits) {
    a = Conv<pads = [1, 1, 1, 1]>(x, w1, b1)
    b = Relu(a)
    c = Conv<pads = [1, 1, 1, 1]>(b, w2, b2)
    d = Relu(c)
    e = GlobalAveragePool(d)
    f = Flatten(e)
    logits = Gemm<transB = 1>(f, w3, b3)
}
"""
SHAPES = {"w1": (8, 3, 3, 3), "b1": (8,), "w2": (12, 8, 3, 3), "b2": (12,), "w3": (4, 12), "b3": (4,)}


def network(scale: int = 1) -> onnx.ModelProto:
    """Return Conv(8) - Relu - Conv(12) - Relu - mean - Gemm(4), or the same `scale` times as wide."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(NETWORK)
    for node, name in zip(model.graph.node, ("first", "relu1", "second", "relu2", "mean", "flat", "head"), strict=True):
        node.name = name
    for name, shape in SHAPES.items():
        wide = tuple(n * scale if n in (8, 12) else n for n in shape)
        values = rng.standard_normal(wide).astype(np.float32) / np.sqrt(np.prod(wide[1:]) or 1).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.checker.check_model(model)
    return model


TIMING = ("--timing", "--no-timing", "--latency", "--no-latency")


@dataclass(frozen=True)
class Outcome:
    """Exit code and what was printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The last line on stderr, which must be the only one that reports an error."""
        lines = [line for line in self.err.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 1, self.err
        assert "Traceback" not in self.err
        assert "internal error" not in self.err
        return lines[0]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Callable[..., Outcome]:
    """`cli("prune", model, ...)` runs the command line in this process; times are taken only where a test asks."""

    def cli(*arguments: object, brief: bool = False) -> Outcome:
        capsys.readouterr()
        words = [str(argument) for argument in arguments]
        if words and words[0] in {"prune", "apply"} and not brief and not {*TIMING, "--report"} & {*words}:
            words += TIMING[1:2]
        code = run(words)
        printed = capsys.readouterr()
        return Outcome(code, printed.out, printed.err)

    return cli


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "dense.onnx"
    onnx.save(network(), path)
    return path


def samples(count: int = 256) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, 3, 6, 6)).astype(np.float32)


@pytest.fixture
def calib(tmp_path: Path) -> Path:
    path = tmp_path / "calib.npz"
    np.savez(path, x=samples())
    return path


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    path = tmp_path / "test.npz"
    np.savez(path, x=samples(), labels=np.arange(256) % 4)
    return path
