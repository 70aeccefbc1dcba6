"""The whole way on real networks: targets, identity, the same bytes twice, and a floor under the accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Dataset, Statistics, open_data
from onnx_subprune.evaluate import top1
from onnx_subprune.model import input_specs, load_model, open_session, run
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import Result, prune

Network = Callable[[str], onnx.ModelProto]
Calibration = Callable[[str, int], dict[str, np.ndarray]]
Calibrated = Callable[[str], Statistics]

NAMES = [
    f"{name}_{e}"
    for name in ("resnet32_cifar10", "resnet56_cifar10", "efficientnet_lite0")
    for e in ("ts17", "dynamo18")
]
INNER = ("/layer?/layer?.?/conv1/Conv",)
OURS = "pkg.onnx_subprune."


@pytest.fixture(scope="module")
def calibrated(network: Network, calibration: Calibration) -> Calibrated:
    """Return the statistics of a network over a few images; the pruning that takes them removes nothing."""
    known: dict[str, Result] = {}

    def statistics(name: str) -> Statistics:
        if name not in known:
            count = 16 if name.startswith("efficientnet") else 64
            known[name] = prune(network(name), calibration(name, count), Options(Target("macs", 1.0)))
        found = known[name].statistics
        assert found is not None
        return found

    return statistics


@pytest.mark.parametrize("name", NAMES)
def test_pruning_nothing_changes_nothing(
    network: Network, calibrated: Calibrated, calibration: Calibration, tmp_path: Path, name: str
) -> None:
    dense = network(name)
    result = prune(dense, None, Options(Target("macs", 1.0)), statistics=calibrated(name))
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


@pytest.mark.parametrize("target", ["macs=0.7", "macs=0.4"])
@pytest.mark.parametrize("name", NAMES)
def test_a_target_is_met_to_within_the_granularity(
    network: Network, calibrated: Calibrated, name: str, target: str
) -> None:
    wanted = Target.parse(target)
    result = prune(network(name), None, Options(wanted), statistics=calibrated(name))
    assert wanted.value - 0.03 < result.pruned.macs / result.dense.macs <= wanted.value
    assert (
        result.dense.macs
        == prune(network(name), None, Options(Target("macs", 1.0)), statistics=calibrated(name)).pruned.macs
    )


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
def test_what_is_kept_keeps_its_name(network: Network, calibrated: Calibrated, name: str) -> None:
    dense = network(name)
    pruned = prune(dense, None, Options(Target("macs", 0.5)), statistics=calibrated(name)).model
    onnx.checker.check_model(pruned, full_check=True)
    assert [value.name for value in pruned.graph.input] == [value.name for value in dense.graph.input]
    assert [value for value in pruned.graph.output] == [value for value in dense.graph.output]
    assert {node.name for node in pruned.graph.node} <= {node.name for node in dense.graph.node}
    stored = {tensor.name: list(tensor.dims) for tensor in dense.graph.initializer}
    left = {tensor.name: list(tensor.dims) for tensor in pruned.graph.initializer}
    convolutions = [node for node in pruned.graph.node if node.op_type == "Conv"]
    assert len(convolutions) == sum(node.op_type == "Conv" for node in dense.graph.node)
    for node in convolutions:
        assert np.prod(left[node.input[1]]) < np.prod(stored[node.input[1]])


class TestAccuracy:
    """ResNet-56 with half the inner units out. The floors guard against regressions; they are no results."""

    @pytest.fixture(scope="class")
    def images(self, data_dir: Path, datasets: ModuleType, network: Network) -> Dataset:
        found = datasets.cifar10("test", 1000, data_dir)
        specs = input_specs(network("resnet56_cifar10_ts17"))
        return open_data({"input": found.inputs, "labels": found.labels}, specs)

    @pytest.fixture(scope="class")
    def recovered(self, network: Network, calibration: Calibration) -> Result:
        options = Options(Target("units", 0.5), only=INNER)
        return prune(network("resnet56_cifar10_ts17"), calibration("resnet56_cifar10_ts17", 512), options)

    def test_recovery_keeps_most_of_it(self, recovered: Result, images: Dataset) -> None:
        assert recovered.pruned.macs / recovered.dense.macs == pytest.approx(0.5, abs=0.01)
        assert top1(recovered.model, images).accuracy >= 0.62

    def test_without_recovery_it_falls(self, network: Network, recovered: Result, images: Dataset) -> None:
        options = Options(Target("units", 0.5), only=INNER, recovery="none")
        bare = prune(network("resnet56_cifar10_ts17"), None, options, statistics=recovered.statistics)
        assert bare.plan.groups == recovered.plan.groups
        assert top1(bare.model, images).accuracy <= 0.5

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["resnet32_cifar10", "resnet56_cifar10"])
    def test_exporters_agree_on_the_dense_network(self, network: Network, images: Dataset, name: str) -> None:
        found = {top1(network(f"{name}_{exporter}"), images).accuracy for exporter in ("ts17", "dynamo18")}
        assert len(found) == 1
        assert min(found) > 0.92
