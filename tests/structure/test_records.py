"""What was learnt about a graph is one value; a pass says what it put where in one call."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.structure import IndexUse, MacTerm, Records, Squeezed, fresh


@pytest.fixture
def node() -> gs.Node:
    """Return an Add of an activation and a stored vector, and after it the same vector through a Cast."""
    stored = gs.Constant("bias", np.zeros(4, np.float32))
    return gs.Node("Add", "add", inputs=[gs.Variable("x"), stored, gs.Variable.empty()], outputs=[gs.Variable("y")])


def test_records_are_kept_by_kind_in_their_order(node: gs.Node) -> None:
    records = Records(17)
    first, second, other = MacTerm(node, ()), MacTerm(node, (fresh(2),)), Squeezed(node, (1,))
    records.add(first, other, second)
    assert records.mac_terms == [first, second]
    assert records.squeezed == [other]
    records.add(IndexUse(node, 1, fresh(3)))
    assert len(records.index_uses) == 1


def test_axes_of_a_constant_belong_to_one_use_or_are_tied(node: gs.Node) -> None:
    records, own = Records(17), (fresh(4),)
    assert records.constant_axes(node, 0) is None
    assert records.constant_axes(node, 1) is None
    tied = records.tie(node.inputs[1])
    assert records.tie(node.inputs[1]) is tied
    assert records.constant_axes(node, 1) == tied
    assert records.own_axes(node, 1) is None
    records.give_own_axes(node, 1, own)
    assert records.constant_axes(node, 1) == records.own_axes(node, 1) == own


def test_a_number_of_its_own_has_no_axes_and_is_still_its_own(node: gs.Node) -> None:
    records = Records(17)
    records.tie(node.inputs[1])
    records.give_own_axes(node, 1, ())
    assert records.constant_axes(node, 1) == ()


def test_a_new_activation_has_the_axes_of_another() -> None:
    records, axes = Records(17), (fresh(2), fresh(3))
    records.axes["y"] = axes
    records.give_axes_of("product", "y")
    assert records.axes["product"] is axes


def test_what_the_caller_may_replace_is_no_constant(node: gs.Node) -> None:
    assert Records(17).is_constant(node.inputs[1])
    assert not Records(17, {"bias"}).is_constant(node.inputs[1])
    assert not Records(17).is_constant(node.inputs[0])


def test_an_input_may_be_left_out(node: gs.Node) -> None:
    assert [Records(17).has(node, index) for index in range(4)] == [True, True, False, False]


@pytest.mark.parametrize(
    ("values", "known"),
    [
        (np.array([[2, -1]]), [[2, -1]]),
        (np.array(True), 1),
        (np.array([1.5], np.float32), None),
        (np.zeros(2000, np.int64), None),
    ],
)
def test_short_integer_constants_are_known(values: np.ndarray, known: object) -> None:
    extents = Records(17).extents_of(gs.Constant("c", values))
    assert (None if extents is None else extents.tolist()) == known


def test_a_weight_is_seen_through_what_only_hands_it_on() -> None:
    stored = gs.Constant("w", np.arange(6, dtype=np.float16).reshape(2, 3))
    turned, cast = gs.Variable("t"), gs.Variable("c")
    gs.Node("Transpose", "t", {"perm": [1, 0]}, [stored], [turned])
    gs.Node("Cast", "c", {"to": onnx.TensorProto.FLOAT}, [turned], [cast])
    node = gs.Node("MatMul", "m", inputs=[gs.Variable("x"), cast], outputs=[gs.Variable("y")])
    records = Records(17)
    known = records.weight(node, 1)
    assert known is not None
    weight, axes = known
    assert (weight.constant.name, weight.perm, weight.dtype) == ("w", (1, 0), np.dtype(np.float32))
    assert [dim.size for dim in axes] == [3, 2]
    assert axes == records.tied["w"][1][::-1]
    view = weight.view(lambda constant: constant.values)
    np.testing.assert_array_equal(view, [[0, 3], [1, 4], [2, 5]])
    np.testing.assert_array_equal(weight.store(view), stored.values)
    assert records.weight(node, 0) is None
