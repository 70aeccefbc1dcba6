"""A signal ends the process at once, wherever it is, with one line and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

PREPARED = """
import os, signal, sys, time
from functools import partial
from pathlib import Path
from onnx_subprune import cleanup
from onnx_subprune.cli.interrupt import answer_signals
answer_signals()
def ready(): Path(sys.argv[1]).touch()
"""
LINES = {
    signal.SIGINT: "interrupted; nothing half-written was left under an output's name\n",
    signal.SIGTERM: "terminated; nothing half-written was left under an output's name\n",
    signal.SIGHUP: "hung up; nothing half-written was left under an output's name\n",
}


def ended(
    program: str, folder: Path, signals: Sequence[signal.Signals], *, launcher: Sequence[str] = ()
) -> tuple[int, str, str]:
    """Run the program, send it the signals when it says that it is ready; return its exit code and what it printed."""
    marker = folder / "ready"
    marker.unlink(missing_ok=True)
    command = [*launcher, sys.executable, "-c", PREPARED + program, str(marker)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 60
        while not marker.exists() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        for number in signals:
            process.send_signal(number)
        try:
            out, err = process.communicate(timeout=20)
        finally:
            process.kill()
    return process.returncode, out, err


@pytest.mark.parametrize("number", LINES)
def test_every_signal_has_its_line_and_its_code(tmp_path: Path, number: signal.Signals) -> None:
    assert ended("ready(); time.sleep(60)", tmp_path, [number]) == (128 + number, "", LINES[number])


PLACES = {
    "where all exceptions are taken": """
ready()
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
""",
    "in a callback that no exception leaves": """
class Slow:
    def __del__(self):
        ready(); time.sleep(60)
Slow()
""",
    "while a library is imported": """
import builtins
before = builtins.__import__
def slowly(name, *rest):
    if name == "html.entities":
        ready(); time.sleep(60)
    return before(name, *rest)
builtins.__import__ = slowly
import html.entities
""",
    "in C code that never returns to Python": """
import ctypes
ready()
while True:
    ctypes.CDLL(None).pause()
""",
    "in the join of a thread at the end": """
import threading
threading.Thread(target=time.sleep, args=(60,)).start()
ready()
""",
    "in a clean-up of its own": """
try:
    raise ValueError
finally:
    ready(); time.sleep(60)
""",
}


@pytest.mark.parametrize("place", PLACES)
def test_wherever_the_program_is(tmp_path: Path, place: str) -> None:
    assert ended(PLACES[place], tmp_path, [signal.SIGINT]) == (130, "", LINES[signal.SIGINT])


def test_the_runtime_is_not_waited_for(tmp_path: Path) -> None:
    program = """
import numpy as np, onnx
from onnx_subprune.model import open_session, run
model = onnx.parser.parse_model('''<ir_version: 8, opset_import: ["": 17]>
    endless (int64 n, bool go) => (float[1] y) {
        y = Loop(n, go, x) <body = step (int64 i, bool c, float[1] v) => (bool d, float[1] w) {
            d = Identity(c) w = Neg(v) }>
    }''')
model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(1, np.float32), "x"))
session = open_session(model)
ready()
run(session, {"n": np.array(2**62), "go": np.array(True)})
"""
    assert ended(program, tmp_path, [signal.SIGINT]) == (130, "", LINES[signal.SIGINT])


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGINT] * 8])
def test_what_is_under_way_is_removed_also_if_the_user_is_impatient(
    tmp_path: Path, signals: list[signal.Signals]
) -> None:
    program = f"""
from onnx_subprune.model import atomic_write
def slowly(): time.sleep(0.3); Path({str(tmp_path / "slow")!r}).unlink(missing_ok=True)
Path({str(tmp_path / "slow")!r}).touch()
with cleanup.cleanup(slowly), atomic_write(Path({str(tmp_path / "out")!r})) as temporary:
    temporary.write_text("half")
    ready(); time.sleep(60)
"""
    assert ended(program, tmp_path, signals) == (128 + signals[0], "", LINES[signals[0]])
    assert [path.name for path in tmp_path.iterdir()] == ["ready"]


def test_children_that_run_are_ended(tmp_path: Path) -> None:
    program = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
with cleanup.cleanup(child.kill):
    print(child.pid, flush=True); ready(); time.sleep(60)
"""
    code, out, _ = ended(program, tmp_path, [signal.SIGTERM])
    assert code == 143
    deadline = time.monotonic() + 10
    while _runs(int(out)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _runs(int(out))


def _runs(process: int) -> bool:
    try:
        with open(f"/proc/{process}/stat", encoding="ascii") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_signal_that_was_to_be_ignored_is(tmp_path: Path) -> None:
    ignoring = "import os, signal, sys; signal.signal(1, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    program, launcher = "ready(); time.sleep(0.5); print('done')", [sys.executable, "-c", ignoring]
    assert ended(program, tmp_path, [signal.SIGHUP], launcher=launcher) == (0, "done\n", "")


def test_a_script_that_takes_a_signal_has_it(tmp_path: Path) -> None:
    program = "signal.signal(signal.SIGTERM, lambda *_: print('mine', flush=True))\nready(); time.sleep(0.5)"
    assert ended(program, tmp_path, [signal.SIGTERM]) == (0, "mine\n", "")


def test_a_signal_to_a_forked_child_is_its_own(tmp_path: Path) -> None:
    program = """
for _ in range(20):
    child = os.fork()
    if not child:
        time.sleep(60)
    os.kill(child, signal.SIGTERM)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM
time.sleep(0.2)
print("still here"); ready(); time.sleep(60)
"""
    assert ended(program, tmp_path, [signal.SIGTERM])[0] == 143
    assert ended(program.replace("ready(); time.sleep(60)", ""), tmp_path, []) == (0, "still here\n", "")


def test_a_terminal_has_its_cursor_back(tmp_path: Path) -> None:
    import pty  # noqa: PLC0415

    ours, theirs = pty.openpty()
    marker = tmp_path / "ready"
    command = [sys.executable, "-c", PREPARED + "ready(); time.sleep(60)", str(marker)]
    process = subprocess.Popen(command, stderr=theirs)
    os.close(theirs)
    while not marker.exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130
    assert os.read(ours, 4096).decode().replace("\r\n", "\n") == "\r\x1b[2K\x1b[?25h" + LINES[signal.SIGINT]
    os.close(ours)
