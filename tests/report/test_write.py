"""Reports as files: whole or not at all."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from onnx_subprune import report
from onnx_subprune.errors import OptionError, OutputError


def test_a_report_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    report.write_json({"a": 1}, tmp_path / "report.json")
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": 1}
    with pytest.raises(OutputError, match="cannot write the report"):
        report.write_json({"a": 1}, tmp_path / "missing" / "report.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        report.write_json({"a": 1}, tmp_path / "folder.json")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.json", "report.json"]


@pytest.mark.parametrize("name", ["a.html", "b.HTM", "c.json"])
def test_the_ending_says_what_a_report_is(name: str) -> None:
    report.check_name(name)
    assert report.is_page(name) == (name != "c.json")


@pytest.mark.parametrize(("name", "pages"), [("a.pdf", True), ("json", True), ("a.html", False)])
def test_another_ending_is_refused(name: str, pages: bool) -> None:
    with pytest.raises(OptionError, match=r"\.json"):
        report.check_name(name, pages=pages)
