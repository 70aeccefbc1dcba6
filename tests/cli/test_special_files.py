"""A pipe, a socket or a device in the place of any file is refused in one line; nothing waits for it or is written."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune import Options, Target, pipeline

Cli = Callable[..., Any]
Refused = Callable[[str, tuple[str, ...], str], None]

GOAL = ("--target", "units=0.5", "--effort", "fast")
PRUNE = ("prune", "dense.onnx", "out.onnx", *GOAL)
APPLY = ("apply", "plan.json", "dense.onnx", "out.onnx")
FACTORISE = ("factorise", "dense.onnx", "out.onnx", "--target", "params=0.8")
PERPLEXITY = ("eval", "words.onnx", "--metric", "perplexity", "--window", "4")
CALIB = ("--calib", "calib.npz")
# Where the special file lies, and a command that reads it.
READ: dict[str, tuple[str, tuple[str, ...]]] = {
    "inspect": ("x.onnx", ("inspect", "x.onnx")),
    "inspect, weights": ("weights.bin", ("inspect", "large.onnx")),
    "prune": ("x.onnx", ("prune", "x.onnx", "out.onnx", *CALIB, *GOAL)),
    "prune, weights": ("weights.bin", ("prune", "large.onnx", "out.onnx", *CALIB, *GOAL)),
    "--calib, .npz": ("x.npz", (*PRUNE, "--calib", "x.npz")),
    "--calib, .npy": ("x.npy", (*PRUNE, "--calib", "x.npy")),
    "--calib, no kind": ("x", (*PRUNE, "--calib", "x")),
    "--calib, script": ("x.py", (*PRUNE, "--calib", "x.py:load")),
    "folder, .npz": ("folder/b.npz", (*PRUNE, "--calib", "folder")),
    "folder, .npy": ("folder/b.npy", (*PRUNE, "--calib", "folder")),
    "folder, labels": ("folder/labels.npy", ("eval", "dense.onnx", "--data", "folder")),
    "folder, .pb": ("sets/input_0.pb", (*PRUNE, "--calib", "sets")),
    "test data set": ("many/test_data_set_0/input_0.pb", (*PRUNE, "--calib", "many")),
    "--data": ("x.npz", (*PRUNE, *CALIB, "--data", "x.npz")),
    "--statistics": ("x.safetensors", (*PRUNE, "--statistics", "x.safetensors")),
    "PLAN": ("x.json", ("apply", "x.json", "dense.onnx", "out.onnx", *CALIB)),
    "apply": ("x.onnx", ("apply", "plan.json", "x.onnx", "out.onnx", *CALIB)),
    "apply, --calib": ("x.npz", (*APPLY, "--calib", "x.npz")),
    "apply, --statistics": ("x.safetensors", (*APPLY, "--statistics", "x.safetensors")),
    "factorise": ("x.onnx", ("factorise", "x.onnx", "out.onnx", *CALIB, "--target", "params=0.8")),
    "factorise, --calib": ("x.npz", (*FACTORISE, "--calib", "x.npz")),
    "factorise, --statistics": ("x.safetensors", (*FACTORISE, "--statistics", "x.safetensors")),
    "eval": ("x.onnx", ("eval", "x.onnx", "--data", "test.npz")),
    "eval, fidelity": ("x.onnx", ("eval", "dense.onnx", "x.onnx", "--data", "test.npz", "--metric", "fidelity")),
    "eval, --data": ("x.npz", ("eval", "dense.onnx", "--data", "x.npz")),
    "eval, ids, .npy": ("x.npy", (*PERPLEXITY, "--data", "x.npy")),
    "eval, ids, .json": ("x.json", (*PERPLEXITY, "--data", "x.json")),
    "bench": ("x.onnx", ("bench", "x.onnx")),
    "bench, --data": ("x.npz", ("bench", "dense.onnx", "--data", "x.npz")),
}
# And a command that would write there.
WRITTEN: dict[str, tuple[str, tuple[str, ...]]] = {
    "prune": ("out.onnx", (*PRUNE, *CALIB)),
    "prune, --plan": ("x.json", (*PRUNE, *CALIB, "--plan", "x.json")),
    "prune, --report": ("x.html", (*PRUNE, *CALIB, "--report", "x.html")),
    "prune, --statistics": ("x.safetensors", (*PRUNE, *CALIB, "--statistics", "x.safetensors")),
    "apply": ("out.onnx", (*APPLY, *CALIB)),
    "apply, --report": ("x.json", (*APPLY, *CALIB, "--report", "x.json")),
    "apply, --statistics": ("x.safetensors", (*APPLY, *CALIB, "--statistics", "x.safetensors")),
    "factorise": ("out.onnx", (*FACTORISE, *CALIB)),
    "factorise, --report": ("x.json", (*FACTORISE, *CALIB, "--report", "x.json")),
    "factorise, --statistics": ("x.safetensors", (*FACTORISE, *CALIB, "--statistics", "x.safetensors")),
    "inspect, --report": ("x.html", ("inspect", "dense.onnx", "--report", "x.html")),
    "demo": ("x", ("demo", "--out", "x")),
    "demo, pruned.onnx": ("demo/pruned.onnx", ("demo", "--out", "demo")),
    "demo, report.json": ("demo/report.json", ("demo", "--out", "demo")),
}
WORDS = """
<ir_version: 8, opset_import: ["" : 17]>
words (int64[N, L] ids) => (float[N, L, 8] logits) { e = Gather(table, ids)  logits = MatMul(e, head) }
"""


def lay(path: Path, kind: str) -> None:
    """Lay a pipe, a socket or a device at a path."""
    path.unlink(missing_ok=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    else:
        with socket.socket(socket.AF_UNIX) as end:
            end.bind(str(path))


def words_model() -> onnx.ModelProto:
    model = onnx.parser.parse_model(WORDS)
    for name, shape in (("table", (8, 4)), ("head", (4, 8))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return model


@pytest.fixture
def refused(
    cli: Cli, model: Path, calib: Path, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Refused]:
    """`refused(place, words, kind)` runs a command with a special file among good ones, which is refused."""
    monkeypatch.chdir(tmp_path)
    x = np.load(calib)["x"]
    onnx.save(onnx.load(model), "large.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    onnx.save(words_model(), "words.onnx")
    Path("folder").mkdir()
    np.save("folder/a.npy", x)

    def waited(*_: object) -> None:
        raise AssertionError("the command waits")

    before = signal.signal(signal.SIGALRM, waited)

    def refused(place: str, words: tuple[str, ...], kind: str) -> None:
        if "plan.json" in words:
            options = Options(target=Target("units", 0.5), recovery="channel")
            pipeline.prune(str(model), {"x": x}, options).plan.save("plan.json")
        lay(Path(place), kind)
        files = sorted(tmp_path.rglob("*"))
        signal.alarm(30)
        said = cli(*words)
        signal.alarm(0)
        assert said.code == 1, said
        assert said.out == ""
        assert sorted(tmp_path.rglob("*")) == files
        assert not Path(place).is_file()
        assert Path(place).name in said.error or "/dev/zero" in said.error

    yield refused
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize(("place", "words"), READ.values(), ids=READ)
def test_a_pipe_is_not_read(refused: Refused, place: str, words: tuple[str, ...]) -> None:
    refused(place, words, "pipe")


@pytest.mark.parametrize(("place", "words"), WRITTEN.values(), ids=WRITTEN)
def test_a_pipe_is_not_written(refused: Refused, place: str, words: tuple[str, ...]) -> None:
    refused(place, words, "pipe")


@pytest.mark.parametrize("kind", ["socket", "device"])
@pytest.mark.parametrize(
    "name", ["prune", "--calib, .npz", "--calib, script", "folder, .npy", "PLAN", "eval, ids, .json"]
)
def test_a_socket_and_a_device_are_not_read(refused: Refused, name: str, kind: str) -> None:
    place, words = READ[name]
    refused(place, words, kind)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["socket", "device"])
@pytest.mark.parametrize(("place", "words"), [*READ.values(), *WRITTEN.values()], ids=[*READ, *WRITTEN])
def test_no_place_takes_a_socket_or_a_device(refused: Refused, place: str, words: tuple[str, ...], kind: str) -> None:
    refused(place, words, kind)
