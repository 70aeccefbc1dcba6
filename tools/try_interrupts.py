"""Whether a signal at any moment of a command ends it in one line, with the right exit code and nothing left behind.

    python tools/try_interrupts.py [--commands inspect prune bench] [--moments 40] [--signals INT TERM HUP]

Each command runs on a tiny model once to its end, to learn how long that takes, and then once for every moment and
signal. Afterwards stderr must be one line, the exit code that of the signal (or 0, if the command was faster), OUT as
it was or complete, and neither temporary files nor processes may be left. Signals that come before Python has reached
the program are counted apart: Python answers them itself. Prints how many were tried, and every one that went wrong.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
tiny (float[N, 4] x) => (float[N, 3] y) { a = MatMul(x, w)  b = Relu(a)  y = MatMul(b, v) }
"""
COMMANDS = {
    "inspect": ("inspect", "MODEL", "--report", "report.html"),
    "prune": ("prune", "MODEL", "out.onnx", "--calib", "CALIB", "--target", "params=0.8", "--quiet"),
    "bench": ("bench", "MODEL", "--memory", "--runs", "30"),
}
PROGRAM = "from onnx_subprune.cli import main; main()"
LONGEST_WAIT = 30.0
"""Seconds within which a command must end after its signal."""
BEFORE, DONE, ANSWERED = "before the program", "done before the signal", "answered"


@dataclass(frozen=True)
class Outcome:
    """What a command that was sent a signal did.

    Attributes:
        code: its exit code; below 0 where the signal itself ended it.
        said: on stderr.
        left: files and processes that should not be there.

    """

    code: int
    said: str
    left: tuple[str, ...]

    def kind(self, number: signal.Signals) -> str:
        """Return in a word what happened, or what is wrong."""
        if self.left:
            return f"left {', '.join(self.left)}"
        if self.code == -number or ("Traceback" in self.said and "onnx_subprune/cli/exits.py" not in self.said):
            return BEFORE
        if self.code == 0 and "Traceback" not in self.said:
            return DONE
        if self.code == 128 + number and len(self.said.splitlines()) == 1 and "nothing half-written" in self.said:
            return ANSWERED
        return f"exit code {self.code}: {self.said.strip()}"


def write_inputs(folder: Path) -> None:
    """Write the model and its data."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(NETWORK)
    for name, shape in (("w", (4, 8)), ("v", (8, 3))):
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    onnx.save(model, folder / "model.onnx")
    np.savez(folder / "calib.npz", x=rng.standard_normal((64, 4)).astype(np.float32))


def start(folder: Path, command: str, outputs: Path) -> subprocess.Popen[str]:
    """Start a command that writes into `outputs`, in a session of its own, whose processes can be found."""
    inputs = {"MODEL": str(folder / "model.onnx"), "CALIB": str(folder / "calib.npz")}
    words = [inputs.get(word, word) for word in COMMANDS[command]]
    environment = os.environ | {"TMPDIR": str(outputs / "tmp"), "OPENBLAS_NUM_THREADS": "1"}
    (outputs / "tmp").mkdir(parents=True)
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *words],
        cwd=outputs,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def attempt(folder: Path, command: str, moment: float, number: signal.Signals) -> Outcome:
    """Send a command a signal after so many seconds."""
    outputs = Path(tempfile.mkdtemp(dir=folder))
    with start(folder, command, outputs) as process:
        time.sleep(moment)
        process.send_signal(number)
        try:
            _, said = process.communicate(timeout=LONGEST_WAIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said = "it did not end"
        left = (*_files_left(outputs), *_processes_left(process.pid))
    shutil.rmtree(outputs)
    return Outcome(process.returncode, said, tuple(left))


def _files_left(outputs: Path) -> Iterator[str]:
    for path in outputs.rglob("*"):
        name = path.relative_to(outputs)
        if name.parts[0] == "tmp":
            if len(name.parts) > 1:
                yield str(name)
        elif path.name == "out.onnx":
            onnx.checker.check_model(onnx.load(path))
        elif path.suffix not in (".html", ".json"):
            yield str(name)


def _processes_left(session: int) -> Iterator[str]:
    """Yield the processes of a session that still run a moment after its first one has ended."""
    deadline = time.monotonic() + 2
    while time.monotonic() < deadline and any(_members(session)):
        time.sleep(0.02)
    yield from (f"process {number}" for number in _members(session))


def _members(session: int) -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, _, _, of = (entry / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(of) == session and state != "Z":
                yield int(entry.name)


def duration(folder: Path, command: str) -> float:
    """Return how many seconds a command takes that nobody interrupts."""
    outputs = Path(tempfile.mkdtemp(dir=folder))
    begin = time.monotonic()
    with start(folder, command, outputs) as process:
        _, said = process.communicate()
    if process.returncode:
        raise SystemExit(f"{command} expected to end well, found exit code {process.returncode}: {said}")
    shutil.rmtree(outputs)
    return time.monotonic() - begin


def try_all(
    folder: Path, commands: Sequence[str], moments: int, signals: Sequence[signal.Signals]
) -> tuple[Counter[str], list[str]]:
    """Try every command at so many moments with every signal; return how often what happened, and what went wrong."""
    write_inputs(folder)
    kinds: Counter[str] = Counter()
    wrong: list[str] = []
    for command in commands:
        for moment in np.linspace(0.02, duration(folder, command), moments):
            for number in signals:
                kind = attempt(folder, command, float(moment), number).kind(number)
                kinds[kind if kind in (BEFORE, DONE, ANSWERED) else "wrong"] += 1
                if kind not in (BEFORE, DONE, ANSWERED):
                    wrong.append(f"{command}, {number.name} after {moment:.2f} s: {kind}")
    return kinds, wrong


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commands", nargs="+", choices=COMMANDS, default=list(COMMANDS))
    parser.add_argument("--moments", type=int, default=40)
    parser.add_argument("--signals", nargs="+", choices=("INT", "TERM", "HUP"), default=("INT", "TERM"))
    arguments = parser.parse_args()
    signals = [signal.Signals[f"SIG{name}"] for name in arguments.signals]
    with tempfile.TemporaryDirectory(prefix="try-interrupts-") as folder:
        kinds, wrong = try_all(Path(folder), arguments.commands, arguments.moments, signals)
    for line in wrong:
        print("wrong:", line)
    print(f"tried {kinds.total()}: " + ", ".join(f"{kinds[kind]} {kind}" for kind in sorted(kinds)))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
