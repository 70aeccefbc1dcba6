"""Tables and sentences on a model's structure, made of the document of `inspect`: its groups, prunable and frozen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from onnx_subprune.formatting import count
from onnx_subprune.report.table import table

__all__ = ["comparison_lines", "frozen_table", "group_table", "notice_lines", "totals"]


def group_table(document: Mapping[str, Any]) -> Table:
    """Return a table of the prunable groups: units, number of producers, nodes that read them, share of all MACs.

    Args:
        document: of an analysis (`Analysis.to_dict`).

    """
    macs = document["dense"]["macs"]
    rows = [
        (
            group["name"],
            str(group["units"]),
            str(len(set(group["producers"]))),
            _first_and_number(_readers(group)),
            count(group["macs"]),
            f"{group['macs'] / macs:.1%}" if macs else "-",
        )
        for group in document["groups"]
    ]
    columns = ("group", "units", "producers", "consumers", "MACs", "share")
    return _with_modules(columns, rows, "lrrlrr", document["groups"])


def frozen_table(document: Mapping[str, Any]) -> Table:
    """Return a table of the groups that cannot be pruned, each with the first reason.

    Args:
        document: of an analysis (`Analysis.to_dict`).

    """
    rows = [(group["name"], str(group["units"]), _first_reason(group["reasons"])) for group in document["frozen"]]
    return _with_modules(("frozen group", "units", "why"), rows, "lrl", document["frozen"])


def _with_modules(
    columns: Sequence[str], rows: Sequence[Sequence[str]], aligned: str, groups: Sequence[Mapping[str, Any]]
) -> Table:
    """Return a table of groups, with a column for the modules they come from where the model says which."""
    modules = [group.get("module", "-") for group in groups]
    if not any("module" in group for group in groups):
        return table(columns, rows, aligned)
    wider = [(name, module, *rest) for (name, *rest), module in zip(rows, modules, strict=True)]
    return table((columns[0], "module", *columns[1:]), wider, f"{aligned[0]}l{aligned[1:]}")


def notice_lines(document: Mapping[str, Any]) -> list[str]:
    """Return a sentence for every form of the file, rule and pass that keeps layers from being pruned.

    Args:
        document: of an analysis or a pruning.

    """
    nodes: dict[tuple[str, str], list[str]] = {}
    for entry in document.get("rule_errors", ()):
        nodes.setdefault((entry["operator"], entry["error"]), []).append(entry["node"])
    refusals = [f"left out while the model was normalised: {refusal}" for refusal in document.get("refusals", ())]
    return [*document.get("forms", ()), *refusals] + [
        f"internal error of the rule for {operator} at node '{first}'{f' and {len(others)} more' if others else ''}: "
        f"{error}; please report this"
        for (operator, error), (first, *others) in nodes.items()
    ]


def comparison_lines(document: Mapping[str, Any]) -> list[str]:
    """Return a sentence for every tensor that networks are compared at in the place of an output."""
    return [
        f"compared at '{point['tensor']}'{_stood_for(point['outputs'])}: {point['reason']}"
        for point in document.get("compared_at", ())
        if point["reason"] is not None
    ]


def _stood_for(outputs: Sequence[str]) -> str:
    return f" for {', '.join(map(repr, outputs))}" if outputs else ""


def totals(document: Mapping[str, Any]) -> str:
    """Return a sentence on the share of parameters and MACs that the prunable groups touch.

    Args:
        document: of an analysis (`Analysis.to_dict`).

    """
    prunable, dense, shares = document["groups"], document["dense"], document["prunable_share"]
    return (
        f"{len(prunable)} of {len(prunable) + len(document['frozen'])} groups can be pruned; they touch "
        f"{shares['parameters']:.1%} of {count(dense['parameters'])} parameters and {shares['macs']:.1%} of "
        f"{count(dense['macs'])} MACs ({count(dense['bytes'], 'B')} on the disk)"
    )


def _readers(group: Mapping[str, Any]) -> list[str]:
    """Return the nodes that read a group: its consumers, or the products of activations where these alone read it."""
    return list(dict.fromkeys(group["consumers"] or group["contractions"]))


def _first_and_number(names: Sequence[str]) -> str:
    if not names:
        return "-"
    return f"{names[0]} +{len(names) - 1}" if len(names) > 1 else names[0]


def _first_reason(reasons: Sequence[str]) -> str:
    return reasons[0] + (f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else "")
