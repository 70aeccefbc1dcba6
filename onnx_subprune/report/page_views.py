"""What the page shows that the document does not hold in so many words: cards, folded lists, widths of bars."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias, TypeVar

from onnx_subprune.formatting import change, count, milliseconds, percent
from onnx_subprune.report.loss_panels import Panel, panels
from onnx_subprune.report.pruning_tables import forecast_line, oracle_line, output_error_line, speed_line
from onnx_subprune.report.structure_tables import comparison_lines, notice_lines

__all__ = ["analysis_view", "pruning_view"]

_Document: TypeAlias = Mapping[str, Any]
_Card: TypeAlias = dict[str, str]
_T = TypeVar("_T", bound=Mapping[str, Any])

# What is shown at once; the rest is folded. More curves than the last number only make the file large.
_GROUPS, _PANELS, _FROZEN, _WARNINGS = 40, 12, 12, 8
_MOST_PANELS = 400

_LOSSES: Mapping[str | None, str] = {
    "outputs": "relative error at the network's outputs with this group alone pruned, scaled from measurements",
    "consumers": "root of the squared error per sample at the layers that read the group",
    None: "share of variance that is lost",
}
_RECOVERIES = {
    "exact": "every layer then fitted to the dense network in closed form",
    "channel": "what they contributed recovered by least squares, channel by channel",
    "none": "nothing recovered",
}


def analysis_view(document: _Document) -> dict[str, Any]:
    """Return what the page of `inspect` shows beside its document."""
    dense, shares = document["dense"], document["prunable_share"]
    touched = "of all are touched by groups that can be pruned"
    return {
        "cards": [
            _card("MACs", count(dense["macs"]), "", "", f"{shares['macs']:.1%} {touched}"),
            _card("Parameters", count(dense["parameters"]), "", "", f"{shares['parameters']:.1%} {touched}"),
            _card("Size", count(dense["bytes"], "B"), "", ""),
        ],
        "groups": _split(document["groups"], _GROUPS),
        "frozen": _split(document["frozen"], _GROUPS),
        "notices": [*notice_lines(document), *comparison_lines(document), *filter(None, [oracle_line(document)])],
    }


def pruning_view(document: _Document) -> dict[str, Any]:
    """Return what the page of `prune` and `apply` shows beside its document."""
    drawn = panels(document["groups"], document["losses_at"])
    # First what was measured: it is the shortest.
    warnings = [*document.get("timing", {}).get("warnings", ()), *notice_lines(document), *document["warnings"]]
    return {
        "cards": [*_accuracy_cards(document), *_latency_cards(document), *_cost_cards(document)],
        "verdict": _verdict(document),
        "speed": speed_line(document),
        "output_error": output_error_line(document),
        "course": forecast_line(document),
        "groups": _split(document["groups"], _GROUPS),
        "panels": _folded(drawn),
        "top": drawn[0].top if drawn else None,
        "losses": _LOSSES[document["losses_at"]],
        "whole": sum(group["kept"] == group["units"] for group in document["groups"]),
        "frozen": _split(document["frozen"], _FROZEN),
        "warnings": (warnings[:_WARNINGS], warnings[_WARNINGS:]),
        "operators": _operators(document["operators"]),
        "profile": _profile(document),
        "command": shlex.join(document["command"]),
    }


def _card(name: str, value: str, before: str, after: str, note: str = "") -> _Card:
    return {"name": name, "value": value, "before": before, "after": after, "note": note}


def _cost_cards(document: _Document) -> list[_Card]:
    dense, pruned = document["dense"], document["pruned"]
    costs = (("MACs", "macs", ""), ("Parameters", "parameters", ""), ("Size", "bytes", "B"))
    return [
        _card(name, change(dense[key], pruned[key]), count(dense[key], unit), count(pruned[key], unit))
        for name, key, unit in costs
    ]


def _latency_cards(document: _Document) -> list[_Card]:
    """Return the latency that the target was about, else the one that was measured for the report."""
    if latency := document.get("latency"):
        times, ratio, interval = (latency["dense_ms"], latency["pruned_ms"]), latency["measured"], latency["interval"]
    elif timing := document.get("timing"):
        dense, pruned = timing["dense"], timing["pruned"]
        times, ratio = (dense["median_ms"], pruned["median_ms"]), pruned["ratio_to_first"]
        interval = pruned["ratio_interval"]
    else:
        return []
    note = "" if interval is None else f"95% sure of {interval[0]:.1%} to {interval[1]:.1%}"
    return [_card("Latency, measured", f"{ratio:.1%}", milliseconds(times[0]), milliseconds(times[1]), note)]


def _accuracy_cards(document: _Document) -> list[_Card]:
    """Return accuracy on labelled data, else how close the outputs are, if either was measured."""
    if top1 := document.get("top1"):
        before, after = top1["dense"]["accuracy"], top1["pruned"]["accuracy"]
        points, note = f"{100 * (after - before):+.1f} points", f"on {top1['pruned']['samples']:,} labelled samples"
        return [_card("Top-1 accuracy", points, f"{before:.1%}", f"{after:.1%}", note)]
    if fidelity := document.get("fidelity"):
        outputs = fidelity["outputs"].values()
        note = f"on the {fidelity['samples']:,} calibration samples, which flatter"
        agreements = [output["agreement"] for output in outputs if output["agreement"] is not None]
        if agreements:
            return [_card("Same largest class", f"{min(agreements):.1%}", "", "", note)]
        boxes = [output["boxes"] for output in outputs if output.get("boxes") is not None]
        if boxes:
            return [_card("Same boxes", f"{min(boxes):.1%}", "", "", note)]
        compared = (*outputs, *fidelity.get("points", {}).values())
        counted = [output["relative_l2"] for output in compared if "compared_at" not in output]
        errors = [error for error in counted if error is not None]
        return [_card("Error at the outputs", percent(max(errors)), "", "", note)] if errors else []
    return []


def _verdict(document: _Document) -> str:
    """Return the run in one sentence."""
    groups = document["groups"]
    pruned = sum(group["kept"] < group["units"] for group in groups)
    before, after = sum(group["units"] for group in groups), sum(group["kept"] for group in groups)
    return (
        f"{pruned} of {len(groups)} prunable groups lost {before - after:,} of {before:,} units; "
        f"units chosen by {document['select']}, {_RECOVERIES[document['recovery']]}."
    )


def _split(groups: Sequence[_T], most: int) -> tuple[list[_T], list[_T]]:
    """Return the groups with the most MACs and the others, both in their own order."""
    heaviest = sorted(range(len(groups)), key=lambda index: (-groups[index]["macs"], index))[:most]
    first = set(heaviest)
    return [groups[i] for i in sorted(first)], [group for i, group in enumerate(groups) if i not in first]


def _folded(drawn: list[Panel]) -> tuple[list[Panel], list[Panel], int]:
    """Return the panels to show, those to fold, and how many are left out."""
    return drawn[:_PANELS], drawn[_PANELS:_MOST_PANELS], max(0, len(drawn) - _MOST_PANELS)


def _operators(nodes: _Document) -> list[tuple[str, int, int]]:
    """Return how many nodes of each operator there are in the dense and in the pruned model."""
    dense, pruned = nodes["dense"], nodes["pruned"]
    return [(name, dense.get(name, 0), pruned.get(name, 0)) for name in sorted({*dense, *pruned})]


def _profile(document: _Document) -> list[dict[str, Any]]:
    """Return the operators that take time, with the widths of their bars in percent of the longest."""
    profiled = document.get("timing", {}).get("profile")
    if profiled is None:
        return []
    rows = profiled["operators"]
    models = ("dense", "pruned")
    longest = max((row[model]["ms"] for row in rows for model in models), default=0.0) or 1.0
    return [{**row, "bars": [round(100 * row[model]["ms"] / longest, 1) for model in models]} for row in rows]
