"""Branches whose units are all gone: a constant of the bias takes their place, and everything upstream goes."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.model import to_graph, to_model
from onnx_subprune.passes import DropBranches, RewriteShapes, Shrink, Tidy
from onnx_subprune.structure import emptied

RESIDUAL = """g (float[2,3,5,5] x) => (float[2,2,5,5] y) {
    [c0] h = Conv(x, w0)
    [c1] a = Conv(h, w1, b1)
    [r1] r = Relu(a)
    [c2] b = Conv(r, w2, b2)
    [s] s = Add(h, b)
    [r2] t = Relu(s)
    [c3] y = Conv(t, w3)
}"""


@pytest.fixture
def without(structured):
    """`without(model, group, ...)`: the model without these groups, whole, and the pass that dropped them."""

    def drop(model, *names):
        structure = structured(model)
        keeps = {g.atom: np.zeros(g.size, bool) for g in structure.prunable if g.name in names}
        assert len(keeps) == len(names)
        removal = structure.branches.removal(emptied(keeps))
        assert removal.reason is None
        structure.branches.close()
        RewriteShapes(structure, keeps)(structure.graph)
        Shrink(structure, keeps)(structure.graph)
        surgery = DropBranches(structure, keeps, removal)
        assert surgery(structure.graph).modified
        Tidy(surgery.bypassed)(structure.graph)
        return to_model(structure.graph, model), surgery

    return drop


def operators(model):
    return [node.op_type for node in model.graph.node]


def test_a_residual_branch_leaves_its_bias(build, draw, without, outputs):
    w0, w2, b2, w3 = draw(4, 3, 1, 1), draw(4, 6, 1, 1, seed=2), draw(4, seed=3), draw(2, 4, 1, 1, seed=4)
    model = build(RESIDUAL, w0=w0, w1=draw(6, 4, 3, 3)[:, :, 1:2, 1:2].copy(), b1=draw(6), w2=w2, b2=b2, w3=w3)
    after, surgery = without(model, "c1")
    assert operators(after) == ["Conv", "Add", "Relu", "Conv"]
    assert "b" in surgery.constants
    x = draw(2, 3, 5, 5, seed=7)
    (y,) = outputs(after, x=x)
    t = np.maximum(np.einsum("oi,nihw->nohw", w0[:, :, 0, 0], x) + b2[:, None, None], 0)
    np.testing.assert_allclose(y, np.einsum("oi,nihw->nohw", w3[:, :, 0, 0], t), rtol=1e-5, atol=1e-6)


def test_without_a_bias_zeros_are_left(build, draw, without, outputs):
    text = RESIDUAL.replace("(r, w2, b2)", "(r, w2)")
    w0, w3 = draw(4, 3, 1, 1), draw(2, 4, 1, 1, seed=4)
    model = build(text, w0=w0, w1=draw(6, 4, 1, 1), b1=draw(6), w2=draw(4, 6, 1, 1), w3=w3)
    after, _ = without(model, "c1")
    x = draw(2, 3, 5, 5, seed=7)
    (y,) = outputs(after, x=x)
    t = np.maximum(np.einsum("oi,nihw->nohw", w0[:, :, 0, 0], x), 0)
    np.testing.assert_allclose(y, np.einsum("oi,nihw->nohw", w3[:, :, 0, 0], t), rtol=1e-5, atol=1e-6)


def test_an_empty_piece_of_a_concat_is_left_out(build, draw, without, outputs):
    w2, w3 = draw(5, 3, 1, 1, seed=2), draw(2, 9, 1, 1, seed=4)
    model = build(
        """g (float[2,3,5,5] x) => (float[2,2,5,5] y) {
            [c1] a = Conv(x, w1)
            [c2] b = Conv(x, w2)
            [j] j = Concat <axis=1> (a, b)
            [c3] y = Conv(j, w3)
        }""",
        w1=draw(4, 3, 1, 1), w2=w2, w3=w3,
    )  # fmt: skip
    after, surgery = without(model, "c1")
    assert operators(after) == ["Conv", "Conv"]
    assert surgery.bypassed == {"j"}
    x = draw(2, 3, 5, 5, seed=7)
    (y,) = outputs(after, x=x)
    b = np.einsum("oi,nihw->nohw", w2[:, :, 0, 0], x)
    np.testing.assert_allclose(y, np.einsum("oi,nihw->nohw", w3[:, 4:, 0, 0], b), rtol=1e-5, atol=1e-6)


def test_a_gemm_leaves_beta_times_its_bias(build, draw, without, outputs):
    b2, w3 = draw(4, seed=3), draw(4, 2, seed=4)
    w0 = draw(3, 4)
    model = build(
        """g (float[2,3] x) => (float[2,2] y) {
            [m0] h = MatMul(x, w0)
            [m1] a = MatMul(h, w1)
            [g] b = Gemm <beta=0.5> (a, w2, b2)
            s = Add(h, b)
            [m3] y = MatMul(s, w3)
        }""",
        w0=w0, w1=draw(4, 6), w2=draw(6, 4), b2=b2, w3=w3,
    )  # fmt: skip
    after, _ = without(model, "m1")
    x = draw(2, 3, seed=7)
    (y,) = outputs(after, x=x)
    np.testing.assert_allclose(y, (x @ w0 + 0.5 * b2) @ w3, rtol=1e-5, atol=1e-6)


def test_a_removal_that_is_impossible_and_another_graph_are_refused(build, draw, structured):
    model = build(RESIDUAL, w0=draw(4, 3, 1, 1), w1=draw(6, 4, 1, 1), b1=draw(6), w2=draw(4, 6, 1, 1), b2=draw(4),
                  w3=draw(2, 4, 1, 1))  # fmt: skip
    structure = structured(model)
    stream = next(group for group in structure.prunable if group.size == 4)
    keeps = {stream.atom: np.zeros(4, bool)}
    impossible = structure.branches.removal(emptied(keeps))
    (refusal,) = DropBranches(structure, keeps, impossible)(structure.graph).refusals
    assert impossible.reason is not None
    assert impossible.reason in refusal
    (refusal,) = DropBranches(structure, keeps, impossible)(to_graph(model)).refusals
    assert "another graph" in refusal
