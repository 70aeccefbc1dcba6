"""A correction goes into the weight and the bias of any linear map: the output is that of the map of its features."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import to_model
from onnx_subprune.passes import FoldCorrections
from onnx_subprune.passes.fold_corrections import GiveBiases
from onnx_subprune.subspace import Fit

# Every consumer reads eight features of `h` and gives three values; the axis of the features.
SPELLINGS = {
    "MatMul": ("y = MatMul(h, w)", {"w": (8, 3)}, "5,8", -1),
    "MatMul and its Add": ("p = MatMul(h, w)\ny = Add(p, b)", {"w": (8, 3), "b": (3,)}, "5,8", -1),
    "MatMul and another Add": ("p = MatMul(h, w)\ny = Add(p, b)", {"w": (8, 3), "b": (5, 3)}, "5,8", -1),
    "MatMul from the left": ("y = MatMul(w, h)", {"w": (3, 8)}, "8,5", -2),
    "Gemm": ("y = Gemm(h, w)", {"w": (8, 3)}, "5,8", -1),
    "Gemm with a bias": ("y = Gemm <alpha=0.5, beta=2.0> (h, w, b)", {"w": (8, 3), "b": (3,)}, "5,8", -1),
    "Gemm with one number": ("y = Gemm <transB=1> (h, w, b)", {"w": (3, 8), "b": (1,)}, "5,8", -1),
    "Gemm with a bias for each row": ("y = Gemm(h, w, b)", {"w": (8, 3), "b": (5, 3)}, "5,8", -1),
    "Gemm with a number for each row": ("y = Gemm(h, w, b)", {"w": (8, 3), "b": (5, 1)}, "5,8", -1),
    "Gemm without its bias": ("y = Gemm <beta=0.0> (h, w, b)", {"w": (8, 3), "b": (3,)}, "5,8", -1),
    "Gemm, a computed bias": ("c = Neg(b)\ny = Gemm(h, w, c)", {"w": (8, 3), "b": (3,)}, "5,8", -1),
    "Conv": ("y = Conv(h, w)", {"w": (3, 8, 1, 1)}, "2,8,4,4", 1),
    "Conv with a bias": ("y = Conv <strides=[2,2]> (h, w, b)", {"w": (3, 8, 2, 2), "b": (3,)}, "2,8,4,4", 1),
    "ConvTranspose": ("y = ConvTranspose(h, w)", {"w": (8, 3, 1, 1)}, "2,8,4,4", 1),
}


@pytest.fixture
def consumer_model(build, draw):
    """`consumer_model(spelling)`: a linear map of 4 to 8 features, and the consumer behind it."""

    def make(spelling):
        text, shapes, sizes, axis = SPELLINGS[spelling]
        dims = sizes.split(",")
        dims[axis] = "4"
        producer = {"-1": "[p] h = MatMul(x, v)", "-2": "[p] h = MatMul(v, x)", "1": "[p] h = Conv(x, v)"}[str(axis)]
        v = {"-1": (4, 8), "-2": (8, 4), "1": (8, 4, 1, 1)}[str(axis)]
        rank = ",".join("abcd"[: len(dims)])
        return build(
            f"g (float[{','.join(dims)}] x) => (float[{rank}] y) {{ {producer}\n{text} }}",
            v=draw(*v), **{name: draw(*shape, seed=2) for name, shape in shapes.items()},
        )  # fmt: skip

    return make


def a_fit(consumer, intercept):
    """Return a map of eight features of which the last three are told from the first five."""
    rng = np.random.default_rng(4)
    removed = rng.standard_normal((3, 5))
    intercepts = np.zeros((1, 8))
    intercepts[0, 5:] = intercept * rng.standard_normal(3)
    return Fit((consumer,), 1, np.arange(8)[None] < 5, (removed,), intercepts, 0.0)


def of_features(fit, h, axis):
    """Return A h + c along an axis."""
    moved = np.moveaxis(h, axis, -1)
    (removed,) = fit.removed
    coefficients = np.concatenate([np.eye(5), removed])
    return np.moveaxis(moved[..., :5] @ coefficients.T + fit.intercepts[0], -1, axis)


@pytest.mark.parametrize("intercept", [0.0, 1.0])
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_consumer_reads_the_map_of_its_features(consumer_model, structured, draw, outputs, spelling, intercept):
    model = consumer_model(spelling)
    structure = structured(model)
    (consumer,) = (each for each in structure.consumers if each.weight.constant.name == "w")
    fit = a_fit(consumer, intercept)
    assert FoldCorrections(structure, [fit])(structure.graph).modified
    corrected = to_model(structure.graph, model)
    x = draw(*(int(size) for size in shape_of(model)), seed=9)
    (y,) = outputs(corrected, x=x)
    # The dense consumer on features that the map gives: the model from `h` on, with `h` in the place of an input.
    axis = SPELLINGS[spelling][3]
    h = producer_of(model)(x)
    (expected,) = outputs(behind(model), h=of_features(fit, h, axis).astype(np.float32))
    np.testing.assert_allclose(y, expected, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_biases_of_ones_are_added(consumer_model, structured, draw, outputs, spelling):
    """Each output gains alpha: the product of a Gemm is scaled with all that is added to it as a bias."""
    model = consumer_model(spelling)
    structure = structured(model)
    consumers = [each for each in structure.consumers if each.weight.constant.name == "w"]
    assert GiveBiases(structure, consumers)(structure.graph).modified
    x = draw(*(int(size) for size in shape_of(model)), seed=9)
    (dense,), (biased,) = (outputs(each, x=x) for each in (model, to_model(structure.graph, model)))
    np.testing.assert_allclose(biased - dense, 0.5 if "alpha" in SPELLINGS[spelling][0] else 1.0, atol=1e-4)


def shape_of(model):
    return [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]


def producer_of(model):
    """Return the first node as a function in NumPy."""
    v = next(onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer if tensor.name == "v")
    node = model.graph.node[0]
    if node.op_type == "Conv":
        return lambda x: np.einsum("oi,nihw->nohw", v[:, :, 0, 0], x)
    return (lambda x: x @ v) if node.input[0] == "x" else (lambda x: v @ x)


def behind(model):
    """Return the model without its first node, with that node's output as its input."""
    rest = onnx.ModelProto()
    rest.CopyFrom(model)
    first = rest.graph.node[0]
    shape = [None] * len(shape_of(model))
    rest.graph.input[0].CopyFrom(onnx.helper.make_tensor_value_info(first.output[0], onnx.TensorProto.FLOAT, shape))
    del rest.graph.node[0]
    return rest
