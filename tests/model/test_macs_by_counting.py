"""MACs against a second count: with ones in all places a sum of products is the number of its products."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.errors import OptionError
from onnx_subprune.model import (
    InputSpec,
    concrete_shapes,
    input_specs,
    measure_cost,
    node_macs,
    open_session,
    parse_input_shapes,
    run,
)

FEW = settings(max_examples=20, deadline=None)
SMALL = st.integers(1, 4)


def build(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g {text}')
    for name, shape in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    return model


def counted(model: onnx.ModelProto, **shapes: tuple[int, ...]) -> int:
    """Return the sum of all outputs where every input is one."""
    feeds = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    return round(sum(float(value.sum()) for value in run(open_session(model, threads=1), feeds).values()))


@FEW
@given(SMALL, SMALL, SMALL, SMALL, st.integers(1, 3), st.integers(1, 2))
def test_convolutions(batch: int, wide: int, more: int, groups: int, kernel: int, stride: int) -> None:
    channels, outputs, side = groups * wide, groups * more, kernel + 3
    model = build(
        f"(float[N,{channels},H,W] x) => (float[N,{outputs},P,Q] y) {{"
        f" y = Conv<group = {groups}, strides = [{stride}, {stride}]>(x, w) }}",
        w=(outputs, wide, kernel, kernel),
    )
    shape = (batch, channels, side, side + 1)
    assert measure_cost(model, {"x": shape}).macs == counted(model, x=shape)
    assert measure_cost(model, {"x": shape}).parameters == outputs * wide * kernel * kernel


@FEW
@given(SMALL, SMALL, SMALL, SMALL, st.integers(1, 3), st.integers(1, 2))
def test_transposed_convolutions(batch: int, wide: int, more: int, groups: int, kernel: int, stride: int) -> None:
    channels = groups * wide
    model = build(
        f"(float[N,{channels},H,W] x) => (float[N,M,P,Q] y) {{"
        f" y = ConvTranspose<group = {groups}, strides = [{stride}, {stride}]>(x, w) }}",
        w=(channels, more, kernel, kernel),
    )
    shape = (batch, channels, 3, 2)
    assert measure_cost(model, {"x": shape}).macs == counted(model, x=shape)


@FEW
@given(SMALL, SMALL, SMALL, st.booleans(), st.booleans())
def test_products_of_matrices_however_they_lie(rows: int, inner: int, columns: int, left: bool, right: bool) -> None:
    model = build(
        f"(float[A,B] x) => (float[C,D] y) {{ y = Gemm<transA = {int(left)}, transB = {int(right)}>(x, w) }}",
        w=(columns, inner) if right else (inner, columns),
    )
    shape = (inner, rows) if left else (rows, inner)
    assert measure_cost(model, {"x": shape}).macs == counted(model, x=shape) == rows * inner * columns


@FEW
@given(st.lists(SMALL, max_size=2), SMALL, SMALL, SMALL, st.booleans())
def test_products_of_stacks_of_matrices(stack: list[int], rows: int, inner: int, columns: int, wide: bool) -> None:
    model = build("(float[A,B,C,D] x, float[P,Q,E,F] z) => (float[S,T,G,H] y) { y = MatMul(x, z) }")
    front = (*[1] * (2 - len(stack)), *stack)
    shapes = {"x": (*front, rows, inner), "z": (*(front if wide else (1, 1)), inner, columns)}
    assert measure_cost(model, shapes).macs == counted(model, **shapes)


@FEW
@given(SMALL, SMALL, SMALL, SMALL)
def test_macs_of_nodes_add_up(batch: int, a: int, b: int, c: int) -> None:
    model = build(
        f"(float[N,{a}] x) => (float[N,{c}] y) {{ h = MatMul(x, w1)  r = Relu(h)  y = MatMul(r, w2) }}",
        w1=(a, b),
        w2=(b, c),
    )
    assert node_macs(model, {"x": (batch, a)}) == {"h": batch * a * b, "y": batch * b * c}
    assert measure_cost(model, {"x": (batch, a)}).macs == batch * b * (a + c)


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize("directions", [1, 2])
def test_recurrent_layers_use_every_weight_at_every_step(operator: str, gates: int, directions: int) -> None:
    direction = "bidirectional" if directions == 2 else "forward"
    model = build(
        f"(float[S,N,5] x) => (float[S,D,N,H] y) {{"
        f' y = {operator}<hidden_size = 3, direction = "{direction}">(x, w, r) }}',
        w=(directions, gates * 3, 5),
        r=(directions, gates * 3, 3),
    )
    assert measure_cost(model, {"x": (7, 2, 5)}).macs == 7 * 2 * directions * gates * 3 * (5 + 3)


SPECS = (
    InputSpec("ids", ("batch", "length"), np.dtype(np.int64)),
    InputSpec("x", (None, 3, "width"), np.dtype(np.float32)),
    InputSpec("scale", (), np.dtype(np.float32)),
)


@FEW
@given(SMALL, SMALL, st.lists(st.integers(1, 5), max_size=4))
def test_a_shape_is_taken_whole_or_refused(default: int, width: int, given: list[int]) -> None:
    assert concrete_shapes(SPECS, default=default) == {
        "ids": (default, default), "x": (default, 3, default), "scale": ()
    }  # fmt: skip
    if len(given) == 3 and given[1] == 3:
        assert concrete_shapes(SPECS, {"x": given})["x"] == tuple(given)
    else:
        with pytest.raises(OptionError, match=r"input 'x' has shape \?,3,width in the model, found"):
            concrete_shapes(SPECS, {"x": given})


NAMES = st.text("ab:/.", min_size=1, max_size=6)


@FEW
@given(st.dictionaries(NAMES, st.lists(st.integers(1, 999), max_size=4), max_size=3))
def test_shapes_are_read_as_they_are_written(shapes: dict[str, list[int]]) -> None:
    texts = [f"{name}:{','.join(map(str, shape))}" for name, shape in shapes.items()]
    assert parse_input_shapes(texts) == {name: tuple(shape) for name, shape in shapes.items()}


@pytest.mark.parametrize(("dims", "expected"), [("N,3", ("N", 3)), ("2,3", (2, 3)), ("0,3", (None, 3))])
def test_axes_are_sizes_symbols_or_nothing(dims: str, expected: tuple[Any, ...]) -> None:
    (spec,) = input_specs(build(f"(float[{dims}] x) => (float[A,B] y) {{ y = Relu(x) }}"))
    assert (spec.shape, spec.dtype) == (expected, np.float32)


def test_a_parameter_is_counted_by_its_elements_whatever_its_precision() -> None:
    model = build("(float[N,4] x) => (float[N,6] y) { h = MatMul(x, w)  y = Add(h, b) }", w=(4, 6), b=(6,))
    for kind in (np.float16, np.float64):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((5, 2), kind), f"unused {kind.__name__}"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(7, np.int64), "indices"))
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(1.0), "scalar"))
    assert measure_cost(model).parameters == math.prod((4, 6)) + 6 + 2 * 10
