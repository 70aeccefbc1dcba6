"""Whether every command ends as it should on every network of the zoo, and how long it takes.

    python tools/try_commands.py            # all; goes on where an earlier run of docs/zoo_commands.csv stopped
    python tools/try_commands.py --out /tmp/tried.csv 'resnet*' 'gpt2*'

`inspect`, `prune --effort fast`, `prune --effort balanced`, `apply` of the last plan, `eval --metric fidelity`, `bench`
of one run and `factorise` run in this process: once with tables and a page as report, once with `--json` and data as
report. (`balanced` runs once, with `--json` and a page; `apply` shows the same in the other forms.) Calibration data
are the inputs that the product makes up. A command may succeed, refuse with one line (exit 1), or say
which target is in reach (exit 3), which is then asked for. Everything else is a fault: an internal error, a line that a
library prints, output that is not JSON, a page that is not whole, other bytes from the same plan, two minutes of
processor time and more. `tools/zoo_table.py` puts the summary into docs/zoo.md.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

import onnx
from command_faults import fault_of, run_command
from zoo import Entry, count_parameters, read_entries, read_skeleton, refill

from onnx_subprune.evaluate import Pace
from onnx_subprune.model import input_specs
from onnx_subprune.model.made_inputs import made_inputs

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "tests" / "zoo"
OUT = ROOT / "docs" / "zoo_commands.csv"
EFFORTS = ("fast", "balanced")
COMMANDS = ("inspect", *(f"prune {effort}" for effort in EFFORTS), "apply", "eval", "bench", "factorise")
FORMS = ("text", "json")
RUNS = tuple((c, f) for c in COMMANDS for f in FORMS if (c, f) != ("prune balanced", "text"))
TARGET = "macs=0.7"
BATCHES = 4

_FAULT = "FAULT: "
_IN_REACH = re.compile(r"ask for (\w+=[\d.]+) or more")
_FLAGS: Mapping[str, Sequence[str]] = {"text": (), "json": ("--json",)}
_WRITING = ("prune", "apply", "factorise")
_REPORTING = ("inspect", *_WRITING)


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

    @property
    def cell(self) -> str:
        """What stands in the table of all attempts."""
        return f"{self.code} {self.seconds:.1f} {_FAULT + self.fault if self.fault else self.said}".rstrip()

    def __str__(self) -> str:
        lines = [f"{self.network:36} {self.command:15} {self.form:5} {self.cell}", *self.warnings]
        return "\n    ".join(lines)


@dataclass(frozen=True)
class Files:
    """The files of one network: what commands read, and where they write.

    Attributes:
        model: the network.
        data: calibration data.
        folder: for what is written.
        asked: what `prune` is asked for.

    """

    model: Path
    data: Path
    folder: Path
    asked: tuple[str, ...] = ("--target", TARGET)

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


def zoo_files(entry: Entry, folder: Path, batches: int = BATCHES) -> Files:
    """Write a network of the zoo, and made-up inputs at the sizes it was exported for, into a folder."""
    files = Files(folder / "dense.onnx", folder / "data", folder)
    model = refill(read_skeleton(ZOO / "skeletons" / f"{entry.name}.onnx.xz"))
    onnx.save(model, files.model)
    write_inputs(model, entry.shapes(0), files.data, batches)
    return files


def write_inputs(model: onnx.ModelProto, shapes: Mapping[str, Sequence[int]], folder: Path, batches: int) -> None:
    """Write made-up inputs of a network as data sets of ONNX."""
    for number in range(batches):
        inputs = made_inputs(input_specs(model), shapes, number)
        batch = folder / f"test_data_set_{number}"
        batch.mkdir(parents=True)
        for place, (name, array) in enumerate(inputs.items()):
            tensor = onnx.numpy_helper.from_array(array, name)
            (batch / f"input_{place}.pb").write_bytes(tensor.SerializeToString())


def try_network(name: str, files: Files, runs: Sequence[tuple[str, str]] = RUNS) -> Iterator[Attempt]:
    """Yield how every command ends on a network.

    Args:
        name: of the network.
        files: of it.
        runs: some of `RUNS`; `apply` needs a plan that a run before it wrote, and is left out without one.

    """
    for command, form in runs:
        if command != "apply" or files.plan is not None:
            yield _attempt(name, command, form, files)


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
    data, one = ["--calib", files.data], ["--threads", 1]
    if name == "prune":
        plan = files.named(f"{effort}.plan")
        return [name, files.model, out, *data, *files.asked, "--effort", effort, "--plan", plan, *one]
    if name == "apply":
        return [name, files.plan, files.model, out, *data, *one]
    if name == "factorise":
        return [name, files.model, out, *data, "--target", TARGET, *one]
    if name == "eval":
        return [name, files.model, files.pruned, "--data", files.data, "--metric", "fidelity", *one]
    return [name, files.model] if name == "inspect" else [name, files.model, files.pruned, "--runs", 1, *one]


def _other_bytes(command: str, out: Path, files: Files) -> str:
    """Return what is wrong where two runs that must write the same bytes do not."""
    first = files.pruned if command == "apply" else files.named(f"{command} text.onnx")
    if first.exists() and first.read_bytes() != out.read_bytes():
        return f"other bytes than those of {first.name}"
    return ""


def read_attempts(path: Path) -> list[Attempt]:
    """Read what `write_attempts` wrote."""
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cells = ((row["network"], command, form, row[f"{command} {form}"]) for row in rows for command, form in RUNS)
    return [_read_cell(*cell) for cell in cells if cell[-1]]


def write_attempts(attempts: Iterable[Attempt], path: Path) -> None:
    """Write a line for each network and a column for each run: exit code, seconds, and the reason where it refused."""
    rows: dict[str, dict[str, str]] = {}
    for attempt in attempts:
        row = rows.setdefault(attempt.network, {"network": attempt.network})
        row[f"{attempt.command} {attempt.form}"] = attempt.cell
    with open(path, "w", encoding="utf-8", newline="") as file:
        columns = ("network", *(f"{command} {form}" for command, form in RUNS))
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[name] for name in sorted(rows))


def _read_cell(network: str, command: str, form: str, cell: str) -> Attempt:
    code, seconds, *text = cell.split(" ", 2)
    fault = "".join(text).removeprefix(_FAULT) if "".join(text).startswith(_FAULT) else ""
    return Attempt(network, command, form, int(code), float(seconds), fault, "" if fault else "".join(text))


def prepare() -> None:
    """Let warnings of libraries be errors, and reports time networks for a moment only."""
    warnings.simplefilter("error")
    for module in ("google", "onnx_graphsurgeon"):
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
    comparison = importlib.import_module("onnx_subprune.evaluate.comparison")
    comparison._PACE = Pace(precision=0.5, most_seconds=0.3)


def in_order(entries: Iterable[Entry]) -> list[Entry]:
    """Return networks in the order of trials: one spelling of each before all second ones, small ones first.

    A run that is broken off has then seen as many kinds of networks as it could.
    """
    seen: Counter[str] = Counter()
    order = []
    for entry in entries:
        skeleton = read_skeleton(ZOO / "skeletons" / f"{entry.name}.onnx.xz")
        order.append((seen[entry.architecture], count_parameters(skeleton), entry.name, entry))
        seen[entry.architecture] += 1
    return [entry for *_, entry in sorted(order)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=["*"], help="globs of networks")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--again", action="store_true", help="also networks that the file holds already")
    arguments = parser.parse_args()
    prepare()
    attempts: dict[str, list[Attempt]] = {}
    for attempt in read_attempts(arguments.out) if arguments.out.exists() else ():
        attempts.setdefault(attempt.network, []).append(attempt)
    for entry in in_order(read_entries(ZOO / "zoo.json")):
        wanted = any(fnmatchcase(entry.name, pattern) for pattern in arguments.names)
        if not wanted or (entry.name in attempts and not arguments.again):
            continue
        with tempfile.TemporaryDirectory() as folder:
            attempts[entry.name] = list(try_network(entry.name, zoo_files(entry, Path(folder))))
        write_attempts((attempt for group in attempts.values() for attempt in group), arguments.out)
        for attempt in attempts[entry.name]:
            print(attempt, flush=True)
    return int(any(attempt.fault for group in attempts.values() for attempt in group))


if __name__ == "__main__":
    sys.exit(main())
