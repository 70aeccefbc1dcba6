"""Peak memory of a model: a process of its own loads it and runs it, and the kernel says what that process took.

Resident memory counts (`VmHWM` and `VmRSS` of Linux), above that of the process with ONNX Runtime and the providers
loaded and no model: the weights, the copies of them that kernels want, activations, and whatever loading takes in
passing. It is memory of the host; what a provider holds on a GPU is not in it. Allocators give pages back late and keep
some in store, and the code of kernels that run for the first time counts too: figures are good to a few MB.

The process is isolated: it imports from where this one does, but never from the current folder, whatever lies there.
"""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from onnx_subprune.cleanup import cleanup
from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.evaluate.binding import runner
from onnx_subprune.model import TemporaryFolder, custom_ops, open_session, register_custom_ops, save_model

__all__ = ["Memory", "child", "peak_memory"]

Array = NDArray[Any]

_PROC = Path("/proc/self")
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from onnx_subprune.evaluate.memory import child; child(sys.argv[2])"
)
_NOTHING = """
    <ir_version: 8, opset_import: ["": 17]>
    nothing (float[1] x) => (float[1] y) { y = Identity(x) }
"""
_RUNS = 3
_ERRORS: dict[str, type[Exception]] = {kind.__name__: kind for kind in (DataError, ModelError, OptionError)}


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process above what it took without the model, in bytes.

    Attributes:
        peak: the most at any moment, while the model was loaded or run.
        held: what it held after the last run, as a service does between requests.

    """

    peak: int
    held: int


def peak_memory(
    model: onnx.ModelProto,
    feeds: Mapping[str, Array],
    *,
    providers: Sequence[str] = ("cpu",),
    threads: int | None = None,
) -> Memory:
    """Load and run `model` in a process of its own and return the memory that this took there.

    Args:
        model: is written to a file first, and loaded from it.
        feeds: an array per input.
        providers: execution providers, most wanted first.
        threads: intra-op threads of the runtime; None for its own choice.

    Raises:
        OptionError: this system does not say what a process takes (Linux does), or a provider did not load.
        DataError: the feeds do not fit.
        ModelError: ONNX Runtime refuses the model, or the process came to an end (a model too large for the machine).

    """
    if not (_PROC / "status").exists():
        raise OptionError(f"a system with {_PROC}/status expected to measure memory, found none; leave memory out")
    with TemporaryFolder() as folder:
        save_model(model, folder / "model.onnx")
        job = {"feeds": dict(feeds), "providers": list(providers), "threads": threads, "custom_ops": custom_ops()}
        (folder / "job.pickle").write_bytes(pickle.dumps(job))
        code, complaint = _run_apart([json.dumps(_import_paths()), str(folder)])
        path = folder / "answer.json"
        answer = json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
    if answer is None:
        last = (complaint.strip().splitlines() or ["it said nothing"])[-1]
        raise ModelError(
            f"the process that measures memory expected to end well, found exit code {code}: {last}; "
            "leave memory out, or free some"
        )
    if "error" in answer:
        raise _ERRORS[answer["error"]](answer["message"])
    return Memory(**answer)


def _import_paths() -> list[str]:
    """Return where this process imports from, without the current folder; this package is found in any case."""
    package = str(Path(__file__).resolve().parents[2])
    return [path for path in (*sys.path, package) if os.path.isabs(path)]


def _run_apart(words: Sequence[str]) -> tuple[int, str]:
    """Run the child with these arguments; return its exit code and what it complained of."""
    # Isolated: before the path is set, no module of the current folder may be taken for one of Python's.
    command = [sys.executable, "-I", "-c", _PROGRAM, *words]
    nothing, pipe = subprocess.DEVNULL, subprocess.PIPE
    with subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=pipe) as run, cleanup(run.kill):
        _, complaint = run.communicate()
    return run.returncode, complaint.decode("utf-8", "replace")


def child(folder: str) -> None:
    """Do the job in `folder`, in the process that is measured: the answer is a file there."""
    where = Path(folder)
    job = pickle.loads((where / "job.pickle").read_bytes())
    try:
        register_custom_ops(job["custom_ops"])
        answer = asdict(_resident_memory(where / "model.onnx", job["feeds"], job["providers"], job["threads"]))
    except tuple(_ERRORS.values()) as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    (where / "answer.json").write_text(json.dumps(answer), encoding="utf-8")


def _resident_memory(model: Path, feeds: Mapping[str, Array], providers: Sequence[str], threads: int | None) -> Memory:
    # The libraries of a provider are loaded with its first session, whatever the model.
    open_session(onnx.parser.parse_model(_NOTHING), providers, threads=threads)
    base = _resident("VmRSS")
    with contextlib.suppress(OSError):
        (_PROC / "clear_refs").write_text("5")  # the peak so far, of imports, is forgotten
    session = open_session(model, providers, threads=threads)
    once = runner(session, feeds)
    for _ in range(_RUNS):
        once()
    held = max(0, _resident("VmRSS") - base)
    # The kernel counts in batches, so that what is held now can be a few pages above what it calls the peak.
    return Memory(max(held, _resident("VmHWM") - base), held)


def _resident(field: str) -> int:
    """Return the bytes that the kernel counts for this process under `field`."""
    line = re.search(rf"^{field}:\s*(\d+) kB", (_PROC / "status").read_text(encoding="ascii"), re.MULTILINE)
    assert line is not None
    return 1024 * int(line[1])
