"""The report as a page: what it says, and that it is whole, small, the same every time and safe whatever names hold."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune import report
from onnx_subprune.budget import Trial
from onnx_subprune.errors import OptionError, OutputError
from onnx_subprune.evaluate.comparison import not_faster
from onnx_subprune.pipeline import Result, analyse, apply
from onnx_subprune.planning.drop_search import Drop
from onnx_subprune.planning.latency import LatencyMet
from onnx_subprune.report.html_page import to_html

SECTIONS = ("summary", "warnings", "groups", "curves", "latency", "frozen", "calibration", "operators", "reproduce")
VOID = {"meta", "br", "wbr", "link", "img", "hr", "input"}


class Outline(HTMLParser):
    """Ids, headings, classes and words of a page; fails on a tag that is closed out of turn."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.tags: list[str] = []
        self.words = ""
        self._open: list[str] = []
        self.feed(page)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.ids += [value for name, value in attrs if name == "id" and value]
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        self.words += " " if tag in ("td", "th", "dt", "dd") else ""

    def handle_data(self, data: str) -> None:
        self.words += data


def wide(document: dict[str, Any], groups: int) -> dict[str, Any]:
    """Return the document of a network with many groups, half of them frozen, under long names."""
    (one,), (ice,) = document["groups"], document["frozen"]
    names = [f"/encoder/layer.{i}/attention/self/query_key_value_projection/MatMul_{i}" for i in range(groups)]
    return {
        **document,
        "groups": [{**one, "name": name} for name in names],
        "frozen": [
            {**ice, "name": name, "reasons": [f"Softmax '{name}' normalises over this axis"] * 3} for name in names
        ],
        "warnings": [f"'{name}' was fitted on 2 rows" for name in names],
    }


@pytest.fixture(scope="module")
def document(result: Result, data: dict[str, np.ndarray]) -> dict[str, Any]:
    labelled = {**data, "labels": np.zeros(200, np.int64)}
    measured = result.measure(data, labelled=labelled)
    return result.document(measured=measured, command=["onnx-subprune", "prune", "a b.onnx"], source="data.npz")


def test_every_section_is_there_and_says_what_the_document_says(document: dict[str, Any]) -> None:
    outline = Outline(to_html(document))
    assert [name for name in SECTIONS if name not in outline.ids] == []
    assert len(outline.ids) == len(set(outline.ids))
    assert outline.headings[0] == 1
    assert all(below <= above + 1 for above, below in zip(outline.headings, outline.headings[1:], strict=False))
    words = " ".join(outline.words.split())
    top1 = document["top1"]
    shown = (
        "Pruned to units=0.5",
        "5 of 10",
        "80 → 40",
        f"{top1['dense']['accuracy']:.1%} → {top1['pruned']['accuracy']:.1%}",
        "graph output 'y'",
        "onnx-subprune prune 'a b.onnx'",
        document["fingerprint"],
        document["versions"]["onnx"],
        "data.npz",
        "one sample in 5",
        "measured, differs from run to run",
        f"loss {100 * (1 - document['groups'][0]['variance']):.0f}%" if document["losses_at"] is None else "loss ",
    )
    assert [part for part in shown if part not in words] == []
    assert all(operator["operator"] in words for operator in document["timing"]["profile"]["operators"])


def test_nothing_is_asked_for_from_outside(document: dict[str, Any]) -> None:
    page = to_html(document)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", page)
    assert not {"script", "link", "img", "iframe", "object"} & set(Outline(page).tags)
    assert "default-src 'none'" in page


def test_the_page_is_that_of_the_json_document(document: dict[str, Any]) -> None:
    assert to_html(json.loads(report.to_json(document))) == to_html(document)


def test_the_same_run_gives_the_same_bytes_but_for_times(result: Result, data: dict[str, np.ndarray]) -> None:
    labelled = {**data, "labels": np.zeros(200, np.int64)}
    pages = [
        to_html(result.document(measured=result.measure(data, labelled=labelled, latency=False))) for _ in range(2)
    ]
    assert pages[0] == pages[1]
    assert "measured, differs" not in pages[0]


def test_names_are_text_whatever_they_hold(document: dict[str, Any]) -> None:
    name = "<script>alert('&')</script>\"onload=\"x"
    page = to_html(
        {
            **document,
            "groups": [{**document["groups"][0], "name": name}],
            "frozen": [{**document["frozen"][0], "name": name, "reasons": [name]}],
            "warnings": [name],
            "command": [name],
        }
    )
    outline = Outline(page)
    assert "script" not in outline.tags
    assert outline.words.count(name) >= 4


def test_many_groups_are_folded_and_the_page_stays_small(document: dict[str, Any]) -> None:
    page = to_html(wide(document, 600))
    assert len(page) < 1_000_000
    words = " ".join(Outline(page).words.split())
    assert "The 40 groups with the most MACs" in words
    assert "The other 560 groups" in words
    assert "200 more are in the JSON report" in words
    assert page.count("<svg") == 400


def test_a_plan_that_was_applied_has_no_curves(model: onnx.ModelProto, result: Result, data: Any) -> None:
    applied = apply(result.plan, model, data, result.options)
    words = " ".join(Outline(to_html(applied.document())).words.split())
    assert "the widths came from a plan" in words
    assert "It was not measured: ask for it with --timing" in words


def test_what_could_not_be_measured_is_said(result: Result, data: dict[str, np.ndarray]) -> None:
    measured = result.measure(None, labelled={**data, "labels": np.full(200, 7)}, latency=False)
    assert "labels expected from 0 to 1" in measured.left["accuracy"]
    assert "accuracy could not be measured: " in Outline(to_html(result.document(measured=measured))).words


def test_times_are_under_timing_and_nowhere_else(result: Result, data: dict[str, np.ndarray]) -> None:
    quiet = result.document(measured=result.measure(data, latency=False))
    timed = result.document(measured=result.measure(data))
    assert {name: value for name, value in timed.items() if name != "timing"} == quiet


def test_a_network_that_is_not_faster_is_warned_of(result: Result, data: dict[str, np.ndarray]) -> None:
    measured = result.measure(data)
    assert measured.timing is not None
    dense, pruned = measured.timing.latency
    for ratio, expected in ((1.46, ["with 67% of the MACs the pruned model takes 146%"]), (0.9, [])):
        slow = replace(pruned, ratio_to_first=ratio, ratio_interval=(ratio - 0.05, ratio + 0.05))
        found = not_faster(replace(measured.timing, latency=(dense, slow)), 0.67)
        assert [line[: len(expected[0])] for line in found] == expected
        words = Outline(to_html(result.document(measured=replace(measured, warnings=tuple(found))))).words
        assert ("--round-to auto" in words) == bool(found)
    assert not_faster(replace(measured.timing, latency=(dense, dense)), 1.0) == []


def test_a_target_of_latency_says_what_was_predicted_and_measured(result: Result) -> None:
    met = LatencyMet(0.612, 0.598, (0.59, 0.61), 2.0, 1.2, {"x": (8, 6)}, ("cpu",), 1, {"MatMul": 16}, 0.034)
    words = " ".join(Outline(to_html(replace(result, latency=met).document())).words.split())
    shown = ("59.8%", "2.00 ms → 1.20 ms", "59.0% to 61.0%", "61.2%; predictions miss", "3.4%", "x 8 x 6", "MatMul: 16")
    assert [part for part in shown if part not in words] == []
    assert "It was not measured" not in words


def test_a_target_of_a_drop_tells_its_search(result: Result) -> None:
    tried = (Trial(0.95, 0.001, True), Trial(0.5, math.inf, False), Trial(0.7, 0.018, True))
    drop = Drop("top-1", 0.02, 0.018, "macs", tried)
    words = " ".join(Outline(to_html(replace(result, drop=drop).document())).words.split())
    assert "Top-1 was allowed to fall by 2.0%. It falls by 1.8%" in words
    assert "50.0% failed no 70.0% 1.8% yes" in words


def test_the_page_of_inspect(model: onnx.ModelProto) -> None:
    document = analyse(model).document()
    outline = Outline(to_html(document))
    assert [name for name in ("summary", "groups", "frozen", "model") if name not in outline.ids] == []
    words = " ".join(outline.words.split())
    assert "1 of 2 groups can be pruned." in words
    assert "first 10 80 second" in words
    assert "graph output 'y'" in words
    with pytest.raises(OptionError, match="it has no page"):
        to_html({"format": "onnx_subprune.bench/1"})


def test_curves_hold_the_chosen_cut(result: Result) -> None:
    (group,) = result.document()["groups"]
    place = group["curve"]["kept"].index(group["kept"])
    assert group["curve"]["variance"][place] == group["variance"]
    assert group["curve"]["kept"][0] == 0
    assert group["curve"]["kept"][-1] == group["units"]
    assert group["macs_kept"] == group["macs"] // 2


def test_a_result_writes_its_report(result: Result, tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    result.report(path, latency=False)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    result.report(tmp_path / "report.json", latency=False)
    assert json.loads((tmp_path / "report.json").read_text())["target"] == "units=0.5"
    with pytest.raises(OptionError, match=r"\.html or \.json"):
        result.report(tmp_path / "report.pdf")
    with pytest.raises(OutputError, match="cannot write the report"):
        result.report(tmp_path / "missing" / "report.html", latency=False)
    assert sorted(one.name for one in tmp_path.iterdir()) == ["report.html", "report.json"]


def test_without_anything_prunable(document: dict[str, Any]) -> None:
    words = Outline(to_html({**document, "groups": [], "frozen": [], "calibration": None, "fit": None})).words
    assert "No group can be pruned." in words
