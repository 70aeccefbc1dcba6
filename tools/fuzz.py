"""Whether damaged models and data end every command in one line, in bounded time and memory, with nothing written.

    python tools/fuzz.py [--count 2000] [--first 0] [--keep FOLDER]

Case after case a small model, a plan, statistics or calibration data is damaged: bits, bytes, fields of the protobuf
message, values, names. The commands run on it in a process of their own, which may crash or run without end. It is a
fault if a command

- ends with another exit code than 0, 1 or 3, or not at all, or takes more than 20 s of the processor or 2 GB;
- prints a traceback, anything that asks to be reported, or lines that are not its own;
- changes a file, where it does not end well.

A case has a number and is the same each time; `--first 1234 --count 1 --keep FOLDER` writes its files. Prints every
fault and how many cases there were of each outcome.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from fuzzing.cases import Cases
from fuzzing.worker import Done

TOOLS = Path(__file__).resolve().parent
MOST_SECONDS = 20.0  # of the processor
MOST_WAITING = 180.0  # by the clock, on a machine that has other things to do
MOST_MEMORY = 2 << 30
_OWN_LINE = re.compile(r"(warning|error): .*")


@dataclass(frozen=True)
class Fault:
    """What went wrong in a case."""

    number: int
    what: str

    def __str__(self) -> str:
        return f"case {self.number}: {self.what}"


def fault_of(done: Done) -> str | None:
    """Return what is wrong with what a command did; None if nothing is."""
    lines = done.err.splitlines()
    errors = sum(line.startswith("error: ") for line in lines)
    strange = [line for line in lines if not _OWN_LINE.fullmatch(line)]
    said = lines[-1] if lines else ""
    checks = (
        (done.code in (0, 1, 3), f"exit code {done.code}"),
        (not strange, f"printed {(strange or [''])[0]!r}"),
        (errors == (done.code != 0), f"{errors} errors with exit code {done.code}"),
        ("please report" not in done.out + done.err, "asks to be reported"),
        ((done.out + done.err).replace("\n", "").isprintable(), "printed control characters"),
        (done.code == 0 or not done.out, "printed a result and failed"),
        (done.seconds <= MOST_SECONDS, f"took {done.seconds:.0f} s"),
        (done.peak <= MOST_MEMORY, f"took {done.peak >> 20} MiB"),
        (not done.changed, f"changed {', '.join(done.changed)}"),
    )
    wrong = [what for well, what in checks if not well]
    return f"{'; '.join(wrong)} ({done.name}: {' '.join(done.words)}): {said[:300]}" if wrong else None


class _Worker:
    """A process that goes through cases, and what it says."""

    def __init__(self, folder: Path, numbers: Iterable[int]) -> None:
        reading, writing = os.pipe()
        environment = os.environ | {
            "PYTHONPATH": os.pathsep.join([str(TOOLS), str(TOOLS.parent), os.environ.get("PYTHONPATH", "")]),
            "OPENBLAS_NUM_THREADS": "1",
            "ONNX_SUBPRUNE_CACHE": str(folder / "cache"),
            "TMPDIR": str(folder),
        }
        command = [sys.executable, "-m", "fuzzing.worker", str(folder), str(writing), *map(str, numbers)]
        self.process = subprocess.Popen(command, env=environment, pass_fds=[writing], stderr=subprocess.PIPE)
        os.close(writing)
        self._reading, self._rest = reading, b""

    def answers(self) -> Iterator[Any]:
        """Yield what it says, line by line; None where it takes too long, and then no more."""
        while True:
            while b"\n" in self._rest:
                line, _, self._rest = self._rest.partition(b"\n")
                yield json.loads(line)
            if not self._waited():
                yield None
                return
            piece = os.read(self._reading, 1 << 16)
            if not piece:
                return
            self._rest += piece

    def _waited(self) -> bool:
        begin, used = time.monotonic(), self._seconds()
        while not select.select([self._reading], [], [], 0.5)[0]:
            if time.monotonic() - begin > MOST_WAITING or self._seconds() - used > MOST_SECONDS + 5:
                return False
        return True

    def _seconds(self) -> float:
        try:
            fields = Path(f"/proc/{self.process.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            return 0.0
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self) -> str:
        """End it; return how it ended."""
        self.process.kill()
        _, said = self.process.communicate()
        os.close(self._reading)
        code = self.process.returncode
        last = (said.decode("utf-8", "replace").strip().splitlines() or [""])[-1]
        return f"{signal.Signals(-code).name if code < 0 else f'exit code {code}'} {last}".strip()


def try_all(
    numbers: Iterable[int], folder: Path, report: Callable[[Fault], object] | None = None
) -> tuple[Counter[str], list[Fault]]:
    """Try the cases of these numbers; return how many ended how, and the faults, each reported when it is seen."""
    waiting = list(numbers)
    outcomes: Counter[str] = Counter()
    faults: list[Fault] = []
    while waiting:
        worker, begun, endless = _Worker(folder, waiting), None, False
        for answer in worker.answers():
            if isinstance(answer, int):
                begun = answer
            elif answer is None:
                endless = True
            else:
                begun, done = None, Done(**{**answer, "words": tuple(answer["words"])})
                outcomes[f"exit code {done.code}"] += 1
                waiting.remove(done.number)
                if (what := fault_of(done)) is not None:
                    faults.append(Fault(done.number, what))
                    _told(faults[-1], report)
        ended = worker.close()
        if begun is None and waiting:
            raise RuntimeError(f"the process that tries cases expected to go through all, found its end: {ended}")
        if begun is not None:
            waiting.remove(begun)
            outcomes["endless" if endless else "crashed"] += 1
            faults.append(Fault(begun, "did not end" if endless else f"crashed: {ended}"))
            _told(faults[-1], report)
    return outcomes, faults


def _told(fault: Fault, report: Callable[[Fault], object] | None) -> None:
    if report is not None:
        report(fault)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--keep", type=Path, help="put the damaged files there, and try nothing")
    arguments = parser.parse_args()
    numbers = range(arguments.first, arguments.first + arguments.count)
    if arguments.keep is not None:
        arguments.keep.mkdir(parents=True, exist_ok=True)
        cases = Cases(arguments.keep)
        for case in map(cases, numbers):
            path = arguments.keep / str(case.number) / case.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(case.content)
            print(f"{path.parent}: {' '.join(case.words)}")
        return
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        outcomes, faults = try_all(numbers, Path(folder), partial(print, flush=True))
    print(f"tried {outcomes.total()}: " + ", ".join(f"{count} {kind}" for kind, count in sorted(outcomes.items())))
    print(f"faults {len(faults)}")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
