"""What is not understood freezes what it touches, with a reason that names it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest


def test_an_operator_without_a_rule(between, refuses):
    text = '[e] e = Einsum <equation="nchw,nchw,nchw->nchw"> (h, h, h)\n[m] r = Mul(e, h)'
    refuses(between(text), {"c1": "Einsum 'e' contracts by an equation"})


def test_an_operator_of_another_domain(between, refuses):
    text = "[e] r = com.microsoft.Inverse (h)"
    refuses(between(text, domains=', "com.microsoft" : 1'), {"c1": "Inverse 'e' mixes all entries of a matrix"})


def test_behind_a_barrier_pruning_goes_on(between, holds):
    text = '[e] e = Einsum <equation="nchw,nchw,nchw->nchw"> (h, h, h)\n[c3] g = Conv(e, w3)\n[t] r = Tanh(g)'
    holds(between(text, w3=(8, 8, 1, 1)), {"c3": 8})


def test_behind_a_barrier_of_unknown_shape_all_is_frozen(between, refuses):
    text = """[n] n = Unique(h)
                [m] m = ReduceMax <keepdims=0> (n)
                [a] a = Add(h, m)
                [c3] g = Conv(a, w3)
                [t] r = Tanh(g)"""
    refuses(between(text, w3=(8, 8, 1, 1)), {"c1": "Unique 'n' picks entries by their values"}, allowed=["c3"])


def test_a_graph_output_on_the_way(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y, float[e,f,g,h] t) {
            [c1] h = Conv(x, w1)
            [r] t = Relu(h)
            [c2] u = Conv(t, w2)
            [c3] y = Conv(u, w3)
        }""",
        w1=(8, 3, 1, 1), w2=(6, 8, 1, 1), w3=(4, 6, 1, 1),
    )  # fmt: skip
    structure = holds(model, {"c2": 6})
    assert structure.frozen[0].reasons == ("graph output 't'",)


def test_two_heads(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y, float[e,f] z) {
            [c1] h = Conv(x, w1)
            [c2] y = Conv(h, w2)
            [p] p = GlobalAveragePool(h)
            [f] f = Flatten(p)
            [fc] z = Gemm(f, w3)
        }""",
        w1=(8, 3, 1, 1), w2=(6, 8, 1, 1), w3=(8, 5),
    )  # fmt: skip
    holds(model, {"c1": 8})


def test_units_that_nothing_reads(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [c2] u = Conv(h, w2)
            [p] p = Transpose(u)
            [c3] y = Conv(h, w3)
        }""",
        w1=(8, 3, 1, 1), w2=(6, 8, 1, 1), w3=(4, 8, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 8})


def _with_if(net, body: str, **weights):
    return net(
        f"""g (float[2,3,5,5] x, bool c) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1, b1)
            [if] i = If (c) <then_branch = t () => (float[e,f,g,h] to) {{ {body} }},
                             else_branch = e () => (float[i,j,k,l] eo) {{ eo = Identity(x) }}>
            [p] p = ReduceMax <keepdims=0> (i)
            [c2] v = Conv(h, w2, b1)
            [m] m = Add(v, p)
            [c3] y = Conv(m, w3)
        }}""",
        w1=(8, 3, 1, 1), b1=(8,), w2=(8, 8, 1, 1), w3=(4, 8, 1, 1), **weights,
    )  # fmt: skip


def test_an_activation_read_inside_a_branch_freezes(net, holds):
    structure = holds(_with_if(net, "to = Relu(h)"), {"c2": 8})
    assert structure.frozen[0].reasons == ("If 'if' reads it in a body",)


def test_branches_of_different_sizes_freeze_what_they_give(net, holds):
    """The branch is hoisted, its weight is one of the main graph: what it reads is free, what it gives is not."""
    structure = holds(_with_if(net, "to = Conv(h, w2)"), {"c1": 8})
    reasons = [group.reasons for group in structure.frozen if group.size == 8]
    assert reasons == [("the branches of If 'if' give tensors of different sizes",)]


def test_a_bias_read_inside_a_branch_stays_whole_there(net, holds):
    """The branch keeps the dense bias; the layers outside get slices of their own."""
    model = _with_if(net, "s = ReduceSum <keepdims=0> (b1)\nto = Add(x, s)")
    holds(model, {"c1": 8, "c2": 8})


def test_an_activation_read_inside_a_loop_freezes(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [g] s = ReduceMax <keepdims=0> (x)
            [loop] l = Loop (n, , s) <body = b (int64 i, bool k, float a) => (bool k2, float o) {
                k2 = Identity(k)
                top = ReduceMax <keepdims=0> (h)
                o = Add(a, top)
            }>
            [r] q = Reshape(l, none)
            [c2] v = Conv(h, w2)
            [m] m = Add(v, q)
            [c3] y = Conv(m, w3)
        }""",
        w1=(8, 3, 1, 1), w2=(6, 8, 1, 1), w3=(4, 6, 1, 1), n=np.array(2), none=np.zeros(0, np.int64),
    )  # fmt: skip
    structure = holds(model, {"c2": 6})
    assert structure.frozen[0].reasons == ("Loop 'loop' reads it in a body",)


def test_a_shape_that_the_file_states_wrongly_freezes(between, refuses):
    model = between("[p] p = MaxPool <kernel_shape=[2,2]> (h)\n[q] r = Relu(p)")
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("p", onnx.TensorProto.FLOAT, [2, 8, 9, 9]))
    refuses(model, {"c1": "was expected to give 2x8x5x6 entries"})


@pytest.mark.parametrize("bilinear", ["MatMul", "Mul"])
def test_an_outer_product_of_the_channels(net, holds, bilinear):
    """Bilinear pooling: the axis of C x C entries names each unit twice."""
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [u] u = Unsqueeze(h, one)
            [v] v = Unsqueeze(h, two)
            [p] p = OP(v, u)
            [f] f = Flatten(p)
            [m2] y = MatMul(f, w2)
        }""".replace("OP", bilinear),
        w1=(6, 5), w2=(25, 3), one=np.array([1]), two=np.array([2]),
    )  # fmt: skip
    holds(model, {"m1": 5})


def test_a_quantised_node_says_what_to_do(between, refuses):
    model = between(
        "[q] q = QuantizeLinear(h, s, z)\n[d] r = DequantizeLinear(q, s, z)", s=np.float32(0.02), z=np.uint8(128)
    )
    refuses(model, {"c1": "QuantizeLinear 'q' is quantised: prune the float model before quantising"})
