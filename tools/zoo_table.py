"""What is prunable in every network of the zoo, and what is in the way: docs/zoo.md.

    python tools/zoo_table.py --out docs/zoo.md

Only the structure is inferred: nothing is pruned and nothing runs.
"""

from __future__ import annotations

import argparse
import logging
import re
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from zoo import Entry, read_entries, read_skeleton, refill

from onnx_subprune.analysis import analyse
from onnx_subprune.structure import Structure

ROOT = Path(__file__).resolve().parents[1]
ZOO = ROOT / "tests" / "zoo"
HEADER = ("network", "family", "exporter", "parameters", "prunable", "groups", "why not the rest")
RIGHT = {"parameters", "prunable", "groups"}
REASONS = 3
TEXT = """\
# The zoo

{entries} graphs of {architectures} architectures as exporters wrote them ({exporters}), with random weights
(`tests/zoo/skeletons`, {size:.1f} MB in all). The tests prune each of them to three quarters of its units at two
sets of input sizes and hold the result to the mask oracle. Most are narrow and shallow versions of the networks they
are named after.

- **prunable**: the share of the parameters in weights that shrink with a prunable group
- **groups**: prunable groups of all; what the graph gives back (its outputs) is never prunable and not counted
- **why not the rest**: the {reasons} most frequent reasons for frozen groups, with how many groups they freeze

`python tools/zoo_table.py --out docs/zoo.md` writes this page, `python tools/make_zoo.py` the skeletons.

"""


@dataclass(frozen=True)
class Row:
    """A line of the table, as it is printed."""

    network: str
    family: str
    exporter: str
    parameters: str
    prunable: str
    groups: str
    why: str

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells, in the order of the header."""
        return (self.network, self.family, self.exporter, self.parameters, self.prunable, self.groups, self.why)

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
    return entry.name, entry.family, exporter, f"{_parameters(load(entry)):,}"


def share(structure: Structure) -> float:
    """Return the share of the parameters that is in axes of prunable groups."""
    rest = structure.parameters({group.atom: 0 for group in structure.prunable})
    return float(1 - rest / max(1, structure.parameters({})))


def kind(reason: str) -> str:
    """Return what a reason says without the names: "Softmax '/0' normalises" becomes "Softmax normalises"."""
    return re.sub(r"\s+", " ", re.sub(r"\s*'[^']*'", "", reason)).strip()


def rows(entries: Iterable[Entry]) -> Iterator[Row]:
    """Yield the lines of the table; infers the structure of every network."""
    for entry in entries:
        logging.info(entry.name)
        structure = analyse(refill(load(entry)), entry.shapes(0)).structure
        outputs = [g for g in structure.frozen if any(r.startswith("graph output") for r in g.reasons)]
        groups = f"{len(structure.prunable)} of {len(structure.groups) - len(outputs)}"
        why = _why(structure, {group.name for group in outputs})
        yield Row(*cheap(entry), f"{100 * share(structure):.1f}%", groups, why)


def read_rows(page: str) -> dict[str, Row]:
    """Return the lines of a written page, by network."""
    lines = [line for line in page.splitlines() if line.startswith("| ")][2:]
    found = (Row(*(cell.strip() for cell in line.strip("| ").split(" | "))) for line in lines)
    return {row.network: row for row in found}


def write(entries: list[Entry], table: Iterable[Row]) -> str:
    """Return the page."""
    size = sum(path.stat().st_size for path in (ZOO / "skeletons").glob("*.xz")) / 1e6
    exporters = sorted({re.sub(r" [\d.]+", "", entry.source["exporter"]) for entry in entries})
    head = TEXT.format(
        entries=len(entries),
        architectures=len({entry.architecture for entry in entries}),
        size=size,
        reasons=REASONS,
        exporters=", ".join(exporters),
    )
    rule = ["---:" if column in RIGHT else "---" for column in HEADER]
    lines = [HEADER, rule, *(row.cells for row in table)]
    return head + "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def _parameters(skeleton: onnx.ModelProto) -> int:
    """Return the number of floating-point values of one axis or more that a skeleton stores."""
    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE}
    constants = [a.t for n in skeleton.graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    total = 0
    for tensor in (*skeleton.graph.initializer, *constants):
        if tensor.data_type in floats and tensor.dims:
            count = 1
            for size in tensor.dims:
                count *= size
            total += count
    return total


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
    arguments = parser.parse_args()
    entries = list(read_entries(ZOO / "zoo.json"))
    arguments.out.write_text(write(entries, rows(entries)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
