"""Walks over messages, the sizes of tensors, and the values of special encodings."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from onnx_subprune.model.protos import (
    assign,
    bodies,
    constant_tensor,
    dense,
    graphs,
    one_line,
    references,
    serialised,
    tensor_bytes,
    tensors,
)


def sparse(values: list[float], indices: np.ndarray, dims: list[int]) -> onnx.SparseTensorProto:
    return helper.make_sparse_tensor(
        numpy_helper.from_array(np.array(values, np.float32), "s"), numpy_helper.from_array(indices), dims
    )


def nested() -> onnx.GraphProto:
    innermost = helper.make_graph([helper.make_node("Relu", ["deep"], ["d"])], "innermost", [], [])
    inner = helper.make_graph([helper.make_node("If", ["c"], ["i"], then_branch=innermost)], "inner", [], [])
    return helper.make_graph([helper.make_node("Loop", ["n", ""], ["y"], body=inner)], "outer", [], [])


def test_every_body_is_visited_depth_first() -> None:
    graph = nested()
    assert [inner.name for inner in graphs(graph)] == ["outer", "inner", "innermost"]
    assert [body.name for body in bodies(graph.node[0])] == ["inner"]
    assert references(graph) == {"n", "c", "deep"}


def test_tensors_of_initializers_sparse_ones_and_attributes_are_found(rich_model: onnx.ModelProto) -> None:
    names = {tensor.name for tensor in tensors(rich_model)}
    stored = {tensor.name for graph in graphs(rich_model.graph) for tensor in graph.initializer}
    assert stored <= names
    assert {tensor.values.name for tensor in rich_model.graph.sparse_initializer} <= names


@pytest.mark.parametrize(
    ("kind", "dims", "size"),
    [
        (TensorProto.FLOAT, [3, 5], 60),
        (TensorProto.BFLOAT16, [7], 14),
        (TensorProto.INT4, [3], 2),
        (TensorProto.INT64, [], 8),
        (TensorProto.FLOAT, [0, 4], 0),
        (TensorProto.UNDEFINED, [4], 0),
    ],
)
def test_bytes_of_a_tensor_follow_its_type_and_shape(kind: int, dims: list[int], size: int) -> None:
    assert tensor_bytes(TensorProto(data_type=kind, dims=dims)) == size


def test_text_counts_by_its_length() -> None:
    assert tensor_bytes(TensorProto(data_type=TensorProto.STRING, dims=[2], string_data=[b"abc", b""])) == 3


@pytest.mark.parametrize("indices", [np.array([1, 5]), np.array([[0, 1], [1, 2]])])
def test_sparse_tensors_have_linear_indices_or_coordinates(indices: np.ndarray) -> None:
    np.testing.assert_array_equal(dense(sparse([5, 7], indices, [2, 3])), [[0, 5, 0], [0, 0, 7]])


@pytest.mark.parametrize(
    ("attributes", "values"),
    [
        ({"value": numpy_helper.from_array(np.array([1, 2]))}, [1, 2]),
        ({"value_float": 2.5}, 2.5),
        ({"value_floats": [1.0, 2.0]}, [1.0, 2.0]),
        ({"value_int": 3}, 3),
        ({"value_ints": [3, 4]}, [3, 4]),
    ],
)
def test_constant_nodes_of_numbers_are_tensors(attributes: dict[str, object], values: object) -> None:
    tensor = constant_tensor(helper.make_node("Constant", [], ["c"], **attributes))
    assert tensor is not None
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), values)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("Constant", [], ["c"], value_string="a"),
        helper.make_node("Constant", [], ["c"], sparse_value=sparse([1], np.array([0]), [2])),
        helper.make_node("Constant", [], ["c"], value_int=1, domain="com.other"),
        helper.make_node("Identity", ["x"], ["c"]),
    ],
)
def test_other_nodes_are_none(node: onnx.NodeProto) -> None:
    assert constant_tensor(node) is None


def test_fields_of_every_kind_are_assigned() -> None:
    source = helper.make_node("Op", ["a"], ["b"], name="n", alpha=1.0)
    target = onnx.NodeProto()
    for field, value in source.ListFields():
        assign(target, field.name, value)
    assert target == source


def test_errors_fit_on_a_line() -> None:
    assert one_line(ValueError("a\n  b")) == "a b"
    assert one_line(KeyError()) == "KeyError"
    assert one_line("x" * 9, limit=7) == "xxxx..."


def test_a_model_beyond_two_gigabytes_is_no_message() -> None:
    model = helper.make_model(helper.make_graph([], "g", [], []))
    assert serialised(model) == model.SerializeToString(deterministic=True)
    model.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[2**30])
    assert serialised(model) is None
