"""Random networks of the operators that have rules: shrinking has to equal masking on every one of them."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_subprune import pipeline
from onnx_subprune.analysis import analyse, references
from onnx_subprune.evaluate import random_feeds
from onnx_subprune.model import input_specs, measure_cost, open_session, run
from onnx_subprune.options import Options, Target
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.structure import Structure
from onnx_subprune.verify import relative_error

Networks = Callable[..., st.SearchStrategy[onnx.ModelProto]]
BATCH = 2


def whole_groups(structure: Structure, dice: random.Random) -> set[str]:
    """Return groups that lose all their units together: none in a quarter of the cases, else most that can."""
    if dice.random() < 0.25:
        return set()
    names = [group.name for group in structure.prunable if group.removable and dice.random() < 0.7]
    dice.shuffle(names)
    return set(names) - set(structure.needed(names))


def check(model: onnx.ModelProto, seed: int, recover: bool = False) -> int:
    """Shrink and mask the same random units; returns how many went."""
    analysis = analyse(model, {"x": (BATCH, 4, 6, 6)})
    dice = random.Random(seed)
    whole = whole_groups(analysis.structure, dice)
    groups = tuple(
        PlannedGroup(
            g.name,
            g.size,
            () if g.name in whole else tuple(sorted(dice.sample(range(g.size), dice.randint(1, max(1, g.size - 1))))),
        )
        for g in analysis.structure.prunable
    )
    plan = Plan(analysis.fingerprint, "units=0.5", "random", "none", 0.0, groups)
    if not plan.removes:
        return 0
    shrunk, masked = references(analysis, plan)
    onnx.checker.check_model(shrunk, full_check=True)
    counts = {atom: int(mask.sum()) for atom, mask in plan.keeps(analysis.structure).items()}
    macs = measure_cost(shrunk, analysis.input_shapes).macs
    expected_macs = analysis.structure.macs(counts, analysis.structure.removal(whole))
    # What follows from the constant of a branch is computed once and for all, or on one position.
    assert macs <= expected_macs if whole else macs == expected_macs
    dynamic = [isinstance(size, str) for size in input_specs(model)[0].shape] == [True, False, False, False]
    for batch in (BATCH, 3) if dynamic else (BATCH,):
        feeds = random_feeds(input_specs(model), {"x": (batch, 4, 6, 6)}, seed)
        found, expected = (run(open_session(m, threads=1), feeds) for m in (shrunk, masked))
        for name, value in expected.items():
            assert np.isfinite(value).all(), "the generator made numbers too large to compare"
            assert relative_error(found[name], value) < 1e-4, (name, batch)
    if recover:
        whole_way(model, seed)
    return sum(g.size - len(g.kept) for g in groups)


def whole_way(model: onnx.ModelProto, seed: int) -> None:
    """Prune with statistics and recovery; `prune` verifies its own result."""
    data = np.random.default_rng(seed).standard_normal((8, 4, 6, 6)).astype(np.float32)
    select = ("magnitude", "zca", "saw")[seed % 3]
    target = Target("units", 0.0 if seed % 8 == 0 else 0.6)
    pipeline.prune(model, {"x": data}, Options(target=target, select=select, batch_size=2, threads=1))


CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@given(st.data(), st.integers(0, 2**16))
@settings(max_examples=100, deadline=None, derandomize=True, suppress_health_check=CHECKS)
def test_shrinking_equals_masking(random_networks: Networks, data: st.DataObject, seed: int) -> None:
    check(data.draw(random_networks()), seed)


@pytest.mark.slow
@given(st.data(), st.integers(0, 2**16))
@settings(max_examples=3000, deadline=None, suppress_health_check=CHECKS)
def test_shrinking_equals_masking_on_thousands(random_networks: Networks, data: st.DataObject, seed: int) -> None:
    check(data.draw(random_networks(24)), seed, recover=seed % 4 == 0)
