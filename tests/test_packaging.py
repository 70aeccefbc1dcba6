"""The wheel holds what the tree holds, and nothing at the top level but the package."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def _packages() -> list[str]:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return list(config["tool"]["setuptools"]["packages"])


def _in_tree() -> set[str]:
    found = {p.parent.relative_to(ROOT) for p in (ROOT / "onnx_subprune").rglob("__init__.py")}
    return {".".join(path.parts) for path in found} | {"onnx_subprune.passes"}


def test_every_package_of_the_tree_is_listed() -> None:
    assert set(_packages()) == _in_tree()
    assert _packages() == sorted(_packages())


def test_passes_is_one_folder_with_two_names() -> None:
    link = ROOT / "onnx_subprune" / "passes"
    assert link.is_symlink()
    assert link.resolve() == ROOT / "passes"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # A copy, because setuptools leaves build/ behind and would pack what an earlier build left there.
    copy = tmp_path_factory.mktemp("tree")
    for name in ("onnx_subprune", "passes"):
        shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, copy / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", ".", "."]
    subprocess.run(command, cwd=copy, check=True, capture_output=True)
    (built,) = copy.glob("*.whl")
    return built


def test_the_wheel_holds_all_modules_and_data_and_no_top_level_passes(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {str(p.relative_to(ROOT)) for p in (ROOT / "onnx_subprune").rglob("*.py") if "passes" not in p.parts}
    modules |= {f"onnx_subprune/passes/{p.name}" for p in (ROOT / "passes").glob("*.py")}
    data = {"onnx_subprune/py.typed", "onnx_subprune/demo/demo.onnx", "onnx_subprune/demo/demo.npz"}
    templates = ROOT / "onnx_subprune" / "report" / "templates"
    data |= {str(path.relative_to(ROOT)) for path in templates.iterdir()}
    assert modules | data <= names
    assert {name.split("/")[0] for name in names if ".dist-info" not in name} == {"onnx_subprune"}
