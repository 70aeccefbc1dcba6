"""Which layers are fitted at once, and that each step comes after those that its inputs are made from."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest

from onnx_subprune.model import array_of
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import find_linears
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.recovery.exact.steps import Step, steps_of


def _steps(model: onnx.ModelProto, **settings: bool) -> list[Step]:
    linears, _ = find_linears(model)
    return steps_of(model, linears, Surroundings(model, model), Settings(**settings))


def _names(steps: Sequence[Step]) -> list[list[str]]:
    return [[linear.name for linear in step.linears] for step in steps]


QUERIES = """g (float[N,5,4] x) => (float[a,b,c] y) {
    [q] q = MatMul(x, wq)
    [k] k = MatMul(x, wk)
    [v] v = MatMul(x, wv)
    [m] m = Mul(q, k)
    [n] n = Mul(m, v)
    [o] y = MatMul(n, wo)
}"""
FOUR = {"wq": (4, 4), "wk": (4, 4), "wv": (4, 4), "wo": (4, 4)}


def test_layers_that_read_the_same_are_one_step(net) -> None:
    assert _names(_steps(net(QUERIES, **FOUR))) == [["q", "k", "v"], ["o"]]


def test_with_and_without_a_bias_they_are_apart(net) -> None:
    """Either all biases of a step change or none."""
    text = QUERIES.replace("[k] k = MatMul(x, wk)", "[k] k0 = MatMul(x, wk)\n[b] k = Add(k0, b)")
    steps = _steps(net(text, b=(4,), **FOUR))
    assert _names(steps) == [["q", "v"], ["k"], ["o"]]
    assert [step.affine for step in steps] == [False, True, False]


def test_a_layer_that_is_added_to_a_shortcut_is_alone(net) -> None:
    text = QUERIES.replace("[n] n = Mul(m, v)", "[a] a = Add(v, x)\n[n] n = Mul(m, a)")
    model = net(text, **FOUR)
    assert _names(_steps(model)) == [["q", "k"], ["v"], ["o"]]
    # In one pass shortcuts do not drift.
    assert _names(_steps(model, sequential=False)) == [["q", "k", "v"], ["o"]]


def test_a_layer_before_a_normalisation_is_alone(net) -> None:
    text = QUERIES.replace("[n] n = Mul(m, v)", "[l] l = LayerNormalization(v, s)\n[n] n = Mul(m, l)")
    assert _names(_steps(net(text, s=(4,), **FOUR))) == [["q", "k"], ["v"], ["o"]]


def test_groups_of_a_convolution_are_alone(net) -> None:
    text = """g (float[N,4,5,5] x) => (float[a,b,c,d] y) {
        [c1] h = Conv <group=2> (x, w1)
        [c2] k = Conv (x, w2)
        [c3] l = Conv (x, w3)
        [s] y = Sum(h, k, l)
    }"""
    assert _names(_steps(net(text, w1=(6, 2, 1, 1), w2=(6, 4, 1, 1), w3=(6, 4, 1, 1)))) == [["c1"], ["c2", "c3"]]


SIAMESE = """g (float[N,4] x, float[M,4] z) => (float[a,b] y) {
    [m1] h = MatMul(x, w)
    [r] r = Relu(z)
    [k] k = MatMul(r, v)
    [m2] l = MatMul(k, w)
    [s] s = MatMul(h, u)
    [t] t = MatMul(l, u)
    [y] y = Add(s, t)
}"""


def test_a_shared_weight_waits_for_all_that_its_readers_read(net) -> None:
    steps = _steps(net(SIAMESE, w=(4, 4), v=(4, 4), u=(4, 4)))
    assert _names(steps) == [["k"], ["m1", "m2"], ["s", "t"]]
    assert [step.shared for step in steps] == [False, True, True]
    assert not any(step.beside for step in steps)
    assert steps[1].sources == ("x", "k")
    assert [[linear.name for linear in reader] for reader in steps[1].readers] == [["m1"], ["m2"]]


def test_a_weight_that_reads_what_it_made_takes_the_dense_values(net) -> None:
    text = """g (float[N,4] x) => (float[a,b] y) {
        [m1] h = MatMul(x, w)
        [r] r = Relu(h)
        [m2] k = MatMul(r, w)
        [m3] y = MatMul(k, v)
    }"""
    steps = _steps(net(text, w=(4, 4), v=(4, 4)))
    assert _names(steps) == [["m1", "m2"], ["m3"]]
    assert [step.beside for step in steps] == [True, False]


def test_two_weights_that_read_each_other_cannot_both_wait(net) -> None:
    text = """g (float[N,4] x) => (float[a,b] y) {
        [a1] h = MatMul(x, w)
        [b1] k = MatMul(h, v)
        [a2] l = MatMul(k, w)
        [b2] m = MatMul(l, v)
        [o] y = MatMul(m, u)
    }"""
    steps = _steps(net(text, w=(4, 4), v=(4, 4), u=(4, 4)))
    assert _names(steps) == [["a1", "a2"], ["b1", "b2"], ["o"]]
    assert [step.beside for step in steps] == [True, True, False]


def test_what_a_body_reads_is_waited_for(net) -> None:
    """The choice reads h inside its branch: the shared weight behind it comes after the layer that makes h."""
    text = """g (float[N,4] x, bool c) => (float[a,b] y) {
        [m1] p = MatMul(x, w)
        [m0] h = MatMul(x, v)
        [i] i = If (c) <then_branch = t () => (float[d,e] ty) { ty = Relu(h) },
                        else_branch = f () => (float[g0,k] ey) { ey = Identity(x) }>
        [m2] q = MatMul(i, w)
        [y] y = Add(p, q)
    }"""
    assert _names(_steps(net(text, w=(4, 4), v=(4, 4)))) == [["m0"], ["m1", "m2"]]


def test_weights_and_biases_of_a_step(net) -> None:
    text = """g (float[N,4] x) => (float[a,b] y, float[c,d] z) {
        [g1] y = Gemm(x, w1, b1)
        [g2] z = Gemm <transB=1> (x, w2, b2)
    }"""
    model = net(text, w1=(4, 3), w2=(2, 4), b1=(3,), b2=(2,))
    (step,) = _steps(model)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    arrays = {name: array_of(tensor).astype(np.float64) for name, tensor in stored.items()}
    np.testing.assert_array_equal(step.matrices(stored)[0], np.concatenate([arrays["w1"].T, arrays["w2"]]))
    np.testing.assert_array_equal(step.intercepts(stored)[0], np.concatenate([arrays["b1"], arrays["b2"]]))
    assert (step.affine, step.biases, step.stored_bytes(stored)) == (True, 1, 4)


@pytest.mark.parametrize(("second", "biases"), [("b", 1), ("c", 2)])
def test_a_shared_weight_has_one_bias_or_one_for_each_reader(net, second, biases) -> None:
    text = f"""g (float[N,4] x, float[M,4] z) => (float[a,b0] y, float[c0,d] v) {{
        [g1] y = Gemm(x, w, b)
        [g2] v = Gemm(z, w, {second})
    }}"""
    model = net(text, w=(4, 3), b=(3,), **({"c": (3,)} if second == "c" else {}))
    (step,) = _steps(model)
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    assert (step.shared, step.biases) == (True, biases)
    assert step.matrices(stored).shape == (1, 3, 4)
    expected = [array_of(stored["b"])[None], array_of(stored[second])[None]]
    np.testing.assert_array_equal(step.intercepts(stored), expected[0] if biases == 1 else np.stack(expected))
