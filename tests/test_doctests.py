"""The examples in docstrings are run: every module of the package, and every pass."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from types import ModuleType

import pytest

import onnx_subprune

OPTIONS = doctest.NORMALIZE_WHITESPACE | doctest.REPORT_NDIFF
MODULES = sorted(m.name for m in pkgutil.walk_packages(onnx_subprune.__path__, "onnx_subprune."))


def failures(module: ModuleType) -> str:
    """Return a report of the examples of a module that do not give what they say; nothing where all do."""
    report: list[str] = []
    runner = doctest.DocTestRunner(verbose=False, optionflags=OPTIONS)
    for test in doctest.DocTestFinder().find(module, module.__name__):
        runner.run(test, out=report.append)
    return "".join(report)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_hold(name: str) -> None:
    report = failures(importlib.import_module(name))
    assert not report, report


def test_every_package_is_searched() -> None:
    searched = {name.split(".")[1] for name in MODULES}
    assert {"passes", "structure", "subspace", "recovery", "planning", "pipeline"} <= searched


def test_a_wrong_example_is_reported() -> None:
    assert "Failed example" in failures(ModuleType("wrong", ">>> 2 + 2\n5\n"))
    assert not failures(ModuleType("right", ">>> 2 + 2\n4\n"))
