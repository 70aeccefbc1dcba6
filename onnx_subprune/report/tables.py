"""Tables for the terminal: before and after, groups, accuracy."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from onnx_subprune.formatting import change, count, milliseconds
from onnx_subprune.report.document_parts import operators

if TYPE_CHECKING:
    import onnx

    from onnx_subprune.evaluate import Fidelity, Perplexity, Top1
    from onnx_subprune.evaluate.comparison import Measured
    from onnx_subprune.factorisation.low_rank_pipeline import Factorisation
    from onnx_subprune.model import Cost
    from onnx_subprune.pipeline import Analysis, Result
    from onnx_subprune.report.environment import Environment
    from onnx_subprune.result import Drop
    from onnx_subprune.structure import Group

__all__ = [
    "accuracy_table",
    "cost_rows",
    "cost_table",
    "drop_line",
    "environment_table",
    "fidelity_table",
    "frozen_table",
    "group_table",
    "odd_widths_line",
    "perplexity_table",
    "rank_table",
    "side_by_side",
    "totals",
    "width_table",
]

# Vectors of the CPUs in use hold 8 or 16 numbers, tensor cores of GPUs take 8 or more at once.
_LIKED = 8

Row = Sequence[str]


def cost_table(result: Result | Factorisation, measured: Measured | None = None) -> Table:
    """What was measured, costs, and the number of nodes by operator, before and after."""
    dense, pruned = result.dense, result.pruned
    rows = [
        *measured_rows(measured),
        *cost_rows(dense, pruned),
        *_latency_rows(result, measured),
        _change("nodes", len(result.analysis.model.graph.node), len(result.model.graph.node), str),
        *_operators(result.analysis.model, result.model),
    ]
    return side_by_side(rows, ("dense", "pruned", "pruned / dense"))


def measured_rows(measured: Measured | None) -> list[Row]:
    """Rows of the same table: accuracy and latency, where they were measured."""
    rows: list[Row] = []
    if measured is not None and measured.top1 is not None:
        dense, pruned = (one.accuracy for one in measured.top1)
        rows.append(("top-1", f"{dense:.1%}", f"{pruned:.1%}", f"{100 * (pruned - dense):+.1f} points"))
    if measured is not None and measured.timing is not None:
        before, after = measured.timing.latency
        times = (milliseconds(before.median_ms), milliseconds(after.median_ms))
        rows.append(("latency (median)", *times, f"{after.ratio_to_first:.1%}"))
    return rows


def cost_rows(dense: Cost, pruned: Cost) -> list[Row]:
    """Rows of a table with the columns dense, pruned, pruned / dense."""
    return [
        _change("parameters", dense.parameters, pruned.parameters, count),
        _change("MACs", dense.macs, pruned.macs, count),
        _change("size", dense.bytes, pruned.bytes, _bytes),
    ]


def side_by_side(rows: Iterable[Row], columns: Sequence[str], title: str | None = None) -> Table:
    """A table whose first column names the rows and whose others hold numbers, under `columns`."""
    return table(("", *columns), rows, "l" + "r" * len(columns), title)


def width_table(result: Result) -> Table:
    """Units of every prunable group before and after, and what of its consumers' inputs the recovery leaves open."""
    kept = {group.name: len(group.kept) for group in result.plan.groups}
    rows = [
        (
            group.name,
            str(group.size),
            str(kept[group.name]),
            f"{kept[group.name] / group.size:.0%}",
            _unexplained(group, result.errors),
        )
        for group in result.analysis.structure.prunable
    ]
    return table(("group", "units", "kept", "share", "lost"), rows, "lrrrr")


def drop_line(drop: Drop) -> str:
    """One sentence on what a target `drop` measured."""
    tried = f"the smallest of {len(drop.tried)} networks by its {drop.cost}"
    if drop.metric == "top-1":
        return f"top-1 falls by {100 * drop.fall:.2f} points, of {100 * drop.allowed:.2f} allowed; {tried}"
    if drop.metric == "same class":
        return f"{drop.fall:.2%} of the samples change their largest class, of {drop.allowed:.2%} allowed; {tried}"
    return f"the metric falls by {drop.fall:.4g}, of {drop.allowed:g} allowed; {tried}"


def odd_widths_line(result: Result) -> str | None:
    """One sentence where widths came out that no kernel likes and nobody measured; None where all are fine."""
    entries = {group.name: group.entries for group in result.analysis.structure.prunable}
    groups = [group for group in result.plan.groups if 0 < len(group.kept) < group.size]
    widths = [(each * entries.get(group.name, 1) for each in (group.size, len(group.kept))) for group in groups]
    odd = sum(before % _LIKED == 0 and after % _LIKED != 0 for before, after in widths)
    if not odd:
        return None
    return (
        f"latency was not measured (--latency does): {odd} of {len(groups)} widths are no multiples of {_LIKED} any "
        "more, which can be slower than the dense model; --round-to auto keeps to widths that are fast here"
    )


def rank_table(result: Factorisation) -> Table:
    """Layers that can be factorised: the rank of the two in their place, MACs, and what of their outputs is lost."""
    rows = [
        (
            layer.name,
            f"{layer.features} x {layer.outputs}",
            "-" if layer.rank is None else str(layer.rank),
            f"{layer.macs_kept / layer.macs:.0%}" if layer.macs else "-",
            "-" if layer.rank is None else f"{1 - layer.share:.1%}",
        )
        for layer in result.layers
    ]
    return table(("layer", "size", "rank", "MACs kept", "lost"), rows, "lrrrr")


def group_table(analysis: Analysis, macs: int) -> Table:
    """The prunable groups of a model whose one inference takes `macs`."""
    rows = [
        (
            group.name,
            str(group.size),
            str(len({use.node.name for use in group.producers})),
            _names([consumer.name for consumer in group.consumers]),
            count(group.macs),
            f"{group.macs / macs:.1%}" if macs else "-",
        )
        for group in analysis.structure.prunable
    ]
    columns = ("group", "units", "producers", "consumers", "MACs", "share")
    return table(columns, rows, "lrrlrr")


def frozen_table(analysis: Analysis) -> Table:
    """The groups that cannot be pruned, each with the first reason."""
    rows = [(group.name, str(group.size), _reason(group)) for group in analysis.structure.frozen]
    return table(("frozen group", "units", "why"), rows, "lrl")


def totals(analysis: Analysis, dense: Cost, shares: Mapping[str, float]) -> str:
    """One sentence on what the prunable groups amount to."""
    structure = analysis.structure
    return (
        f"{len(structure.prunable)} of {len(structure.groups)} groups can be pruned; they touch "
        f"{shares['parameters']:.1%} of {count(dense.parameters)} parameters and {shares['macs']:.1%} of "
        f"{count(dense.macs)} MACs ({count(dense.bytes, 'B')} on the disk)"
    )


def environment_table(found: Environment, multiples: Mapping[str, Mapping[str, int]] | None = None) -> Table:
    """What is installed, which providers load, what can be read, which widths are known to be fast, what is wrong."""
    rows = [
        *found.versions.items(),
        *((name, _loads(name, refusal)) for name, refusal in found.providers.items()),
        ("newest opset that can be read", str(found.opset)),
        ("newest IR version that can be read", str(found.ir_version)),
        *((f"fast multiples ({where})", _multiples(of)) for where, of in (multiples or {}).items()),
        *(("problem", problem) for problem in found.problems),
    ]
    return table(("environment", ""), rows, "ll")


def accuracy_table(names: Sequence[str], found: Sequence[Top1]) -> Table:
    """Top-1 accuracy of every model, and the difference to the first in percentage points."""
    first = found[0].accuracy
    rows = [
        (name, f"{one.accuracy:.2%}", f"{100 * (one.accuracy - first):+.2f}", f"{one.correct} / {one.samples}")
        for name, one in zip(names, found, strict=True)
    ]
    return table(("model", "top-1", "to the first", "correct"), rows, "lrrr")


def perplexity_table(names: Sequence[str], found: Sequence[Perplexity]) -> Table:
    """Perplexity of every model, and the difference to the first."""
    first = found[0].perplexity
    rows = [
        (name, f"{one.perplexity:.4g}", f"{one.perplexity - first:+.4g}", f"{one.nll:.4f}", str(one.tokens))
        for name, one in zip(names, found, strict=True)
    ]
    return table(("model", "perplexity", "to the first", "nats per token", "tokens"), rows, "lrrrr")


def fidelity_table(names: Sequence[str], found: Sequence[Fidelity]) -> Table:
    """Every output of the models against the same output of the reference."""
    rows = [
        (
            name,
            output,
            f"{one.relative_l2:.2e}",
            f"{one.cosine:.6f}",
            f"{one.max_abs:.2e}",
            "-" if one.agreement is None else f"{one.agreement:.2%}",
            "-" if one.kl is None else f"{one.kl:.2e}",
        )
        for name, fidelity in zip(names, found, strict=True)
        for output, one in fidelity.outputs.items()
    ]
    columns = ("model", "output", "relative error", "cosine", "largest", "same class", "KL (nats)")
    return table(columns, rows, "llrrrrr")


def table(columns: Sequence[str], rows: Iterable[Row], sides: str, title: str | None = None) -> Table:
    """Make a table; `sides` has an l or r for each column, numbers being on the right."""
    made = Table(box=SIMPLE_HEAD, title=title, title_justify="left", title_style="", pad_edge=False, show_edge=False)
    for column, side in zip(columns, sides, strict=True):
        # Numbers stay whole; names and reasons wrap rather than lose their end.
        made.add_column(column, justify="right" if side == "r" else "left", no_wrap=side == "r", overflow="fold")
    for row in rows:
        made.add_row(*row)
    return made


def _multiples(of: Mapping[str, int]) -> str:
    return ", ".join(f"{family} {multiple}" for family, multiple in of.items())


def _latency_rows(result: Result | Factorisation, measured: Measured | None) -> list[Row]:
    """A row where latency was the target and nothing else tells of it; the ratio is that of paired runs."""
    timing = getattr(result, "latency", None)
    if timing is None or (measured is not None and measured.timing is not None):
        return []
    return [("latency", f"{timing.dense_ms:.3f} ms", f"{timing.pruned_ms:.3f} ms", f"{timing.measured:.1%}")]


def _operators(dense: onnx.ModelProto, pruned: onnx.ModelProto) -> list[Row]:
    before, after = operators(dense), operators(pruned)
    return [_change(f"  {name}", before.get(name, 0), after.get(name, 0), str) for name in sorted({*before, *after})]


def _change(name: str, dense: int, pruned: int, write: Callable[[int], str]) -> Row:
    return (name, write(dense), write(pruned), change(dense, pruned))


def _bytes(number: int) -> str:
    return count(number, "B")


def _names(names: Sequence[str]) -> str:
    first, *others = dict.fromkeys(names)
    return f"{first} +{len(others)}" if others else first


def _loads(name: str, refusal: str | None) -> str:
    return "loads" if refusal is None else refusal.removeprefix(f"provider '{name}' ")


def _reason(group: Group) -> str:
    others = len(group.reasons) - 1
    return group.reasons[0] + (f" (and {others} more)" if others else "")


def _unexplained(group: Group, errors: Mapping[str, float]) -> str:
    found = [errors[consumer.name] for consumer in group.consumers if consumer.name in errors]
    return f"{max(found):.1%}" if found else "-"
