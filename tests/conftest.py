"""Oracles and data shared by all tests."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from itertools import count
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_subprune.evaluate import Pace, random_feeds
from onnx_subprune.model import custom_operators, input_specs, open_session, run
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import RecoveryOptions
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.structure import rule_errors

ORACLE = 1e-4
_numbers = count()

# An error in an operator rule fails the test; for users it freezes what the node touches.
rule_errors.RAISED = True


@pytest.fixture(autouse=True)
def measurements(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder for what is measured on this machine that no other test, and no user, has written to."""
    folder = tmp_path_factory.getbasetemp() / f"cache-{next(_numbers)}"
    monkeypatch.setenv("ONNX_SUBPRUNE_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def brief_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let reports time models for a moment: tests read that times are there, not what they are."""
    comparison = import_module("onnx_subprune.evaluate.comparison")
    monkeypatch.setattr(comparison, "_PACE", Pace(precision=0.5, most_seconds=0.3))
    monkeypatch.setattr(comparison, "_BRIEF", Pace(precision=0.5, most_seconds=0.02, seconds=0.0, rounds=1))


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Return the folder of real networks and data, beside the checkout or named by ONNX_SUBPRUNE_DATA."""
    named = os.environ.get("ONNX_SUBPRUNE_DATA")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared" / "data"
    if not (folder / "MANIFEST.md").is_file():
        message = f"REAL DATA MISSING: expected it at {folder} or under ONNX_SUBPRUNE_DATA; these tests did not run"
        if os.environ.get("CI"):
            pytest.fail(message)
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn(message, stacklevel=2)
        pytest.skip(message)
    return folder


_LIBRARY = """
int calls;
void *RegisterCustomOps(void *options, const void *api) { ++calls; return 0; }
"""


@pytest.fixture(scope="session")
def built_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a library that registers no operator, and counts in `calls` how often ONNX Runtime asks it to."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("NO C COMPILER: libraries of custom operators were not registered", stacklevel=2)
        pytest.skip("no C compiler to build a library of custom operators with")
    folder = tmp_path_factory.mktemp("library")
    (folder / "ops.c").write_text(_LIBRARY, encoding="ascii")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", "ops.so", "ops.c"], cwd=folder, check=True)
    return folder / "ops.so"


@pytest.fixture
def custom_library(built_library: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the library where no library is registered, and none stays registered after the test."""
    monkeypatch.setattr(custom_operators, "_registered", [])
    calls_of(built_library).value = 0
    return built_library


def calls_of(library: Path) -> ctypes.c_int:
    """Return the counter of `built_library`."""
    return ctypes.c_int.in_dll(ctypes.CDLL(str(library)), "calls")


@pytest.fixture
def registrations(custom_library: Path) -> Callable[[], int]:
    """`registrations()`: how often ONNX Runtime has asked the library for its operators."""
    return lambda: calls_of(custom_library).value


def is_valid(model: onnx.ModelProto) -> bool:
    """Whether ONNX's checker knows all operators: it does not know those that ONNX Runtime writes without a domain."""
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        return False
    return True


def random_plan(analysis: Analysis, fraction: float = 0.5, seed: int = 0) -> Plan:
    """Return a plan that keeps a random `fraction` of the units of every prunable group."""
    rng = np.random.default_rng(seed)
    groups = []
    for group in analysis.structure.prunable:
        kept_units = max(1, round(fraction * group.size))
        kept = tuple(sorted(int(u) for u in rng.choice(group.size, kept_units, replace=False)))
        groups.append(PlannedGroup(group.name, group.size, kept))
    return Plan(
        analysis.fingerprint, f"units={fraction}", tuple(groups), RecoveryOptions(select="random", recovery="none")
    )


@pytest.fixture
def plan_at_random() -> Callable[..., Plan]:
    """Return `random_plan`."""
    return random_plan


@pytest.fixture
def mask_oracle() -> Callable[..., Analysis]:
    """Return a check that shrinking without recovery equals masking at the consumers, to 1e-4 relative in ORT.

    The check returns the analysis, and fails where nothing was prunable: an oracle on no unit proves nothing.
    """

    def check(
        model: onnx.ModelProto,
        shapes: Mapping[str, tuple[int, ...]] | None = None,
        *,
        fraction: float = 0.5,
        seed: int = 0,
        run_shapes: Mapping[str, tuple[int, ...]] | None = None,
        prune_normalised: bool = False,
    ) -> Analysis:
        analysis = analyse(model, shapes, prune_normalised=prune_normalised)
        plan = random_plan(analysis, fraction, seed)
        assert plan.removes, "expected a prunable group, found none"
        shrunk, masked = references(analysis, plan)
        if is_valid(model):
            onnx.checker.check_model(shrunk, full_check=True)
        feeds = random_feeds(input_specs(model), dict(run_shapes or analysis.input_shapes), seed)
        expected = run(open_session(masked), feeds)
        found = run(open_session(shrunk), feeds)
        for name, value in expected.items():
            assert np.abs(value).max() > 0, f"output '{name}' is all zero: the oracle would prove nothing"
            assert relative_error(found[name], value) < ORACLE, name
        return analysis

    return check
