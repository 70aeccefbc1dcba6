"""Whether a network pruned with defaults alone is faster, and what its widths cost; a table in docs/defaults.md.

    python tools/bench_defaults.py --cache FOLDER --model ch_PP-OCRv4_det_infer.onnx
    python tools/bench_defaults.py --networks resnet56 --targets 0.7 --round-to default

Every network is pruned to shares of its MACs with the widths that are the default, with those that are measured
(`--round-to auto`) and with all (`--round-to 1`); the result is timed against the dense network at one sample and at a
larger batch, and its accuracy is measured on the whole test set. Figures are kept in docs/defaults.json: an interrupted
run goes on. FOLDER is that of `tools/bench_latency.py`.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from speed.measure import Bench, Store
from speed.networks import NETWORKS

from onnx_subprune.latency import machine
from onnx_subprune.options import EFFORTS, Target

ROOT = Path(__file__).resolve().parents[1]
WIDTHS = {"default": None, "auto": "auto", "1": 1}


def measure(name: str, arguments: argparse.Namespace, store: Store) -> None:
    """All figures of a network."""
    timed = NETWORKS[name]
    chosen = {"effort": arguments.effort, "samples": arguments.samples, "threads": arguments.threads or None}
    chosen |= {"providers": tuple(arguments.providers)}
    opened = timed.opener(arguments.cache or Path(), arguments.model)
    bench = Bench(name, timed, opened, chosen, metric=True)
    for target in arguments.targets:
        for widths in arguments.round_to:
            goal, batches = Target("macs", target), (1, timed.large)
            made = lambda goal=goal, widths=widths, batches=batches: bench.timed_at(goal, WIDTHS[widths], batches)  # noqa: E731
            store.measured("|".join((name, str(goal), widths, arguments.effort)), made, again=arguments.again)


def page(figures: dict[str, dict[str, object]], where: str) -> str:
    """Return the page: a table of all figures, and the median of what the defaults give."""
    lines = list(_rows(figures))
    ratios = [row["ratios"] for key, row in figures.items() if "|macs=0.7|default|" in key and "ratios" in row]
    times = [ratio for pair in ratios for ratio in pair]  # type: ignore[attr-defined]
    half = f"The median of the ratios with defaults at `macs=0.7` is {median(times):.2f}." if times else ""
    return TEXT.format(where=where, median=half, table="\n".join(lines))


def _rows(figures: dict[str, dict[str, object]]) -> Iterator[str]:
    yield "| network | target | widths | MACs | time, one sample | time, larger batch | accuracy | seconds to prune |"
    yield "|---|---|---|---:|---:|---:|---:|---:|"
    for key, row in sorted(figures.items()):
        name, target, widths, effort = key.split("|")
        title = NETWORKS[name].title + ("" if effort == "balanced" else f", {effort}")
        if "note" in row:
            yield f"| {title} | {target} | {widths} | {row['note']} | | | | |"
            continue
        one, large = row["ratios"]  # type: ignore[misc]
        yield (
            f"| {title} | {target} | {widths} | {row['macs']:.3f} | {one:.2f} | {large:.2f} | {row['metric']:.2f} "
            f"| {row['seconds']:.0f} |"
        )


TEXT = """# What the defaults give

Networks pruned to a share of their MACs and nothing else said, made by

    python tools/bench_defaults.py --cache FOLDER --model ch_PP-OCRv4_det_infer.onnx

on {where}. *Time* is the median of paired ratios to the dense network, of one sample and of a larger
batch (64 images for ResNet-56, 32 or 8 for the others), over six sittings with new sessions. *default* are widths of
multiples of eight, less in narrow layers; *auto* are those that were measured to be fast, *1* are all. Accuracy is
top-1 in per cent on the whole test set, Spearman's correlation for sentence vectors, the intersection over union with
the dense network's answer for the detector. {median}

{table}
"""


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--json", type=Path, default=ROOT / "docs" / "defaults.json", help="file of all figures")
    add("--out", type=Path, default=ROOT / "docs" / "defaults.md", help="the page")
    add("--write-only", action="store_true", help="measure nothing")
    add("--cache", type=Path, help="folder of models and data that are made elsewhere")
    add("--model", type=Path, help="the text detector ch_PP-OCRv4_det_infer.onnx")
    add("--networks", nargs="+", choices=tuple(NETWORKS), default=tuple(NETWORKS), metavar="NAME", help="only these")
    add("--targets", nargs="+", type=float, default=(0.7, 0.5), help="shares of the dense network's MACs")
    add("--round-to", nargs="+", choices=tuple(WIDTHS), default=tuple(WIDTHS), help="only these widths")
    add("--effort", choices=tuple(EFFORTS), default="balanced", help="of the pruning")
    add("--samples", type=int, default=512, help="that calibrate")
    add("--threads", type=int, default=1, help="0 for the runtime's own choice")
    add("--providers", nargs="+", default=("cpu",), help="execution providers")
    add("--again", action="store_true", help="measure figures anew that are in the file")
    return parser.parse_args()


def main() -> None:
    arguments = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    logging.getLogger("onnx_subprune").setLevel(logging.ERROR)
    store = Store(arguments.json)
    for name in () if arguments.write_only else arguments.networks:
        measure(name, arguments, store)
    facts = machine(arguments.providers, arguments.threads or None)
    arguments.out.write_text(
        page(store.figures, f"{facts['processor'].split()[0]}, ONNX Runtime {facts['onnxruntime']}"), encoding="utf-8"
    )


if __name__ == "__main__":
    main()
