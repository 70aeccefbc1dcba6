"""The low-rank baseline on real networks: its targets, its costs, and a floor under the accuracy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.evaluate import top1
from onnx_subprune.factorisation import factorise
from onnx_subprune.model import input_specs
from onnx_subprune.options import Options, Target

Network = Callable[[str], onnx.ModelProto]
Calibration = Callable[[str, int], dict[str, np.ndarray]]


@pytest.mark.slow
@pytest.mark.parametrize("exporter", ["ts17", "dynamo18"])
def test_half_of_the_macs_of_resnet56(
    exporter: str, network: Network, calibration: Calibration, datasets: ModuleType, data_dir: Path
) -> None:
    name = f"resnet56_cifar10_{exporter}"
    images = calibration(name, 64)
    results = [factorise(network(name), images, Options(Target("macs", 0.5), threads=1)) for _ in range(2)]
    first, second = (result.model.SerializeToString(deterministic=True) for result in results)
    assert first == second
    result = results[0]
    assert 0.499 * result.dense.macs < result.pruned.macs <= 0.5 * result.dense.macs
    assert result.dense.macs - result.pruned.macs == sum(layer.macs - layer.macs_kept for layer in result.layers)
    test = datasets.cifar10("test", 500, data_dir)
    data = open_data({"input": test.inputs, "labels": test.labels}, input_specs(result.model))
    assert top1(result.model, data, threads=1).accuracy > 0.5


@pytest.mark.slow
def test_depthwise_layers_are_left_and_say_so(network: Network, calibration: Calibration) -> None:
    name = "efficientnet_lite0_ts17"
    result = factorise(network(name), calibration(name, 8), Options(Target("macs", 0.7), threads=1))
    assert 0.69 * result.dense.macs < result.pruned.macs <= 0.7 * result.dense.macs
    depthwise = [reason for reason in result.left.values() if "depthwise" in reason]
    assert len(depthwise) == 16
