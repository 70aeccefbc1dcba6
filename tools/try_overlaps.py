"""Whether a command can be made to overwrite what it reads, or one of its outputs with another.

    python tools/try_overlaps.py [--commands prune apply factorise]

For every input and every output of `prune`, `apply` and `factorise` on a tiny model, the output is named as the input
is: plainly, by another spelling, by a symbolic link and by a hard link. Two outputs are given one name likewise. Each
time the command must refuse, and every file must hold what it held. Prints how many pairs were tried, refused and
destroyed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from onnx_subprune import pipeline
from onnx_subprune.cli import run
from onnx_subprune.options import Options, Target

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
tiny (float[N, 4] x) => (float[N, 3] y) { a = MatMul(x, w)  b = Relu(a)  y = MatMul(b, v) }
"""
SCRIPT = "import numpy\ndef load():\n    yield {'x': numpy.ones((32, 4), numpy.float32)}\n"
WAYS = ("plain", "spelling", "symlink", "hardlink")
COMMANDS = ("prune", "apply", "factorise")
WEIGHTS = ".0123456789ab.data"
"""The end of a name that the weights of a large OUT may have."""


@dataclass(frozen=True)
class Attempt:
    """A command whose output is the file of another name.

    Attributes:
        command: such as prune.
        output: the output that is named like another file.
        other: the input or output whose file it is.
        way: how it is named.
        words: the command line.

    """

    command: str
    output: str
    other: str
    way: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.command}: {self.output} is {self.other} ({self.way})"


def write_inputs(folder: Path) -> dict[str, Path]:
    """Write everything that the commands read; return the files by the name of the input they belong to."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(NETWORK)
    for name, shape in (("w", (4, 8)), ("v", (8, 3))):
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    x = rng.standard_normal((64, 4)).astype(np.float32)
    many = folder / "many"
    (many / "test_data_set_0").mkdir(parents=True)
    tensor = onnx.numpy_helper.from_array(x, "x")
    (many / "test_data_set_0" / "input_0.pb").write_bytes(tensor.SerializeToString())
    (folder / "load.py").write_text(SCRIPT)
    np.savez(folder / "calib.npz", x=x)
    np.savez(folder / "test.npz", x=x, labels=np.arange(64) % 3)
    plan, statistics = folder / "plan.json", folder / "statistics.safetensors"
    options = Options(target=Target("units", 0.5), recovery="channel")
    pipeline.calibrate(model, {"x": x}, options).save(statistics)
    pipeline.prune(model, {"x": x}, options).plan.save(plan)
    onnx.save(model, folder / "model.onnx", save_as_external_data=True, location="weights.bin", size_threshold=0)
    return {
        "MODEL": folder / "model.onnx",
        "the weights of MODEL": folder / "weights.bin",
        "--calib": folder / "calib.npz",
        "--calib of a folder": many / "test_data_set_0" / "input_0.pb",
        "--calib of a script": folder / "load.py",
        "--data": folder / "test.npz",
        "PLAN": plan,
        "--statistics": statistics,
    }


def attempts(folder: Path, files: dict[str, Path], commands: Sequence[str], ways: Sequence[str]) -> Iterator[Attempt]:
    """Yield the overlaps of every input with every output, and of every two outputs, with the links laid for them."""
    for command in commands:
        inputs = [name for name in files if _takes(command, name)]
        outputs = ["OUT", "the weights of OUT", "--statistics", "--report", *(["--plan"] if command == "prune" else [])]
        for output, other in itertools.product(outputs, inputs):
            if output == "--statistics" and other == "--statistics":
                continue  # read without --calib, written with it
            for way in ways:
                target = files[other]
                yield Attempt(command, output, other, way, _words(folder, files, command, other, output, target, way))
        for output, other in itertools.permutations(outputs, 2):
            if {output, other} == {"OUT", "the weights of OUT"}:
                continue  # one is named by the other
            for way in ways:
                # A file of its own stands for the other output, so that links to it can be laid.
                second = folder / f"second{_ending(other, output)}"
                second.write_text("an output of before")
                words = _words(folder, files, command, "--calib", output, second, way)
                yield Attempt(command, output, other, way, (*words, *_named(other, second, folder)))


def _takes(command: str, name: str) -> bool:
    return {"PLAN": command == "apply", "--data": command == "prune"}.get(name, True)


def _ending(*outputs: str) -> str:
    # The weights of OUT have their name from OUT, and a report has its kind.
    return WEIGHTS if "the weights of OUT" in outputs else ".json" if "--report" in outputs else ".out"


def _words(
    folder: Path, files: dict[str, Path], command: str, other: str, output: str, target: Path, way: str
) -> tuple[str, ...]:
    """Return the command line that reads `other` and has its `output` named like `target`."""
    calib = {"--calib of a folder": folder / "many", "--calib of a script": f"{files['--calib of a script']}:load"}
    source = ("--statistics", str(files["--statistics"])) if other == "--statistics" else (
        "--calib", str(calib.get(other, files["--calib"])))  # fmt: skip
    place = _name_like(folder, target, way, output)
    model = str(files["MODEL"])
    first = {"prune": (model,), "apply": (str(files["PLAN"]), model), "factorise": (model,)}[command]
    goal = () if command == "apply" else ("--target", "params=0.8")
    labelled = ("--data", str(files["--data"])) if other == "--data" else ()
    return (command, *first, *source, *goal, *labelled, *_named(output, place, folder))


def _name_like(folder: Path, target: Path, way: str, output: str) -> Path:
    """Return a path that names the file `target` in a way that suits the output."""
    if way == "plain":
        return target
    if way == "spelling":
        (folder / "sub").mkdir(exist_ok=True)
        return folder / "sub" / ".." / target.relative_to(folder)
    link = folder / f"link{_ending(output)}"
    link.unlink(missing_ok=True)
    if way == "symlink":
        link.symlink_to(target)
    else:
        os.link(target, link)
    return link


def _named(output: str, place: Path, folder: Path) -> tuple[str, ...]:
    """Return the words that name an output; OUT stands last and is always there."""
    if output == "OUT":
        return (str(place),)
    if output == "the weights of OUT":
        # OUT.<digits>.data is the place; what does not end so is linked under such a name.
        if not place.name.endswith(WEIGHTS):
            link = folder / f"large.onnx{WEIGHTS}"
            link.unlink(missing_ok=True)
            link.symlink_to(place)
            place = link
        return (str(place).removesuffix(WEIGHTS),)
    return (output, str(place))


def with_out(attempt: Attempt, folder: Path) -> tuple[str, ...]:
    """Return the command line with an OUT of its own where none is named."""
    named = {attempt.output, attempt.other} & {"OUT", "the weights of OUT"}
    return attempt.words if named else (*attempt.words, str(folder / "fresh.onnx"))


def snapshot(folder: Path) -> dict[str, bytes]:
    """Return the bytes of all files."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def restore(folder: Path, files: dict[str, bytes]) -> None:
    """Put back what was there."""
    for path in folder.rglob("*"):
        if path.is_file() or path.is_symlink():
            path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def try_all(
    folder: Path, commands: Sequence[str] = COMMANDS, ways: Sequence[str] = WAYS
) -> tuple[int, list[str], list[str]]:
    """Try every overlap in a folder; return the number tried, those not refused, and those that destroyed a file."""
    files = write_inputs(folder)
    clean, tried = snapshot(folder), 0
    accepted: list[str] = []
    destroyed: list[str] = []
    for attempt in attempts(folder, files, commands, ways):
        before, said = snapshot(folder), io.StringIO()
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
            code = run(list(with_out(attempt, folder)))
        tried += 1
        overlap = "to be another file than" in said.getvalue() or "alone, found" in said.getvalue()
        if code != 1 or not overlap:
            accepted.append(f"{attempt}: {code} {said.getvalue().strip()}")
        if any(snapshot(folder).get(name) != content for name, content in before.items()):
            destroyed.append(str(attempt))
        restore(folder, clean)
    return tried, accepted, destroyed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=COMMANDS)
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="try-overlaps-"))
    try:
        tried, accepted, destroyed = try_all(folder, arguments.commands)
    finally:
        shutil.rmtree(folder)
    for line in accepted:
        print("not refused:", line)
    for line in destroyed:
        print("destroyed:", line)
    print(f"tried {tried}, refused {tried - len(accepted)}, destroyed {len(destroyed)}")
    sys.exit(bool(accepted or destroyed))


if __name__ == "__main__":
    main()
