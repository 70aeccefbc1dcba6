"""Kinds of work, by the node that does it and by the group whose units it touches."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.latency.families import FAMILIES, WORK, families_of, family_of
from onnx_subprune.network.analysis import analyse


def conv(shape: tuple[int, ...] | None, group: int = 1, domain: str = "", op: str = "Conv") -> gs.Node:
    weight = gs.Variable("w", shape=None) if shape is None else gs.Constant("w", np.zeros(shape, np.float32))
    return gs.Node(op, attrs={"group": group}, inputs=[gs.Variable("x"), weight], domain=domain)


@pytest.mark.parametrize(
    ("node", "family"),
    [
        (conv((8, 4, 3, 3)), "conv"),
        (conv((8, 4, 1, 1)), "pointwise"),
        (conv((8, 4, 1)), "pointwise"),
        (conv((8, 1, 3, 3), group=8), "depthwise"),
        (conv((8, 1, 3, 3)), "conv"),
        (conv((8, 2, 3, 3), group=4), "conv"),
        (conv(None), "conv"),
        (conv((8, 4, 3, 3), domain="com.microsoft", op="FusedConv"), "conv"),
        (conv((8, 4, 3, 3), domain="elsewhere"), None),
        (gs.Node("MatMul"), "matmul"),
        (gs.Node("Gemm"), "matmul"),
        (gs.Node("ConvTranspose"), "matmul"),
        (gs.Node("LSTM"), "matmul"),
        (gs.Node("MultiHeadAttention", domain="com.microsoft"), "matmul"),
        (gs.Node("Relu"), None),
    ],
    ids=lambda value: value if isinstance(value, str) else getattr(value, "op", None),
)
def test_the_work_of_a_node(node: gs.Node, family: str | None) -> None:
    assert family_of(node) == family
    assert family is None or family in FAMILIES


def test_other_products_count_as_matrices() -> None:
    assert WORK in FAMILIES


NETWORK = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1,3,8,8] x) => (float[1,5] y) {
    [c1] a = Conv <pads=[1,1,1,1]> (x, w1)
    [c2] b = Conv <group=6, pads=[1,1,1,1]> (a, w2)
    [c3] c = Conv(b, w3)
    [p] d = GlobalAveragePool(c)
    [f] e = Flatten(d)
    [m] y = MatMul(e, w4)
}"""


def test_a_group_is_of_all_kinds_that_make_carry_and_read_it() -> None:
    model = onnx.parser.parse_model(NETWORK)
    shapes = {"w1": (6, 3, 3, 3), "w2": (6, 1, 3, 3), "w3": (4, 6, 1, 1), "w4": (4, 5)}
    for name, shape in shapes.items():
        values = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    groups = {group.name: families_of(group) for group in analyse(model).structure.prunable}
    assert groups == {"c1": {"conv", "depthwise", "pointwise"}, "c3": {"pointwise", "matmul"}}
