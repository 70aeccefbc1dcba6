"""The float32 twin computes what the reduced network computes, and leaves it as it is."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnx_subprune.model import (
    Scratch,
    computes_in_bfloat16,
    has_half,
    in_float32,
    initializer,
    open_session,
    rounded_once_more,
    run,
    widened,
)
from onnx_subprune.model.stored import SMALLEST_PLACED, is_placed


def half(dtype: type) -> onnx.ModelProto:
    """Weights of a reduced type behind a Cast, and one in a branch."""
    model = parser.parse_model("""
        <ir_version: 10, opset_import: ["": 19]>
        g (float[N, 3] x) => (float[N, 3] y) {
            wide = Cast<to = 1>(w)
            h = Mul(x, wide)
            narrow = Cast<to = 10>(h)
            back = Cast<to = 1>(narrow)
            y = Identity(back)
        }
    """)
    model.graph.initializer.append(numpy_helper.from_array(np.array([1.5, -2.0, 0.25], dtype), "w"))
    return model


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_the_twin_holds_and_casts_to_float32_and_the_model_is_untouched(dtype: type) -> None:
    model = half(dtype)
    before = model.SerializeToString(deterministic=True)
    twin = in_float32(model)
    assert (has_half(model), has_half(twin)) == (True, False)
    assert model.SerializeToString(deterministic=True) == before
    assert {a.i for node in twin.graph.node for a in node.attribute if a.name == "to"} == {TensorProto.FLOAT}
    # Small enough to be the same in both.
    x = np.array([[1.0, 2.0, 4.0]], np.float32)
    np.testing.assert_array_equal(run(open_session(twin), {"x": x})["y"], run(open_session(model), {"x": x})["y"])


def test_types_within_sequences_and_optionals_are_widened() -> None:
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT16, [2])
    inner = helper.make_sequence_type_proto(tensor)
    kinds = {"s": inner, "o": helper.make_optional_type_proto(inner), "m": helper.make_tensor_type_proto(7, [1])}
    inputs = [helper.make_value_info(name, kind) for name, kind in kinds.items()]
    twin = in_float32(helper.make_model(helper.make_graph([], "g", inputs, [])))
    assert twin.graph.input[0].type.sequence_type.elem_type.tensor_type.elem_type == TensorProto.FLOAT
    nested = twin.graph.input[1].type.optional_type.elem_type.sequence_type.elem_type
    assert nested.tensor_type.elem_type == TensorProto.FLOAT
    assert twin.graph.input[2].type == kinds["m"]


def test_weights_that_stay_in_files_are_read_through_a_cast() -> None:
    scratch = Scratch()
    weight = initializer(np.ones((SMALLEST_PLACED // 2,), np.float16), "w", scratch)
    model = half(np.float16)
    model.graph.initializer[0].CopyFrom(weight)
    twin = in_float32(model)
    assert is_placed(twin.graph.initializer[0])
    assert twin.graph.initializer[0].name != "w"
    assert (twin.graph.node[0].op_type, list(twin.graph.node[0].output)) == ("Cast", ["w"])


def test_an_input_alone_makes_a_model_reduced() -> None:
    value = helper.make_tensor_value_info("x", TensorProto.BFLOAT16, [1])
    assert has_half(helper.make_model(helper.make_graph([], "g", [value], [])))


def test_feeds_are_widened_and_others_stay() -> None:
    feeds = {"x": np.ones(2, ml_dtypes.bfloat16), "ids": np.arange(2)}
    wide = widened(feeds)
    assert (wide["x"].dtype, wide["ids"] is feeds["ids"]) == (np.float32, True)


def test_weights_in_files_move_as_those_in_memory_do() -> None:
    values = np.random.default_rng(0).standard_normal((SMALLEST_PLACED // 6, 3)).astype(np.float16)
    memory, files = half(np.float16), half(np.float16)
    memory.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "w"))
    scratch = Scratch()
    files.graph.initializer[0].CopyFrom(initializer(np.tile(values, (2, 1)), "w", scratch))
    memory.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.tile(values, (2, 1)), "w"))
    assert is_placed(files.graph.initializer[0])
    x = np.ones((len(values) * 2, 3), np.float32)
    still, moved, read = (
        run(open_session(twin), {"x": x})["y"]
        for twin in (in_float32(memory), rounded_once_more(memory), rounded_once_more(files))
    )
    assert 0 < np.abs(moved / still - 1).max() < 2.0**-11 * 1.001
    # The two sines differ in the last places of large angles.
    np.testing.assert_allclose(moved, read, rtol=1e-5)


STORED = "k = Cast<to = 1>(w) y = MatMul(x, k)"


@pytest.mark.parametrize(
    ("ends", "nodes", "computes"),
    [
        ("float", STORED, False),
        ("float16", "k = Cast<to = 10>(w) y = MatMul(x, k)", False),
        ("bfloat16", "y = MatMul(x, w)", True),
        ("float", "h = Cast<to = 16>(x) z = MatMul(h, w) y = Cast<to = 1>(z)", True),
        ("float", "h = Cast<to = 16>(x) z = Cast<to = 1>(h) " + STORED.replace("x,", "z,"), True),
        ("float", "t = Transpose(w) k = Cast<to = 1>(t) y = MatMul(x, k)", True),
    ],
)
def test_a_weight_that_is_cast_is_no_computation(ends: str, nodes: str, computes: bool) -> None:
    """And what computes in bfloat16, for which there are no kernels, runs as its twin; it takes and gives float32."""
    model = parser.parse_model(
        f'<ir_version: 9, opset_import: ["" : 18]> g ({ends}[N, 4] x) => ({ends}[N, 4] y) {{ {nodes} }}'
    )
    weight = np.arange(16).reshape(4, 4).astype(ml_dtypes.bfloat16)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    assert computes_in_bfloat16(model) is computes
    dtype = {"float": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[ends]
    (found,) = run(open_session(model), {"x": np.ones((2, 4), dtype)}).values()
    matrix = weight.astype(np.float32)
    np.testing.assert_array_equal(found, np.ones((2, 4)) @ (matrix.T if "Transpose" in nodes else matrix))


def test_bfloat16_in_a_body_is_computation_too() -> None:
    model = parser.parse_model("""<ir_version: 9, opset_import: ["" : 18]> g (float[2] x, bool c) => (float[2] y) {
        y = If (c) <
            then_branch = yes () => (float[2] a) { h = Cast<to = 16>(x) a = Cast<to = 1>(h) },
            else_branch = no () => (float[2] b) { b = Neg(x) }
        >
    }""")
    assert computes_in_bfloat16(model)
