"""How a target is shared among the groups of a real structure."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from onnx_subprune.budget import Curve
from onnx_subprune.budget.allocate import cost_beside
from onnx_subprune.demo import load_demo
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.model import load_model
from onnx_subprune.options import ALLOCATIONS, Target
from onnx_subprune.pipeline import analyse
from onnx_subprune.planning.allocation import allocate, relative_cost
from onnx_subprune.structure import Structure


@pytest.fixture(scope="module")
def structure() -> Structure:
    return analyse(load_model(load_demo().model_path), {"image": (1, 1, 28, 28)}).structure


@pytest.fixture(scope="module")
def curves(structure: Structure) -> list[Curve]:
    """The share grows evenly; the loss of each group falls by its own factor per unit."""
    made = []
    for index, group in enumerate(structure.prunable):
        loss = 0.9 ** (np.arange(group.size + 1) * (1 + index % 3))
        share = np.linspace(0.0, 1.0, group.size + 1)
        made.append(Curve(group.name, group.size, np.arange(group.size), share, loss=loss - loss[-1]))
    return made


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_every_allocation_meets_the_target_and_loss_loses_least(
    structure: Structure, curves: list[Curve], kind: str
) -> None:
    losses = {}
    measure = structure.macs if kind == "macs" else structure.parameters
    for name in ALLOCATIONS:
        counts, warnings = allocate(structure, curves, Target(kind, 0.5), name)
        cost = measure({group.atom: counts[group.name] for group in structure.prunable}) / measure({})
        assert 0.47 < cost <= 0.5
        assert not warnings
        losses[name] = sum(float(c.loss[counts[c.group]]) for c in curves if c.loss is not None)
    assert losses["loss"] < 0.9 * min(losses["cutoff"], losses["uniform"])


def test_loss_needs_losses(structure: Structure, curves: list[Curve]) -> None:
    bare = [*curves[:-1], replace(curves[-1], loss=None)]
    with pytest.raises(OptionError, match=rf"loss for every group, .* none for '{curves[-1].group}'"):
        allocate(structure, bare, Target("macs", 0.5), "loss")
    assert allocate(structure, bare, Target("units", 0.5), "loss")[0]


@pytest.mark.parametrize("allocation", ALLOCATIONS)
def test_a_target_out_of_reach_names_the_nearest(structure: Structure, curves: list[Curve], allocation: str) -> None:
    with pytest.raises(TargetError, match=r"ask for macs=0\.\d+ or more"):
        allocate(structure, curves, Target("macs", 1e-6), allocation)


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_a_cost_beside_given_widths_is_that_of_the_changed_widths(structure: Structure, kind: str) -> None:
    cost = relative_cost(structure, Target(kind, 0.5))
    whole = {group.name: group.size for group in structure.prunable}
    half = {name: size // 2 for name, size in whole.items()}
    for counts in (whole, half, {**half, next(iter(half)): 0}):
        for group in counts:
            for width in (0, 1, 3):
                assert cost_beside(cost, counts, group, width) == cost({**counts, group: width})
