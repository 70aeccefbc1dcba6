"""Random networks of the operators that have rules: shrinking has to equal masking on every one of them."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import onnx
import pytest
from generator.strategy import is_known
from generator.twins import with_twins
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_subprune import pipeline
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.evaluate import random_feeds
from onnx_subprune.model import input_specs, measure_cost, open_session, run
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import Options, RecoveryOptions, Target
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.structure import Structure
from onnx_subprune.subspace import METHODS

Shape = tuple[int, ...]
Networks = Callable[..., st.SearchStrategy[onnx.ModelProto]]
BATCH = 2
SHAPES = {"x": (BATCH, 4, 6, 6)}
# The structure does not know the sizes of what these give out.
UNSIZED = {"If", "Loop", "Scan", "Compress", "NonZero"}


def whole_groups(structure: Structure, dice: random.Random) -> set[str]:
    """Return groups that lose all their units together: none in a quarter of the cases, else most that can."""
    if dice.random() < 0.25:
        return set()
    names = [group.name for group in structure.prunable if group.removable and dice.random() < 0.7]
    dice.shuffle(names)
    return set(names) - set(structure.needed(names))


def plan_of(analysis: Analysis, whole: set[str], dice: random.Random, removes: bool = True) -> Plan:
    """Return a plan that keeps random units, none of the groups `whole`; all of them if it removes nothing."""

    def kept(name: str, size: int) -> tuple[int, ...]:
        if not removes:
            return tuple(range(size))
        return () if name in whole else tuple(sorted(dice.sample(range(size), dice.randint(1, max(1, size - 1)))))

    groups = tuple(PlannedGroup(g.name, g.size, kept(g.name, g.size)) for g in analysis.structure.prunable)
    return Plan(
        analysis.fingerprint,
        "units=0.5",
        groups,
        RecoveryOptions(select="random", recovery="none", prune_normalised=analysis.prune_normalised),
    )


def agree(
    found: onnx.ModelProto, expected: onnx.ModelProto, seed: int, shapes: Sequence[Shape] = (SHAPES["x"],)
) -> None:
    """Assert that two models give the same for inputs of each of these shapes."""
    sessions = [open_session(model, threads=1) for model in (found, expected)]
    for shape in shapes:
        feeds = random_feeds(input_specs(expected), {"x": shape}, seed)
        results = [run(session, feeds) for session in sessions]
        for name, value in results[1].items():
            assert np.isfinite(value).all(), "the generator made numbers too large to compare"
            assert relative_error(results[0][name], value) < 1e-4, (name, shape)


def sizes(model: onnx.ModelProto, seed: int) -> list[Shape]:
    """Return shapes of the input that the model runs on: another batch, and other maps where no literal forbids it."""
    n, _, h, _ = input_specs(model)[0].shape
    if not isinstance(n, str):
        return [SHAPES["x"]]
    if not isinstance(h, str):
        return [SHAPES["x"], (3, 4, 6, 6)]
    other = (3, 4, 8, 6 + 2 * (seed % 2))
    try:
        found = run(open_session(model, threads=1), random_feeds(input_specs(model), {"x": other}, seed))
    except (ModelError, DataError):
        return [SHAPES["x"]]
    # A literal may also have moved positions into the batch, which every output declares to be as large as the input's.
    whole = all(len(value) == 3 for value in found.values() if value.shape[1:] == (3,))
    return [SHAPES["x"], other] if whole else [SHAPES["x"]]


def check(model: onnx.ModelProto, seed: int, recover: bool = False) -> int:
    """Shrink and mask the same random units; returns how many went."""
    analysis = analyse(model, SHAPES, prune_normalised=seed % 3 == 0)
    dice = random.Random(seed)
    shapes = sizes(model, seed)
    if seed % 5 == 1:
        shrunk, masked = references(analysis, plan_of(analysis, set(), dice, removes=False))
        agree(shrunk, model, seed, shapes)
    whole = whole_groups(analysis.structure, dice)
    plan = plan_of(analysis, whole, dice)
    if not plan.removes:
        return 0
    shrunk, masked = references(analysis, plan)
    if is_known(model):
        onnx.checker.check_model(shrunk, full_check=True)
    counts = {atom: int(mask.sum()) for atom, mask in plan.keeps(analysis.structure).items()}
    macs = measure_cost(shrunk, analysis.input_shapes).macs
    expected_macs = analysis.structure.macs(counts, analysis.structure.removal(whole))
    if not UNSIZED & {node.op_type for node in analysis.normalised.graph.node}:
        # What follows from the constant of a branch is computed once and for all, or on one position.
        assert macs <= expected_macs if whole else macs == expected_macs, (macs, expected_macs)
    agree(shrunk, masked, seed, shapes)
    if recover:
        whole_way(model, seed)
    if seed % 4 == 2:
        twins_stand_in(model, dice)
    return sum(g.size - len(g.kept) for g in plan.groups)


def whole_way(model: onnx.ModelProto, seed: int) -> None:
    """Prune with statistics and recovery; `prune` verifies its own result."""
    data = np.random.default_rng(seed).standard_normal((8, 4, 6, 6)).astype(np.float32)
    select = METHODS[seed % len(METHODS)]
    target = Target("units", 0.0 if seed % 8 == 0 else 0.6)
    options = Options(target=target, select=select, batch_size=2, threads=1, prune_normalised=seed % 3 == 0)
    pipeline.prune(model, {"x": data}, options)


def twins_stand_in(model: onnx.ModelProto, dice: random.Random) -> bool:
    """Make units copies of others and remove them with recovery: the outputs stay. Returns whether there were any."""
    before = analyse(model, SHAPES)
    sizes = [(group.name, group.size) for group in before.structure.groups]
    made = with_twins(before, dice)
    if made is None:
        return False
    copied, name, kept = made
    analysis = analyse(copied, SHAPES)
    if [(group.name, group.size) for group in analysis.structure.groups] != sizes:
        return False  # a weight that two nodes shared had to be taken apart
    groups = tuple(
        PlannedGroup(g.name, g.size, kept if g.name == name else tuple(range(g.size)))
        for g in analysis.structure.prunable
    )
    plan = Plan(analysis.fingerprint, "twins", groups, RecoveryOptions(recovery="channel", ridge=1e-10))
    data = np.random.default_rng(0).standard_normal((64, 4, 6, 6)).astype(np.float32)
    result = pipeline.apply(plan, copied, {"x": data}, Options(batch_size=2, threads=1))
    if any("was fitted on" not in warning for warning in result.warnings):
        return False
    agree(result.model, copied, 0)
    return True


CHECKS = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


@given(st.data(), st.integers(0, 2**16))
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=CHECKS)
def test_shrinking_equals_masking(random_networks: Networks, data: st.DataObject, seed: int) -> None:
    check(data.draw(random_networks()), seed)


@pytest.mark.slow
@given(st.data(), st.integers(0, 2**16))
@settings(max_examples=3000, deadline=None, suppress_health_check=CHECKS)
def test_shrinking_equals_masking_on_thousands(random_networks: Networks, data: st.DataObject, seed: int) -> None:
    check(data.draw(random_networks(24)), seed, recover=seed % 4 == 0)
