"""The zoo's library, which lives with the tools, and its index."""

from __future__ import annotations

import importlib.util
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console

from onnx_subprune import report
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.report.html_page import to_html

ZOO = Path(__file__).resolve().parent
TOOLS = ZOO.parents[1] / "tools"


def load(name: str, path: Path) -> ModuleType:
    """Return a module (or a package, by its __init__.py) of tools/, which no import path reaches."""
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


zoo = load("zoo", TOOLS / "zoo" / "__init__.py")


@pytest.fixture(scope="session")
def entries() -> dict[str, object]:
    """Return the index of the zoo by name."""
    return {entry.name: entry for entry in zoo.read_entries(ZOO / "zoo.json")}


@pytest.fixture(scope="session")
def zoo_table() -> ModuleType:
    """Return tools/zoo_table.py."""
    return load("zoo_table", TOOLS / "zoo_table.py")


@pytest.fixture(scope="session")
def zoo_library() -> ModuleType:
    """Return tools/zoo."""
    return zoo


@pytest.fixture(scope="session")
def page(zoo_table: ModuleType) -> dict[str, object]:
    """Return the rows of docs/zoo.md by name."""
    rows: dict[str, object] = zoo_table.read_rows((ZOO.parents[1] / "docs" / "zoo.md").read_text(encoding="utf-8"))
    return rows


@pytest.fixture(scope="session")
def check_inspection() -> Callable[[Analysis], None]:
    """Return a check that `inspect` can say what it found: as tables, as JSON and as a page."""

    def check(analysis: Analysis) -> None:
        document = analysis.document()
        assert json.loads(report.to_json(document))["groups"] == document["groups"]
        console = Console(file=io.StringIO(), width=1000, markup=False)
        console.print(report.group_table(document), report.frozen_table(document), report.totals(document))
        page = to_html(document)
        for group in document["groups"]:
            assert group["consumers"] or group["contractions"], f"'{group['name']}' has no reader"
        assert page.count("<tr>") >= len(document["groups"]) + len(document["frozen"])

    return check
