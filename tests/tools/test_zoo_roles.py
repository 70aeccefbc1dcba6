"""What a constant is to a graph: its fan-in where it is a linear map, and the part of a normalisation that it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from zoo.roles import Role, roles_of


def graph(text: str, **shapes: tuple[int, ...]) -> onnx.GraphProto:
    result = onnx.parser.parse_graph(f"g (float[2,4,8,8] x) => (float[a,b,c,d] y) {{ {text} }}")
    result.initializer.extend(onnx.numpy_helper.from_array(np.ones(s, np.float32), n) for n, s in shapes.items())
    return result


@pytest.mark.parametrize(
    ("text", "shape", "fan_in"),
    [
        ("y = Conv(x, w)", (6, 4, 3, 3), 36),
        ("y = Conv <group=4> (x, w)", (4, 1, 3, 3), 9),
        ("y = ConvTranspose(x, w)", (4, 6, 2, 2), 16),
        ("y = ConvTranspose <strides=[2,2]> (x, w)", (4, 6, 2, 2), 4),
        ("y = MatMul(x, w)", (8, 5), 8),
        ("y = MatMul(w, x)", (5, 8), 8),
        ("y = Gemm(x, w)", (8, 5), 8),
        ("y = Gemm <transB=1> (x, w)", (5, 8), 8),
        ("t = Transpose <perm=[1,0]> (w) y = MatMul(x, t)", (5, 8), 8),
        ("t = Transpose(w) y = MatMul(x, t)", (5, 8), 8),
        ("t = Identity(w) u = Cast <to=1> (t) y = MatMul(x, u)", (8, 5), 8),
        ("s, h = GRU <hidden_size=3> (x, w, r) y = Relu(s)", (1, 9, 7), 7),
    ],
)
def test_a_linear_map_has_as_many_terms_as_each_sum(text: str, shape: tuple[int, ...], fan_in: int) -> None:
    assert roles_of(graph(text, w=shape))["w"] == Role("linear", fan_in)


def test_the_parts_of_a_normalisation() -> None:
    text = "y = BatchNormalization(x, s, b, m, v)"
    assert {n: r.kind for n, r in roles_of(graph(text, s=(4,), b=(4,), m=(4,), v=(4,))).items()} == {
        "s": "scale", "b": "shift", "m": "shift", "v": "variance"
    }  # fmt: skip
    layer = roles_of(graph("y = LayerNormalization(x, s, b)", s=(8,), b=(8,)))
    assert [layer[name].kind for name in "sb"] == ["scale", "shift"]


def test_biases_are_shifts_and_the_rest_is_something_else() -> None:
    roles = roles_of(graph("a = Conv(x, w, b) y = Mul(a, k)", w=(6, 4, 1, 1), b=(6,), k=(6, 1, 1), unused=(3,)))
    assert {name: role.kind for name, role in roles.items()} == {
        "w": "linear", "b": "shift", "k": "other", "unused": "other"
    }  # fmt: skip


def test_of_several_uses_the_linear_map_counts() -> None:
    text = "a = Mul(x, w) y = MatMul(a, w)"
    assert roles_of(graph(text, w=(8, 8)))["w"] == Role("linear", 8)


def test_constants_of_nodes_have_roles_too() -> None:
    values = onnx.numpy_helper.from_array(np.ones((8, 5), np.float32), "w")
    made = graph("y = MatMul(x, w)")
    made.node.insert(0, onnx.helper.make_node("Constant", [], ["w"], value=values))
    assert roles_of(made)["w"] == Role("linear", 8)
