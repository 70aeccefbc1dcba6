"""Kinds of work: told by operator, kernel and groups; a group belongs to all that its units pass through."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.latency import FAMILIES, families_of, family_of
from onnx_subprune.model import to_graph
from onnx_subprune.structure import infer

WEIGHTS = {
    "w3": (8, 3, 3, 3),
    "w1": (8, 8, 1, 1),
    "wd": (8, 1, 3, 3),
    "wp": (8, 8, 1, 3),
    "wm": (8, 4),
}
TEXT = """
    <ir_version: 8, opset_import: ["" : 17]>
    g (float[2, 3, 8, 8] x) => (float[2, 4] y) {
        [kernel] a = Conv<pads = [1, 1, 1, 1]>(x, w3)
        [rectified] b = Relu(a)
        [point] c = Conv(b, w1)
        [depth] d = Conv<group = 8, pads = [1, 1, 1, 1]>(c, wd)
        [row] e = Conv<pads = [0, 1, 0, 1]>(d, wp)
        [pooled] f = GlobalAveragePool(e)
        [flat] h = Flatten(f)
        [product] y = MatMul(h, wm)
    }
"""


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    proto = onnx.parser.parse_model(TEXT)
    for name, shape in WEIGHTS.items():
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return proto


def test_a_node_is_known_by_operator_kernel_and_groups(model: onnx.ModelProto) -> None:
    found = {node.name: family_of(node) for node in to_graph(model).nodes}
    assert found == {
        "kernel": "conv",
        "rectified": None,
        "point": "pointwise",
        "depth": "depthwise",
        "row": "conv",
        "pooled": None,
        "flat": None,
        "product": "matmul",
    }
    assert {family for family in found.values() if family} == set(FAMILIES)


def test_a_group_is_of_the_kinds_that_make_carry_and_read_it(model: onnx.ModelProto) -> None:
    groups = {group.name: families_of(group) for group in infer(to_graph(model), {"x": (2, 3, 8, 8)}).prunable}
    assert groups == {
        "kernel": {"conv", "pointwise"},
        "point": {"pointwise", "depthwise", "conv"},
        "row": {"conv", "matmul"},
    }
