"""The latency model finds the times it was fitted to, and leaves out what no width changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.latency import LatencyModel
from onnx_subprune.model import to_graph
from onnx_subprune.structure import Structure, infer

TEXT = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 16] x) => (float[2, 4] y) {
        [first] a = MatMul(x, w1)
        [active] b = Relu(a)
        [second] c = MatMul(b, w2)
        [bounded] d = Tanh(c)
        [third] y = MatMul(d, w3)
    }
"""
WIDTHS = [{"first": 16}, {"first": 24, "second": 16}, {"second": 8}, {"first": 8, "second": 24}, {"first": 4}]


@pytest.fixture(scope="module")
def structure() -> Structure:
    model = onnx.parser.parse_model(TEXT)
    for name, shape in (("w1", (16, 32)), ("w2", (32, 32)), ("w3", (32, 4))):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return infer(to_graph(model), {"x": (2, 16)})


def ratio(widths: dict[str, int]) -> float:
    """Return a time that is a constant and the products, by that of the dense network."""

    def seconds(first: int, second: int) -> float:
        return 500 + 16 * first + first * second + 4 * second

    return seconds(widths.get("first", 32), widths.get("second", 32)) / seconds(32, 32)


def test_times_that_follow_the_products_are_predicted(structure: Structure) -> None:
    predict = LatencyModel(structure, WIDTHS, [ratio(widths) for widths in WIDTHS])
    assert predict({}) == pytest.approx(1.0, rel=0.02)
    for widths in ({"first": 20}, {"first": 12, "second": 12}, {"first": 28, "second": 4}):
        assert predict(widths) == pytest.approx(ratio(widths), rel=0.05)
    assert predict.error < 0.05


def test_a_narrower_network_is_never_slower(structure: Structure) -> None:
    predict = LatencyModel(structure, WIDTHS, [ratio(widths) for widths in WIDTHS])
    by_width = [predict({"first": width}) for width in range(32, 0, -4)]
    assert by_width == sorted(by_width, reverse=True)


def test_times_that_do_not_change_leave_a_constant(structure: Structure) -> None:
    predict = LatencyModel(structure, WIDTHS, [1.0] * len(WIDTHS))
    assert predict({"first": 4, "second": 4}) == pytest.approx(1.0, abs=0.02)
