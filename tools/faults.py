"""Commands that are to fail or die while they write, and what must hold afterwards: for try_kills.py and try_disks.py.

A `Trial` is a folder with a small model, its data, and the outputs of an earlier run, the *old* ones. A command that is
run there replaces them by the *new* ones. However it ends, every output must be old or new, whole, and a model must
have its own weights.

Commands run in processes that are forked from one that has imported everything and has started no session, so that a
trial takes tenths of a second.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import onnx

from onnx_subprune.cli import app, run  # noqa: F401 - what commands import is there before the first fork
from onnx_subprune.model import external, external_files, open_session, save_model
from onnx_subprune.model import run as run_session

OUTPUTS = ("statistics.safetensors", "plan.json", "report.json", "out.onnx")
COMMANDS = ("prune", "apply", "factorise")
WEIGHTS = ("inline", "beside")
WIDTH, HIDDEN, SAMPLES = 512, 128, 256
NETWORK = f"""
<ir_version: 8, opset_import: ["" : 17]>
two (float[N, {WIDTH}] x) => (float[N, {WIDTH}] y) {{ a = MatMul(x, up)  b = Relu(a)  y = MatMul(b, down) }}
"""
VERSIONS = ("old", "new")
_TARGETS = {"prune": ("units=0.75", "units=0.5"), "factorise": ("params=0.75", "params=0.5")}


def start(work: Callable[[], int]) -> int:
    """Start work in a process of its own and return its number."""
    sys.stdout.flush()
    process = os.fork()
    if process == 0:
        code = 1
        try:
            code = work()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code)
    return process


def end(process: int) -> int:
    """Wait for a process; return its exit code, or the signal that ended it below 0."""
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def write_inputs(folder: Path, *, beside: bool) -> None:
    """Write a model, inline or with its weights beside it, and calibration data."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(NETWORK)
    for name, shape in (("up", (WIDTH, HIDDEN)), ("down", (HIDDEN, WIDTH))):
        values = (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    save_model(model, folder / "model.onnx", **({"threshold": 0} if beside else {}))
    np.savez(folder / "calib.npz", x=samples())


def samples() -> np.ndarray:
    """Return the calibration samples."""
    return np.random.default_rng(1).standard_normal((SAMPLES, WIDTH)).astype(np.float32)


def _same_or_gone(path: Path, other: Path) -> bool:
    try:
        return path.read_bytes() == other.read_bytes()
    except FileNotFoundError:
        return True


@dataclass(frozen=True)
class Trial:
    """A command in a folder of its own.

    Attributes:
        folder: is made when the trial is prepared.
        command: one of `COMMANDS`.
        beside: whether the weights of the models lie in files beside them.
        places: paths of outputs that lie elsewhere, by the name of the output.

    """

    folder: Path
    command: str
    beside: bool = False
    places: Mapping[str, Path] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.command}, weights {'beside' if self.beside else 'inline'}"

    @property
    def names(self) -> tuple[str, ...]:
        """The names of all outputs."""
        return tuple(name for name in OUTPUTS if self.command == "prune" or name != "plan.json")

    def path(self, name: str) -> Path:
        """Return the path of an output."""
        return self.places.get(name, self.folder / "outputs" / name)

    def prepare(self) -> None:
        """Write the inputs and the old outputs, and learn the new ones."""
        for name in ("inputs", "outputs", "temporary", *VERSIONS):
            (self.folder / name).mkdir(parents=True)
        write_inputs(self.folder / "inputs", beside=self.beside)
        for version in reversed(VERSIONS):
            if self.command == "apply":
                plan, unused = self._input(f"{version}.json"), self._input(f"{version}.onnx")
                self._finish("prune", self._input("model.onnx"), unused, "--plan", plan, *self._goal("prune", version))
            self._finish(*self.words(version))
            for name, files in self.files().items():
                for path in files:
                    shutil.copy2(path, self.folder / version / (name if path == self.path(name) else path.name))

    def words(self, version: str) -> tuple[str, ...]:
        """Return the command line that writes a version of the outputs."""
        model, out = self._input("model.onnx"), str(self.path("out.onnx"))
        first = ("apply", self._input(f"{version}.json"), model, out) if self.command == "apply" else (
            self.command, model, out)  # fmt: skip
        others = (word for name in self.names[:-1] for word in (f"--{name.split('.')[0]}", str(self.path(name))))
        return (*first, *others, *self._goal(self.command, version))

    def start(self, version: str, before: Callable[[], object] = bool) -> int:
        """Start the command in a process of its own, after a call of `before` there; what it says goes to a file."""
        return self._start(self.words(version), before)

    def said(self) -> list[str]:
        """Return the lines that the last command printed."""
        return (self.folder / "said").read_text(encoding="utf-8").splitlines()

    def restore(self, version: str) -> None:
        """Put back a version of the outputs, and nothing else."""
        self.clear()
        for path in sorted((self.folder / version).iterdir()):
            place = self.path(path.name) if path.name in self.names else self.path("out.onnx").with_name(path.name)
            shutil.copy2(path, place)

    def clear(self) -> None:
        """Remove all outputs and everything temporary."""
        for folder in self._folders():
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def files(self) -> dict[str, list[Path]]:
        """Return the files of every output that is there: of a model its weights too."""
        beside = {name: sorted(external_files(self.path(name))) if name == "out.onnx" else [] for name in self.names}
        return {name: [self.path(name), *beside[name]] for name in self.names if self.path(name).exists()}

    def versions(self) -> dict[str, str]:
        """Return which version every output is: old, new, none, or what is wrong with it."""
        files = self.files()
        return {name: self._version(name, files[name]) if name in files else "none" for name in self.names}

    def whole(self) -> bool:
        """Whether OUT is the old or the new model with its weights, at a moment when others write it.

        A reader that has the graph when it is replaced may come too late for its weights, which is no fault.
        """
        path = self.path("out.onnx")
        graph = path.read_bytes()
        message = onnx.load_model_from_string(graph)
        names = {entry.value for t in message.graph.initializer for entry in t.external_data if entry.key == "location"}
        for version in VERSIONS:
            kept = self.folder / version
            if graph == (kept / path.name).read_bytes():
                return all(_same_or_gone(path.with_name(name), kept / name) for name in names)
        return False

    def leftovers(self) -> list[str]:
        """Return the names of all files and folders that are no output."""
        outputs = {path for files in self.files().values() for path in files}
        return sorted(path.name for folder in self._folders() for path in folder.iterdir() if path not in outputs)

    def _version(self, name: str, files: list[Path]) -> str:
        if not all(path.exists() for path in files):
            return "without its weights"
        content = [path.read_bytes() for path in files]
        for version in VERSIONS:
            kept = [self.folder / version / (name if path == self.path(name) else path.name) for path in files]
            if all(path.exists() for path in kept) and content == [path.read_bytes() for path in kept]:
                runs = name != "out.onnx" or end(start(partial(self._compare, version))) == 0
                return version if runs else "no model that runs as it did"
        return "neither old nor new"

    def _compare(self, version: str) -> int:
        """Return 0 if OUT gives in ONNX Runtime what that version gives."""
        paths = (self.path("out.onnx"), self.folder / version / "out.onnx")
        ours, theirs = (run_session(open_session(path, threads=1), {"x": samples()})["y"] for path in paths)
        return int(not np.array_equal(ours, theirs))

    def _folders(self) -> list[Path]:
        outputs = {self.path(name).parent for name in self.names}
        return [folder for folder in (self.folder / "temporary", *sorted(outputs)) if folder.is_dir()]

    def _input(self, name: str) -> str:
        return str(self.folder / "inputs" / name)

    def _goal(self, command: str, version: str) -> tuple[str, ...]:
        data = ("--calib", self._input("calib.npz"), "--samples", "192" if version == "old" else str(SAMPLES))
        data = (*data, "--threads", "1")
        if command != "factorise":
            # Reports with times differ from run to run; what is kept would spare a second run its steps.
            data = (*data, "--no-timing", "--no-cache")
        if command == "apply":
            return data
        more = ("--effort", "fast") if command == "prune" else ()
        return ("--target", _TARGETS[command][version == "new"], *more, *data)

    def _start(self, words: Sequence[str], before: Callable[[], object] = bool) -> int:
        def work() -> int:
            said = os.open(self.folder / "said", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1)
            os.dup2(said, 2)
            tempfile.tempdir = str(self.folder / "temporary")
            os.environ["ONNX_SUBPRUNE_CACHE"] = str(self.folder / "cache")
            if self.beside:
                external.SMALLEST_LEFT = 0  # a small model is taken for a large one
            before()
            return run(words)

        return start(work)

    def _finish(self, *words: str) -> None:
        if end(self._start(words)):
            raise RuntimeError(f"{' '.join(words)}: {self.said()}")
