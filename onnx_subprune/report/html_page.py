"""The report as a page: one HTML file that needs nothing else, no script and no network.

It is made of the document that `--json` prints and of nothing else, so the two cannot differ. What was timed is marked
as such; all the rest is the same in every run.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

from onnx_subprune.errors import OptionError
from onnx_subprune.formatting import change, count, milliseconds, percent
from onnx_subprune.report.document import to_json
from onnx_subprune.report.loss_panels import Panel, panels

__all__ = ["to_html"]

Document = Mapping[str, Any]

# What is shown at once; the rest is folded. More curves than the last number only make the file large.
_GROUPS, _PANELS, _FROZEN, _WARNINGS = 40, 12, 12, 8
_MOST_PANELS = 400


def to_html(document: Document) -> str:
    """Return the page of a document that `as_dict` or `analysis_as_dict` made, or that was read from its JSON.

    Raises:
        OptionError: it is another document.

    """
    document = json.loads(to_json(document))
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415  (only who wants a page needs it)

    environment = Environment(
        loader=PackageLoader("onnx_subprune.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": count, "percent": percent, "ms": milliseconds}
    environment.filters |= {"breakable": _breakable, "plural": _plural}
    environment.globals["change"] = change
    style = (resources.files("onnx_subprune.report") / "templates" / "report.css").read_text(encoding="utf-8")
    if document["format"] not in _KINDS:
        raise OptionError(f"expected a document of {' or '.join(_KINDS)}, found {document['format']}; it has no page")
    name, view = _KINDS[document["format"]]
    return str(environment.get_template(name).render(document=document, style=style, **view(document)))


def _view_of_analysis(document: Document) -> dict[str, Any]:
    """Return what the template of `inspect` shows that the document does not hold in so many words."""
    dense, shares = document["dense"], document["prunable_share"]
    touched = "of all are touched by groups that can be pruned"
    return {
        "cards": [
            _card("MACs", count(dense["macs"]), "", "", f"{shares['macs']:.1%} {touched}"),
            _card("Parameters", count(dense["parameters"]), "", "", f"{shares['parameters']:.1%} {touched}"),
            _card("Size", count(dense["bytes"], "B"), "", ""),
        ],
        "groups": _most(document["groups"], _GROUPS, lambda group: group["macs"]),
        "frozen": _most(document["frozen"], _GROUPS, lambda group: group["macs"]),
    }


def _view(document: Document) -> dict[str, Any]:
    """Return what the template shows that the document does not hold in so many words."""
    drawn = panels(document["groups"], document["losses_at"])
    # First what was measured: it is the shortest.
    warnings = [*document.get("timing", {}).get("warnings", ()), *document["warnings"]]
    return {
        "cards": _cards(document),
        "verdict": _verdict(document),
        "groups": _most(document["groups"], _GROUPS, lambda group: group["macs"]),
        "panels": _folded(drawn, _PANELS, _MOST_PANELS),
        "top": drawn[0].top if drawn else None,
        "losses": _LOSSES[document["losses_at"]],
        "whole": sum(group["kept"] == group["units"] for group in document["groups"]),
        "frozen": _most(document["frozen"], _FROZEN, lambda group: group["macs"]),
        "warnings": (warnings[:_WARNINGS], warnings[_WARNINGS:]),
        "operators": _operators(document["operators"]),
        "profile": _profile(document),
        "command": shlex.join(document["command"]),
    }


_LOSSES = {
    "outputs": "relative error at the network's outputs with this group alone pruned, scaled from measurements",
    "consumers": "root of the squared error per sample at the layers that read the group",
    None: "share of variance that is lost",
}


def _cards(document: Document) -> list[dict[str, Any]]:
    """Return the few numbers that matter most: before, after, and what is left."""
    dense, pruned = document["dense"], document["pruned"]
    cards = [*_accuracies(document)]
    cards += _latencies(document)
    for name, key, unit in (("MACs", "macs", ""), ("Parameters", "parameters", ""), ("Size", "bytes", "B")):
        before, after = dense[key], pruned[key]
        cards.append(_card(name, change(before, after), count(before, unit), count(after, unit)))
    return cards


def _card(name: str, value: str, before: str, after: str, note: str = "") -> dict[str, Any]:
    return {"name": name, "value": value, "before": before, "after": after, "note": note}


def _latencies(document: Document) -> list[dict[str, Any]]:
    """Return the latency that the target was about, else the one that was measured for the report."""
    if found := document.get("latency"):
        times, ratio, interval = (found["dense_ms"], found["pruned_ms"]), found["measured"], found["interval"]
    elif timing := document.get("timing"):
        dense, pruned = timing["dense"], timing["pruned"]
        times, ratio = (dense["median_ms"], pruned["median_ms"]), pruned["ratio_to_first"]
        interval = pruned["ratio_interval"]
    else:
        return []
    note = "" if interval is None else f"95% sure of {interval[0]:.1%} to {interval[1]:.1%}"
    return [_card("Latency, measured", f"{ratio:.1%}", milliseconds(times[0]), milliseconds(times[1]), note)]


def _accuracies(document: Document) -> list[dict[str, Any]]:
    cards = []
    if top1 := document.get("top1"):
        before, after = top1["dense"]["accuracy"], top1["pruned"]["accuracy"]
        note = f"on {top1['pruned']['samples']:,} labelled samples"
        cards.append(
            _card("Top-1 accuracy", f"{100 * (after - before):+.1f} points", f"{before:.1%}", f"{after:.1%}", note)
        )
    elif found := document.get("fidelity"):
        worst = max(found["outputs"].values(), key=lambda one: one["relative_l2"])
        note = f"on the {found['samples']:,} calibration samples, which flatter"
        agreed = [one["agreement"] for one in found["outputs"].values() if one["agreement"] is not None]
        if agreed:
            cards.append(_card("Same largest class", f"{min(agreed):.1%}", "", "", note))
        else:
            cards.append(_card("Error at the outputs", percent(worst["relative_l2"]), "", "", note))
    return cards


def _verdict(document: Document) -> str:
    """Return the run in one sentence."""
    groups = document["groups"]
    pruned = sum(group["kept"] < group["units"] for group in groups)
    before, after = sum(group["units"] for group in groups), sum(group["kept"] for group in groups)
    return (
        f"{pruned} of {len(groups)} prunable groups lost {before - after:,} of {before:,} units; "
        f"units chosen by {document['select']}, {_RECOVERIES[document['recovery']]}."
    )


_RECOVERIES = {
    "exact": "every layer then fitted to the dense network in closed form",
    "channel": "what they contributed recovered by least squares, channel by channel",
    "none": "nothing recovered",
}


def _breakable(name: str) -> Any:
    """Return a name that may be broken where its parts meet, so that a narrow column does not break it anywhere."""
    from markupsafe import Markup, escape  # noqa: PLC0415  (comes with jinja2)

    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[/._])(?=.)|(?<=[a-z])(?=[A-Z])", name))


def _plural(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


_KINDS: Mapping[str, tuple[str, Callable[[Document], dict[str, Any]]]] = {
    "onnx_subprune.report/1": ("report.html.j2", _view),
    "onnx_subprune.inspect/1": ("inspect.html.j2", _view_of_analysis),
}


def _most(entries: Sequence[Any], shown: int, weight: Any) -> tuple[list[Any], list[Any]]:
    """Return the weightiest entries and the others, both in their own order."""
    heavy = sorted(range(len(entries)), key=lambda index: (-weight(entries[index]), index))[:shown]
    first = set(heavy)
    return [entries[i] for i in sorted(first)], [entry for i, entry in enumerate(entries) if i not in first]


def _folded(drawn: list[Panel], shown: int, most: int) -> tuple[list[Panel], list[Panel], int]:
    """Return the panels to show, those to fold, and how many are left out."""
    return drawn[:shown], drawn[shown:most], max(0, len(drawn) - most)


def _operators(sides: Document) -> list[tuple[str, int, int]]:
    names = sorted({*sides["dense"], *sides["pruned"]})
    return [(name, sides["dense"].get(name, 0), sides["pruned"].get(name, 0)) for name in names]


def _profile(document: Document) -> list[dict[str, Any]]:
    """Return the operators that take time, with the widths of their bars in percent of the longest."""
    if "timing" not in document:
        return []
    rows = document["timing"]["profile"]["operators"]
    longest = max((row[side]["ms"] for row in rows for side in ("dense", "pruned")), default=0.0) or 1.0
    return [
        {**row, "bars": [round(100 * row[side]["ms"] / longest, 1) for side in ("dense", "pruned")]} for row in rows
    ]
