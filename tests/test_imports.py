"""The contracts of `pyproject.toml` on who imports whom: the tree keeps them, and a forbidden import is refused."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOORS, CIRCLES, STRUCTURE, BUDGET, CALIBRATION, EXACT, EXTRAS = (
    "Imports point one way",
    "No circles among the modules of a package",
    "Structure takes graphs and gives values: no model files, no runtime",
    "The budget is arithmetic: it imports errors alone",
    "Calibration knows tensors by name and no structure",
    "Exact recovery is handed what it needs: no network, options or plans",
    "Optional packages are asked for in one place each",
)

Verdict = tuple[int, str]


def _checked(folder: Path) -> Verdict:
    """Return the exit status and the output of the linter on the tree in `folder`, in one line."""
    program = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "400"}
    command = [sys.executable, "-c", program, "--no-cache", "--no-logo"]
    result = subprocess.run(command, cwd=folder, env=environment, check=False, capture_output=True, text=True)
    assert not result.stderr, result.stderr
    return result.returncode, " ".join(result.stdout.split())


def test_the_tree_keeps_its_contracts() -> None:
    status, output = _checked(ROOT)
    assert status == 0, output
    assert "0 broken" in output


@pytest.fixture(scope="module")
def copied_tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    copy = tmp_path_factory.mktemp("tree")
    for name in ("onnx_subprune", "passes"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", copy)
    return copy


# What is added, where, and the contract and the edge that the refusal must name.
FORBIDDEN = {
    "upwards": (
        "structure/dtypes.py",
        "from onnx_subprune.report import document",
        FLOORS,
        "onnx_subprune.report.document",
    ),
    "inside a function": (
        "structure/dtypes.py",
        "def late():\n    from onnx_subprune.report import document\n    return document",
        FLOORS,
        "onnx_subprune.report.document",
    ),
    "for types alone": (
        "structure/dtypes.py",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from onnx_subprune.plan import Plan",
        FLOORS,
        "onnx_subprune.plan",
    ),
    "a module from the package": (
        "budget/curves.py",
        "from onnx_subprune import report",
        FLOORS,
        "onnx_subprune.report",
    ),
    "a public name from the package": ("model/fields.py", "from onnx_subprune import Result", FLOORS, "onnx_subprune"),
    "in passes": (
        "passes/tidy.py",
        "from onnx_subprune.report import document",
        FLOORS,
        "onnx_subprune.report.document",
    ),
    "between neighbours": ("budget/curves.py", "import onnx_subprune.calibration", FLOORS, "onnx_subprune.calibration"),
    "a circle": ("model/protos.py", "from onnx_subprune.model.load import load_model", CIRCLES, None),
    "a runtime in structure": ("structure/dtypes.py", "import onnxruntime", STRUCTURE, "onnxruntime"),
    "a file in structure": ("structure/dtypes.py", "from pathlib import Path", STRUCTURE, "pathlib"),
    "a model in structure": (
        "structure/dtypes.py",
        "from onnx_subprune.model import to_graph",
        STRUCTURE,
        "onnx_subprune.model",
    ),
    "a group in the budget": (
        "budget/curves.py",
        "from onnx_subprune.structure import Group",
        BUDGET,
        "onnx_subprune.structure",
    ),
    "a group in calibration": (
        "calibration/taps.py",
        "from onnx_subprune.structure import Group",
        CALIBRATION,
        "onnx_subprune.structure",
    ),
    "a plan in exact recovery": (
        "recovery/exact/im2col.py",
        "from onnx_subprune.plan import Plan",
        EXACT,
        "onnx_subprune.plan",
    ),
    "an optional package": ("passes/tidy.py", "import torch", EXTRAS, "torch"),
}


@pytest.mark.parametrize(("module", "line", "contract", "imported"), FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_forbidden_import_is_refused(
    copied_tree: Path, module: str, line: str, contract: str, imported: str | None
) -> None:
    path = copied_tree / "onnx_subprune" / module
    before = path.read_text(encoding="utf-8")
    path.write_text(f"{before}\n{line}\n", encoding="utf-8")
    try:
        status, output = _checked(copied_tree)
    finally:
        path.write_text(before, encoding="utf-8")
    assert status == 1
    assert f"{contract} BROKEN" in output
    if imported is not None:
        importer = module.removesuffix(".py").replace("/", ".")
        assert f"onnx_subprune.{importer} -> {imported}" in output.partition("Broken contracts")[2]


def test_a_module_on_no_floor_is_refused(copied_tree: Path) -> None:
    stray = copied_tree / "onnx_subprune" / "stray.py"
    stray.write_text('"""Nobody said where this belongs."""\n', encoding="utf-8")
    try:
        status, output = _checked(copied_tree)
    finally:
        stray.unlink()
    assert status == 1
    assert "stray" in output.partition("Broken contracts")[2]


def test_the_unchanged_copy_is_accepted(copied_tree: Path) -> None:
    assert _checked(copied_tree)[0] == 0


def test_importing_every_module_takes_in_no_optional_package() -> None:
    program = """
import importlib, pkgutil, sys, onnx_subprune
for module in pkgutil.walk_packages(onnx_subprune.__path__, "onnx_subprune."):
    importlib.import_module(module.name)
assert "onnx_subprune.passes.tidy" in sys.modules
print(*sorted({"torch", "ray", "tensorflow", "matplotlib", "PIL"} & set(sys.modules)))
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == ""
