"""Units that no consumer reads may stay: with other weights the dense network is the smaller one."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.model import run
from onnx_subprune.model.runtime import Runtime
from onnx_subprune.network.adjustable import Adjustable
from onnx_subprune.network.analysis import Analysis, take_apart
from onnx_subprune.network.calibrated import Calibrated
from onnx_subprune.network.inputs import prepare, pruning_statistics
from onnx_subprune.options import Options
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.recovery import recover

GEMM = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,6] x) => (float[N,3] y) {
    a = Gemm(x, w1)
    b = Relu(a)
    [reader] c = MatMul(b, w2)
    [bare] y = Add(c, c)
}"""


def draw(*shape: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def output(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    return run(Runtime(threads=1).session(model), {"x": x})["y"]


def stored(model: onnx.ModelProto) -> dict[str, Any]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def with_values(model: onnx.ModelProto, values: dict[str, Any]) -> onnx.ModelProto:
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        if tensor.name in values:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values[tensor.name], tensor.name))
    return result


@pytest.fixture
def calibrated() -> Calibrated:
    model = onnx.parser.parse_model(GEMM)
    for name, shape in {"w1": (6, 8), "w2": (8, 3)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(draw(*shape, seed=len(name)), name))
    options = Options.of_effort("fast", threads=1, batch_size=8)
    analysis, dataset = prepare(model, {"x": draw(80, 6, seed=5)}, options)
    return Calibrated(analysis, pruning_statistics(analysis, dataset, options), dataset, options)


def test_other_weights_and_biases_do_what_surgery_does(calibrated: Calibrated) -> None:
    analysis = calibrated.analysis
    adjustable = Adjustable(analysis, calibrated.statistics, calibrated.options.ridge)
    (group,) = analysis.structure.prunable
    plan = Plan(analysis.fingerprint, "macs=0.5", (PlannedGroup(group.name, 8, (0, 2, 3, 6)),), {})
    keeps = plan.keeps(adjustable.structure)
    adjustment = adjustable.without(keeps)
    touched = adjustable.touched(keeps)
    assert touched == (list(adjustment.constants), {})
    x = draw(10, 6, seed=7)
    adjusted = output(with_values(adjustable.model, dict(adjustment.constants)), x)
    np.testing.assert_allclose(adjusted, output(recover(calibrated, plan).model, x), rtol=1e-4, atol=1e-5)
    # The network with its own weights is the dense one.
    np.testing.assert_allclose(output(adjustable.model, x), output(analysis.model, x), rtol=1e-5, atol=1e-6)
    assert "w2" in adjustment.constants
    assert np.abs(adjustment.constants["w2"][[1, 4, 5, 7]]).max() == 0.0


def test_without_recovery_what_is_read_is_masked(calibrated: Calibrated) -> None:
    adjustable = Adjustable(calibrated.analysis, None, 1e-3)
    (group,) = adjustable.structure.prunable
    adjustment = adjustable.without({group.atom: np.arange(8) < 5})
    assert not adjustment.constants
    ((place, mask),) = adjustment.factors.items()
    assert place[1] == 0
    np.testing.assert_array_equal(mask, [[1, 1, 1, 1, 1, 0, 0, 0]])
    assert set(stored(adjustable.model)) == {"w1", "w2"}


def analysis_of(text: str, *, prune_normalised: bool = False, **shapes: tuple[int, ...]) -> Analysis:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["": 17]>\n{text}')
    rng = np.random.default_rng(0)
    for name, shape in shapes.items():
        values = rng.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return take_apart(model, prune_normalised=prune_normalised)


@pytest.mark.parametrize(
    "between",
    ["b = LayerNormalization <axis=-1> (a, s)", "r = Round(a)\nb = Add(r, s)"],
    ids=["statistics over the units", "a decision about every unit"],
)
def test_what_depends_on_the_units_that_are_there_needs_surgery(between: str) -> None:
    analysis = analysis_of(
        f"g (float[N,6] x) => (float[N,3] y) {{ a = MatMul(x, w1)\n{between}\ny = MatMul(b, w2) }}",
        prune_normalised=True, w1=(6, 8), s=(8,), w2=(8, 3),
    )  # fmt: skip
    adjustable = Adjustable(analysis, None, 1e-3)
    (group,) = adjustable.structure.prunable
    assert adjustable.touched({group.atom: np.arange(8) < 5}) is None
