"""ONNX Runtime's optimiser fuses pruned networks as it does dense ones, and lays them out alike at widths it likes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest
from fusion_table import differences, obstacles

from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import prune

Network = Callable[[str], onnx.ModelProto]
Calibration = Callable[[str, int], dict[str, np.ndarray]]
NAMES = ("resnet56_cifar10_ts17", "resnet32_cifar10_dynamo18", "efficientnet_lite0_ts17", "efficientnet_lite0_dynamo18")
SLOW = {
    ("efficientnet_lite0_ts17", "channel"),
    ("efficientnet_lite0_ts17", "exact"),
    ("resnet56_cifar10_ts17", "exact"),
    ("efficientnet_lite0_dynamo18", "channel"),
    ("efficientnet_lite0_dynamo18", "exact"),
}


@pytest.mark.parametrize(
    ("name", "recovery"),
    [
        pytest.param(name, recovery, marks=[pytest.mark.slow] if (name, recovery) in SLOW else [])
        for name in NAMES
        for recovery in ("channel", "exact")
    ],
)
def test_fusions_and_layout_are_those_of_the_dense_network(
    name: str, recovery: str, network: Network, calibration: Calibration
) -> None:
    dense = network(name)
    options = Options(Target("units", 0.6), select="magnitude", recovery=recovery, rows=4, round_to=16, threads=1)
    pruned = prune(dense, calibration(name, 8), options).model
    assert obstacles(differences(dense, pruned, "extended"), 0) == {}
    assert obstacles(differences(dense, pruned, "all"), 0) == {}
