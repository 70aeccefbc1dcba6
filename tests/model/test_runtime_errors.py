"""What ONNX Runtime says, in a line without codes, places and signatures."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.model import open_session, run, runtime_reason

ONES = np.ones((2, 3, 4), np.float32)
HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '


def refusal(text: str, **feeds: Any) -> str:
    session = open_session(onnx.parser.parse_model(HEAD + text))
    with pytest.raises((DataError, ModelError)) as caught:
        run(session, feeds)
    return runtime_reason(caught.value)


def test_a_node_says_what_it_refused() -> None:
    reshape = "(float[N, 3, 4] x) => (float[a, b, c] y) <int64[3] to = {1, 3, 4}> { [fold] y = Reshape(x, to) }"
    assert refusal(reshape, x=ONES) == (
        "Reshape 'fold': The input tensor cannot be reshaped to the requested shape. "
        "Input shape:{2,3,4}, requested shape:{1,3,4}"
    )
    product = "(float[N, 3, 4] x, float[N, 4, b] z) => (float[a, b, c] y) { y = MatMul(x, z) }"
    found = refusal(product, x=ONES, z=np.ones((3, 4, 2), np.float32))
    assert found == "MatMul: left operand cannot broadcast on dim 0"
    pool = "(float[N, C, h, w] x) => (float[N, C, u, v] y) { y = MaxPool<kernel_shape = [7, 7]>(x) }"
    found = refusal(pool, x=np.ones((1, 3, 2, 2), np.float32))
    assert found.startswith("MaxPool: Calculated output dimension is negative. Check kernel_shape")


def test_a_node_in_a_body_is_named_with_the_node_around_it() -> None:
    text = """(bool c, float[N, 3, 4] x) => (float[a, b, d] y) <int64[3] to = {1, 3, 4}> {
        [choice] y = If(c) <then_branch = t () => (float[a, b, d] s) { [fold] s = Reshape(x, to) },
                            else_branch = e () => (float[a, b, d] r) { r = Relu(x) }>
    }"""
    found = refusal(text, c=np.array(True), x=ONES)
    assert found.startswith("If 'choice': Reshape 'fold': The input tensor cannot be reshaped")


def test_sizes_that_do_not_fit_are_told_by_axis() -> None:
    text = "(float[N, 3, 4] x) => (float[N, 3, 4] y) { y = Relu(x) }"
    assert refusal(text, x=np.ones((2, 2, 5), np.float32)) == (
        "input 'x' has size 2 on axis 1, expected 3 and size 5 on axis 2, expected 4"
    )


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Non-zero status code returned while running Add node. "
            "Name:'a' Status Message: /home/x/onnxruntime/core/providers/cpu/math/element_wise_ops.h:583 void "
            "onnxruntime::BroadcastIterator::Append(ptrdiff_t, ptrdiff_t) axis == 1 || axis == largest was false. "
            "Attempting to broadcast an axis by a dimension other than 1. 2 by 3\n",
            "Add 'a': Attempting to broadcast an axis by a dimension other than 1. 2 by 3",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : /onnxruntime_src/onnxruntime/core/graph/graph.cc:1453 "
            "onnxruntime::Graph::Graph(const onnxruntime::Model&, bool) This is an invalid model.",
            "This is an invalid model",
        ),
        ("[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from a b.onnx failed:This is broken.", "This is broken"),
        ("no form at all", "no form at all"),
    ],
)
def test_texts_of_other_versions(text: str, reason: str) -> None:
    assert runtime_reason(RuntimeError(text)) == reason
    assert len(runtime_reason(RuntimeError(text + "x" * 500))) <= 300
