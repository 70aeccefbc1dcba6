"""Constants of one entry in the place of whole axes: which operators may read them, and what is full again behind."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.model import to_graph
from onnx_subprune.structure import infer
from onnx_subprune.structure.branch_constants import is_one, shorten
from onnx_subprune.structure.context import NotUnderstood

# `s` [2, 4, 5, 5] stands for a branch that is gone; `h` has all its entries.
SHORT = (True, False, True, True)


@pytest.fixture
def behind(net):
    """`behind(text, flags, **weights)`: the flags of the outputs of the node that `text` is, by name."""

    def flags_of(text, flags=SHORT, opset=17, **weights):
        model = net(
            f"""g (float[2,3,5,5] x) => (float[a,b,c,d] y) {{
                [c1] s = Conv(x, w1)
                [c2] h = Conv(x, w2)
                {text}
                [c3] y = Add(s, h)
            }}""",
            opset=opset, w1=(4, 3, 1, 1), w2=(4, 3, 1, 1), **weights,
        )  # fmt: skip
        structure = infer(to_graph(model), {"x": (2, 3, 5, 5)})
        node = structure.graph.nodes[2]
        return {tensor.name: found for tensor, found in shorten(node, {"s": flags}, structure.records)}

    return flags_of


@pytest.mark.parametrize("text", ["r = Relu(s)", "r = Sigmoid(s)", "r = Neg(s)", "r = Identity(s)"])
def test_elementwise_operators_pass_short_axes_on(behind, text):
    assert behind(text) == {"r": SHORT}


@pytest.mark.parametrize("text", ["r = Add(s, h)", "r = Add(h, s)", "r = Mul(s, h)"])
def test_beside_a_full_operand_all_is_full(behind, text):
    assert behind(text) == {"r": (False,) * 4}


def test_two_short_operands_stay_short(behind):
    assert behind("r = Mul(s, s)") == {"r": SHORT}


def test_a_constant_for_each_channel_fills_its_axis_alone(behind):
    assert behind("r = Add(s, k)", k=(4, 1, 1)) == {"r": SHORT}
    assert behind("r = Add(s, k)", (True,) * 4, k=(4, 1, 1))["r"] == (True, False, True, True)


def test_a_mean_over_equal_positions_is_one_of_them(behind):
    assert behind("r = GlobalAveragePool(s)") == {"r": (True, False, False, False)}
    assert behind("r = GlobalMaxPool(s)") == {"r": (True, False, False, False)}


def test_axes_change_places(behind):
    assert behind("r = Transpose <perm=[0,2,3,1]> (s)") == {"r": (True, True, True, False)}
    assert behind("r = Transpose(s)") == {"r": SHORT[::-1]}


def test_a_kernel_of_one_tap_sees_each_position_alone(behind):
    assert behind("r = Conv(s, k)", k=(6, 4, 1, 1)) == {"r": (True, False, True, True)}


@pytest.mark.parametrize(
    ("text", "shape"),
    [
        ("r = Conv <pads=[1,1,1,1]> (s, k)", (6, 4, 3, 3)),
        ("r = Conv(s, k)", (6, 4, 2, 2)),
        ("r = Conv <pads=[1,1,1,1]> (s, k)", (6, 4, 1, 1)),
        ("r = Conv <auto_pad=\"SAME_UPPER\"> (s, k)", (6, 4, 1, 1)),
    ],
)  # fmt: skip
def test_borders_are_not_alike(behind, text, shape):
    """Where a kernel reads zeros beside the image, the positions differ."""
    with pytest.raises(NotUnderstood, match="needs every entry of an axis"):
        behind(text, k=shape)


def test_channels_are_needed_one_by_one(behind):
    for text, weights in (
        ("r = Conv(s, k)", {"k": (6, 4, 1, 1)}),
        ("r = BatchNormalization(s, a, b, m, v)", {"a": (4,), "b": (4,), "m": (4,), "v": np.ones(4, np.float32)}),
    ):
        with pytest.raises(NotUnderstood, match="needs every entry"):
            behind(text, (True,) * 4, **weights)
        assert behind(text, **weights) == {"r": SHORT}


def test_a_slope_is_broadcast_to_the_data_and_never_the_other_way(behind):
    assert behind("r = PRelu(s, k)", k=(4, 1, 1)) == {"r": SHORT}
    with pytest.raises(NotUnderstood, match="needs every entry"):
        behind("r = PRelu(s, k)", k=(4, 5, 1))


@pytest.mark.parametrize("text", ["r = Softmax(s)", "r = Flatten(s)", "r = ReduceMean(s)"])
def test_all_others_refuse(behind, text):
    with pytest.raises(NotUnderstood, match="constant of one entry in the place of a whole axis"):
        behind(text)


def test_before_broadcasting_nothing_is_short(behind):
    with pytest.raises(NotUnderstood, match="one entry in the place"):
        behind("r = Relu(s)", opset=7)


def test_rows_of_a_matrix_product_may_be_few(net):
    text = """g (float[6,3] x) => (float[6,4] y) {{
        [m1] s = MatMul(x, w1)
        [g] y = {node}
    }}"""
    cases = {
        "MatMul(s, w2)": True, "Gemm(s, w2)": True, "Gemm(s, w2, row)": True, "Gemm(s, w2, whole)": False,
        "Gemm <transA=1> (s, w3)": False,
    }  # fmt: skip
    given = {"w2": (5, 4), "row": (4,), "whole": (6, 4), "w3": (6, 4)}
    for node, allowed in cases.items():
        words = set(node.replace("(", " ").replace(")", " ").replace(",", " ").split())
        weights = {name: shape for name, shape in given.items() if name in words}
        model = net(text.format(node=node).replace("[6,4] y", "[a,b] y"), w1=(3, 5), **weights)
        structure = infer(to_graph(model), {"x": (6, 3)})
        found = shorten(structure.graph.nodes[1], {"s": (True, False)}, structure.records)
        if allowed:
            assert {tensor.name: flags for tensor, flags in found} == {"y": (True, False)}
        else:
            with pytest.raises(NotUnderstood, match="needs every entry"):
                list(found)


def test_an_axis_of_one_entry_is_one_whatever_is_run(between):
    structure = infer(to_graph(between("[p] p = GlobalAveragePool(h)\n[a] r = Mul(h, p)")), {"x": (2, 3, 6, 7)})
    assert [is_one(dim) for dim in structure.records.axes["p"]] == [False, False, True, True]
