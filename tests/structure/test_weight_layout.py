"""Weights that are shared, tied, computed from others or replaceable by the caller."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import open_session, run, to_graph
from onnx_subprune.network.rewrite import shrink
from onnx_subprune.passes import overridable_initializers
from onnx_subprune.pipeline import analyse
from onnx_subprune.structure import infer


def test_a_weight_shared_by_two_convs(net, holds):
    model = net(
        """g (float[2,8,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w)
            [r] r = Tanh(h)
            [c2] u = Conv(r, w2)
            [c3] v = Conv(r, w)
            [a] a = Add(u, v)
            [c4] y = Conv(a, w4)
        }""",
        w=(8, 8, 1, 1), w2=(8, 8, 1, 1), w4=(4, 8, 1, 1),
    )  # fmt: skip
    # c3 contracts the outputs of c1 by the inputs of c1, which are the graph's.
    with pytest.raises(AssertionError, match="graph input 'x'"):
        holds(model, {"c1": 8})


def test_a_weight_shared_by_siblings(net, holds):
    model = net(
        """g (float[2,3,5,5] x, float[2,3,5,5] z) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [c2] k = Conv(z, w1, b1)
            [s] s = Sub(h, k)
            [c3] y = Conv(s, w3)
            }""",
        w1=(8, 3, 1, 1), b1=(8,), w3=(4, 8, 1, 1),
    )  # fmt: skip
    structure = holds(model, {"c1": 8})
    assert [use.node.name for use in structure.prunable[0].producers] == ["c1", "c2"]


def test_a_bias_shared_by_two_layers_does_not_tie_their_widths(net, holds):
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [g1] h = Gemm(x, w1, b)
            [r] r = Tanh(h)
            [g2] k = Gemm(r, w2, b)
            [s] s = Tanh(k)
            [g3] y = Gemm(s, w3)
        }""",
        w1=(6, 8), w2=(8, 8), w3=(8, 3), b=(8,),
    )  # fmt: skip
    holds(model, {"g1": 8, "g2": 8})


def test_one_constant_as_weight_and_as_addend(net, holds):
    """Read as a weight its axes are those of the layers; read by an Add they follow the activation."""
    model = net(
        """g (float[8,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [a] a = Add(h, w2)
            [m2] k = MatMul(a, w2)
            [t] t = Tanh(k)
            [m3] y = MatMul(t, w3)
        }""",
        w1=(6, 8), w2=(8, 8), w3=(8, 3),
    )  # fmt: skip
    holds(model, {"m1": 8, "m2": 8})


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("[i] v = Identity(w2)", (4, 8, 3, 3)),
        ("[t] v = Transpose <perm=[3,2,0,1]> (w2)", (3, 3, 8, 4)),
        ("[t] s = Transpose <perm=[1,0,2,3]> (w2)\n[u] v = Transpose <perm=[1,0,3,2]> (s)", (4, 8, 3, 3)),
        ("[t] v = Transpose(w2)", (3, 3, 8, 4)),
    ],
)
def test_a_weight_that_reaches_its_node_through_others(net, holds, text, stored):
    model = net(
        f"""g (float[2,3,5,5] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1)
            {text}
            [c2] y = Conv(h, v)
        }}""",
        w1=(8, 3, 1, 1), w2=stored,
    )  # fmt: skip
    holds(model, {"c1": 8})


def test_a_weight_stored_in_half_precision(net, holds):
    rng = np.random.default_rng(0)
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [k1] v1 = Cast <to=1> (w1)
            [m1] h = MatMul(x, v1)
            [k2] v2 = Cast <to=1> (w2)
            [t2] t2 = Transpose(v2)
            [m2] y = MatMul(h, t2)
        }""",
        w1=rng.standard_normal((6, 8)).astype(np.float16), w2=rng.standard_normal((3, 8)).astype(np.float16),
    )  # fmt: skip
    structure = holds(model, {"m1": 8})
    weight = structure.prunable[0].consumers[0].weight
    assert (weight.constant.dtype, weight.dtype, weight.perm) == (np.float16, np.float32, (1, 0))


def test_constant_nodes_are_weights(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            b = Constant <value=float[8,1,1] {1.0,2.0,3.0,4.0,5.0,6.0,7.0,8.0}> ()
            s = Constant <value_float=0.5> ()
            [a] a = Add(h, b)
            [m] m = Mul(a, s)
            [c2] y = Conv(m, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 8, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 8})


def test_a_weight_that_is_computed_is_a_barrier(net, refuses):
    model = net(
        """g (float[2,3,5,5] x, float s) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [k] k = Mul(w2, s)
            [c2] y = Conv(h, k)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 8, 1, 1),
    )  # fmt: skip
    refuses(model, {"c1": "Conv 'c2' has a weight that is computed"})


def test_a_weight_that_is_a_graph_output_stays_whole(net, refuses):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y, float[8,3,1,1] w1) {
            [c1] h = Conv(x, w1)
            [c2] y = Conv(h, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 8, 1, 1),
    )  # fmt: skip
    refuses(model, {"c1": "graph output 'w1'"})


def test_a_bias_that_is_a_graph_output_stays_whole(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y, float[8] b1) {
            [c1] h = Conv(x, w1, b1)
            [c2] y = Conv(h, w2)
        }""",
        w1=(8, 3, 1, 1), b1=(8,), w2=(4, 8, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 8})


OVERRIDABLE = """g (float[2,3,5,5] x, float[8,3,1,1] w1, float[8] b1, float[8,1,1] s) => (float[a,b,c,d] y) {
        [c1] h = Conv(x, w1, b1)
        [m] m = Mul(h, s)
        [c2] k = Conv(m, w2)
        [c3] y = Conv(k, w3)
    }"""
OVERRIDABLE_WEIGHTS = {"w1": (8, 3, 1, 1), "b1": (8,), "s": (8, 1, 1), "w2": (6, 8, 1, 1), "w3": (4, 6, 1, 1)}


def test_an_initializer_that_the_caller_may_replace_stays_whole(net):
    """Its shape is part of the model's interface: it is treated as an input, not as a weight."""
    model = net(OVERRIDABLE, **OVERRIDABLE_WEIGHTS)
    graph = to_graph(onnx.shape_inference.infer_shapes(model))
    structure = infer(graph, {"x": (2, 3, 5, 5)}, overridable_initializers(model))
    assert {group.name: group.size for group in structure.prunable} == {"c2": 6}
    (atom,) = (group.atom for group in structure.prunable)
    shrunk = shrink(model, structure, {atom: np.arange(6) < 3})
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.standard_normal((2, 3, 5, 5)), "w1": rng.standard_normal((8, 3, 1, 1)),
        "b1": np.ones(8), "s": np.ones((8, 1, 1)),
    }  # fmt: skip
    feeds = {name: value.astype(np.float32) for name, value in feeds.items()}
    assert run(open_session(shrunk), feeds)["y"].shape == (2, 4, 5, 5)


def test_the_whole_way_leaves_such_initializers_alone(net, mask_oracle):
    structure = analyse(net(OVERRIDABLE, **OVERRIDABLE_WEIGHTS)).structure
    assert {group.name: group.size for group in structure.prunable} == {"c2": 6}


def test_before_ir_4_listed_initializers_are_weights(net, holds):
    text = OVERRIDABLE.replace("float[8,1,1] s)", "float[8,1,1] s, float[6,8,1,1] w2, float[4,6,1,1] w3)")
    model = net(text, opset=8, ir=3, **OVERRIDABLE_WEIGHTS)
    holds(model, {"c1": 8, "c2": 6})


def test_integer_matrices_are_no_weights(net, refuses):
    model = net(
        """g (int32[2,6] x) => (int32[a,b] y) {
            [m1] h = MatMul(x, w1)
            [m2] y = MatMul(h, w2)
        }""",
        w1=np.ones((6, 8), np.int32), w2=np.ones((8, 3), np.int32),
    )  # fmt: skip
    assert refuses(model, {}).groups == ()
