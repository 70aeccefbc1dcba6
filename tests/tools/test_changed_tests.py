"""Which tests belong to a changed file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import changed_tests
import pytest

TREE = (
    "tests/conftest.py",
    "tests/test_plan.py",
    "tests/test_imports.py",
    "tests/model/conftest.py",
    "tests/model/test_cost.py",
    "tests/model/test_cost_of_bodies.py",
    "tests/passes/test_tidy.py",
    "tests/recovery/exact/test_rows.py",
    "tests/structure/test_groups.py",
    "tests/structure/test_rules_linear.py",
    "tests/tools/test_house.py",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "tests"),
    [
        ("onnx_subprune/model/cost.py", ["tests/model/test_cost.py", "tests/model/test_cost_of_bodies.py"]),
        ("onnx_subprune/model/load.py", ["tests/model"]),
        ("onnx_subprune/plan.py", ["tests/test_plan.py"]),
        ("onnx_subprune/errors.py", []),
        ("onnx_subprune/recovery/exact/rows.py", ["tests/recovery/exact/test_rows.py"]),
        ("onnx_subprune/recovery/exact/other.py", ["tests/recovery/exact"]),
        ("onnx_subprune/structure/rules/linear.py", ["tests/structure/test_rules_linear.py"]),
        ("onnx_subprune/structure/rules/matrix.py", ["tests/structure"]),
        ("passes/tidy.py", ["tests/passes/test_tidy.py"]),
        ("passes/wiring.py", ["tests/passes"]),
        ("tools/house.py", ["tests/tools/test_house.py"]),
        ("tests/model/test_cost.py", ["tests/model/test_cost.py"]),
        ("tests/model/test_gone.py", []),
        ("tests/model/conftest.py", ["tests/model"]),
        ("tests/conftest.py", []),
        ("pyproject.toml", ["tests/test_imports.py"]),
        ("docs/architecture.md", []),
    ],
)
def test_a_file_has_its_own_tests_or_those_of_its_package(tree: Path, changed: str, tests: list[str]) -> None:
    assert changed_tests.tests_of(tree, changed) == tests


def test_a_folder_stands_for_all_its_tests(tree: Path) -> None:
    changed = ["onnx_subprune/model/cost.py", "onnx_subprune/model/load.py", "passes/tidy.py"]
    assert changed_tests.selected(tree, changed) == ["tests/model", "tests/passes/test_tidy.py"]


def test_changes_are_those_since_the_branch_and_those_not_committed(tree: Path) -> None:
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *identity, *arguments], cwd=tree, check=True, capture_output=True)

    git("init", "--initial-branch", "main")
    git("add", ".")
    git("commit", "--message", "first")
    assert changed_tests.changed_files(tree, None) == []
    git("switch", "--create", "work")
    (tree / "tests" / "test_plan.py").write_text("1\n")
    git("commit", "--all", "--message", "second")
    (tree / "tests" / "test_imports.py").write_text("2\n")
    (tree / "new.py").touch()
    assert changed_tests.changed_files(tree, None) == ["new.py", "tests/test_imports.py", "tests/test_plan.py"]
    assert changed_tests.changed_files(tree, "HEAD") == ["new.py", "tests/test_imports.py"]
