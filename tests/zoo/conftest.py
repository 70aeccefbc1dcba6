"""The zoo's library, which lives with the tools, and its index."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

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
