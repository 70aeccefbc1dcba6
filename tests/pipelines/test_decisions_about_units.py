"""Networks that decide something about every unit: what units decide goes with them, and the rest is compared."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune import Options, Target
from onnx_subprune.calibration import open_data
from onnx_subprune.evaluate import fidelity
from onnx_subprune.evaluate.compared_runs import ComparedNetwork, ReferenceNetwork
from onnx_subprune.model import input_specs
from onnx_subprune.pipeline import prune

PADDED = "<kernel_shape = [3,3], pads = [1,1,1,1]>"
LAST = f"d = Conv{PADDED}(q, c2) e = Relu(d) y = Conv(e, c3)"
KINDS = {
    "unpool": f"""a = Conv{PADDED}(x, c1) b = Relu(a) p, i = MaxPool<kernel_shape = [2,2], strides = [2,2]>(b)
        q = MaxUnpool<kernel_shape = [2,2], strides = [2,2]>(p, i) {LAST}""",
    "round": f"a = Conv{PADDED}(x, c1) s = Div(a, step) r = Round(s) q = Mul(r, step) {LAST}",
    "sign": f"a = Conv{PADDED}(x, c1) q = Sign(a) {LAST}",
    "fraction": f"a = Conv{PADDED}(x, c1) r = Floor(a) q = Sub(a, r) {LAST}",
    "integers": f"a = Conv{PADDED}(x, c1) b = Relu(a) i = Cast<to = 7>(b) q = Cast<to = 1>(i) {LAST}",
    "largest": f"""a = Conv{PADDED}(x, c1) r = Reshape(a, flat) i = ArgMax<axis = 2, keepdims = 1>(r)
        g = GatherElements<axis = 2>(r, i) q = Reshape(g, pixel) {LAST}""",
    "threshold": f"a = Conv{PADDED}(x, c1) b = Greater(a, step) q = Cast<to = 1>(b) {LAST}",
}
CONSTANTS = {"step": np.float32(0.25), "flat": [0, 12, -1], "pixel": [0, 12, 1, 1]}
SHAPES = {"c1": (12, 3, 3, 3), "c2": (16, 12, 3, 3), "c3": (4, 16, 1, 1)}
DATA = {"x": np.random.default_rng(1).standard_normal((32, 3, 8, 8)).astype(np.float32)}


def build(kind: str) -> onnx.ModelProto:
    """Return a network whose first layer's units each decide something."""
    inputs, outputs = "float[N,3,8,8] x", "float[N,4,H,W] y"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {KINDS[kind]} }}'
    )
    rng = np.random.default_rng(0)
    weights = {name: (rng.standard_normal(shape) / 4).astype(np.float32) for name, shape in SHAPES.items()}
    read = {name for node in model.graph.node for name in node.input}
    for name, value in {**weights, **CONSTANTS}.items():
        if name in read:
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    return model


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("kind", KINDS)
def test_units_go_with_what_they_decide(kind: str, effort: str) -> None:
    model = build(kind)
    result = prune(model, DATA, Options.of_effort(effort, target=Target("units", 0.6), threads=1, samples=32, rows=16))
    first = next(tensor for tensor in result.model.graph.initializer if tensor.dims[1:] == [3, 3, 3])
    assert first.dims[0] == 7
    measured = fidelity(model, result.model, open_data(DATA, input_specs(model)), threads=1)
    assert measured.outputs["y"].relative_l2 is not None
    assert 0 < measured.outputs["y"].relative_l2 < 1


def test_what_both_networks_decide_alike_is_still_given() -> None:
    reference = ReferenceNetwork(build("sign"))
    assert ComparedNetwork(build("sign"), reference).own == frozenset()
