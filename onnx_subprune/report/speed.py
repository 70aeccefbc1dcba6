"""Tables of speed: times side by side, and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING

from rich.table import Table

from onnx_subprune.formatting import count
from onnx_subprune.report.tables import table

if TYPE_CHECKING:
    from onnx_subprune.evaluate import Latency, Memory, Profile

__all__ = ["latency_table", "node_table", "operator_table"]

_Key = tuple[str, str]


def latency_table(
    names: Sequence[str], found: Sequence[Latency], title: str | None = None, memory: Sequence[Memory] = ()
) -> Table:
    """Latency of every model; the speed-up is the median of paired ratios, not a ratio of medians."""
    rows = [
        [
            name,
            f"{one.median_ms:.3f} ms",
            f"{one.p90_ms:.3f} ms",
            f"{one.throughput:.1f} / s",
            f"{1 / one.ratio_to_first:.2f} x",
            _interval(one),
        ]
        for name, one in zip(names, found, strict=True)
    ]
    columns = ["model", "median", "p90", "throughput", "speed-up", "95% sure"]
    if memory:
        columns.append("peak memory")
        for row, one in zip(rows, memory, strict=True):
            row.append(count(one.peak, "B"))
    return table(columns, rows, "l" + "r" * (len(columns) - 1), title)


def operator_table(names: Sequence[str], found: Sequence[Profile]) -> Table:
    """Milliseconds in one run and number of nodes, by operator; the operators longest in the first model first."""
    times = [{(one.operator, one.provider): one for one in profile.operators} for profile in found]
    keys: dict[_Key, None] = {key: None for by_key in times for key in by_key}
    several = len({provider for _, provider in keys}) > 1
    rows = []
    for key in keys:
        cells = [by_key.get(key) for by_key in times]
        shown = [f"{1e3 * one.seconds:.3f} ms in {one.nodes}" if one else "-" for one in cells]
        rows.append([f"{key[0]} on {_short(key[1])}" if several else key[0], *shown])
    rows.append(["between nodes", *(f"{1e3 * one.seconds_between:.3f} ms" for one in found)])
    columns = ["operator", *(PurePath(name).name for name in names)]
    return table(columns, rows, "l" + "r" * len(names), "time in one run and number of nodes, the profile on")


def node_table(name: str, found: Profile, most: int = 10) -> Table:
    """The nodes that take longest, at most so many of them."""
    longest = sorted(found.nodes, key=lambda node: -node.seconds)[:most]
    whole = found.node_seconds
    rows = [
        (
            node.name,
            node.operator,
            _short(node.provider),
            ", ".join("x".join(map(str, shape)) for shape in node.output_shapes),
            f"{1e3 * node.seconds:.3f} ms",
            f"{node.seconds / whole:.1%}" if whole else "-",
        )
        for node in longest
    ]
    columns = ("node", "operator", "on", "gives", "time", "share")
    return table(columns, rows, "llllrr", f"{name}: the {len(longest)} longest of {len(found.nodes)} nodes")


def _interval(latency: Latency) -> str:
    if latency.ratio_interval is None:
        return "-"
    low, high = latency.ratio_interval
    return f"{1 / high:.2f} to {1 / low:.2f}"


def _short(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")
