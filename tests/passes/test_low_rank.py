"""Layers written as two of a smaller rank: with full factors nothing changes, and a shift goes into the bias."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.model import constant_values, to_graph, to_model
from onnx_subprune.passes import LowRank
from onnx_subprune.structure import layers_of
from onnx_subprune.subspace import Factors


def factors(layer, rank=None, shift=None):
    """Return a singular value decomposition of the layer's matrix."""
    u, s, v = np.linalg.svd(layer.matrix(constant_values), full_matrices=False)
    first, second = (s[:rank, None] * v[:rank]), u[:, :rank]
    return Factors(first, second, np.zeros(layer.outputs) if shift is None else shift)


LAYERS = {
    "Conv": ("y = Conv <strides=[2,1], pads=[1,0,1,2], dilations=[1,2]> (x, w, b)", (7, 3, 3, 3), "2,3,9,9", 1),
    "Conv without a bias": ("y = Conv(x, w)", (6, 3, 3, 1), "2,3,9,9", 1),
    "MatMul": ("h = MatMul(x, w)\ny = Add(h, b)", (5, 7), "2,4,5", -1),
    "MatMul from the left": ("y = MatMul(w, x)", (7, 5), "2,5,4", -2),
    "Gemm": ("y = Gemm <alpha=0.5, beta=2.0> (x, w, b)", (5, 7), "4,5", -1),
    "Gemm turned": ("y = Gemm <transB=1> (x, w, b)", (7, 5), "4,5", -1),
}


@pytest.fixture
def layer_model(build, draw):
    def make(name, opset=17):
        text, shape, sizes, _ = LAYERS[name]
        bias = {"b": draw(7)} if "b)" in text else {}
        line = text.replace("y = ", "[it] y = ", 1) if "h = " not in text else text.replace("h = ", "[it] h = ", 1)
        rank = len(sizes.split(","))
        given = ",".join("abcd"[:rank])
        return build(f"g (float[{sizes}] x) => (float[{given}] y) {{ {line} }}", opset=opset, w=draw(*shape), **bias)

    return make


@pytest.fixture
def cut(structured):
    def cut(model, **options):
        structure = structured(model)
        result = LowRank(structure, {"it": lambda layer: factors(layer, **options)})(structure.graph)
        assert result.modified
        return to_model(structure.graph, model)

    return cut


@pytest.mark.parametrize("name", LAYERS)
def test_at_full_rank_nothing_changes(layer_model, cut, same_outputs, name):
    model = layer_model(name)
    after = cut(model)
    assert [node.name for node in after.graph.node][:2] == ["it_first", "it"]
    same_outputs(model, after)


@pytest.mark.parametrize("name", LAYERS)
def test_a_smaller_rank_is_two_smaller_weights(layer_model, cut, name):
    model = layer_model(name)
    after = cut(model, rank=2)
    sizes = {tensor.name: tuple(tensor.dims) for tensor in after.graph.initializer}
    assert "w" not in sizes
    for which in ("w_first", "w_second"):
        assert 2 in sizes[which]
    assert np.prod(sizes["w_first"]) + np.prod(sizes["w_second"]) < np.prod(LAYERS[name][1]) + 40


@pytest.mark.parametrize("name", LAYERS)
def test_a_shift_is_added_to_every_output(layer_model, cut, outputs, draw, name):
    model = layer_model(name)
    shift = np.arange(1.0, 1.0 + (6 if "without" in name else 7))
    after = cut(model, shift=shift)
    x = draw(*(int(size) for size in LAYERS[name][2].split(",")), seed=3)
    (dense,), (shifted,) = (outputs(each, x=x) for each in (model, after))
    along = [1] * dense.ndim
    along[LAYERS[name][3]] = -1
    # A Gemm scales its product, and the shift with it.
    scale = 0.5 if name == "Gemm" else 1.0
    np.testing.assert_allclose(shifted - dense, np.broadcast_to(scale * shift.reshape(along), dense.shape), atol=1e-4)


def test_opsets_in_which_a_gemm_needs_a_summand(build, draw, cut, same_outputs):
    model = build("g (float[4,5] x) => (float[a,b] y) { [it] y = Gemm(x, w, b) }", opset=9, w=draw(5, 7), b=draw(7))
    after = cut(model)
    assert len(after.graph.node[0].input) == 3
    same_outputs(model, after)


def test_weights_behind_a_cast_are_stored_in_their_own_type(build, draw, cut, outputs):
    model = build(
        "g (float[4,5] x) => (float[a,b] y) { w = Cast <to=1> (half) [it] y = MatMul(x, w) }",
        half=draw(5, 7).astype(np.float16),
    )  # fmt: skip
    after = cut(model)
    assert {tensor.data_type for tensor in after.graph.initializer if len(tensor.dims) == 2} == {10}
    x = draw(4, 5, seed=3)
    (dense,), (found,) = (outputs(each, x=x) for each in (model, after))
    np.testing.assert_allclose(found, dense, atol=2e-2)


def test_values_are_stored_where_the_caller_says(layer_model, structured):
    model = layer_model("MatMul")
    structure = structured(model)
    kept = []

    def store(values):
        kept.append(values.shape)
        return values

    LowRank(structure, {"it": lambda layer: factors(layer, rank=3)}, store)(structure.graph)
    assert sorted(kept) == [(3, 7), (5, 3)]


def test_a_layer_that_cannot_be_cut_and_another_graph_are_refused(layer_model, structured):
    model = layer_model("MatMul")
    structure = structured(model)
    (refusal,) = LowRank(structure, {"nobody": factors})(structure.graph).refusals
    assert "'nobody' cannot be factorised" in refusal
    (refusal,) = LowRank(structure, {"it": factors})(to_graph(model)).refusals
    assert "another graph" in refusal
    assert to_model(structure.graph, model).graph.node == model.graph.node
    assert [layer.name for layer in layers_of(structure)[0]] == ["it"]
