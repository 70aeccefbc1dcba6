"""A network of three layers, calibrated: what planning starts from."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnx_subprune.network.calibrated import output_distance
from onnx_subprune.network.inputs import prepare, pruning_statistics
from onnx_subprune.options import Options
from onnx_subprune.planning.loss_curves import rank_groups
from onnx_subprune.planning.study import Study

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,6] x) => (float[N,3] y) {
    [first] a = Gemm(x, w1, b1)
    b = Relu(a)
    [second] c = Gemm(b, w2)
    d = Relu(c)
    [last] y = Gemm(d, w3)
}"""


def network() -> onnx.ModelProto:
    """Return Gemm(8) - Relu - Gemm(5) - Relu - Gemm(3); nobody reads units 2 and 6 of the first."""
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(TEXT)
    for name, shape in {"w1": (6, 8), "b1": (8,), "w2": (8, 5), "w3": (5, 3)}.items():
        values = rng.standard_normal(shape).astype(np.float32)
        if name == "w2":
            values[[2, 6]] = 0.0
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


@pytest.fixture(scope="session")
def small_network() -> onnx.ModelProto:
    """Return the network of `small_study`."""
    return network()


@pytest.fixture(scope="session")
def small_study() -> Study:
    options = Options.of_effort("fast", threads=1, batch_size=8, round_to=1)
    samples = {"x": np.random.default_rng(1).standard_normal((80, 6)).astype(np.float32)}
    analysis, dataset = prepare(network(), samples, options)
    statistics = pruning_statistics(analysis, dataset, options)
    curves = rank_groups(analysis, analysis.structure.prunable, statistics, options)
    return Study(
        analysis, statistics, dataset, options, output_distance(analysis, dataset, options), curves=tuple(curves)
    )


@pytest.fixture
def study_with(small_study: Study) -> Callable[..., Study]:
    """`study_with(**options)`: the study with other options; curves and distance are those of all."""
    return lambda **options: replace(small_study, options=replace(small_study.options, **options))
