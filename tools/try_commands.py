"""Whether every command ends as it should on every network of the zoo, and how long it takes.

    python tools/try_commands.py --out docs/zoo_commands.csv            # all; goes on where an earlier run stopped
    python tools/try_commands.py --out /tmp/tried.csv 'resnet*' 'gpt2*'

`inspect`, `prune --effort fast`, `prune --effort balanced`, `apply` of the last plan, `eval --metric fidelity`, `bench`
of one run and `factorise` run in this process: once with tables and a page as report, once with `--json` and data as
report. (`balanced` runs once, with `--json` and a page; `apply` shows the same in the other forms.) Calibration data
are the inputs that the product makes up. A command may succeed, refuse with one line that gives the reason (exit 1), or say
which target is in reach (exit 3), which is then asked for. Everything else is a fault: an internal error, a line that a
library prints, output that is not JSON, a page that is not whole, other bytes from the same plan, two minutes of
processor time and more. `tools/zoo_table.py` puts the summary into docs/zoo.md.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import importlib
import io
import json
import os
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from html.parser import HTMLParser
from pathlib import Path

import onnx
from zoo import Entry, read_entries, read_skeleton, refill

from onnx_subprune.cli import run
from onnx_subprune.evaluate import Pace
from onnx_subprune.model import input_specs
from onnx_subprune.model.made_inputs import made_inputs

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "tests" / "zoo"
EFFORTS = ("fast", "balanced")
COMMANDS = ("inspect", *(f"prune {effort}" for effort in EFFORTS), "apply", "eval", "bench", "factorise")
FORMS = ("text", "json")
RUNS = tuple((c, f) for c in COMMANDS for f in FORMS if (c, f) != ("prune balanced", "text"))
TARGET = "macs=0.7"
SECONDS = 120
BATCHES = 6
HEADER = ("network", "command", "form", "exit", "seconds", "fault", "said")

# Words that only a fault of the program's own prints.
_OWN_FAULT = re.compile(r"internal error|report this|Traceback")
_IN_REACH = re.compile(r"ask for (\w+=[\d.]+) or more")
_FLAGS: Mapping[str, Sequence[str]] = {"text": (), "json": ("--json",)}
_WRITING = ("prune", "apply", "factorise")
_REPORTING = ("inspect", *_WRITING)
_OPEN_TAGS = frozenset({"meta", "link", "br", "wbr", "hr", "img", "input", "col"})


@dataclass(frozen=True)
class Printed:
    """What a command left: its exit code, both streams, and seconds of processor time."""

    code: int
    out: str
    err: str
    seconds: float


@dataclass(frozen=True)
class Attempt:
    """A command on a network, and how it ended.

    Attributes:
        network: of the zoo.
        command: of `COMMANDS`.
        form: text or json.
        code: the exit code.
        seconds: of processor time.
        fault: what is wrong with it; empty where nothing is.
        said: the line with the reason where it refused.
        warnings: the lines that warn; they are no part of the table.

    """

    network: str
    command: str
    form: str
    code: int
    seconds: float
    fault: str = ""
    said: str = ""
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        end = f"{self.code} {self.seconds:7.2f} s  {self.fault or self.said}"
        lines = [f"{self.network:36} {self.command:15} {self.form:5} {end}", *self.warnings]
        return "\n    ".join(lines)


@dataclass(frozen=True)
class Files:
    """The files of one network: what commands read, and where they write."""

    folder: Path

    @property
    def model(self) -> Path:
        """The network."""
        return self.folder / "dense.onnx"

    @property
    def calib(self) -> Path:
        """A folder of inputs."""
        return self.folder / "calib"

    @property
    def plan(self) -> Path | None:
        """The plan of the most thorough pruning so far."""
        return next((path for effort in reversed(EFFORTS) if (path := self.named(f"{effort}.plan")).exists()), None)

    @property
    def pruned(self) -> Path:
        """What that pruning wrote; the network itself where there was none."""
        names = [f"prune {effort} {form}.onnx" for effort in reversed(EFFORTS) for form in FORMS]
        return next((path for name in names if (path := self.named(name)).exists()), self.model)

    def named(self, name: str) -> Path:
        """Return a file of that name."""
        return self.folder / name

    @staticmethod
    def of(model: onnx.ModelProto, entry: Entry, folder: Path, batches: int = BATCHES) -> Files:
        """Write a network and made-up inputs at the sizes it was exported for."""
        files = Files(folder)
        onnx.save(model, files.model)
        files.calib.mkdir()
        specs = input_specs(model)
        for number in range(batches):
            inputs = made_inputs(specs, entry.shapes(0), number)
            tensors = [onnx.numpy_helper.from_array(array, name) for name, array in inputs.items()]
            (files.calib / f"test_data_set_{number}").mkdir()
            for place, tensor in enumerate(tensors):
                path = files.calib / f"test_data_set_{number}" / f"input_{place}.pb"
                path.write_bytes(tensor.SerializeToString())
        return files


def try_network(
    entry: Entry, folder: Path, runs: Sequence[tuple[str, str]] = RUNS, batches: int = BATCHES
) -> Iterator[Attempt]:
    """Yield how every command ends on a network.

    Args:
        entry: of the network.
        folder: an empty one.
        runs: some of `RUNS`; `apply` needs a plan that a run before it wrote, and is left out without one.
        batches: of made-up inputs.

    """
    model = refill(read_skeleton(ZOO / "skeletons" / f"{entry.name}.onnx.xz"))
    files = Files.of(model, entry, folder, batches)
    for command, form in runs:
        if command != "apply" or files.plan is not None:
            yield _attempt(entry.name, command, form, files)


def run_command(words: Sequence[object]) -> Printed:
    """Run a command line in this process; what libraries write past Python is caught too."""
    start = time.process_time()
    with _captured() as streams:
        code = run([str(word) for word in words])
    return Printed(code, *(stream.getvalue() for stream in streams), time.process_time() - start)


def _attempt(network: str, command: str, form: str, files: Files) -> Attempt:
    name = command.partition(" ")[0]
    out = files.named(f"{command} {form}.onnx") if name in _WRITING else None
    report = files.named(f"{command} {form}{_report_ending(command, form)}") if name in _REPORTING else None
    words = [*_words(command, files, out), *(["--report", report] if report else []), *_FLAGS[form]]
    printed = run_command(words)
    if printed.code == 3 and (reach := _IN_REACH.search(printed.err)):
        printed = run_command([reach[1] if word == TARGET else word for word in words])
    fault = fault_of(printed, form=form, report=report, written=out)
    if not fault and printed.code == 0 and out is not None:
        fault = _other_bytes(command, out, files)
    said = "" if printed.code == 0 else printed.err.strip().splitlines()[-1]
    warned = tuple(line for line in printed.err.splitlines() if line.startswith("warning: "))
    return Attempt(network, command, form, printed.code, round(printed.seconds, 2), fault, said, warned)


def _report_ending(command: str, form: str) -> str:
    """Return the ending of the report's name: a page beside tables, data beside data."""
    if command == "factorise":
        return ".json"
    return ".html" if form == "text" or command == "prune balanced" else ".json"


def _words(command: str, files: Files, out: Path | None) -> list[object]:
    """Return a command line without what is common to all."""
    name, _, effort = command.partition(" ")
    data, one = ["--calib", files.calib], ["--threads", 1]
    if name == "prune":
        plan = files.named(f"{effort}.plan")
        return [name, files.model, out, *data, "--target", TARGET, "--effort", effort, "--plan", plan, *one]
    if name == "apply":
        return [name, files.plan, files.model, out, *data, *one]
    if name == "factorise":
        return [name, files.model, out, *data, "--target", TARGET, *one]
    if name == "eval":
        return [name, files.model, files.pruned, "--data", files.calib, "--metric", "fidelity", *one]
    return [name, files.model] if name == "inspect" else [name, files.model, files.pruned, "--runs", 1, *one]


def _other_bytes(command: str, out: Path, files: Files) -> str:
    """Return what is wrong where two runs that must write the same bytes do not."""
    first = files.pruned if command == "apply" else files.named(f"{command} text.onnx")
    if first.exists() and first.read_bytes() != out.read_bytes():
        return f"other bytes than those of {first.name}"
    return ""


def fault_of(printed: Printed, *, form: str, report: Path | None, written: Path | None) -> str:
    """Return what is wrong with what a command left; empty where nothing is."""
    checks = (_streams_fault(printed), _output_fault(printed, form), _files_fault(printed, form, report, written))
    return "; ".join(filter(None, checks))


def _streams_fault(printed: Printed) -> str:
    if printed.seconds > SECONDS:
        return f"took {printed.seconds:.0f} s"
    if printed.code not in (0, 1, 3):
        return f"exit code {printed.code}: {printed.err.strip()[-300:]}"
    lines = [line for line in printed.err.splitlines() if not line.startswith("warning: ")]
    if own := _OWN_FAULT.search(printed.err):
        return f"{own[0]}: {printed.err.strip()[-600:]}"
    expected = 0 if printed.code == 0 else 1
    if len(lines) != expected or not all(line.startswith("error: ") for line in lines):
        return f"printed beside its own lines: {' / '.join(lines)[:600]}"
    return ""


def _output_fault(printed: Printed, form: str) -> str:
    if printed.code:
        return f"printed a result and refused: {printed.out[:100]}" if printed.out else ""
    if form == "text":
        odd = re.search(r"\b(nan|None|inf)\b|\[/|Undefined", printed.out)
        return f"prints '{odd[0]}'" if odd else "" if printed.out.strip() else "printed nothing"
    try:
        _strict(printed.out)
    except ValueError as error:
        return f"no JSON: {error}"
    return ""


def _files_fault(printed: Printed, form: str, report: Path | None, written: Path | None) -> str:
    for path in (report, written):
        if path is not None and path.exists() != (printed.code == 0):
            return f"exit code {printed.code}, and {path.name} is {'there' if path.exists() else 'not there'}"
    if report is None or printed.code:
        return ""
    text = report.read_text(encoding="utf-8")
    if report.suffix == ".html":
        return page_fault(text)
    try:
        document = _strict(text)
    except ValueError as error:
        return f"{report.name} is no JSON: {error}"
    same = form != "json" or document == _strict(printed.out)
    return "" if same else f"{report.name} differs from what was printed"


def _strict(text: str) -> object:
    """Read JSON as other programs do: NaN and Infinity are no part of it."""

    def refuse(word: str) -> object:
        raise ValueError(f"{word} is no number")

    return json.loads(text, parse_constant=refuse)


def page_fault(text: str) -> str:
    """Return what is wrong with a page: a tag that is not closed, a value that is not there."""
    page = _Page()
    page.feed(text)
    page.close()
    odd = re.search(r"\b(nan|None|inf|Undefined)\b", page.text)
    if page.wrong or page.open:
        return f"page with a tag left open or closed twice: {[*page.wrong, *page.open][0]}"
    return f"page says '{page.text[max(0, odd.start() - 30) : odd.end() + 30]}'" if odd else ""


class _Page(HTMLParser):
    """The tags that are open, those that close none, and the text between."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: object) -> None:  # noqa: ARG002 - the base class's
        if tag not in _OPEN_TAGS:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: object) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@contextlib.contextmanager
def _captured() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    """Catch stdout and stderr, of Python and of the process; what they got is in the yielded texts afterwards."""
    texts = (io.StringIO(), io.StringIO())
    before = (sys.stdout, sys.stderr)
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) for _ in texts]
        for stream in before:
            stream.flush()
        kept = [os.dup(number) for number in (1, 2)]
        try:
            for number, file in zip((1, 2), files, strict=True):
                os.dup2(file.fileno(), number)
            sys.stdout, sys.stderr = files
            yield texts
        finally:
            sys.stdout, sys.stderr = before
            for number, copy, file, text in zip((1, 2), kept, files, texts, strict=True):
                file.flush()
                os.dup2(copy, number)
                os.close(copy)
                file.seek(0)
                text.write(file.read())


def read_attempts(path: Path) -> list[Attempt]:
    """Read what `write_attempts` wrote."""
    with open(path, encoding="utf-8", newline="") as file:
        return [
            Attempt(network, command, form, int(code), float(seconds), fault, said)
            for network, command, form, code, seconds, fault, said in list(csv.reader(file))[1:]
        ]


def write_attempts(attempts: Iterable[Attempt], path: Path) -> None:
    """Write a line for each command on each network."""
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(HEADER)
        for a in attempts:
            writer.writerow((a.network, a.command, a.form, a.code, f"{a.seconds:.2f}", a.fault, a.said))


def prepare() -> None:
    """Let warnings of libraries be errors, and reports time networks for a moment only."""
    warnings.simplefilter("error")
    for module in ("google", "onnx_graphsurgeon"):
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
    comparison = importlib.import_module("onnx_subprune.evaluate.comparison")
    comparison._PACE = Pace(precision=0.5, most_seconds=0.3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["*"], help="globs of networks")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--again", action="store_true", help="also networks that the file holds already")
    arguments = parser.parse_args()
    prepare()
    attempts: dict[str, list[Attempt]] = {}
    for attempt in read_attempts(arguments.out) if arguments.out.exists() else ():
        attempts.setdefault(attempt.network, []).append(attempt)
    for entry in read_entries(ZOO / "zoo.json"):
        wanted = any(fnmatchcase(entry.name, pattern) for pattern in arguments.names)
        if not wanted or (entry.name in attempts and not arguments.again):
            continue
        with tempfile.TemporaryDirectory() as folder:
            attempts[entry.name] = list(try_network(entry, Path(folder)))
        write_attempts((attempt for name in sorted(attempts) for attempt in attempts[name]), arguments.out)
        for attempt in attempts[entry.name]:
            print(attempt, flush=True)
    return int(any(attempt.fault for group in attempts.values() for attempt in group))


if __name__ == "__main__":
    sys.exit(main())
