"""Weights as matrices times rows of patches are what ONNX Runtime computes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.model import array_of, open_session, run
from onnx_subprune.recovery.exact.im2col import Geometry, Sample
from onnx_subprune.recovery.exact.linear_layers import find_linears
from onnx_subprune.recovery.exact.rows import Values, rows_of

RNG = np.random.default_rng(3)


def _holds(model: onnx.ModelProto, image: tuple[int, ...], most: int = 5, tolerance: float = 1e-5) -> None:
    """Every sampled row of the one layer, times its matrix, is its output there."""
    feeds = {"x": RNG.standard_normal(image).astype(model_type(model))}
    (linear,), left = find_linears(model)
    assert not left
    y = run(open_session(model, threads=1), feeds)["y"]
    stored = {tensor.name: array_of(tensor) for tensor in model.graph.initializer}
    values = Values(feeds["x"], [y], samples=image[0])
    rows = rows_of([linear], values, None, stored[linear.weight].shape, most, normalised=False, rng=RNG)
    assert not isinstance(rows, str), rows
    matrix = linear.matrices(stored[linear.weight])
    bias = np.zeros(linear.outputs) if linear.bias is None else linear.scale * stored[linear.bias].astype(np.float64)
    found = rows.x @ matrix.transpose(0, 2, 1) + bias.reshape(matrix.shape[0], 1, -1)
    assert rows.x.shape[1] > 0
    assert rows.x.shape[1] <= most * image[0] + image[0]
    assert np.abs(rows.parts[0] - found).max() < tolerance * np.abs(y).max()
    # What is stored again is the same weight.
    again = linear.stored(matrix, stored[linear.weight])
    assert np.allclose(again, stored[linear.weight], rtol=1e-6, atol=0)
    assert (np.diff(rows.places) >= 0).all() or linear.spatial
    assert (rows.places >= 0).all()
    assert (rows.places < 1).all()


def model_type(model: onnx.ModelProto) -> Any:
    return onnx.helper.tensor_dtype_to_np_dtype(model.graph.input[0].type.tensor_type.elem_type)


def _conv(net: Any, op: str, image: tuple[int, ...], attributes: str, weight: tuple[int, ...], bias: int) -> Any:
    shape = ",".join(map(str, image))
    dims = ",".join("abcdef"[: len(image)])
    given, more = (", b", {"b": (bias,)}) if bias else ("", {})
    return net(
        f"g (float[{shape}] x) => (float[{dims}] y) {{ [c] y = {op} <{attributes}> (x, w{given}) }}", w=weight, **more
    )


@pytest.mark.parametrize(
    ("image", "attributes", "weight"),
    [
        ((3, 4, 9), "group=1", (5, 4, 3)),
        ((3, 4, 9), "strides=[2], dilations=[2], pads=[3,1]", (5, 4, 3)),
        ((3, 4, 8, 7), "group=1", (5, 4, 1, 1)),
        ((3, 4, 8, 7), "pads=[1,2,0,3], strides=[3,2]", (5, 4, 3, 2)),
        ((3, 4, 8, 7), "dilations=[2,3], pads=[2,2,2,2], group=2", (6, 2, 3, 2)),
        ((3, 4, 8, 7), 'auto_pad="SAME_UPPER", strides=[2,3]', (5, 4, 3, 4)),
        ((3, 4, 8, 7), 'auto_pad="SAME_LOWER", strides=[2,1]', (5, 4, 2, 3)),
        ((3, 4, 8, 7), 'auto_pad="VALID", strides=[2,1]', (5, 4, 2, 3)),
        ((3, 4, 8, 7), "group=4, pads=[1,1,1,1]", (4, 1, 3, 3)),
        ((2, 3, 5, 4, 6), "strides=[1,2,2], pads=[1,0,1,0,1,1]", (4, 3, 2, 3, 2)),
        ((2, 3, 5, 4, 6), "dilations=[2,1,3], group=3", (6, 1, 2, 2, 2)),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_conv(net, image, attributes, weight, bias):
    model = _conv(net, "Conv", image, attributes, weight, weight[0] if bias else 0)
    _holds(model, image)
    _holds(model, image, most=10_000)


@pytest.mark.parametrize(
    ("image", "attributes", "weight"),
    [
        ((3, 4, 5), "strides=[2], pads=[1,0], output_padding=[1]", (4, 5, 3)),
        ((3, 4, 5, 6), "group=1", (4, 5, 1, 1)),
        ((3, 4, 5, 6), "strides=[2,3], pads=[1,2,0,1], output_padding=[1,2]", (4, 5, 3, 4)),
        ((3, 4, 5, 6), "dilations=[2,1], strides=[1,2], pads=[1,1,1,1], group=2", (4, 3, 3, 2)),
        ((3, 4, 5, 6), 'auto_pad="VALID", strides=[2,2]', (4, 3, 3, 2)),
        ((2, 4, 3, 4, 3), "strides=[2,1,2], pads=[0,1,1,1,0,0], group=4", (4, 2, 2, 3, 2)),
    ],
)
@pytest.mark.parametrize("bias", [True, False])
def test_transposed_conv(net, image, attributes, weight, bias):
    group = 4 if "group=4" in attributes else 2 if "group=2" in attributes else 1
    model = _conv(net, "ConvTranspose", image, attributes, weight, weight[1] * group if bias else 0)
    _holds(model, image)
    _holds(model, image, most=10_000)


def test_conv_at_random(net):
    for seed in range(40):
        rng = np.random.default_rng(seed)
        rank = int(rng.integers(1, 4))
        group = int(rng.integers(1, 3))
        kernel, dilations, strides = (rng.integers(1, 4, rank) for _ in range(3))
        pads = rng.integers(0, 3, 2 * rank)
        sizes = (kernel - 1) * dilations + 1 + rng.integers(0, 5, rank)
        op = "Conv" if rng.random() < 0.5 else "ConvTranspose"
        if op == "ConvTranspose":
            pads[:] = 0
        listed = {"strides": strides, "dilations": dilations, "pads": pads}
        attributes = ", ".join(f"{name}={value.tolist()}" for name, value in listed.items()) + f", group={group}"
        weight = (4, 4 // group, *kernel.tolist()) if op == "Conv" else (4, 3, *kernel.tolist())
        image = (2, 4, *sizes.tolist())
        _holds(_conv(net, op, image, attributes, weight, 4 if op == "Conv" else 3 * group), image)


@pytest.mark.parametrize("attributes", ['auto_pad="SAME_UPPER", strides=[2,2]', "output_shape=[9,11], strides=[2,2]"])
def test_a_transposed_conv_whose_padding_is_chosen_by_the_runtime_is_left(net, attributes):
    model = _conv(net, "ConvTranspose", (2, 4, 5, 6), attributes, (4, 3, 3, 3), 0)
    x = RNG.standard_normal((2, 4, 5, 6)).astype(np.float32)
    y = run(open_session(model, threads=1), {"x": x})["y"]
    (linear,), _ = find_linears(model)
    found = rows_of([linear], Values(x, [y], samples=2), None, (4, 3, 3, 3), 4, normalised=False, rng=RNG)
    assert found == "its padding is not understood"


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("[c] y = Gemm(x, w)", {"w": (6, 4)}),
        ("[c] y = Gemm <transB=1, alpha=0.25, beta=3.0> (x, w, b)", {"w": (4, 6), "b": (4,)}),
        ("[c] y = Gemm <alpha=-2.0> (x, w, b)", {"w": (6, 4), "b": (1, 4)}),
        ("[c] y = MatMul(x, w)", {"w": (6, 4)}),
        ("[c] h = MatMul(x, w)\n[a] y = Add(h, b)", {"w": (6, 4), "b": (4,)}),
        ("[c] h = MatMul(x, w)\n[a] y = Add(b, h)", {"w": (6, 4), "b": (1, 4)}),
    ],
)
def test_products(net, text, weights):
    model = net(f"g (float[9,6] x) => (float[a,b] y) {{ {text} }}", **weights)
    _holds(model, (9, 6), most=10_000)
    (linear,), _ = find_linears(model)
    assert (linear.bias is not None) == ("b" in weights)


def test_products_of_many_axes(net):
    model = net("g (float[3,5,2,6] x) => (float[a,b,c,d] y) { [c] y = MatMul(x, w) }", w=(6, 4))
    _holds(model, (3, 5, 2, 6), most=10_000)
    _holds(model, (3, 5, 2, 6), most=2)


@pytest.mark.parametrize("text", ["[c] y = Conv <pads=[1,1,1,1]> (x, w)", "[c] y = ConvTranspose(x, w)"])
def test_half_precision(net, text):
    model = net(
        f"g (float16[2,4,5,6] x) => (float16[a,b,c,d] y) {{ {text} }}",
        w=RNG.standard_normal((4, 4, 3, 3)).astype(np.float16),
    )
    _holds(model, (2, 4, 5, 6), tolerance=2e-3)


def test_positions_are_drawn_without_repetition_and_in_order():
    sample = Sample.draw(3, 50, 7, np.random.default_rng(0))
    assert sample.samples.tolist() == [0] * 7 + [1] * 7 + [2] * 7
    for number in range(3):
        drawn = sample.positions[sample.samples == number]
        assert (np.diff(drawn) > 0).all()
    assert len(Sample.draw(3, 5, 7, np.random.default_rng(0)).positions) == 15


def test_positions_over_a_limit_are_drawn_for_each_sample_alone(net):
    """Windows and tokens folded into the first axis do not multiply the rows."""
    model = net("g (float[N,6] x) => (float[a,b] y) { [c] y = MatMul(x, w) }", w=(6, 4))
    x = RNG.standard_normal((120, 6)).astype(np.float32)
    (linear,), _ = find_linears(model)
    y = run(open_session(model, threads=1), {"x": x})["y"]
    found = rows_of([linear], Values(x, [y], samples=2), None, (6, 4), 10, normalised=False, rng=RNG)
    assert not isinstance(found, str)
    assert found.x.shape == (1, 20, 6)


@pytest.mark.parametrize("blocks", [1, 2])
def test_a_few_patches_are_those_among_all(blocks):
    """A few are read from the map as it lies, many from a copy by position."""
    table = np.array([[place - 1, place, place + 1 if place < 7 else -1] for place in range(8)])
    geometry, x = Geometry((table, table), (8, 8)), RNG.standard_normal((2, 4, 8, 8))
    every = Sample(np.repeat([0, 1], 64), np.tile(np.arange(64), 2))
    few = Sample(np.array([0, 1, 1]), np.array([0, 63, 20]))
    np.testing.assert_array_equal(geometry.rows(x, blocks, few), geometry.rows(x, blocks, every)[:, [0, 127, 84]])
    assert not geometry.rows(x, 1, few)[0, 0, :12].any()
