"""Tables of speed: times side by side, and where the time goes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath

from rich.table import Table

from onnx_subprune.evaluate import Latency, Memory, Profile
from onnx_subprune.formatting import count
from onnx_subprune.report.table import table

__all__ = ["latency_table", "node_table", "operator_table"]


def latency_table(
    names: Sequence[str], latencies: Sequence[Latency], title: str | None = None, memory: Sequence[Memory] = ()
) -> Table:
    """Return a table of the latency of every model; the speed-up is the median of paired ratios, no ratio of medians.

    Args:
        names: of the models, a row each.
        latencies: of the same models, timed in the same rounds; the first one is compared with.
        title: over the table; None for none.
        memory: peak memory of the same models; empty where it was not measured.

    """
    rows = [
        [
            name,
            f"{latency.median_ms:.3f} ms",
            f"{latency.p90_ms:.3f} ms",
            f"{latency.throughput:.1f} / s",
            f"{1 / latency.ratio_to_first:.2f} x",
            _interval(latency),
        ]
        for name, latency in zip(names, latencies, strict=True)
    ]
    columns = ["model", "median", "p90", "throughput", "speed-up", "95% sure"]
    if memory:
        columns.append("peak memory")
        for row, usage in zip(rows, memory, strict=True):
            row.append(count(usage.peak, "B"))
    return table(columns, rows, "l" + "r" * (len(columns) - 1), title)


def operator_table(names: Sequence[str], profiles: Sequence[Profile]) -> Table:
    """Return a table of milliseconds in one run and number of nodes by operator, the longest in the first model first.

    Args:
        names: of the models, a column each.
        profiles: of the same models.

    """
    times = [{(entry.operator, entry.provider): entry for entry in profile.operators} for profile in profiles]
    keys = dict.fromkeys(key for by_key in times for key in by_key)
    several = len({provider for _, provider in keys}) > 1
    rows = []
    for operator, provider in keys:
        entries = [by_key.get((operator, provider)) for by_key in times]
        cells = [f"{1e3 * entry.seconds:.3f} ms in {entry.nodes}" if entry else "-" for entry in entries]
        rows.append([f"{operator} on {_short_provider(provider)}" if several else operator, *cells])
    rows.append(["between nodes", *(f"{1e3 * profile.seconds_between:.3f} ms" for profile in profiles)])
    columns = ["operator", *(PurePath(name).name for name in names)]
    return table(columns, rows, "l" + "r" * len(names), "time in one run and number of nodes, the profile on")


def node_table(name: str, profile: Profile, most: int = 10) -> Table:
    """Return a table of the nodes that take longest.

    Args:
        name: of the model, for the title.
        profile: of its nodes.
        most: rows at most.

    """
    longest = sorted(profile.nodes, key=lambda node: -node.seconds)[:most]
    total = profile.node_seconds
    rows = [
        (
            node.name,
            node.operator,
            _short_provider(node.provider),
            ", ".join("x".join(map(str, shape)) for shape in node.output_shapes),
            f"{1e3 * node.seconds:.3f} ms",
            f"{node.seconds / total:.1%}" if total else "-",
        )
        for node in longest
    ]
    columns = ("node", "operator", "on", "gives", "time", "share")
    return table(columns, rows, "llllrr", f"{name}: the {len(longest)} longest of {len(profile.nodes)} nodes")


def _interval(latency: Latency) -> str:
    if latency.ratio_interval is None:
        return "-"
    low, high = latency.ratio_interval
    return f"{1 / high:.2f} to {1 / low:.2f}"


def _short_provider(provider: str) -> str:
    return provider.removesuffix("ExecutionProvider")
