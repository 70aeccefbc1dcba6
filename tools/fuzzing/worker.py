"""A process that runs commands on damaged files, one case after the other, and says what each did.

    python -m fuzzing.worker FOLDER DESCRIPTOR NUMBER ...

Before a case it writes its number to the descriptor, after it a line of JSON (`Done`). It may crash or never end:
whoever started it watches it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from fuzzing.cases import OLD, OUT, Case, Cases
from onnx_subprune.cli import run

MOST_ADDRESSES = 12 << 30
"""Bytes of addresses the process may have: more would be a fault in any case."""


@dataclass(frozen=True)
class Done:
    """What a command did.

    Attributes:
        number, name, words: of the case.
        code: exit code.
        out, err: what was printed, shortened.
        seconds: of the processor.
        peak: bytes of memory at most.
        changed: files that should not have changed, been made or been removed.

    """

    number: int
    name: str
    words: tuple[str, ...]
    code: int
    out: str
    err: str
    seconds: float
    peak: int
    changed: tuple[str, ...]


def run_case(case: Case, folder: Path) -> Done:
    """Run one case in a folder of its own, which is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    path = folder / case.file
    path.parent.mkdir(parents=True)
    path.write_bytes(case.content)
    (folder / OUT).write_bytes(OLD)
    before, peak = _files(folder), _Peak()
    begin = time.process_time()
    with contextlib.chdir(folder), _captured(folder.parent) as printed:
        code = run(case.words)
    seconds = time.process_time() - begin
    out, err = printed
    return Done(
        case.number, case.name, case.words, code, out, err, seconds, peak.read(), _changed(before, folder, code)
    )


def _changed(before: dict[str, bytes], folder: Path, code: int) -> tuple[str, ...]:
    after = _files(folder)
    # What a command that ended well may write.
    allowed = {OUT, "report.html"} if code == 0 else set()
    names = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    return tuple(sorted(names - allowed))


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@contextlib.contextmanager
def _captured(folder: Path) -> Iterator[list[str]]:
    """Yield a list that holds at the end what was printed on stdout and stderr, by C++ code too."""
    printed: list[str] = []
    paths = [folder / "stdout", folder / "stderr"]
    kept = [os.dup(descriptor) for descriptor in (1, 2)]
    for descriptor, path in zip((1, 2), paths, strict=True):
        with path.open("wb") as file:
            os.dup2(file.fileno(), descriptor)
    try:
        yield printed
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for descriptor, before in zip((1, 2), kept, strict=True):
            os.dup2(before, descriptor)
            os.close(before)
        printed += [path.read_text(encoding="utf-8", errors="replace") for path in paths]


class _Peak:
    """The most memory that the process takes from now on."""

    _PROC = Path("/proc/self")

    def __init__(self) -> None:
        with contextlib.suppress(OSError):
            (self._PROC / "clear_refs").write_text("5")

    def read(self) -> int:
        """Return it in bytes; 0 where the system does not say."""
        with contextlib.suppress(OSError):
            line = re.search(r"^VmHWM:\s*(\d+) kB", (self._PROC / "status").read_text(), re.MULTILINE)
            return 1024 * int(line[1]) if line else 0
        return 0


def main() -> None:
    folder, descriptor, *numbers = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    cases = Cases(Path(folder))
    with os.fdopen(int(descriptor), "w", encoding="utf-8", buffering=1) as answers:
        for number in numbers:
            case = cases(int(number))
            print(case.number, file=answers)
            done = run_case(case, Path(folder) / "case")
            print(json.dumps(asdict(done)), file=answers)


if __name__ == "__main__":
    main()
