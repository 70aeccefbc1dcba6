"""`--custom-ops` in every command that opens sessions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.model import custom_operators

Cli = Callable[..., Any]


@pytest.mark.parametrize("command", ["inspect", "prune", "apply", "factorise", "eval", "bench"])
def test_every_command_registers_the_library_with_its_sessions(
    cli: Cli, command: str, model: Path, calib: Path, tmp_path: Path, custom_library: Path,
    registrations: Callable[[], int], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    words = {
        "inspect": (model,),
        "prune": (model, tmp_path / "p.onnx", "--target", "macs=0.7", "--calib", calib, "--effort", "fast"),
        "apply": (tmp_path / "plan.json", model, tmp_path / "a.onnx", "--calib", calib),
        "factorise": (model, tmp_path / "f.onnx", "--target", "macs=0.7", "--calib", calib),
        "eval": (model, model, "--metric", "fidelity", "--data", calib),
        "bench": (model, "--runs", "1"),
    }
    if command == "apply":
        plan = ("--plan", tmp_path / "plan.json", "--target", "macs=0.7", "--effort", "fast")
        assert cli("prune", model, tmp_path / "p.onnx", "--calib", calib, *plan).code == 0
        assert registrations() == 0
    outcome = cli(command, *words[command], "--custom-ops", custom_library)
    assert outcome.code == 0, outcome.err
    assert registrations() >= (1 if command == "inspect" else 2), "inspect needs no session for a plain network"


def test_memory_is_measured_in_a_process_that_registers_it_too(
    cli: Cli, model: Path, custom_library: Path, tmp_path: Path
) -> None:
    moved = tmp_path / "ops.so"
    moved.write_bytes(custom_library.read_bytes())
    outcome = cli("bench", model, "--runs", "1", "--memory", "--custom-ops", moved)
    assert outcome.code == 0, outcome.err
    moved.write_text("no library any more")
    custom_operators._registered[:] = [str(moved)]
    from onnx_subprune.errors import OptionError  # noqa: PLC0415
    from onnx_subprune.evaluate import peak_memory  # noqa: PLC0415

    with pytest.raises(OptionError, match="to be a shared library of custom operators"):
        peak_memory(onnx.load(model), {"x": np.zeros((1, 3, 6, 6), np.float32)})


@pytest.mark.parametrize("command", ["inspect", "eval", "bench", "prune"])
def test_a_library_that_is_not_there_is_one_line(cli: Cli, command: str, model: Path, calib: Path, tmp_path: Path,
                                                custom_library: Path) -> None:  # fmt: skip
    more = {
        "eval": ("--data", calib),
        "prune": (tmp_path / "out.onnx", "--target", "macs=0.7", "--calib", calib),
    }
    outcome = cli(command, model, *more.get(command, ()), "--custom-ops", tmp_path / "none.so")
    assert outcome.code == 1
    assert "none.so': no such file; check the path" in outcome.error
    assert not (tmp_path / "out.onnx").exists()


def test_the_library_is_no_output(cli: Cli, model: Path, calib: Path, custom_library: Path) -> None:
    before = custom_library.read_bytes()
    words = ("--target", "macs=0.7", "--calib", calib, "--custom-ops", custom_library)
    outcome = cli("prune", model, custom_library, *words)
    assert outcome.code == 1
    assert "expected OUT to be another file than --custom-ops" in outcome.error
    assert custom_library.read_bytes() == before


def test_the_help_says_that_the_code_of_the_library_runs(cli: Cli) -> None:
    words = " ".join(cli("prune", "--help").out.replace("│", " ").split())
    assert "runs its code" in words


EXTENDED = """<ir_version: 8, opset_import: ["" : 17, "ai.onnx.contrib" : 1]>
g (string[N,T] x) => (float[N,4] y) {
    i = ai.onnx.contrib.StringToHashBucketFast(x, buckets)
    e = Gather(table, i)
    h = MatMul(e, w1)
    r = Relu(h)
    p = ReduceMean <axes = [1], keepdims = 0> (r)
    y = MatMul(p, w2)
}"""


def test_a_network_of_the_extensions_is_pruned(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are looked up by an operator of the package."""
    pytest.importorskip("onnxruntime_extensions", reason="ONNXRUNTIME-EXTENSIONS NOT INSTALLED: its operators not run")
    monkeypatch.setattr(custom_operators, "_registered", [])
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(EXTENDED)
    weights = {name: rng.standard_normal(shape).astype(np.float32)
               for name, shape in {"table": (50, 8), "w1": (8, 16), "w2": (16, 4)}.items()}  # fmt: skip
    for name, values in {**weights, "buckets": np.array([50])}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, tmp_path / "words.onnx")
    np.savez(tmp_path / "words.npz", x=np.array([[f"w{rng.integers(60)}" for _ in range(7)] for _ in range(64)]))
    words = (tmp_path / "words.onnx", tmp_path / "out.onnx", "--target", "macs=0.5", "--calib", tmp_path / "words.npz")
    assert "--custom-ops" in cli("prune", *words).error
    outcome = cli("prune", *words, "--custom-ops", "onnxruntime_extensions")
    assert outcome.code == 0, outcome.err
    data = ("--data", tmp_path / "words.npz", "--custom-ops", "onnxruntime_extensions")
    assert cli("eval", tmp_path / "words.onnx", tmp_path / "out.onnx", "--metric", "fidelity", *data).code == 0
