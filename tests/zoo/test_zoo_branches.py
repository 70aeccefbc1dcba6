"""Graphs as exporters wrote them, without whole branches: they equal the networks whose branches are masked."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.model import open_session, run
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import RecoveryOptions
from onnx_subprune.plan import Plan, PlannedGroup

ZOO = Path(__file__).resolve().parent
NAMES = [row["name"] for row in json.loads((ZOO / "zoo.json").read_text(encoding="utf-8"))]
EVERY = 7


def _entries() -> list[Any]:
    return [
        pytest.param(name, marks=[] if i % EVERY == 0 and name != "light_densenet121" else [pytest.mark.slow])
        for i, name in enumerate(NAMES)
    ]


def _plan(analysis: Analysis, whole: Sequence[str]) -> Plan:
    """Return the plan that removes these groups, as far as they can go together, and a quarter of the others' units."""
    structure, rng = analysis.structure, np.random.default_rng(0)
    gone = set(whole) - set(structure.needed(whole))
    kept = {g.name: rng.choice(g.size, max(1, round(0.75 * g.size)), replace=False) for g in structure.prunable}
    groups = [PlannedGroup(g.name, g.size, tuple(sorted(map(int, kept[g.name])))) for g in structure.prunable]
    groups = [replace(group, kept=()) if group.name in gone else group for group in groups]
    return Plan(analysis.fingerprint, "by chance", tuple(groups), RecoveryOptions(select="random", recovery="none"))


@pytest.mark.parametrize("name", _entries())
def test_removing_branches_equals_masking_them(name: str, entries: dict[str, Any], zoo_library: ModuleType) -> None:
    model = zoo_library.refill(zoo_library.read_skeleton(ZOO / "skeletons" / f"{name}.onnx.xz"))
    analysis = analyse(model, entries[name].shapes(0))
    removable = [group.name for group in analysis.structure.removable]
    if not removable:
        pytest.skip("no group can lose all its units")
    dice = random.Random(0)
    chosen = [group for group in removable if dice.random() < 0.5] or removable[:1]
    plan = _plan(analysis, chosen)
    assert any(not group.kept for group in plan.groups)
    shrunk, masked = references(analysis, plan)
    onnx.checker.check_model(shrunk, full_check=True)
    sessions = [open_session(each, threads=1) for each in (masked, shrunk)]
    for which in (0, 1):
        expected, found = (run(session, entries[name].feeds(which, seed=1)) for session in sessions)
        for output, value in expected.items():
            assert np.isfinite(value).all(), output
            assert relative_error(found[output], value) < 1e-4, output
