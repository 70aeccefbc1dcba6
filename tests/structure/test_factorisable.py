"""Layers written as two: each operator gives the projection of its dense outputs, and what cannot be cut says why."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import onnx
import pytest

from onnx_subprune.model import constant_values, measure_cost, open_session, run
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.network.rewrite import factorised
from onnx_subprune.network.verify import relative_error
from onnx_subprune.passes import LowRank
from onnx_subprune.structure import Layer, layers_of
from onnx_subprune.subspace import Factors, Spectrum, factors, input_spectrum, output_spectrum

Net = Callable[..., onnx.ModelProto]
ORACLE = 1e-4

LAYERS = {
    "conv": ("y = Conv<pads = [1, 1, 1, 1]>(x, w)", {"w": (10, 6, 3, 3)}, (2, 6, 7, 5)),
    "conv with a bias": ("y = Conv(x, w, b)", {"w": (10, 6, 1, 1), "b": (10,)}, (2, 6, 7, 5)),
    "conv strided, dilated": (
        "y = Conv<strides = [2, 1], dilations = [1, 2], pads = [0, 2, 1, 1]>(x, w, b)",
        {"w": (10, 6, 3, 2), "b": (10,)}, (2, 6, 9, 8),
    ),
    "conv that pads by itself": (
        'y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(x, w, b)',
        {"w": (10, 6, 3, 3), "b": (10,)}, (2, 6, 7, 5),
    ),
    "conv over time": ("y = Conv<pads = [1, 1]>(x, w, b)", {"w": (10, 6, 3), "b": (10,)}, (2, 6, 11)),
    "conv, stored in half": (
        "wide = Cast<to = 1>(w)\n y = Conv<pads = [1, 1, 1, 1]>(x, wide, b)",
        {"w": np.random.default_rng(3).standard_normal((10, 6, 3, 3)).astype(np.float16), "b": (10,)}, (2, 6, 7, 5),
    ),
    "conv whose bias is stored in half": (
        "wide = Cast<to = 1>(b)\n y = Conv(x, w, wide)",
        {"w": (10, 6, 1, 1), "b": np.arange(10, dtype=np.float16)}, (2, 6, 7, 5),
    ),
    "matmul": ("y = MatMul(x, w)", {"w": (12, 10)}, (40, 12)),
    "matmul to more": ("y = MatMul(x, w)", {"w": (10, 14)}, (3, 20, 10)),
    "matmul and bias": ("p = MatMul(x, w)\n y = Add(b, p)", {"w": (12, 10), "b": (10,)}, (3, 20, 12)),
    "matmul turned": ("t = Transpose<perm = [1, 0]>(w)\n y = MatMul(x, t)", {"w": (10, 12)}, (3, 20, 12)),
    "matmul on the left": ("y = MatMul(w, x)", {"w": (10, 12)}, (3, 12, 20)),
    "matmul on the left to more": ("y = MatMul(w, x)", {"w": (14, 10)}, (3, 10, 20)),
    "gemm": ("y = Gemm(x, w, b)", {"w": (12, 10), "b": (10,)}, (40, 12)),
    "gemm turned": (
        "y = Gemm<transA = 1, transB = 1, alpha = 0.5, beta = 3.0>(x, w, b)",
        {"w": (10, 12), "b": (1, 10)}, (12, 40),
    ),
    "gemm without a bias": ("y = Gemm<alpha = 2.0, beta = 0.0>(x, w)", {"w": (12, 10)}, (40, 12)),
    "gemm to more": ("y = Gemm<alpha = 2.0>(x, w, b)", {"w": (10, 14), "b": (14,)}, (40, 10)),
    "gemm with one number": ("y = Gemm(x, w, b)", {"w": (12, 10), "b": np.float32([2.0])}, (40, 12)),
    "gemm on the left": (
        "y = Gemm<transA = 1, transB = 1, alpha = 2.0>(w, x, b)",
        {"w": (12, 10), "b": (10, 1)}, (40, 12),
    ),
}  # fmt: skip


@pytest.fixture
def single(net: Net) -> Callable[[str], tuple[onnx.ModelProto, np.ndarray]]:
    """`single(name)`: a network of one layer of LAYERS, and an input."""

    def build(name: str) -> tuple[onnx.ModelProto, np.ndarray]:
        text, weights, shape = LAYERS[name]
        dims = ",".join(map(str, shape))
        given = ",".join("abcd"[: len(shape)])
        model = net(f"g (float[{dims}] x) => (float[{given}] y) {{ {text} }}", **weights)
        return model, np.random.default_rng(5).standard_normal(shape).astype(np.float32) + 1.0

    return build


def seen(analysis: Analysis, x: np.ndarray) -> tuple[Layer, Spectrum, np.ndarray]:
    """Return the one layer, its components on an input, and all its outputs [outputs, positions]."""
    ((layer,), _) = layers_of(analysis.structure)
    probe = onnx.ModelProto()
    probe.CopyFrom(analysis.normalised)
    name, axis = layer.output
    del probe.graph.output[:]
    probe.graph.output.append(onnx.ValueInfoProto(name=name))
    y = rows(run(open_session(probe), {"x": x})[name], axis)
    if layer.narrow:
        return layer, input_spectrum(layer.matrix(constant_values), gram(rows(x, layer.consumer.axis))), y
    spectrum = output_spectrum(gram(y), layer.bias(constant_values))
    return layer, Spectrum(spectrum.variances, spectrum.directions, spectrum.mean / layer.alpha), y


def rows(x: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(x, axis, 0).reshape(x.shape[axis], -1).astype(np.float64)


def gram(x: np.ndarray) -> np.ndarray:
    wide = np.vstack([x, np.ones(x.shape[1])])
    return wide @ wide.T


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_gives_its_outputs_projected_about_their_mean(
    name: str, single: Callable[[str], tuple[onnx.ModelProto, np.ndarray]]
) -> None:
    model, x = single(name)
    analysis = analyse(model)
    layer, spectrum, y = seen(analysis, x)
    dense = run(open_session(model), {"x": x})["y"]
    axis = layer.output[1]
    # What follows the layer, a bias of a MatMul, is the same constant for each output.
    after = rows(dense, axis) - y
    for rank in (1, 3, layer.most):
        result = factorised(
            analysis, {layer.name: lambda one, r=rank: factors(one.matrix(constant_values), spectrum, r)}
        )
        onnx.checker.check_model(result, full_check=True)
        U, mean = spectrum.directions[:, :rank], y.mean(axis=1, keepdims=True)
        expected = U @ (U.T @ (y - mean)) + mean + after
        found = run(open_session(result), {"x": x})["y"]
        assert relative_error(rows(found, axis), expected) < (2e-3 if "half" in name else ORACLE)
        costs = measure_cost(model), measure_cost(result)
        saved = layer.features * layer.outputs - rank * (layer.features + layer.outputs)
        assert costs[0].macs - costs[1].macs == costs[0].macs // (layer.features * layer.outputs) * saved > 0
        assert costs[0].parameters - costs[1].parameters >= saved - (0 if layer.spare else layer.outputs)


@pytest.mark.parametrize("name", LAYERS)
def test_at_full_rank_a_layer_is_the_dense_one(
    name: str, single: Callable[[str], tuple[onnx.ModelProto, np.ndarray]]
) -> None:
    model, x = single(name)
    analysis = analyse(model)
    layer, spectrum, _ = seen(analysis, x)
    whole = factorised(analysis, {layer.name: lambda one: factors(one.matrix(constant_values), spectrum, one.full)})
    assert [node.op_type for node in whole.graph.node].count(layer.consumer.kind) == 2
    other = np.random.default_rng(6).standard_normal(x.shape).astype(np.float32)
    expected, found = (run(open_session(one), {"x": other})["y"] for one in (model, whole))
    assert relative_error(found, expected) < (2e-3 if "half" in name else ORACLE)


def test_new_weights_are_of_the_stored_type(single: Callable[[str], tuple[onnx.ModelProto, np.ndarray]]) -> None:
    model, x = single("conv, stored in half")
    analysis = analyse(model)
    layer, spectrum, _ = seen(analysis, x)
    result = factorised(analysis, {layer.name: lambda one: factors(one.matrix(constant_values), spectrum, 3)})
    stored = {tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in result.graph.initializer}
    half = onnx.TensorProto.FLOAT16
    assert stored["w_first"] == (half, (3, 6, 3, 3))
    assert stored["w_second"] == (half, (10, 3, 1, 1))
    assert "w" not in stored


REFUSED = {
    "y = Conv<group = 2>(x, w)": ({"w": (8, 4, 3, 3)}, "groups"),
    "y = Conv<group = 8>(x, w)": ({"w": (8, 1, 3, 3)}, "depthwise"),
    "y = ConvTranspose(x, w)": ({"w": (8, 8, 3, 3)}, "ConvTranspose"),
    "y = Conv(x, w)": ({"w": (1, 8, 3, 3)}, "no rank takes fewer"),
    "a = Conv<pads = [1, 1, 1, 1]>(x, w)\n y = Conv(a, w)": ({"w": (8, 8, 3, 3)}, "used elsewhere"),
    "a = Conv(x, w)\n y = Mul(a, w)": ({"w": (8, 8, 1, 1)}, "used elsewhere"),
    "s = ReduceMean<axes = [0, 2, 3], keepdims = 0>(x)\n y = Conv(x, w, s)": ({"w": (8, 8, 3, 3)}, "no constant"),
    "y = MatMul(x, w)": ({"w": (8, 6, 6)}, "a stack"),
    "y = MatMul(x, x)": ({}, "no constant weight"),
}


def test_an_old_gemm_must_have_a_summand(net: Net) -> None:
    model = net("g (float[9,8] x) => (float[9,8] y) { y = Gemm(x, w, b) }", opset=9, ir=4, w=(8, 8), b=(8,))
    analysis = analyse(model)
    x = np.random.default_rng(5).standard_normal((9, 8)).astype(np.float32)
    layer, spectrum, _ = seen(analysis, x)
    whole = factorised(analysis, {layer.name: lambda one: factors(one.matrix(constant_values), spectrum, one.full)})
    onnx.checker.check_model(whole, full_check=True)
    expected, found = (run(open_session(one), {"x": x})["y"] for one in (model, whole))
    assert relative_error(found, expected) < ORACLE
    narrow = factorised(analysis, {layer.name: lambda one: factors(one.matrix(constant_values), spectrum, 3)})
    cost = measure_cost(narrow)
    assert measure_cost(model).parameters - cost.parameters == 64 - 3 * 16


@pytest.mark.parametrize("text", REFUSED)
def test_what_cannot_be_cut_says_why(net: Net, text: str) -> None:
    weights, reason = REFUSED[text]
    model = net(f"g (float[8,8,6,6] x) => (float[a,b,c,d] y) {{ {text} }}", **weights)
    layers, reasons = layers_of(analyse(model).structure)
    assert not layers
    assert reasons
    assert all(reason in one for one in reasons.values()), reasons


def test_a_gemm_whose_rows_get_different_summands_is_left(net: Net) -> None:
    model = net("g (float[5,8] x) => (float[5,8] y) { y = Gemm(x, w, b) }", w=(8, 8), b=(5, 8))
    layers, reasons = layers_of(analyse(model).structure)
    assert not layers
    assert "no constant with a value per output" in next(iter(reasons.values()))


def test_a_weight_that_the_caller_may_replace_is_left(net: Net) -> None:
    model = net("g (float[5,8] x, float[8,8] w) => (float[5,8] y) { y = MatMul(x, w) }", w=(8, 8))
    assert not layers_of(analyse(model).structure)[0]


def test_a_layer_that_is_not_there_is_refused(net: Net) -> None:
    structure = analyse(net("g (float[5,8] x) => (float[5,8] y) { y = MatMul(x, w) }", w=(8, 8))).structure
    absent: Callable[[Layer], Factors] = partial(pytest.fail, "asked for factors")
    result = LowRank(structure, {"absent": absent})(structure.graph)
    assert not result.modified
    assert "'absent' cannot be factorised" in result.refusals[0]
