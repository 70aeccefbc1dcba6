"""Whatever the operator, [blocks, outputs, inputs, taps] times what each block reads is what ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import open_session, run, to_graph
from onnx_subprune.structure import Consumer, infer
from onnx_subprune.structure.weight_blocks import as_blocks, from_blocks

RNG = np.random.default_rng(5)


def _consumer(model: onnx.ModelProto) -> tuple[Consumer, np.ndarray]:
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    structure = infer(to_graph(onnx.shape_inference.infer_shapes(model)), {"x": shape})
    (consumer,) = structure.consumers
    return consumer, consumer.weight.view(lambda constant: np.asarray(constant.values))


def _given(model: onnx.ModelProto) -> tuple[np.ndarray, np.ndarray]:
    shape = tuple(dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim)
    x = RNG.standard_normal(shape).astype(np.float32)
    return x, run(open_session(model, threads=1), {"x": x})["y"]


def _contracted(x: np.ndarray, blocks: np.ndarray) -> np.ndarray:
    """Blocks of the last axis of x times their matrices, side by side."""
    parts = np.split(x, len(blocks), axis=-1)
    return np.concatenate([part @ matrix.T for part, matrix in zip(parts, blocks, strict=True)], axis=-1)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_groups_of_a_convolution(net, groups) -> None:
    model = net(
        f"g (float[3,8,2,3] x) => (float[a,b,c,d] y) {{ [c] y = Conv <group={groups}> (x, w) }}",
        w=(12, 8 // groups, 1, 1),
    )
    consumer, weight = _consumer(model)
    blocks = as_blocks(consumer, weight)
    assert blocks.shape == (groups, 12 // groups, 8 // groups, 1)
    x, y = _given(model)
    expected = _contracted(np.moveaxis(x, 1, -1), blocks[..., 0])
    np.testing.assert_allclose(np.moveaxis(y, 1, -1), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_groups_of_a_transposed_convolution(net, groups) -> None:
    model = net(
        f"g (float[3,8,2,3] x) => (float[a,b,c,d] y) {{ [c] y = ConvTranspose <group={groups}> (x, w) }}",
        w=(8, 6 // groups, 1, 1),
    )
    consumer, weight = _consumer(model)
    blocks = as_blocks(consumer, weight)
    assert blocks.shape == (groups, 6 // groups, 8 // groups, 1)
    x, y = _given(model)
    expected = _contracted(np.moveaxis(x, 1, -1), blocks[..., 0])
    np.testing.assert_allclose(np.moveaxis(y, 1, -1), expected, rtol=1e-4, atol=1e-5)


def test_taps_of_a_kernel_are_row_major(net) -> None:
    """A kernel as large as its map: one position, whose patch is the whole map."""
    model = net("g (float[3,4,2,3] x) => (float[a,b,c,d] y) { [c] y = Conv (x, w) }", w=(5, 4, 2, 3))
    consumer, weight = _consumer(model)
    blocks = as_blocks(consumer, weight)
    assert blocks.shape == (1, 5, 4, 6)
    x, y = _given(model)
    expected = np.einsum("nit,oit->no", x.reshape(3, 4, 6), blocks[0])
    np.testing.assert_allclose(y[:, :, 0, 0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "weight"),
    [
        ("[m] y = MatMul(x, w)", (8, 5)),
        ("[m] y = Gemm(x, w)", (8, 5)),
        ("[m] y = Gemm <transB=1> (x, w)", (5, 8)),
        ("[t] t = Transpose <perm=[1,0]> (w)\n[m] y = MatMul(x, t)", (5, 8)),
        ("[t] t = Transpose <perm=[1,0]> (w)\n[m] y = Gemm <transB=1> (x, t)", (8, 5)),
    ],
)
def test_products_however_their_matrix_lies(net, text, weight) -> None:
    model = net(f"g (float[3,8] x) => (float[a,b] y) {{ {text} }}", w=weight)
    consumer, view = _consumer(model)
    blocks = as_blocks(consumer, view)
    assert blocks.shape == (1, 5, 8, 1)
    x, y = _given(model)
    np.testing.assert_allclose(y, x @ blocks[0, :, :, 0].T, rtol=1e-4, atol=1e-5)


def test_a_matrix_on_the_left(net) -> None:
    model = net("g (float[8,3] x) => (float[a,b] y) { [m] y = MatMul(w, x) }", w=(5, 8))
    consumer, view = _consumer(model)
    blocks = as_blocks(consumer, view)
    x, y = _given(model)
    np.testing.assert_allclose(y, blocks[0, :, :, 0] @ x, rtol=1e-4, atol=1e-5)


def test_a_stack_of_matrices_is_blocks(net) -> None:
    model = net("g (float[4,3,8] x) => (float[a,b,c] y) { [m] y = MatMul(x, w) }", w=(4, 8, 5))
    consumer, view = _consumer(model)
    blocks = as_blocks(consumer, view)
    assert blocks.shape == (4, 5, 8, 1)
    x, y = _given(model)
    np.testing.assert_allclose(y, np.einsum("bni,boi->bno", x, blocks[..., 0]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "image", "weight"),
    [
        ("y = Conv <group=2> (x, w)", "3,8,4,4", (6, 4, 3, 2)),
        ("y = ConvTranspose <group=2> (x, w)", "3,8,4,4", (8, 3, 3, 2)),
        ("y = Gemm <transB=1> (x, w)", "3,8", (5, 8)),
        ("t = Transpose <perm=[1,0]> (w)\n[m] y = MatMul(x, t)", "3,8", (5, 8)),
        ("y = MatMul(x, w)", "4,3,8", (4, 8, 5)),
    ],
)
def test_they_are_put_back_where_they_were(net, text, image, weight) -> None:
    axes = ",".join("abcd"[: image.count(",") + 1])
    model = net(f"g (float[{image}] x) => (float[{axes}] y) {{ [n] {text} }}", w=weight)
    consumer, view = _consumer(model)
    np.testing.assert_array_equal(from_blocks(consumer, as_blocks(consumer, view)), view)
