"""A process killed while it saves: what stands under OUT's name is whole, old or new."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from onnx_subprune.model import load_model

# Runs the command line with one step of the save made to wait, so that the kill comes in the midst of it.
DRIVER = """
import os, pathlib, sys, time
def waiting(step):
    def wait(*arguments, **named):
        if {after!r}:
            step(*arguments, **named)
        pathlib.Path({marker!r}).touch()
        time.sleep(60)
    return wait
os.{step} = waiting(os.{step})
from onnx_subprune.cli import main
sys.argv = ["onnx-subprune", *{words!r}]
main()
"""


def kill_at(marker: Path, script: str) -> None:
    """Start the script and kill it, as the kernel would, once the marker is there."""
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 60
        while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.01)
        assert marker.exists(), process.communicate()[1].decode()
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize(("step", "after", "replaced"), [("fsync", False, False), ("replace", True, True)])
@pytest.mark.parametrize("existing", [False, True])
def test_out_is_whole_after_a_kill(
    model: Path, calib: Path, tmp_path: Path, step: str, after: bool, replaced: bool, existing: bool
) -> None:
    out, marker = tmp_path / "out.onnx", tmp_path / "marker"
    old = onnx.load(model)
    old.producer_name = "old"
    if existing:
        onnx.save(old, out)
    words = ["prune", str(model), str(out), "--calib", str(calib), "--target", "units=0.5"]
    words += ["--no-timing", "--no-cache"]
    kill_at(marker, DRIVER.format(step=step, after=after, marker=str(marker), words=words))
    assert out.exists() == (existing or replaced)
    if out.exists():
        assert (load_model(out).producer_name == "old") == (not replaced)


@pytest.mark.parametrize("delay", [0.0, 0.02])
def test_out_is_whole_after_a_kill_while_much_is_written(tmp_path: Path, delay: float) -> None:
    out, marker = tmp_path / "out.onnx", tmp_path / "marker"
    script = f"""
import pathlib, numpy, onnx
from onnx_subprune.model import save_model
value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
weight = onnx.numpy_helper.from_array(numpy.ones(1 << 24, numpy.float32), "w")
graph = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [value], [], [weight])
model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 17)])
save_model(model, {str(out)!r})
pathlib.Path({str(marker)!r}).touch()
while True:
    save_model(model, {str(out)!r})
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        while not marker.exists() and process.poll() is None:
            time.sleep(0.01)
        time.sleep(delay)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(onnx.load(out).graph.initializer[0].raw_data) == 4 << 24
