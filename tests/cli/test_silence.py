"""Whole commands on numbers that overflow, vanish or are none: stderr holds lines of the program and nothing else."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

NETWORK = """
<ir_version: 8, opset_import: ["": 17]>
g ({kind}[N, 3, 6, 6] x) => ({kind}[N, 4] y) {{
    a = Conv<pads = [1, 1, 1, 1]>(x, w1)
    b = BatchNormalization(a, s, o, m, v)
    c = {act}(b)
    d = Conv<pads = [1, 1, 1, 1]>(c, w2)
    e = Relu(d)
    f = GlobalAveragePool(e)
    h = Flatten(f)
    y = MatMul(h, w3)
}}"""
SHAPES = {"w1": (8, 3, 3, 3), "s": (8,), "o": (8,), "m": (8,), "v": (8,), "w2": (12, 8, 3, 3), "w3": (12, 4)}
RNG = np.random.default_rng(0)
SAMPLES = RNG.standard_normal((64, 3, 6, 6))

Change = Callable[[str, np.ndarray], object]


def network(kind: str = "float", act: str = "Relu", change: Change = lambda name, array: array) -> onnx.ModelProto:
    """Return a network whose weights are what `change` makes of random ones, in the type that it computes in."""
    model = onnx.parser.parse_model(NETWORK.format(kind=kind, act=act))
    for name, shape in SHAPES.items():
        with np.errstate(all="ignore"):
            values = np.broadcast_to(np.asarray(change(name, np.abs(RNG.standard_normal(shape)))), shape)
            values = values.astype(np.float16 if kind == "float16" else np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


MODELS = {
    "plain": network(),
    "half": network("float16"),
    "half that overflows": network("float16", change=lambda _, array: 3e4 * array),
    "half at its edge": network("float16", change=lambda name, array: 6e4 if name in ("w1", "o") else array),
    "zeros": network(change=lambda _, array: 0 * array),
    "infinite weights": network(change=lambda name, array: np.inf if name == "w2" else array),
    "weights that are no numbers": network(change=lambda name, array: np.nan if name == "w2" else array),
    "huge weights": network(change=lambda _, array: 1e37 * array),
    "infinite normalisation": network(change=lambda name, array: np.inf if name in "so" else array),
    "no variance": network(change=lambda name, array: 0 if name == "v" else array),
    "negative variance": network(change=lambda name, array: -array if name == "v" else array),
    "outputs that are no numbers": network(act="Log"),
    "an operator of old": network(act="Affine"),
}
DATA = {"normal": SAMPLES, "zeros": 0 * SAMPLES, "alike": SAMPLES[:1].repeat(64, 0), "huge": 1e30 * SAMPLES}
EVERY = ("inspect", "prune", "fast", "factorise", "fidelity")
COMMANDS: dict[str, tuple[str, ...]] = {
    "inspect": ("inspect", "MODEL", "--json"),
    "prune": ("prune", "MODEL", "o.onnx", "--calib", "DATA", "--target", "macs=0.6", "--json"),
    "fast": ("prune", "MODEL", "o.onnx", "--calib", "DATA", "--target", "macs=0.6", "--json", "--effort", "fast"),
    "factorise": ("factorise", "MODEL", "o.onnx", "--calib", "DATA", "--target", "macs=0.8", "--json"),
    "fidelity": ("eval", "MODEL", "MODEL", "--data", "DATA", "--json", "--metric", "fidelity"),
}
CHILD = """
import json, os, sys
from onnx_subprune.cli import run
for number, words in enumerate(json.load(open("words.json"))):
    for descriptor, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{name}-{number}", os.O_CREAT | os.O_WRONLY), descriptor)
    code = run(words)
    sys.stdout.flush()
    print(code, file=open("codes", "a"))
"""
OWN_LINE = re.compile(r"(warning|error): .*")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, model in enumerate(MODELS.values()):
        onnx.save(model, tmp_path / f"{number}.onnx")
    labels = np.arange(64) % 4
    for name, samples in DATA.items():
        with np.errstate(over="ignore"):
            for kind in (np.float32, np.float16):
                np.savez(tmp_path / f"{name}-{np.dtype(kind)}.npz", x=samples.astype(kind), labels=labels)
    return tmp_path


def command_lines() -> list[tuple[str, list[str]]]:
    """Return what is tried, in words, and its command line: every model on normal data, and a plain one on all."""
    pairs = [(model, "normal") for model in MODELS] + [("plain", data) for data in DATA if data != "normal"]
    lines = []
    for model, data in pairs:
        kind = "float16" if "half" in model else "float32"
        for command in EVERY:
            names = {"MODEL": f"{list(MODELS).index(model)}.onnx", "DATA": f"{data}-{kind}.npz"}
            lines.append((f"{command} of {model} on {data}", [names.get(word, word) for word in COMMANDS[command]]))
    return lines


def test_stderr_holds_lines_of_the_program_alone(folder: Path) -> None:
    lines = command_lines()
    (folder / "words.json").write_text(json.dumps([words for _, words in lines]))
    subprocess.run([sys.executable, "-c", CHILD], cwd=folder, check=True)
    codes = [int(code) for code in (folder / "codes").read_text().split()]
    for number, ((tried, _), code) in enumerate(zip(lines, codes, strict=True)):
        said = (folder / f"err-{number}").read_text().splitlines()
        assert code in (0, 1, 3), (tried, said)
        assert [line for line in said if not OWN_LINE.fullmatch(line)] == [], tried
        assert sum(line.startswith("error: ") for line in said) == (code != 0), (tried, said)
        assert "please report" not in "".join(said), (tried, said)
        out = (folder / f"out-{number}").read_text()
        assert (json.loads(out)["format"] if code == 0 else out) != (code == 0), tried
    failed = {tried for (tried, _), code in zip(lines, codes, strict=True) if code}
    assert not {f"{command} of {model} on normal" for command in EVERY for model in ("plain", "half")} & failed
    assert {f"prune of {model} on normal" for model in MODELS if "no numbers" in model} <= failed
