"""Which operators sum products, and what their counts ask for."""

from __future__ import annotations

import pytest
from onnx import helper

from onnx_subprune.model.products import needed_tensors, product_of


@pytest.mark.parametrize(
    ("op", "inputs", "needed"),
    [
        ("Conv", ["x", "w", "b"], ("y", "w")),
        ("ConvTranspose", ["x", "w"], ("x", "w")),
        ("MatMul", ["x", "w"], ("y", "x")),
        ("LSTM", ["x", "w", "r", "b"], ("x", "w", "r")),
        ("Relu", ["x"], ()),
    ],
)
def test_shapes_that_macs_follow_from(op, inputs, needed):
    assert needed_tensors(helper.make_node(op, inputs, ["y"])) == needed


def test_the_two_operators_called_attention_are_counted_apart():
    """That of ONNX Runtime multiplies by the weights of the projections first."""
    shapes = {"x": (1, 5, 8), "w": (8, 24), "y": (1, 5, 8), "q": (1, 5, 8), "k": (1, 5, 8)}
    fused = helper.make_node("Attention", ["x", "w"], ["y"], domain="com.microsoft")
    plain = helper.make_node("Attention", ["q", "k", "k"], ["y"])
    macs = [product.macs(node, shapes) for node in (fused, plain) if (product := product_of(node)) is not None]
    assert macs == [5 * 8 * 24 + 5 * 5 * 16, 5 * 5 * 16]
