"""The share of expressions with a known type, from a report of mypy, and the share that is asked for."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import typed
from typed import ALL, Typed, lacking, read, table

REPORT = """\
                                       Name    Anys   Exprs   Coverage
----------------------------------------------------------------------
                              onnx_subprune       2      10     80.00%
                        onnx_subprune.model       0       1    100.00%
                   onnx_subprune.model.cost       1      99     98.99%
                onnx_subprune.passes.tidy       0      50    100.00%
              onnx_subprune.structure.axes.terms       5      50     90.00%
----------------------------------------------------------------------
                                      Total       8     210     96.19%
"""


@pytest.fixture(autouse=True)
def least(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(typed, "LEAST", {ALL: 0.95, "model": 0.9, "passes": 0.9, "structure": 0.9})


@pytest.fixture
def report(tmp_path: Path) -> Path:
    (tmp_path / "any-exprs.txt").write_text(REPORT, encoding="utf-8")
    return tmp_path


def test_modules_are_summed_by_package(report: Path) -> None:
    counts = read(report)
    assert counts == {
        "__init__": Typed(2, 10),
        "model": Typed(1, 100),
        "passes": Typed(0, 50),
        "structure": Typed(5, 50),
        ALL: Typed(8, 210),
    }
    assert lacking(counts) == []
    assert table(counts).splitlines()[-1].split() == ["all", "210", "8", "96.19%"]


@pytest.mark.parametrize(("untyped", "refused"), [(5, []), (6, ["structure"])])
def test_a_package_must_keep_its_share(report: Path, untyped: int, refused: list[str]) -> None:
    text = (report / "any-exprs.txt").read_text(encoding="utf-8")
    (report / "any-exprs.txt").write_text(text.replace("terms       5", f"terms       {untyped}"), encoding="utf-8")
    assert [line.partition(":")[0] for line in lacking(read(report))] == refused


def test_a_package_that_is_not_in_the_report_is_refused(report: Path) -> None:
    text = (report / "any-exprs.txt").read_text(encoding="utf-8")
    (report / "any-exprs.txt").write_text(text.replace("onnx_subprune.passes.tidy", "other.tidy"), encoding="utf-8")
    assert "passes: 0.00% of the expressions have a known type, 90% expected" in lacking(read(report))


def test_the_exit_status_says_whether_all_keep_theirs(
    report: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["typed.py", str(report)])
    assert typed.main() == 0
    monkeypatch.setitem(typed.LEAST, ALL, 0.97)
    assert typed.main() == 1
    assert capsys.readouterr().err.strip() == "all: 96.19% of the expressions have a known type, 97% expected"
