"""Constants and attributes are compared bit by bit, and written back in the encoding they came in."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune.model.attributes import onnx_type, same_constant, same_tensor, stored_tensor, write_attributes
from onnx_subprune.model.stored import SMALLEST_PLACED, Scratch, StoredValues, is_placed


def constant(values: np.ndarray, name: str = "w") -> gs.Constant:
    return gs.Constant(name, values)


@pytest.mark.parametrize(
    ("dtype", "number"),
    [(np.float32, TensorProto.FLOAT), (np.dtype(np.int8), TensorProto.INT8), (TensorProto.BFLOAT16, 16)],
)
def test_element_types_are_onnx_numbers(dtype: type | np.dtype | int, number: int) -> None:
    assert onnx_type(dtype) == number


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        (np.array([1.0, np.nan]), np.array([1.0, np.nan]), True),
        (np.array([0.0]), np.array([-0.0]), False),
        (np.array([1.0]), np.array([1.0], np.float32), False),
        (np.ones((1, 2)), np.ones((2, 1)), False),
        (np.array(["a"], object), np.array(["a"], object), True),
        (np.array(["a"], object), np.array(["b"], object), False),
    ],
)
def test_constants_are_the_same_if_every_bit_is(left: np.ndarray, right: np.ndarray, same: bool) -> None:
    assert same_constant(constant(left), constant(right)) is same
    assert same_tensor(constant(left), numpy_helper.from_array(right)) is same


def test_a_value_that_was_not_read_is_compared_as_a_message() -> None:
    message = numpy_helper.from_array(np.ones(3, np.float32), "w")
    lazy = gs.Constant("w", StoredValues(message))
    assert same_tensor(lazy, message)
    assert not same_tensor(lazy, numpy_helper.from_array(np.zeros(3, np.float32), "w"))
    assert isinstance(lazy._values, StoredValues)


def test_a_constant_keeps_the_documentation_of_the_original_and_large_ones_leave_memory() -> None:
    original = TensorProto(name="w", doc_string="trained")
    original.metadata_props.add(key="a", value="b")
    tensor = stored_tensor(constant(np.ones(3, np.float32), "new"), original)
    assert (tensor.name, tensor.doc_string, tensor.metadata_props[0].key) == ("new", "trained", "a")
    scratch = Scratch()
    assert not is_placed(stored_tensor(constant(np.ones(3, np.float32)), scratch=scratch))
    assert is_placed(stored_tensor(constant(np.ones(SMALLEST_PLACED, np.uint8)), scratch=scratch))


def written(attributes: dict[str, object], original: onnx.NodeProto) -> onnx.NodeProto:
    target = onnx.NodeProto()
    write_attributes(gs.Node("Op", attrs=attributes), target, original, lambda *_: None)
    return target


def test_attributes_that_are_unchanged_are_copied_and_others_keep_their_kind() -> None:
    original = helper.make_node("Op", [], [], alpha=2.0, axes=[1, 2], mode="linear")
    unchanged = written({"mode": "linear", "axes": [1, 2], "alpha": 2.0}, original)
    assert list(unchanged.attribute) == list(original.attribute)
    changed = {a.name: a for a in written({"alpha": 3, "axes": (0,), "mode": "linear"}, original).attribute}
    assert (changed["alpha"].type, changed["alpha"].f) == (onnx.AttributeProto.FLOAT, 3.0)
    assert list(changed["axes"].ints) == [0]


def test_new_and_removed_attributes_follow_the_graph() -> None:
    original = helper.make_node("Op", [], [], alpha=2.0)
    node = written({"axes": [], "to": np.float32, "size": np.int64(4)}, original)
    assert [(a.name, a.type) for a in node.attribute] == [
        ("axes", onnx.AttributeProto.INTS),
        ("to", onnx.AttributeProto.INT),
        ("size", onnx.AttributeProto.INT),
    ]
    assert node.attribute[1].i == TensorProto.FLOAT


def test_what_graphsurgeon_cannot_hold_comes_from_the_original() -> None:
    original = onnx.NodeProto(op_type="Op")
    original.attribute.add(name="blob", type=onnx.AttributeProto.STRING, s=b"\xff")
    original.attribute.add(name="kind", type=onnx.AttributeProto.TYPE_PROTO).tp.tensor_type.elem_type = 1
    assert list(written({}, original).attribute) == list(original.attribute)
