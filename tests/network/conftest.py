"""A network of three layers, whose first two can be pruned."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,6] x) => (float[N,3] y) {
    [first] a = Gemm(x, w1, b1)
    b = Relu(a)
    [second] c = Gemm(b, w2)
    d = Relu(c)
    [last] y = Gemm(d, w3)
}"""


@pytest.fixture
def model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    built = onnx.parser.parse_model(TEXT)
    for name, shape in {"w1": (6, 8), "b1": (8,), "w2": (8, 5), "w3": (5, 3)}.items():
        built.graph.initializer.append(
            onnx.numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
        )
    return built


@pytest.fixture
def samples() -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((40, 6)).astype(np.float32)}
