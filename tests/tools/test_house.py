"""The figures of a checkout: on a small one whose figures are counted by hand, and on the tree itself."""

from __future__ import annotations

from pathlib import Path

import house
import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = {
    "onnx_subprune/__init__.py": "",
    "onnx_subprune/top.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import onnx_subprune.room.low\n",
    "onnx_subprune/room/__init__.py": "from .low import f\n",
    "onnx_subprune/room/low.py": (
        '__all__ = ["f", "g"]\n\n\ndef f(a):\n    """Say.\n\n    Args:\n        a: it.\n\n    """\n    found = a\n'
        "    return found\n\n\ndef g(a):\n    from onnx_subprune.passes import tidy\n    return tidy, a\n"
    ),
    "passes/__init__.py": "",
    "passes/tidy.py": "import onnx_subprune.top\n",
    "passes/low.py": "",
    "tests/room/test_low_more.py": "1\n2\n",
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    (tmp_path / "onnx_subprune" / "passes").symlink_to("../passes")
    return tmp_path


def test_modules_behind_the_symlink_are_seen(checkout: Path) -> None:
    assert {module.name for module in house.read(checkout)} == {
        "onnx_subprune",
        "onnx_subprune.top",
        "onnx_subprune.room",
        "onnx_subprune.room.low",
        "onnx_subprune.passes",
        "onnx_subprune.passes.tidy",
        "onnx_subprune.passes.low",
    }


def test_imports_are_seen_where_they_are_indented_relative_for_types_and_in_passes(checkout: Path) -> None:
    modules = house.read(checkout)
    known = {module.name for module in modules}
    edges = {module.name: house.imports(module, known) for module in modules}
    assert edges["onnx_subprune.top"] == {"onnx_subprune.room.low"}
    assert edges["onnx_subprune.room"] == {"onnx_subprune.room.low"}
    assert edges["onnx_subprune.room.low"] == {"onnx_subprune.passes.tidy"}
    assert edges["onnx_subprune.passes.tidy"] == {"onnx_subprune.top"}
    assert house.circles(edges) == [["onnx_subprune.passes.tidy", "onnx_subprune.room.low", "onnx_subprune.top"]]


def test_functions_names_and_tests_are_counted(checkout: Path) -> None:
    modules = house.read(checkout)
    assert sorted(house.functions(modules)) == [("onnx_subprune.room.low.f", 9, 3), ("onnx_subprune.room.low.g", 3, 3)]
    assert sorted(house.public_functions(modules)) == [
        ("onnx_subprune.room.low.f", True),
        ("onnx_subprune.room.low.g", False),
    ]
    assert (house.local_names(modules)["found"], house.uses_of_names(modules)["found"]) == (1, 2)
    assert house.twins(modules) == [("passes.low", "room.low")]
    assert house.untested(checkout, modules) == ["top", "passes.low", "passes.tidy"]
    assert house.test_lines(checkout) == 2


def test_a_checkout_is_described_in_lines(checkout: Path) -> None:
    text = "\n".join(house.describe(checkout))
    assert "modules at the top         1\n" in text
    assert "circles of imports         1\n    3 modules" in text
    assert "public, with Args:         1 of 2 with arguments (50%)" in text


def test_circles_of_two_and_none() -> None:
    assert house.circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
    assert house.circles({"a": {"b"}, "b": {"c"}, "c": set()}) == []


def test_no_modules_of_the_tree_import_each_other_in_a_circle() -> None:
    modules = house.read(ROOT)
    known = {module.name for module in modules}
    assert house.circles({module.name: house.imports(module, known) for module in modules}) == []


def test_no_file_of_the_tree_is_too_long() -> None:
    assert [module.name for module in house.read(ROOT) if module.lines > house.LONG_FILE] == []
