"""Graphs as exporters wrote them, compared at tensors inside: normalising keeps these, and the oracle holds there."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.model.named_points import check_points
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import check_normalised, disagreement
from onnx_subprune.plan import Plan

SKELETONS = Path(__file__).resolve().parent / "skeletons"
DAILY = ("bert_ts17", "densenet_ts17", "gru_deep_ts17", "keras_separable_tf17")
EVERY = 6


def is_fit(model: onnx.ModelProto, name: str) -> bool:
    try:
        check_points(model, [name])
    except OptionError:
        return False
    return True


def tensors(model: onnx.ModelProto, count: int) -> list[str]:
    """Return so many tensors drawn from those that networks can be compared at."""
    names = [name for node in model.graph.node for name in node.output if name]
    random.Random(0).shuffle(names)
    return [name for name in names[:40] if is_fit(model, name)][:count]


def check(name: str, entry: Any, library: ModuleType, plan_at_random: Callable[..., Plan]) -> int:
    """Compare at tensors drawn at random; returns at how many with units that go."""
    model = library.refill(library.read_skeleton(SKELETONS / f"{name}.onnx.xz"))
    feeds, compared = entry.feeds(0, seed=1), 0
    for tensor in tensors(model, 3):
        analysis = analyse(model, entry.shapes(0), outputs_at=[tensor])
        check_normalised(analysis, feeds)
        plan = plan_at_random(analysis, 0.6)
        if plan.removes:
            shrunk, masked = references(analysis, plan)
            assert disagreement(shrunk, masked, feeds, [tensor]) < 1e-4, tensor
            _, wrongly_masked = references(analysis, plan_at_random(analysis, 0.6, 1))
            assert disagreement(shrunk, wrongly_masked, feeds, [tensor]) > 1e-3, tensor
            compared += 1
    return compared


@pytest.mark.parametrize("name", DAILY)
def test_networks_are_compared_inside(
    name: str, entries: dict[str, Any], zoo_library: ModuleType, plan_at_random: Callable[..., Plan]
) -> None:
    assert check(name, entries[name], zoo_library, plan_at_random) > 0


@pytest.mark.slow
def test_every_sixth_network_is_compared_inside(
    entries: dict[str, Any], zoo_library: ModuleType, plan_at_random: Callable[..., Plan]
) -> None:
    compared = [check(name, entries[name], zoo_library, plan_at_random) for name in sorted(entries)[::EVERY]]
    assert sum(compared) > 2 * len(compared)
