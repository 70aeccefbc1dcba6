"""Transpose, Squeeze, Unsqueeze, Flatten, Expand, Tile, Concat."""

from __future__ import annotations

import numpy as np
import pytest


def test_a_network_wrapped_in_transposes(net, holds):
    """TensorFlow's layout: NHWC at the borders and around the elementwise operators."""
    model = net(
        """g (float[2,6,7,3] x) => (float[a,b,c,d] y) {
            [t0] t0 = Transpose <perm=[0,3,1,2]> (x)
            [c1] c1 = Conv(t0, w1)
            [t1] t1 = Transpose <perm=[0,2,3,1]> (c1)
            [b] b = Add(t1, bias)
            [t2] t2 = Transpose <perm=[0,3,1,2]> (b)
            [c2] c2 = Conv(t2, w2)
            [t3] y = Transpose <perm=[0,2,3,1]> (c2)
        }""",
        w1=(8, 3, 1, 1), bias=(8,), w2=(4, 8, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 8})


def test_a_transpose_without_a_permutation_reverses(net, holds):
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [t] t = Transpose(h)
            [r] r = Tanh(t)
            [u] u = Transpose(r)
            [m2] y = MatMul(u, w2)
        }""",
        w1=(6, 8), w2=(8, 3),
    )  # fmt: skip
    holds(model, {"m1": 8})


@pytest.mark.parametrize(
    ("opset", "text", "weights"),
    [
        (11, "[p] p = GlobalAveragePool(h)\n[s] s = Squeeze <axes=[2,-1]> (p)\n[u] r = Unsqueeze <axes=[2,3]> (s)", {}),
        (13, "[p] p = GlobalAveragePool(h)\n[s] s = Squeeze(p, k)\n[u] r = Unsqueeze(s, k)", {"k": np.array([-1, 2])}),
        (11, "[p] p = GlobalAveragePool(h)\n[s] s = Squeeze(p)\n[u] r = Unsqueeze <axes=[-1,2]> (s)", {}),
        (13, "[p] p = GlobalAveragePool(h)\n[s] s = Squeeze(p)\n[u] r = Unsqueeze(s, k)", {"k": np.array([2, 3])}),
        (13, "[i] i = Unsqueeze(h, k)\n[e] e = Exp(i)\n[s] r = Squeeze(e, k)", {"k": np.array([1])}),
    ],
)
def test_squeeze_and_unsqueeze(between, holds, opset, text, weights):
    """Without a list of axes too, and even where a single channel is left (the third plan of `holds`)."""
    holds(between(text, opset=opset, **weights), {"c1": 8})


def test_a_squeeze_that_depends_on_the_batch_is_a_barrier(net, refuses):
    model = net(
        """g (float[N,3,1,1] x) => (float y) {
            [c1] h = Conv(x, w1)
            [s] y = Squeeze(h)
        }""",
        w1=(8, 3, 1, 1),
    )  # fmt: skip
    refuses(model, {"c1": "drops the axes that have one entry at run time"}, {"x": (1, 3, 1, 1)})


@pytest.mark.parametrize("axis", [1, -3, 2])
def test_flatten_feeds_a_layer(net, holds, axis):
    model = net(
        f"""g (float[1,3,4,5] x) => (float[a,b] y) {{
            [c1] h = Conv(x, w1, b1)
            [f] f = Flatten <axis={axis}> (h)
            [fc] y = Gemm(f, w2)
        }}""",
        w1=(8, 3, 1, 1), b1=(8,), w2=(160 if axis != 2 else 20, 4),
    )  # fmt: skip
    if axis == 2:
        with pytest.raises(AssertionError, match=r"no weight downstream contracts it|graph output"):
            holds(model, {"c1": 8})
    else:
        structure = holds(model, {"c1": 8})
        assert structure.prunable[0].consumers[0].features.size == 160


def test_flatten_behind_channels_last(net, holds):
    model = net(
        """g (float[2,3,4,5] x) => (float[a,b] y) {
            [c1] h = Conv(x, w1, b1)
            [t] t = Transpose <perm=[0,2,3,1]> (h)
            [f] f = Flatten(t)
            [fc] y = Gemm(f, w2)
        }""",
        w1=(8, 3, 1, 1), b1=(8,), w2=(160, 4),
    )  # fmt: skip
    holds(model, {"c1": 8})


def test_flatten_of_a_concatenation(net, holds):
    model = net(
        """g (float[2,3,4,5] x) => (float[a,b] y) {
            [c1] h = Conv(x, w1)
            [c2] k = Conv(x, w2)
            [cat] t = Concat <axis=-3> (h, k)
            [f] f = Flatten(t)
            [fc] y = Gemm(f, w3)
        }""",
        w1=(5, 3, 1, 1), w2=(3, 3, 1, 1), w3=(160, 4),
    )  # fmt: skip
    holds(model, {"c1": 5, "c2": 3})


def test_a_dense_block(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c0] t0 = Conv(x, w0)
            [c1] t1 = Conv(t0, w1)
            [k1] k1 = Concat <axis=1> (t0, t1)
            [c2] t2 = Conv(k1, w2)
            [k2] k2 = Concat <axis=1> (k1, t2)
            [bn] n = BatchNormalization(k2, s, b, m, v)
            [c3] y = Conv(n, w3)
        }""",
        w0=(6, 3, 1, 1), w1=(4, 6, 1, 1), w2=(4, 10, 1, 1), w3=(3, 14, 1, 1),
        s=(14,), b=(14,), m=(14,), v=np.linspace(1, 2, 14, dtype=np.float32),
    )  # fmt: skip
    structure = holds(model, {"c0": 6, "c1": 4, "c2": 4})
    assert [consumer.name for consumer in structure.prunable[0].consumers] == ["c1", "c2", "c3"]


def test_concatenations_that_are_cut_differently_meet(net, holds):
    """[4|8] + [6|6]: the Add refines both into 4, 2 and 6."""
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [a1] a1 = Conv(x, wa)
            [a2] a2 = Conv(x, wb)
            [b1] b1 = Conv(x, wc)
            [b2] b2 = Conv(x, wd)
            [ka] ka = Concat <axis=1> (a1, a2)
            [kb] kb = Concat <axis=1> (b1, b2)
            [s] s = Add(ka, kb)
            [c] y = Conv(s, we)
        }""",
        wa=(4, 3, 1, 1), wb=(8, 3, 1, 1), wc=(6, 3, 1, 1), wd=(6, 3, 1, 1), we=(3, 12, 1, 1),
    )  # fmt: skip
    holds(model, {"a1": 4, "a2": 2, "a2#2": 6})


def test_a_class_token_and_positions_along_another_axis(net, holds):
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [e] token = Expand(cls, shape)
            [cat] t = Concat <axis=1> (token, h)
            [p] p = Add(t, positions)
            [m2] y = MatMul(p, w2)
        }""",
        w1=(6, 8), cls=(1, 1, 8), positions=(1, 6, 8), w2=(8, 3), shape=np.array([2, 1, 8]),
    )  # fmt: skip
    holds(model, {"m1": 8})


def test_a_class_token_expanded_to_a_batch_known_at_run_time(net, holds):
    model = net(
        """g (float[N,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [s] s = Shape(h)
            [n] n = Slice(s, zero, one)
            [sz] shape = Concat <axis=0> (n, tail)
            [e] token = Expand(cls, shape)
            [cat] t = Concat <axis=1> (token, h)
            [m2] y = MatMul(t, w2)
        }""",
        w1=(6, 8), cls=(1, 1, 8), w2=(8, 3), zero=np.array([0]), one=np.array([1]), tail=np.array([-1, -1]) * -1,
    )  # fmt: skip
    holds(model, {"m1": 8}, run_shapes={"x": (3, 5, 6)})


@pytest.mark.parametrize("source", ["h", "x"])
def test_expand_to_the_shape_of_another_tensor(net, holds, source):
    model = net(
        f"""g (float[N,8,5,5] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1)
            [p] p = GlobalAveragePool(h)
            [s] s = Shape({source})
            [e] e = Expand(p, s)
            [m] m = Mul(e, h)
            [c2] y = Conv(m, w2)
        }}""",
        w1=(8, 8, 1, 1), w2=(4, 8, 1, 1),
    )  # fmt: skip
    # Where the shape is that of x, its channels are rewritten in the computed shape.
    holds(model, {"c1": 8}, {"x": (2, 8, 5, 5)}, run_shapes={"x": (3, 8, 5, 5)})


def test_expand_makes_a_new_axis(net, holds):
    """Repeating keys for groups of queries: unsqueeze, expand, reshape."""
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [u] u = Unsqueeze(h, one)
            [e] e = Expand(u, shape)
            [r] r = Reshape(e, flat)
            [m2] y = MatMul(r, w2)
        }""",
        w1=(6, 8), w2=(24, 3), one=np.array([1]), shape=np.array([2, 3, 8]), flat=np.array([2, 24]),
    )  # fmt: skip
    structure = holds(model, {"m1": 8})
    assert structure.prunable[0].consumers[0].features.size == 24


def test_tile_repeats_the_units(net, holds):
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [t] t = Tile(h, times)
            [m2] y = MatMul(t, w2)
        }""",
        w1=(6, 8), w2=(24, 3), times=np.array([1, 3]),
    )  # fmt: skip
    holds(model, {"m1": 8})


@pytest.mark.parametrize("batch", ["2", "N"])
def test_tile_as_often_as_there_were_channels(net, holds, batch):
    model = net(
        f"""g (float[{batch},6] x) => (float[a] y, float[b,c] z) {{
            [m1] h = MatMul(x, w1)
            [s] s = Shape(h)
            [t] t = Tile(x, s)
            [r] y = ReduceSum <keepdims=0> (t, one)
            [m2] z = MatMul(h, w2)
        }}""",
        w1=(6, 8), w2=(8, 3), one=np.array([1]),
    )  # fmt: skip
    holds(model, {"m1": 8}, {"x": (2, 6)})


def test_constant_of_shape_follows_the_channels(net, holds):
    model = net(
        """g (float[N,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(h)
            [z] z = ConstantOfShape <value=float[1] {0.5}> (s)
            [cat] k = Concat <axis=1> (h, z)
            [c2] y = Conv(k, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 16, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 8}, run_shapes={"x": (3, 3, 5, 5)})


def test_constant_of_a_literal_shape_is_rewritten(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(x)
            [n] n = Gather <axis=0> (s, batch)
            [cat] shape = Concat <axis=0> (n, tail)
            [z] z = ConstantOfShape <value=float[1] {0.5}> (shape)
            [a] a = Add(h, z)
            [c2] y = Conv(a, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(4, 8, 1, 1), tail=np.array([8, 5, 5]), batch=np.array([0]),
    )  # fmt: skip
    holds(model, {"c1": 8})


def test_an_axis_of_unknown_size_that_is_broadcast(net, holds):
    """Expand to a literal length: at run time the axis has one entry or that many."""
    model = net(
        """g (float[2,T,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [e] e = Expand(h, shape)
            [m2] y = MatMul(e, w2)
        }""",
        w1=(6, 8), w2=(8, 3), shape=np.array([2, 4, 1]),
    )  # fmt: skip
    holds(model, {"m1": 8}, {"x": (2, 1, 6)}, run_shapes={"x": (2, 4, 6)})


def test_shapes_taken_apart_and_put_together(net, holds):
    """Squeeze, Unsqueeze, Reshape, Transpose, Slice and ConstantOfShape on the sizes themselves."""
    model = net(
        """g (float[N,3,4,5] x) => (float[a,b,c] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape(h)
            [r] grid = Reshape(s, twos)
            [t] turned = Transpose(grid)
            [f] flat = Reshape(turned, minus)
            [n] n = Slice(flat, zero, one)
            [q] n0 = Squeeze(n, zero)
            [u] n1 = Unsqueeze(n0, zero)
            [c] c = Slice(s, one, two)
            [o] ones = ConstantOfShape <value=int64[1] {-1}> (one)
            [i] i = Identity(c)
            [k] k = Concat <axis=0> (n1, i, ones)
            [v] v = Reshape(h, k)
            [w] w = Transpose <perm=[0,2,1]> (v)
            [e] y = MatMul(w, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(8, 4), twos=np.array([2, 2]), minus=np.array([-1]), zero=np.array([0]),
        one=np.array([1]), two=np.array([2]),
    )  # fmt: skip
    holds(model, {"c1": 8}, {"x": (2, 3, 4, 5)}, run_shapes={"x": (3, 3, 4, 5)})


def test_a_shape_read_backwards(net, holds):
    model = net(
        """g (float[2,3,4,5] x) => (float[a,b] y) {
            [c1] h = Conv(x, w1)
            [s] s = Shape <start=1> (h)
            [b] back = Slice(s, last, before, zero, minus)
            [t] t = Transpose <perm=[0,3,2,1]> (h)
            [k] k = Concat <axis=0> (two, back)
            [r] r = Reshape(t, k)
            [f] f = Flatten(r)
            [fc] y = Gemm(f, w2)
        }""",
        w1=(8, 3, 1, 1), w2=(160, 4), last=np.array([-1]), before=np.array([-(2**63)]), zero=np.array([0]),
        minus=np.array([-1]), two=np.array([2]),
    )  # fmt: skip
    holds(model, {"c1": 8})
