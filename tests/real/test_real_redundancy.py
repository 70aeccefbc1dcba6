"""The redundancy oracle: what other units of a real network can express may go, and nothing changes.

Weights are rewritten so that some units are copies, multiples or sums of others. Removing exactly those, with recovery,
must give the same outputs on images that did not calibrate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType

import numpy as np
import onnx
import pytest

from onnx_subprune.model import open_session, run
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import RecoveryOptions
from onnx_subprune.pipeline import Analysis, analyse, apply
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.structure import Group, unit_index

Network = Callable[[str], onnx.ModelProto]
Calibration = Callable[[str, int], dict[str, np.ndarray]]
Combination = Mapping[int, float]
# Unit 5 copies unit 3; unit 7 is twice unit 1: ReLU commutes with a positive factor.
MULTIPLES: dict[int, Combination] = {5: {3: 1.0}, 7: {1: 2.0}}
# Unit 6 is a sum of units whose weights are made positive: they read what a ReLU wrote, so ReLU never clips them.
SUMS: dict[int, Combination] = {6: {0: 1.0, 2: 0.5}, **MULTIPLES}
COPIES: dict[int, Combination] = {5: {3: 1.0}, 7: {1: 1.0}}


def rewrite(model: onnx.ModelProto, group: Group, combinations: Mapping[int, Combination]) -> None:
    """Make units of a group combinations of others, in every weight that writes them."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    for use in (*group.producers, *group.carriers):
        tensor = stored[use.constant.name]
        units = np.moveaxis(onnx.numpy_helper.to_array(tensor).copy(), use.axis, 0)
        position = {int(unit): place for place, unit in enumerate(unit_index(use.dim, group.atom)) if unit >= 0}
        for target, terms in combinations.items():
            if len(terms) > 1:
                for source in terms:
                    # Small, for a channel that is always on is far louder than the trained ones.
                    units[position[source]] = np.abs(units[position[source]]) / 8
            units[position[target]] = sum(factor * units[position[source]] for source, factor in terms.items())
        tensor.CopyFrom(onnx.numpy_helper.from_array(np.moveaxis(units, 0, use.axis), tensor.name))


def redundant(model: onnx.ModelProto, choice: Mapping[str, Mapping[int, Combination]]) -> tuple[Analysis, Plan]:
    """Return the rewritten network, taken apart, and the plan that removes just what became redundant."""
    dense = onnx.ModelProto()
    dense.CopyFrom(analyse(model).normalised)
    groups = analyse(dense).structure.prunable
    for group in groups:
        rewrite(dense, group, choice.get(group.name, {}))
    planned = (
        PlannedGroup(g.name, g.size, tuple(u for u in range(g.size) if u not in choice.get(g.name, {}))) for g in groups
    )
    analysis = analyse(dense)
    return analysis, Plan(
        analysis.fingerprint, "units=0.9", tuple(planned), RecoveryOptions(recovery="channel", ridge=0.0)
    )


def error_of(model: onnx.ModelProto, dense: onnx.ModelProto, images: np.ndarray) -> float:
    expected, found = (run(open_session(m), {"input": images})["logits"] for m in (dense, model))
    assert np.isfinite(expected).all()
    assert len(set(expected.argmax(axis=1))) > 1, "the rewritten network must still tell images apart"
    return relative_error(found, expected)


def check(model: onnx.ModelProto, choice: dict[str, dict[int, Combination]], images: np.ndarray, half: int) -> None:
    analysis, plan = redundant(model, choice)
    assert set(choice) <= {group.name for group in plan.groups}
    result = apply(plan, analysis.model, {"input": images[:half]})
    assert result.pruned.parameters < result.dense.parameters
    assert error_of(result.model, analysis.model, images[half:]) < 1e-4
    assert max(result.errors.values()) < 1e-6
    # The oracle would prove nothing if the removed units did not matter.
    bare = replace(plan, options=RecoveryOptions(recovery="none"))
    assert error_of(apply(bare, analysis.model).model, analysis.model, images[half:]) > 1e-2


@pytest.mark.parametrize("exporter", [pytest.param("ts17", marks=pytest.mark.slow), "dynamo18"])
def test_redundant_units_of_a_resnet_leave_no_trace(
    network: Network, datasets: ModuleType, data_dir: object, exporter: str
) -> None:
    model = network(f"resnet56_cifar10_{exporter}")
    groups = analyse(model).structure.prunable
    inner = [group.name for group in groups if len(group.producers) == 1]
    streams = [group.name for group in groups if len(group.producers) > 1]
    choice = dict.fromkeys(inner[::4], SUMS) | dict.fromkeys(streams, MULTIPLES)
    check(model, choice, datasets.cifar10("test", 192, data_dir).inputs, half=128)


@pytest.mark.parametrize("exporter", ["ts17", pytest.param("dynamo18", marks=pytest.mark.slow)])
def test_copied_units_of_a_depthwise_network_leave_no_trace(
    network: Network, datasets: ModuleType, data_dir: object, exporter: str
) -> None:
    model = network(f"efficientnet_lite0_{exporter}")
    choice = {group.name: COPIES for group in analyse(model).structure.prunable[:16:3]}
    check(model, choice, datasets.imagenet_samples(12, data_dir).inputs, half=8)
