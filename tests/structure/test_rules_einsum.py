"""Einsum: heads, experts and soft mixtures written in it are found like those in MatMuls."""

from __future__ import annotations

import numpy as np


def test_attention_written_in_einsums(net, holds):
    model = net(
        """g (float[2,5,12] x) => (float[a,b,c] y) {
            [q] q = Einsum <equation="bld,dhe->bhle"> (x, wq)
            [k] k = Einsum <equation="bld,hde->bhle"> (x, wk)
            [v] v = Einsum <equation="bld,dhe->blhe"> (x, wv)
            [s] s = Einsum <equation="bhqe,bhke->bhqk"> (q, k)
            [p] p = Softmax <axis=-1> (s)
            [o] o = Einsum <equation="bhqk,bkhe->bqhe"> (p, v)
            [out] y = Einsum <equation="blhe,hed->bld"> (o, wo)
        }""",
        wq=(12, 3, 4), wk=(3, 12, 4), wv=(12, 3, 6), wo=(3, 6, 12),
    )  # fmt: skip
    holds(model, {"q_matmul": 3, "q_matmul#2": 4, "v_matmul": 6})


def test_a_batch_of_unknown_size(net, holds):
    model = net(
        """g (float[n,t,12] x) => (float[a,b,c] y) {
            [v] v = Einsum <equation="bld,dhe->blhe"> (x, wv)
            [r] r = Tanh(v)
            [out] y = Einsum <equation="blhe,hed->bld"> (r, wo)
        }""",
        wv=(12, 3, 6), wo=(3, 6, 12),
    )  # fmt: skip
    holds(model, {"v_matmul": 3, "v_matmul#2": 6}, {"x": (2, 5, 12)}, run_shapes={"x": (3, 7, 12)})


def test_a_soft_mixture_of_experts(net, holds):
    """Puigcerver et al.: slots dispatch tokens to experts and combine what these say; slots and experts are mixed."""
    model = net(
        """g (float[2,5,12] x) => (float[a,b,c] y) {
            [phi] l = Einsum <equation="bnd,dep->bnep"> (x, wphi)
            [d] d = Softmax <axis=1> (l)
            [in] t = Einsum <equation="bnd,bnep->bepd"> (x, d)
            [up] u = Einsum <equation="bepd,edh->beph"> (t, w1)
            [r] r = Tanh(u)
            [down] o = Einsum <equation="beph,ehd->bepd"> (r, w2)
            [out] m = Einsum <equation="bnep,bepd->bnd"> (d, o)
            [head] y = MatMul(m, w3)
        }""",
        wphi=(12, 3, 2), w1=(3, 12, 8), w2=(3, 8, 12), w3=(12, 7),
    )  # fmt: skip
    structure = holds(model, {"phi_matmul": 3, "phi_matmul#2": 2, "up_matmul": 8, "down_matmul": 12})
    assert [consumer.stack for consumer in structure.prunable[2].consumers] == [(0,)]


def test_gates_of_dense_experts(net, holds):
    model = net(
        """g (float[n,6] x) => (float[a,b] y) {
            [gate] g = Gemm(x, wg)
            [s] s = Sigmoid(g)
            [up] u = Einsum <equation="nd,edh->neh"> (x, w1)
            [r] r = Relu(u)
            [down] o = Einsum <equation="neh,ehd->ned"> (r, w2)
            [mix] m = Einsum <equation="ned,ne->nd"> (o, s)
            [head] y = MatMul(m, w3)
        }""",
        wg=(6, 3), w1=(3, 6, 8), w2=(3, 8, 12), w3=(12, 7),
    )  # fmt: skip
    holds(model, {"gate": 3, "up_matmul": 8, "down_matmul": 12}, {"x": (5, 6)}, run_shapes={"x": (9, 6)})


def test_a_gate_in_an_einsum_without_a_sum(net, holds):
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [c] c = ReduceMean <axes=[1], keepdims=0> (h)
            [e] e = Einsum <equation="bnd,bd->bnd"> (h, c)
            [f] f = Einsum <equation="bnd,d->bnd"> (e, scale)
            [m2] y = MatMul(f, w2)
        }""",
        w1=(6, 8), scale=np.arange(1, 9).astype(np.float32), w2=(8, 7),
    )  # fmt: skip
    holds(model, {"m1": 8})
