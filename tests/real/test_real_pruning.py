"""The whole way on real networks: targets, identity, the same bytes twice, and a floor under the accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.evaluate import top1
from onnx_subprune.model import input_specs, load_model, measure_cost, open_session, run
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import Result, apply, prune

Network = Callable[[str], onnx.ModelProto]
Calibration = Callable[[str, int], dict[str, np.ndarray]]
Untouched = Callable[[str], Result]
Pruned = Callable[[str, str], Result]

EXPORTERS = ("ts17", "dynamo18")
RESNETS = [f"{name}_cifar10_{exporter}" for name in ("resnet32", "resnet56") for exporter in EXPORTERS]
LITE = [f"efficientnet_lite0_{exporter}" for exporter in EXPORTERS]
NAMES = [*RESNETS, *LITE]
# Every network every day, each target with two of them; the rest takes minutes.
EVERYDAY = dict(zip(RESNETS, ("macs=0.7", "macs=0.5", "macs=0.5", "macs=0.7"), strict=True))
CASES = [
    *EVERYDAY.items(),
    *(
        pytest.param(name, target, marks=pytest.mark.slow)
        for name in RESNETS
        for target in {"macs=0.7", "macs=0.5"} - {EVERYDAY[name]}
    ),
    pytest.param(LITE[0], "macs=0.5", marks=pytest.mark.slow),
    pytest.param(LITE[1], "macs=0.7", marks=pytest.mark.slow),
]
SECOND = ("resnet32_cifar10_ts17", "resnet56_cifar10_dynamo18", "efficientnet_lite0_dynamo18")
INNER = ("/layer?/layer?.?/conv1/Conv",)
OURS = "pkg.onnx_subprune."


@pytest.fixture(scope="module")
def untouched(network: Network, calibration: Calibration) -> Untouched:
    """Return a network pruned to all of its MACs; its statistics serve the other targets."""

    @cache
    def result(name: str) -> Result:
        count = 4 if name.startswith("efficientnet") else 64
        return prune(network(name), calibration(name, count), Options.of_effort("fast", target=Target("macs", 1.0)))

    return result


@pytest.fixture(scope="module")
def pruned(network: Network, untouched: Untouched) -> Pruned:
    """Return a network pruned to a target, with the one calibration."""

    @cache
    def result(name: str, target: str) -> Result:
        return prune(
            network(name),
            None,
            Options.of_effort("fast", target=Target.parse(target)),
            statistics=untouched(name).statistics,
        )

    return result


# Of each network one exporter's graph; the other is run with the slow tests.
@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SECOND else []) for name in NAMES],
)
def test_pruning_nothing_changes_nothing(
    network: Network, untouched: Untouched, calibration: Calibration, tmp_path: Path, name: str
) -> None:
    dense, result = network(name), untouched(name)
    assert not result.plan.removes
    assert result.pruned == replace(result.dense, bytes=result.pruned.bytes)
    result.save(tmp_path / "same.onnx")
    saved = load_model(tmp_path / "same.onnx")
    kept = [entry for entry in saved.metadata_props if not entry.key.startswith(OURS)]
    assert len(kept) < len(saved.metadata_props), "expected a stamp"
    feeds = calibration(name, 2)
    for output, value in run(open_session(dense), feeds).items():
        np.testing.assert_array_equal(run(open_session(saved), feeds)[output], value)
    del saved.metadata_props[:]
    saved.metadata_props.extend(kept)
    assert saved == dense


@pytest.mark.parametrize(("name", "target"), CASES)
def test_a_target_is_met_to_within_the_granularity(
    network: Network, pruned: Pruned, untouched: Untouched, name: str, target: str
) -> None:
    result = pruned(name, target)
    wanted = Target.parse(target).value
    assert wanted - 0.03 < result.pruned.macs / result.dense.macs <= wanted
    measured = measure_cost(result.model, result.analysis.input_shapes)
    assert (measured.macs, measured.parameters) == (result.pruned.macs, result.pruned.parameters)
    assert result.dense == untouched(name).dense == measure_cost(network(name), result.analysis.input_shapes)


# Every day the demonstration network is pruned twice (tests/test_pipeline.py).
@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet32_cifar10_ts17", "resnet32_cifar10_dynamo18"])
def test_the_same_seed_gives_the_same_bytes(
    network: Network, calibration: Calibration, tmp_path: Path, name: str
) -> None:
    options = Options(Target("macs", 0.5), samples=48, seed=3)
    for file in ("first.onnx", "second.onnx"):
        prune(network(name), calibration(name, 96), options).save(tmp_path / file)
    assert (tmp_path / "first.onnx").read_bytes() == (tmp_path / "second.onnx").read_bytes()
    prune(network(name), calibration(name, 96), replace(options, seed=4)).save(tmp_path / "third.onnx")
    assert (tmp_path / "first.onnx").read_bytes() != (tmp_path / "third.onnx").read_bytes()


@pytest.mark.parametrize("name", ["resnet56_cifar10_dynamo18", "efficientnet_lite0_ts17"])
def test_what_is_kept_keeps_its_name(network: Network, pruned: Pruned, name: str) -> None:
    dense, small = network(name), pruned(name, "macs=0.5").model
    onnx.checker.check_model(small, full_check=True)
    assert [value.name for value in small.graph.input] == [value.name for value in dense.graph.input]
    assert list(small.graph.output) == list(dense.graph.output)
    assert {node.name for node in small.graph.node} <= {node.name for node in dense.graph.node}
    stored = {tensor.name: list(tensor.dims) for tensor in dense.graph.initializer}
    left = {tensor.name: list(tensor.dims) for tensor in small.graph.initializer}
    convolutions = [node for node in small.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in dense.graph.node)
    for node in convolutions:
        assert np.prod(left[node.input[1]]) < np.prod(stored[node.input[1]])


@pytest.fixture(scope="module")
def images(data_dir: Path, datasets: ModuleType, network: Network) -> Dataset:
    """Return the first 1,000 test images of CIFAR-10, with labels."""
    found = datasets.cifar10("test", 1000, data_dir)
    specs = input_specs(network("resnet56_cifar10_ts17"))
    return open_data({"input": found.inputs, "labels": found.labels}, specs)


@pytest.fixture(
    scope="module",
    params=[("resnet32_cifar10_ts17", 64), pytest.param(("resnet56_cifar10_ts17", 512), marks=pytest.mark.slow)],
    ids=lambda case: case[0],
)
def recovered(request: pytest.FixtureRequest, network: Network, calibration: Calibration) -> tuple[str, Result]:
    """Return a network's name, and the network without half its inner units, recovered."""
    name, count = request.param
    return name, prune(network(name), calibration(name, count), Options(Target("units", 0.5), only=INNER))


# The floor and the ceiling guard against regressions; they are not results, and nothing is tuned to them.
def test_recovery_keeps_most_of_the_accuracy(recovered: tuple[str, Result], images: Dataset) -> None:
    _, result = recovered
    assert result.pruned.macs / result.dense.macs == pytest.approx(0.5, abs=0.01)
    assert top1(result.model, images).accuracy >= 0.62


def test_without_recovery_the_accuracy_falls(network: Network, recovered: tuple[str, Result], images: Dataset) -> None:
    name, result = recovered
    options = Options(Target("units", 0.5), only=INNER, recovery="none")
    bare = prune(network(name), None, options, statistics=result.statistics)
    assert bare.plan.groups == result.plan.groups
    assert top1(bare.model, images).accuracy <= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet32_cifar10", "resnet56_cifar10"])
def test_exporters_agree_on_the_dense_network(network: Network, images: Dataset, name: str) -> None:
    found = {top1(network(f"{name}_{exporter}"), images).accuracy for exporter in ("ts17", "dynamo18")}
    assert len(found) == 1
    assert min(found) > 0.92


@pytest.mark.parametrize(
    ("name", "block", "convolutions"),
    [
        pytest.param("resnet32_cifar10_ts17", "/layer3/layer3.3/conv1/*", 31, marks=pytest.mark.slow),
        pytest.param("resnet56_cifar10_ts17", "/layer3/layer3.5/conv1/*", 55, marks=pytest.mark.slow),
    ],
)
def test_a_block_goes_and_its_mean_stays(
    network: Network, calibration: Calibration, images: Dataset, name: str, block: str, convolutions: int
) -> None:
    """One residual block fewer: its two convolutions and an activation; the mean of what it added is worth keeping."""
    options = Options(Target("units", 0.0), only=(block,), rows=8)
    result = prune(network(name), calibration(name, 64), options)
    bare = apply(replace(result.plan, options=replace(result.plan.options, recovery="none")), network(name)).model
    operators = [[node.op_type for node in model.graph.node] for model in (network(name), result.model)]
    assert [names.count("Conv") for names in operators] == [convolutions, convolutions - 2]
    assert result.pruned.macs < 0.985 * result.dense.macs
    with_mean, without, dense = (top1(model, images).accuracy for model in (result.model, bare, network(name)))
    assert with_mean >= dense - 0.04
    assert with_mean >= without - 0.005
