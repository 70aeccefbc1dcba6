"""Which layers can be fitted, how their weights lie as matrices, and why others are left."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import array_of
from onnx_subprune.recovery.exact.linear_layers import (
    RECURRENCE,
    Linear,
    find_linears,
    intercept_of,
    is_linear,
    is_row,
    projection_of,
    recurrence_of,
)


def _of(model: onnx.ModelProto) -> tuple[dict[str, Linear], dict[str, str]]:
    linears, reasons = find_linears(model)
    return {linear.name: linear for linear in linears}, reasons


def _matrix(model: onnx.ModelProto, name: str) -> tuple[Linear, np.ndarray, np.ndarray]:
    """A layer, its stored weight, and its matrices."""
    linear = _of(model)[0][name]
    stored = {tensor.name: array_of(tensor) for tensor in model.graph.initializer}[linear.weight]
    return linear, stored, linear.matrices(stored)


MATRIX = "g (float[N,4] x) => (float[a,b] y) {{ {text} }}"


def test_the_bias_of_a_product_is_added_behind_it(net) -> None:
    model = net(MATRIX.format(text="[m] h = MatMul(x, w)\n[a] y = Add(h, b)"), w=(4, 3), b=(3,))
    linears, reasons = _of(model)
    assert not reasons
    assert (linears["m"].bias, linears["m"].output, linears["m"].outputs) == ("b", "y", 3)


@pytest.mark.parametrize(
    ("text", "bias"),
    [
        # Added by a tensor.
        ("[m] h = MatMul(x, w)\n[z] z = MatMul(x, v)\n[a] y = Add(h, z)", (3,)),
        # Not one value for each output.
        ("[m] h = MatMul(x, w)\n[a] y = Add(h, b)", (1,)),
        ("[m] h = MatMul(x, w)\n[a] y = Add(h, b)", (5, 3)),
        # Read twice.
        ("[m] h = MatMul(x, w)\n[a] z = Add(h, b)\n[s] y = Mul(z, h)", (3,)),
        # Added to itself.
        ("[m] h = MatMul(x, w)\n[a] y = Add(h, h)", (3,)),
    ],
)
def test_what_else_is_added_is_no_bias(net, text, bias) -> None:
    model = net(MATRIX.format(text=text), w=(4, 3), b=bias, v=(4, 3))
    linear = _of(model)[0]["m"]
    assert (linear.bias, linear.output) == (None, "h")


def test_a_bias_that_other_sums_read_too_stays_theirs(net) -> None:
    first = "[m] h = MatMul(x, w)\n[a] k = Add(h, b)\n[r] r = Relu(x)\n"
    text = first + "[z] z = MatMul(r, v)\n[c] q = Add(z, b)\n[s] y = Mul(k, q)"
    model = net(MATRIX.format(text=text), w=(4, 3), v=(4, 3), b=(3,))
    assert {name: linear.bias for name, linear in _of(model)[0].items()} == {"m": None, "z": None}
    shared = net(MATRIX.format(text=text.replace("v)", "w)")), w=(4, 3), b=(3,))
    assert {name: linear.bias for name, linear in _of(shared)[0].items()} == {"m": "b", "z": "b"}


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        ("[m] y = Gemm <transA=1> (t, w)", {"w": (4, 3)}, "it transposes its input"),
        ("[m] y = Gemm <alpha=0.0> (x, w)", {"w": (4, 3)}, "it multiplies by zero"),
        ("[m] y = Gemm <beta=0.0> (x, w, b)", {"w": (4, 3), "b": (3,)}, "it multiplies by zero"),
        ("[m] y = Gemm(x, w, b)", {"w": (4, 3), "b": (1,)}, "its bias is broadcast"),
        ("[m] y = Gemm(x, w, k)", {"w": (4, 3)}, "its bias is computed"),
        ("[m] y = Gemm(x, k)", {}, "its weight is computed"),
        ("[m] y = MatMul(w, x)", {"w": (5, 7)}, "its weight is the first operand of the product"),
        ("[m] y = MatMul(v, w)", {"w": (4, 3), "v": (5, 4)}, "does not multiply an activation by floating-point"),
    ],
)
def test_layers_that_are_left(net, text, weights, reason) -> None:
    made = {"k": "[k] k = Exp(x)\n", "t": "[t] t = Transpose(x)\n"}
    before = "".join(node for name, node in made.items() if f"{name})" in text or f"({name}," in text)
    linears, reasons = _of(net(MATRIX.format(text=before + text), **weights))
    assert "m" not in linears
    assert reason in reasons["m"]


def test_a_product_of_activations_is_no_layer(net) -> None:
    linears, reasons = _of(net(MATRIX.format(text="[t] t = Transpose(x)\n[m] y = MatMul(x, t)")))
    assert (linears, reasons) == ({}, {})


def test_a_weight_that_something_else_reads_is_left(net) -> None:
    text = "[m] h = MatMul(x, w)\n[s] s = ReduceMax <keepdims=0> (w)\n[a] y = Add(h, s)"
    linears, reasons = _of(net(MATRIX.format(text=text), w=(4, 3)))
    assert not linears
    assert reasons["m"] == "weight 'w' is read by ReduceMax 's' too, which is not fitted"


def test_a_weight_that_is_another_matrix_to_another_layer_is_left(net) -> None:
    text = "[m] h = MatMul(x, w)\n[k] y = Gemm <transB=1> (h, w)"
    linears, reasons = _of(net(MATRIX.format(text=text), w=(4, 4)))
    assert not linears
    assert reasons["m"] == reasons["k"] == "weight 'w' is not the same matrix to 'm' and 'k'"


def test_a_weight_that_is_the_same_matrix_by_two_ways_is_shared(net) -> None:
    text = "[m] h = MatMul(x, w)\n[t] t = Transpose <perm=[1,0]> (w)\n[k] y = Gemm <transB=1> (h, t)"
    linears, reasons = _of(net(MATRIX.format(text=text), w=(4, 4)))
    assert not reasons
    assert linears["m"].holding == linears["k"].holding


def test_layers_within_bodies_are_left(net) -> None:
    text = """g (float[N,4] x, bool c) => (float[a,b] y) {
        [i] y = If (c) <then_branch = t () => (float[d,e] ty) { [inner] ty = MatMul(x, w) },
                        else_branch = f () => (float[g0,h] ey) { ey = Identity(x) }>
    }"""
    linears, reasons = _of(net(text, w=(4, 4)))
    assert not linears
    assert reasons == {"inner": "it is in the body of a loop or a branch"}


@pytest.mark.parametrize(
    ("text", "weight", "shape"),
    [
        ("[m] y = MatMul(x, w)", (4, 3), (1, 3, 4)),
        ("[m] y = Gemm <transB=1> (x, w)", (3, 4), (1, 3, 4)),
        ("[m] y = Gemm <transB=1, alpha=0.5> (x, w)", (3, 4), (1, 3, 4)),
        ("[t] t = Transpose <perm=[1,0]> (w)\n[m] y = MatMul(x, t)", (3, 4), (1, 3, 4)),
    ],
)
def test_matrices_multiply_rows_whatever_the_layout(net, text, weight, shape) -> None:
    model = net(MATRIX.format(text=text), w=weight)
    linear, stored, matrices = _matrix(model, "m")
    assert matrices.shape == shape
    assert matrices.dtype == np.float64
    scale = 0.5 if "alpha" in text else 1.0
    np.testing.assert_allclose(matrices[0], scale * (stored if weight[0] == 3 else stored.T), rtol=1e-6)
    np.testing.assert_allclose(linear.stored(matrices, stored), stored, rtol=1e-6)


@pytest.mark.parametrize("groups", [1, 2])
def test_features_of_a_convolution_are_taps_before_channels(net, groups) -> None:
    text = f"g (float[N,4,6,6] x) => (float[a,b,c,d] y) {{ [m] y = Conv <group={groups}> (x, w) }}"
    linear, stored, matrices = _matrix(net(text, w=(6, 4 // groups, 2, 3)), "m")
    assert matrices.shape == (groups, 6 // groups, 6 * 4 // groups)
    output, channel, row, column = 1, 4 // groups - 1, 1, 2
    assert matrices[0, output, (row * 3 + column) * (4 // groups) + channel] == stored[output, channel, row, column]
    assert (linear.kernel, linear.rank, linear.behind, linear.spatial) == ((2, 3), 4, 2, True)
    np.testing.assert_array_equal(linear.stored(matrices, stored), stored)


def test_a_stack_of_matrices(net) -> None:
    text = "g (float[3,N,4] x) => (float[a,b,c] y) { [m] h = MatMul(x, w)\n[a] y = Add(h, b) }"
    model = net(text, w=(3, 4, 5), b=(3, 1, 5))
    linear, stored, matrices = _matrix(model, "m")
    assert (linear.stack, linear.blocks, linear.outputs, linear.bias) == ((3,), 3, 15, "b")
    np.testing.assert_array_equal(matrices, stored.transpose(0, 2, 1))
    bias = {tensor.name: tensor for tensor in model.graph.initializer}
    np.testing.assert_array_equal(intercept_of(linear, bias), array_of(bias["b"])[:, 0])
    np.testing.assert_array_equal(
        linear.stored_bias(intercept_of(linear, bias), array_of(bias["b"])), array_of(bias["b"])
    )
    whole = net(text, w=(3, 4, 5), b=(5,))
    assert _of(whole)[0]["m"].bias is None, "one bias for all matrices is not that of each"


def test_a_scaled_bias_is_stored_unscaled(net) -> None:
    model = net(MATRIX.format(text="[m] y = Gemm <beta=0.25> (x, w, b)"), w=(4, 3), b=(1, 3))
    linear = _of(model)[0]["m"]
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    bias = array_of(stored["b"])
    np.testing.assert_allclose(intercept_of(linear, stored), 0.25 * bias, rtol=1e-6)
    again = linear.stored_bias(intercept_of(linear, stored), bias)
    assert again.dtype == bias.dtype
    np.testing.assert_allclose(again, bias, rtol=1e-6)


def test_a_layer_without_a_bias_has_zeros(net) -> None:
    linear = _of(net(MATRIX.format(text="[m] y = Gemm(x, w)"), w=(4, 3)))[0]["m"]
    assert linear.bias is None
    np.testing.assert_array_equal(intercept_of(linear, {}), np.zeros((1, 3)))


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
def test_the_gates_of_a_recurrent_layer_are_out_of_sight(net, operator, gates) -> None:
    text = f"""g (float[5,N,4] x) => (float[a,b,c,d] y) {{
        [m] y = {operator} <hidden_size=3> (x, w, r, b)
    }}"""
    model = net(text, w=(1, 3 * gates, 4), r=(1, 3 * gates, 3), b=(1, 6 * gates))
    linears, reasons = _of(model)
    linear, stored, matrices = _matrix(model, "m")
    assert linears["m"].projected
    assert linear.output == projection_of("m")
    assert reasons == {recurrence_of("m"): RECURRENCE}
    np.testing.assert_array_equal(matrices, stored)
    # Of the biases, the half that goes with the inputs is fitted; that of the states stays.
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    bias = array_of(tensors["b"])
    np.testing.assert_array_equal(intercept_of(linear, tensors), bias[:, : 3 * gates])
    again = linear.stored_bias(np.zeros((1, 3 * gates)), bias)
    np.testing.assert_array_equal(again, np.concatenate([0 * bias[:, : 3 * gates], bias[:, 3 * gates :]], axis=1))


def test_convolutions_read_alike_where_their_windows_are_the_same(net) -> None:
    text = """g (float[N,4,6,6] x) => (float[a,b,c,d] y) {
        [c1] h = Conv <pads=[1,1,1,1]> (x, w1)
        [c2] k = Conv <pads=[1,1,1,1]> (x, w2)
        [c3] l = Conv <pads=[1,1,1,1], dilations=[1,1]> (x, w3)
        [c4] m = Conv (x, w4)
        [s] y = Sum(h, k, l)
    }"""
    linears, _ = _of(net(text, w1=(5, 4, 3, 3), w2=(5, 4, 3, 3), w3=(5, 4, 3, 3), w4=(5, 4, 1, 1)))
    assert linears["c1"].reading == linears["c2"].reading
    assert len({linears[name].reading for name in ("c1", "c3", "c4")}) == 3


@pytest.mark.parametrize(
    ("dims", "width", "expected"),
    [((3,), 3, True), ((1, 3), 3, True), ((1, 1, 3), 3, True), ((3, 1), 3, False), ((2, 3), 3, False), ((), 1, False)],
)
def test_rows(dims, width, expected) -> None:
    assert is_row(onnx.numpy_helper.from_array(np.zeros(dims, np.float32)), width) is expected


@pytest.mark.parametrize(
    ("operator", "domain", "expected"),
    [("Conv", "", True), ("MatMul", "ai.onnx", True), ("LSTM", "", True), ("Attention", "", False),
     ("Attention", "com.microsoft", True), ("FusedGemm", "com.microsoft", True), ("Conv", "com.microsoft", False),
     ("Relu", "", False), ("MatMul", "custom", False)],
)  # fmt: skip
def test_operators_that_are_linear(operator, domain, expected) -> None:
    assert is_linear(onnx.helper.make_node(operator, ["x", "w"], ["y"], domain=domain)) is expected
