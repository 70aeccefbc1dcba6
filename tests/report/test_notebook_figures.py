"""Results that show and plot themselves, and the page of the docs that tells of it."""

from __future__ import annotations

import builtins
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import onnx_subprune as sp
from onnx_subprune.errors import OptionError
from onnx_subprune.evaluate import Latency
from onnx_subprune.formatting import html_table, milliseconds
from onnx_subprune.pipeline import Result
from onnx_subprune.planning.drop_search import Drop
from onnx_subprune.planning.latency import LatencyMet
from onnx_subprune.report import plot

PAGE = Path(__file__).resolve().parents[2] / "docs" / "report.md"


class Cells(HTMLParser):
    """The words of every row of all tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._inside = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._inside = True

    def handle_endtag(self, tag: str) -> None:
        self._inside = self._inside and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.rows[-1][-1] += data


def test_a_result_says_what_came_of_it(result: Result) -> None:
    assert repr(result).startswith("<Result units=0.5: MACs 40 (50.0%), parameters ")
    rows = Cells(result._repr_html_()).rows
    assert ["MACs", "80", "40", "50.0%"] in rows
    assert ["first", "10", "5", "50.0%"] in rows
    warned = replace(result, warnings=("<b>odd</b>",))
    assert "&lt;b&gt;odd&lt;/b&gt;" in warned._repr_html_()
    assert "1 warning" in repr(warned)


def test_a_plan_and_an_analysis_say_what_they_are(result: Result) -> None:
    assert "5 of 10 units in 1 groups, chosen by obs, recovery exact" in repr(result.plan)
    assert ["first", "10", "5", "50.0%"] in Cells(result.plan._repr_html_()).rows
    assert "1 of 2 groups can be pruned, 10 units; 80 MACs" in repr(result.analysis)
    rows = Cells(result.analysis._repr_html_()).rows
    assert ["first", "10", "80", "second"] in rows
    assert ["second", "2", "20", "graph output 'y'"] in rows


def test_times_are_a_table() -> None:
    rows = Cells(Latency(2.0, 3.0, 2.5, 500.0, 0.5)._repr_html_()).rows
    assert ["median", "2.00 ms"] in rows
    assert ["to the first", "50.0%"] in rows


def test_a_result_says_how_fast_it_is_and_what_it_lost(result: Result) -> None:
    met = LatencyMet(0.61, 0.605, (0.6, 0.61), 2.0, 1.21, {"x": (1, 8)}, ("cpu",), 1, {}, 0.02)
    fell = Drop("top-1", 0.01, 0.0075, "macs", ())
    found = replace(result, latency=met, drop=fell)
    rows = Cells(found._repr_html_()).rows
    assert ["latency", "2.00 ms", "1.21 ms", "60.5%"] in rows
    assert ["fall of top-1", "", "0.75%", "1.00% allowed"] in rows
    assert "latency 1.21 ms (60.5%), fall of top-1 0.75% (1.00% allowed)" in repr(found)


def test_what_was_measured_is_a_table(result: Result, data: dict[str, np.ndarray]) -> None:
    measured = result.measure(data)
    assert measured.timing is not None
    assert measured.fidelity is not None
    html = measured._repr_html_()
    rows = Cells(html).rows
    assert ["latency", *(milliseconds(one.median_ms) for one in measured.timing.latency)] in rows
    assert any(row[0] == "y" and row[1] == f"{measured.fidelity.outputs['y'].relative_l2:.2e}" for row in rows)
    profile = measured.timing.profiles[0]
    first = profile.operators[0]
    assert [first.operator, str(first.nodes), milliseconds(1e3 * first.seconds)] in Cells(profile._repr_html_()).rows


def test_a_long_table_says_how_many_rows_it_leaves_out() -> None:
    rows = Cells(html_table(("a", "b"), [(str(i), "x") for i in range(100)])).rows
    assert rows[-1] == ["and 70 more"]


def test_widths_and_curves_are_drawn(result: Result) -> None:
    (axes,) = result.plot().axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["first"]
    assert sorted({round(patch.get_width()) for patch in axes.patches}) == [5, 10]
    curves = [axes for axes in result.plot("curves").axes if axes.get_title()]
    assert [axes.get_title() for axes in curves] == ["first"]
    (curve, cut, _) = curves[0].lines
    assert np.allclose(curve.get_ydata(), np.sqrt(result.curves[0].loss))
    assert list(cut.get_xdata()) == [5, 5]
    assert result.plot()._repr_png_().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_one_line(result: Result, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="found 'pie'"):
        result.plot("pie")
    with pytest.raises(OptionError, match="plot the widths"):
        replace(result, curves=()).plot("curves")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(OptionError, match=r"pip install 'onnx-subprune\[plot\]'"):
        result.plot()


def test_the_notebook_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every Python block of the page, one after the other; a comment below an expression is what it shows."""
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 3
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(PAGE), "exec"), names)
    assert names["sp"] is sp
    assert {path.name for path in tmp_path.iterdir()} >= {"pruned.onnx", "report.html"}


@pytest.mark.parametrize("what", ["widths", "curves"])
def test_names_are_no_formulas(result: Result, what: str) -> None:
    pytest.importorskip("matplotlib")
    document = result.document()
    for group in document["groups"]:
        group["name"] = "$\\frac$\x1b[31m"
    figure = plot(document, what)
    assert len(figure._repr_png_()) > 1000  # type: ignore[attr-defined]
    axes = figure.axes[0]
    shown = axes.get_yticklabels()[0].get_text() if what == "widths" else axes.get_title()
    assert shown == r"$\frac$\x1b[31m"
