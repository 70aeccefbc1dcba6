"""Single fields of messages as values, and back."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from onnx import helper

from onnx_subprune.model import Scratch, array_of, attribute_of, has_placed, initializer
from onnx_subprune.model.stored import SMALLEST_PLACED, is_placed


def test_an_attribute_that_is_not_given_has_the_default() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=4, auto_pad="VALID")
    assert (attribute_of(node, "group", 1), attribute_of(node, "auto_pad", None)) == (4, b"VALID")
    assert attribute_of(node, "strides", [1, 1]) == [1, 1]


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16, np.int64, np.bool_, ml_dtypes.int4])
def test_values_come_back_in_their_own_type(dtype: type) -> None:
    values = np.arange(6).reshape(2, 3).astype(dtype)
    tensor = initializer(values.T, "w")
    assert tensor.name == "w"
    assert array_of(tensor).dtype == values.dtype
    np.testing.assert_array_equal(array_of(tensor), values.T)


def test_large_values_lie_in_files() -> None:
    scratch = Scratch()
    small = initializer(np.ones(4, np.float32), "w", scratch)
    large = initializer(np.arange(SMALLEST_PLACED, dtype=np.uint8), "w", scratch)
    assert (is_placed(small), is_placed(large)) == (False, True)
    np.testing.assert_array_equal(array_of(large), np.arange(SMALLEST_PLACED, dtype=np.uint8))
    graph = helper.make_graph([], "g", [], [], [small])
    assert not has_placed(helper.make_model(graph))
    graph.initializer.append(large)
    assert has_placed(helper.make_model(graph))
