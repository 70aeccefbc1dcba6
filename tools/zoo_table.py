"""What is prunable in every network of the zoo, and what is in the way: docs/zoo.md.

    python tools/zoo_table.py --out docs/zoo.md
    python tools/zoo_table.py --commands-only       # after tools/try_commands.py; all else stays as the page has it

Only the structure is inferred: nothing is pruned and nothing runs. How commands end was found by tools/try_commands.py.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median

import onnx
from try_commands import COMMANDS, OUT, TARGET, Attempt, read_attempts
from zoo import Entry, count_parameters, read_entries, read_skeleton, refill

from onnx_subprune.network.analysis import analyse
from onnx_subprune.structure import Atom, Structure

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "tests" / "zoo"
HEADER = (
    "network", "family", "exporter", "parameters", "prunable", "on request", "allowed", "groups", "why not the rest"
)  # fmt: skip
RIGHT = {
    "parameters", "prunable", "on request", "allowed", "groups",
    "runs", "done", "refused", "out of reach", "faults", "half take, s", "longest, s",
}  # fmt: skip
REASONS = 3
# Shares that differ by less than this many points are the same to the reader.
VISIBLE = 1.0
# Reasons that lie in the network: whatever the program understood, these axes could not shrink. All others are gaps.
ARCHITECTURE = re.compile(
    "graph (in|out)put|input of the graph|normalises over|Softmax|slides (a window|this axis)|pools over|resamples|"
    "no weight downstream|reduces over|accumulates along|selects along|runs along|has these (gates|directions)|"
    "moves this axis into|drops this axis|repeats along|returns positions|index over concatenated parts|"
    "looks positions of this axis up|gives its statistics"
)
TEXT = """\
# The zoo

{entries} graphs of {architectures} architectures as exporters wrote them, with random weights: {exporters}
(`tests/zoo/skeletons`, {size:.1f} MB in all). The tests prune each of them to three quarters of its units at two
sets of input sizes and hold the result to the mask oracle. Most are narrow and shallow versions of the networks they
are named after.

- **prunable**: the share of the parameters in weights that shrink with a prunable group
- **on request**: the same with `--prune-normalised`, which lets the axes under a LayerNorm, RMSNorm or GroupNorm shrink
- **allowed**: what the share on request would be without gaps in the program: axes count unless the network itself
  forbids it (inputs and outputs, statistics and windows that run along the axis, positions looked up by number)
- **groups**: prunable groups of all; what the graph gives back (its outputs) is never prunable and not counted
- **why not the rest**: the {reasons} most frequent reasons for frozen groups, with how many groups they freeze

`python tools/zoo_table.py --out docs/zoo.md` writes this page, `python tools/make_zoo.py` the skeletons.

Half of the networks have at least {median:.1f}% prunable, on request {requested:.1f}%. {whole} of {entries} have on
request all that is allowed; the gaps of the others: {gaps}.

{exported} architectures are here from two exporters or more. The same network should be prunable alike whoever wrote
it; where the shares differ by more than a point: {unlike}.

## Commands

Every command runs on every network, with inputs made up by their names and types: `{commands}`. `prune` and `factorise`
are asked for {target}, or for the nearest that they say is in reach; `eval --metric fidelity` and `bench` compare what
was pruned with the network, `apply` must write the bytes that `prune` wrote. Each runs with tables and a report as a
page, and with `--json` and a report as data. Seconds are of one processor; `docs/zoo_commands.csv` has all of them, and
`python tools/try_commands.py` takes them.

{table_of_commands}
{refusals}

## Networks

"""
COMMANDS_HEADER = ("command", "runs", "done", "refused", "out of reach", "faults", "half take, s", "longest, s")


@dataclass(frozen=True)
class Row:
    """A line of the table, as it is printed."""

    network: str
    family: str
    exporter: str
    parameters: str
    prunable: str
    requested: str
    allowed: str
    groups: str
    why: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells, in the order of the header."""
        return tuple(getattr(self, column.name) for column in fields(self))

    @property
    def gap(self) -> float:
        """Percentage points between what is allowed and what is found on request."""
        return percent(self.allowed) - percent(self.requested)

    @property
    def cheap(self) -> tuple[str, ...]:
        """What is known without inferring the structure."""
        return (self.network, self.family, self.exporter, self.parameters)


def load(entry: Entry) -> onnx.ModelProto:
    return read_skeleton(ZOO / "skeletons" / f"{entry.name}.onnx.xz")


def cheap(entry: Entry) -> tuple[str, str, str, str]:
    """Return the cells that are known without inferring the structure."""
    source = entry.source
    exporter = f"{source['exporter']}, opset {source['opset']}"
    return entry.name, entry.family, exporter, f"{count_parameters(load(entry)):,}"


def share(structure: Structure) -> float:
    """Return the share of the parameters that is in axes of prunable groups."""
    return _share(structure, (group.atom for group in structure.prunable))


def allowed(structure: Structure) -> float:
    """Return the share of the parameters in axes that shrink, or would if the program had no gaps."""
    frozen = {atom for group in structure.frozen for atom in (group.atom,)}
    read = {atom for consumer in structure.consumers for atom in consumer.features.atoms() if atom.reasons}
    reasons = {group.atom: group.reasons for group in structure.frozen}
    gaps = (a for a in frozen | read if not any(map(ARCHITECTURE.search, reasons.get(a, tuple(a.reasons)))))
    return _share(structure, (*(group.atom for group in structure.prunable), *gaps))


def percent(cell: str) -> float:
    """Return the number in a cell."""
    return float(cell.rstrip("%"))


def _share(structure: Structure, atoms: Iterable[Atom]) -> float:
    rest = structure.parameters(dict.fromkeys(atoms, 0))
    return float(1 - rest / max(1, structure.parameters({})))


def kind(reason: str) -> str:
    """Return what a reason says without the names: "Softmax '/0' normalises" becomes "Softmax normalises"."""
    return re.sub(r"\s+", " ", re.sub(r"\s*'[^']*'", "", reason)).strip()


def rows(entries: Iterable[Entry]) -> Iterator[Row]:
    """Yield the lines of the table; infers the structure of every network."""
    for entry in entries:
        logging.info(entry.name)
        model = refill(load(entry))
        structure = analyse(model, entry.shapes(0)).structure
        requested = analyse(model, entry.shapes(0), prune_normalised=True).structure
        outputs = [g for g in structure.frozen if any(r.startswith("graph output") for r in g.reasons)]
        groups = f"{len(structure.prunable)} of {len(structure.groups) - len(outputs)}"
        why = _why(structure, {group.name for group in outputs})
        shares = (share(structure), share(requested), allowed(requested))
        yield Row(*cheap(entry), *(f"{100 * each:.1f}%" for each in shares), groups, why)


def read_rows(page: str) -> dict[str, Row]:
    """Return the lines of a written page, by network."""
    _, _, below = page.partition(_line(HEADER))
    lines = [line for line in below.splitlines() if line.startswith("| ")][1:]
    found = (Row(*(cell.strip() for cell in line.strip("| ").split(" | "))) for line in lines)
    return {row.network: row for row in found}


def write(entries: list[Entry], table: Iterable[Row], attempts: Sequence[Attempt]) -> str:
    """Return the page."""
    table = list(table)
    size = sum(path.stat().st_size for path in (ZOO / "skeletons").glob("*.xz")) / 1e6
    exporters = sorted({re.sub(r" [\d.]+", "", entry.source["exporter"]) for entry in entries})
    head = TEXT.format(
        entries=len(entries),
        architectures=len({entry.architecture for entry in entries}),
        size=size,
        reasons=REASONS,
        exporters=", ".join(exporters),
        median=median(percent(row.prunable) for row in table),
        requested=median(percent(row.requested) for row in table),
        whole=sum(row.gap < VISIBLE for row in table),
        gaps=_listed(f"{row.network} {row.gap:.0f}" for row in table if row.gap >= VISIBLE),
        **_exporters_apart(entries, table),
        commands="`, `".join(COMMANDS),
        target=f"`{TARGET}`",
        table_of_commands=command_table(attempts),
        refusals=refusals(attempts),
    )
    return head + _table(HEADER, (row.cells for row in table))


def _table(header: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    rule = ["---:" if column in RIGHT else "---" for column in header]
    return "".join(map(_line, (header, rule, *lines)))


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |\n"


def command_table(attempts: Sequence[Attempt]) -> str:
    """Return how often every command ends in which way, and how long it takes."""
    lines = []
    for command in COMMANDS:
        own = [attempt for attempt in attempts if attempt.command == command]
        if own:
            ends = [str(sum(attempt.code == code for attempt in own)) for code in (0, 1, 3)]
            seconds = [attempt.seconds for attempt in own]
            faults = str(sum(bool(attempt.fault) for attempt in own))
            times = (f"{median(seconds):.1f}", f"{max(seconds):.0f}")
            lines.append((f"`{command}`", str(len(own)), *ends, faults, *times))
    return _table(COMMANDS_HEADER, lines)


def refusals(attempts: Iterable[Attempt]) -> str:
    """Return for each kind of refusal the commands and networks that it ends."""
    ended: dict[str, dict[str, list[str]]] = {}
    for attempt in attempts:
        if attempt.said and not attempt.fault:
            networks = ended.setdefault(kind(attempt.said.removeprefix("error: ")), {}).setdefault(attempt.command, [])
            networks.extend([attempt.network] if attempt.network not in networks else [])
    lines = [
        f"- {said}: " + "; ".join(f"`{command}` of {_listed(networks)}" for command, networks in commands.items())
        for said, commands in sorted(ended.items())
    ]
    return "\n".join(["Refusals:", "", *lines] if lines else ["Nothing is refused."])


def _exporters_apart(entries: list[Entry], table: Iterable[Row]) -> dict[str, object]:
    """Return how many architectures several exporters wrote, and those that are not prunable alike."""
    names: dict[str, list[str]] = {}
    for entry in entries:
        names.setdefault(entry.architecture, []).append(entry.name)
    shares = {row.network: percent(row.requested) for row in table}
    several = {name: [shares[each] for each in same] for name, same in names.items() if len(same) > 1}
    apart = {name: max(found) - min(found) for name, found in several.items()}
    unlike = _listed(f"{name} {points:.0f}" for name, points in apart.items() if points > VISIBLE)
    return {"exported": len(several), "unlike": unlike}


def _listed(items: Iterable[str]) -> str:
    return ", ".join(items) or "none"


def _why(structure: Structure, outputs: set[str]) -> str:
    counts = Counter(kind(group.reasons[0]) for group in structure.frozen if group.name not in outputs)
    said = [f"{text} ({count})".replace("|", "/") for text, count in counts.most_common(REASONS)]
    others = sum(counts.values()) - sum(count for _, count in counts.most_common(REASONS))
    return "; ".join([*said, *([f"others ({others})"] if others else [])]) or "-"


def main() -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("onnx_subprune").setLevel(logging.ERROR)
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "zoo.md")
    parser.add_argument("--commands-only", action="store_true", help="infer nothing; take the shares from the page")
    arguments = parser.parse_args()
    entries = list(read_entries(ZOO / "zoo.json"))
    page = arguments.out.read_text(encoding="utf-8") if arguments.commands_only else ""
    table = read_rows(page).values() if page else rows(entries)
    arguments.out.write_text(write(entries, table, read_attempts(OUT)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
