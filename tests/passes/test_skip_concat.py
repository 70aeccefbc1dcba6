"""What is picked from one part of a Concat is taken from that part; the function stays the same."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import open_session, run
from onnx_subprune.network.analysis import analyse

RNG = np.random.default_rng(0)
FEEDS = {name: RNG.standard_normal((size, 3, 4)).astype(np.float32) for name, size in (("x", 2), ("z", 3))}
INT = {
    "i": 3, "last": -1, "first": 0, "few": [2, -1], "both": [1, 2], "grid": [[2, 3], [4, 2]],
    "a0": [0], "a1": [1], "s2": [2], "sm2": [-2], "far": [2**62], "s1": [1], "s4": [4], "one": [1],
}  # fmt: skip


def build(text: str, inputs: str = "float[2,3,4] x, float[3,3,4] z", opset: int = 17) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]>\ng ({inputs}) => (float[] y) {{ {text} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    for name, value in INT.items():
        if any(name in node.input for node in model.graph.node):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(value), name))
    return model


def concats(model: onnx.ModelProto) -> int:
    analysis = analyse(model)
    onnx.checker.check_model(analysis.normalised, full_check=True)
    expected, found = (run(open_session(each), FEEDS)["y"] for each in (model, analysis.normalised))
    np.testing.assert_array_equal(found, expected)
    return sum(node.op_type == "Concat" for node in analysis.normalised.graph.node)


@pytest.mark.parametrize(
    "pick",
    [
        "Gather <axis=0> (k, i)",
        "Gather (k, last)",
        "Gather (k, first)",
        "Gather <axis=-3> (k, few)",
        "Gather (k, grid)",
        "Slice (k, s2, far, a0)",
        "Slice (k, sm2, far, a0)",
        "Slice (k, s2, s4, a0)",
    ],
)
def test_one_part(pick):
    assert concats(build(f"k = Concat <axis=0> (x, z)  y = {pick}")) == 0


@pytest.mark.parametrize(
    "pick",
    [
        "Gather (k, both)",
        "Gather <axis=1> (k, few)",
        "Slice (k, s1, far, a0)",
        "Slice (k, s1, far, a1)",
        "Slice (k, s2, far, a0, one)",
        "Slice (k, far, s2, a0)",
    ],
)
def test_what_is_not_one_part_stays(pick):
    assert concats(build(f"k = Concat <axis=0> (x, z)  y = {pick}")) == 1


def test_a_stack_of_stacks():
    assert concats(build("k = Concat <axis=0> (x, z)  m = Concat <axis=0> (z, k, x)  y = Gather (m, i)")) == 0


def test_a_stack_that_something_else_reads_stays_for_that():
    assert concats(build("k = Concat <axis=0> (x, z)  g = Gather (k, i)  y = Add(k, g)")) == 1


def test_sizes_of_run_time_stay():
    assert concats(build("k = Concat <axis=0> (x, z)  y = Gather (k, i)", "float[n,3,4] x, float[3,3,4] z")) == 1
