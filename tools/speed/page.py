"""The page: what was asked for, predicted and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speed.networks import NETWORKS

__all__ = ["key_of", "write"]

Figure = Mapping[str, Any]

_HEAD = """# Latency

Networks pruned to a latency, `--target latency=F`, and timed against the dense network. Made by

    python tools/bench_latency.py --cache FOLDER --model ch_PP-OCRv4_det_infer.onnx --rival RIVAL_VENV/bin/python

on {machine}. Figures are kept in `latency.json`.
*Predicted* is what the latency model says of the widths that were chosen, *measured* the median of paired ratios of the
pruned network to the dense one, with the interval that holds it in 95 of 100 cases. *Realised* is the share of time
saved by the share of MACs saved: 1.00 means that every operation less is time less. Below each target stand networks of
the same MACs: pruned to them with all widths allowed (`--round-to 1`), with those that are fast on this machine
(`--round-to auto`), and by `onnxsim.pruning` 0.8.1. How it is done stands in
[the mathematics](mathematics.md#14-latency).
"""
_COLUMNS = ("asked for", "MACs", "predicted", "measured", "interval", "dense", "pruned", "realised", "metric")


def key_of(network: str, batch: int, target: str, setting: str, what: str) -> str:
    """Name a figure: what `setting` it belongs to is one line of options."""
    return " | ".join((network, f"batch {batch}", target, setting, what))


def write(figures: Mapping[str, Figure], out: Path, machine: str, note: str = "") -> None:
    """Write the page of all figures."""
    parts = [_HEAD.format(machine=machine), *([note] if note else [])]
    tables: dict[tuple[str, str, str], list[tuple[str, str, Figure]]] = {}
    for key, figure in figures.items():
        network, batch, target, setting, what = key.split(" | ")
        tables.setdefault((network, batch, setting), []).append((target, what, figure))
    order = {name: place for place, name in enumerate(NETWORKS)}
    for (network, batch, setting), rows in sorted(
        tables.items(), key=lambda one: (order[one[0][0]], _number(one[0][1]))
    ):
        parts.append(f"\n## {NETWORKS[network].title}, {batch}\n\n{setting}\n")
        parts.append(_table(sorted(rows, key=lambda row: (-float(row[0].partition("=")[2]), _place(row[1])))))
    out.write_text("\n".join(parts) + "\n", encoding="utf-8")


def _number(batch: str) -> int:
    return int(batch.split()[1])


def _place(what: str) -> int:
    return ("ours", "same MACs, round 1", "same MACs, round auto", "same MACs, onnxsim").index(what)


def _table(rows: Sequence[tuple[str, str, Figure]]) -> str:
    lines = ["| " + " | ".join(_COLUMNS) + " |", "|---" + "|---:" * (len(_COLUMNS) - 1) + "|"]
    for target, what, figure in rows:
        name = f"**{target}**" if what == "ours" else what
        lines.append("| " + " | ".join([name, *_cells(figure)]) + " |")
    return "\n".join(lines)


def _cells(figure: Figure) -> list[str]:
    if "measured" not in figure:
        return [str(figure["note"]).replace("|", "/"), *[""] * (len(_COLUMNS) - 2)]
    macs, measured = figure["macs"], figure["measured"]
    interval = figure["interval"]
    return [
        f"{macs:.3f}",
        f"{figure['predicted']:.3f}" if "predicted" in figure else "",
        f"{measured:.3f}",
        f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else "",
        f"{figure['dense_ms']:.2f} ms",
        f"{figure['pruned_ms']:.2f} ms",
        f"{(1 - measured) / (1 - macs):.2f}" if macs < 1 else "",
        f"{figure['metric']:.2f}" if "metric" in figure else "",
    ]
