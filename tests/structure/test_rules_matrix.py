"""Matrix products beyond the plain ones: stacks of constants, fused operators, constants on the left, no constants."""

from __future__ import annotations

import numpy as np
import pytest

EXPERTS = """g (float[5,6] x) => (float[a,b,c] y) {
    [m1] h = MatMul(x, w1)
    [a] a = Add(h, b1)
    [r] r = Tanh(a)
    [m2] y = MatMul(r, w2)
}"""


def test_hidden_units_of_a_stack_of_experts_go_in_all_experts(net, holds):
    """All experts read the same tokens: the first stack makes the axis of experts, which is the graph's output."""
    model = net(EXPERTS, w1=(4, 6, 8), b1=(4, 1, 8), w2=(4, 8, 7))
    structure = holds(model, {"m1": 8})
    assert [len(group.carriers) for group in structure.prunable] == [1]
    assert structure.prunable[0].consumers[0].stack == (0,)


def test_matmul_with_a_stack_reads_what_one_matrix_makes(net, holds):
    model = net(
        """g (float[4,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [stack] v = MatMul(h, experts)
            [m2] y = MatMul(v, w2)
        }""",
        w1=(6, 8), experts=(4, 8, 7), w2=(7, 3),
    )  # fmt: skip
    holds(model, {"m1": 8, "stack": 7})


def test_experts_that_are_weighed_and_summed_are_units_too(net, holds):
    """Einsum-free soft mixture: gates [n, e] times what the experts say [e, n, d], summed over e by a product."""
    model = net(
        """g (float[5,6] x) => (float[a,b] y) {
            [g] g = MatMul(x, wg)
            [s] s = Sigmoid(g)
            [sx] sx = Unsqueeze(s, one)
            [m1] h = MatMul(x, w1)
            [r] r = Tanh(h)
            [m2] v = MatMul(r, w2)
            [t] t = Transpose <perm=[1,0,2]> (v)
            [c] c = MatMul(sx, t)
            [q] q = Squeeze(c, one)
            [m3] y = MatMul(q, w3)
        }""",
        wg=(6, 4), w1=(4, 6, 8), w2=(4, 8, 7), w3=(7, 3), one=np.array([1]),
    )  # fmt: skip
    holds(model, {"g": 4, "m1": 8, "m2": 7})


@pytest.mark.parametrize("perm", ["", "t"])
def test_a_stack_on_the_left_and_one_that_is_turned(net, holds, perm):
    turned = "[k] k = Transpose <perm=[0,2,1]> (w2)" if perm else "[k] k = Identity(w2)"
    model = net(
        f"""g (float[2,6,5] x) => (float[a,b,c,d] y) {{
            [u] u = Unsqueeze(x, one)
            [m1] h = MatMul(w1, u)
            [r] r = Tanh(h)
            {turned}
            [m2] y = MatMul(k, r)
        }}""",
        w1=(4, 8, 6), w2=(4, 8, 7) if perm else (4, 7, 8), one=np.array([1]),
    )  # fmt: skip
    holds(model, {"m1": 8})


def test_a_stack_of_which_only_some_axes_are_met_freezes_what_it_contracts(net, refuses):
    model = net(
        """g (float[1,3,5,6] x) => (float[a,b,c,d] y) {
            [m1] h = MatMul(x, w1)
            [m2] y = MatMul(h, w2)
        }""",
        w1=(6, 8), w2=(2, 3, 8, 7),
    )  # fmt: skip
    refuses(model, {"m1": "contracts this axis with a stack of constants"})


@pytest.mark.parametrize("attributes", ["alpha=0.5", "alpha=2.0, transB=1", "transA=1", "transA=1, transB=1"])
def test_a_fused_product_with_a_constant(net, holds, attributes):
    turn = "[t] k = Transpose <perm=[0,2,1]> (r)" if "transA" in attributes else "[t] k = Identity(r)"
    model = net(
        f"""g (float[2,5,6] x) => (float[a,b,c] y) {{
            [m1] h = com.microsoft.FusedMatMul <alpha=0.25> (x, w1)
            [r] r = Tanh(h)
            {turn}
            [m2] y = com.microsoft.FusedMatMul <{attributes}> (k, w2)
        }}""",
        domains=', "com.microsoft" : 1',
        w1=(6, 8), w2=(7, 8) if "transB" in attributes else (8, 7),
    )  # fmt: skip
    holds(model, {"m1": 8})


def test_a_fused_product_of_activations(net, holds):
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [q] q = MatMul(x, wq)
            [k] k = MatMul(x, wk)
            [s] y = com.microsoft.FusedMatMul <alpha=0.5, transB=1> (q, k)
        }""",
        domains=', "com.microsoft" : 1', wq=(6, 8), wk=(6, 8),
    )  # fmt: skip
    holds(model, {"q": 8})


def test_a_fused_product_that_moves_its_batch_is_a_barrier(net, refuses):
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [m2] y = com.microsoft.FusedMatMul <transBatchA=1> (h, w2)
        }""",
        domains=', "com.microsoft" : 1', w1=(6, 8), w2=(8, 7),
    )  # fmt: skip
    refuses(model, {"m1": "moves its batch axes"})


def test_a_fused_gemm(net, holds):
    model = net(
        """g (float[5,6] x) => (float[a,b] y) {
            [g1] h = com.microsoft.FusedGemm <activation="Relu", transB=1> (x, w1, b1)
            [g2] y = com.microsoft.FusedGemm <activation="LeakyRelu", activation_alpha=0.1, alpha=0.5> (h, w2, b2)
        }""",
        domains=', "com.microsoft" : 1', w1=(8, 6), b1=(8,), w2=(8, 7), b2=(7,),
    )  # fmt: skip
    holds(model, {"g1": 8})


def test_a_gemm_whose_first_factor_is_constant(net, holds):
    model = net(
        """g (float[6,5] x) => (float[a,b] y) {
            [g1] h = Gemm(w1, x, b1)
            [r] r = Relu(h)
            [g2] y = Gemm <transA=1, alpha=0.5> (w2, r)
        }""",
        w1=(8, 6), b1=(8, 1), w2=(8, 7),
    )  # fmt: skip
    holds(model, {"g1": 8})


def test_a_gemm_of_two_activations(net, holds):
    model = net(
        """g (float[5,6] x) => (float[a,b] y) {
            [m1] q = MatMul(x, w1)
            [m2] k = MatMul(x, w2)
            [g] y = Gemm <transB=1> (q, k, b)
        }""",
        w1=(6, 8), w2=(6, 8), b=(5,),
    )  # fmt: skip
    holds(model, {"m1": 8})


@pytest.mark.parametrize("op", ["MatMul", "Gemm"])
def test_a_vector_is_refused(net, refuses, op):
    if op == "Gemm":
        pytest.skip("Gemm takes matrices only")
    model = net(
        """g (float[5,6] x) => (float[a] y) {
            [m1] h = MatMul(x, w1)
            [m2] y = MatMul(h, v)
        }""",
        w1=(6, 8), v=(8,),
    )  # fmt: skip
    refuses(model, {"m1": "multiplies a vector"})
