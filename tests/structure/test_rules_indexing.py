"""GatherND, ScatterND and their kin: what indices address is frozen, the other axes pass."""

from __future__ import annotations

import numpy as np
import pytest


def _ints(**weights):
    return {name: np.array(values, np.int64) for name, values in weights.items()}


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        # Positions are addressed, channels are what is looked up.
        (
            "[t] t = Transpose <perm=[2,3,0,1]> (h)\n[g] g = GatherND(t, k)\n[b] r = Transpose <perm=[2,3,0,1]> (g)",
            _ints(k=[[[0, 1], [5, 6]], [[2, 2], [3, 3]]]),
        ),
        (
            "[t] t = Transpose <perm=[0,2,3,1]> (h)\n[g] g = GatherND <batch_dims=1> (t, k)\n"
            "[u] u = Transpose <perm=[0,2,1]> (g)\n[b] r = Unsqueeze(u, three)",
            _ints(k=[[[0, 1], [5, 6]], [[2, 2], [3, 3]]], three=[3]),
        ),
        ("[g] r = GatherElements <axis=2> (h, k)", {"k": np.arange(2 * 8 * 4 * 7).reshape(2, 8, 4, 7) % 6}),
        ("[g] r = GatherElements <axis=-1> (h, k)", {"k": np.arange(2 * 8 * 6 * 3).reshape(2, 8, 6, 3) % 7}),
        (
            "[g] r = ScatterElements <axis=2> (h, k, u)",
            {
                "k": np.arange(2 * 8 * 4 * 7).reshape(2, 8, 4, 7) % 6,
                "u": np.ones((2, 8, 4, 7), np.float32),
            },
        ),
        (
            '[g] r = ScatterElements <axis=3, reduction="add"> (h, k, h)',
            {"k": np.arange(2 * 8 * 6 * 7).reshape(2, 8, 6, 7) % 7},
        ),
        (
            "[t] t = Transpose <perm=[2,3,0,1]> (h)\n[g] g = ScatterND(t, k, u)\n"
            "[b] r = Transpose <perm=[2,3,0,1]> (g)",
            {**_ints(k=[[0, 1], [5, 6], [2, 2]]), "u": np.ones((3, 2, 8), np.float32)},
        ),
        ("[g] r = Trilu <upper=0> (h)", {}),
        ("[g] g = Compress <axis=3> (h, c)\n[e] r = Relu(g)", {"c": np.array([1, 0, 1, 1, 0, 0, 1], bool)}),
        ("[g] r = ReverseSequence <time_axis=0, batch_axis=1> (h, k)", _ints(k=[1, 2, 1, 2, 2, 1, 2, 1])),
        ("[g] r = CastLike(h, k)", {"k": np.zeros(1, np.float32)}),
    ],
)  # fmt: skip
def test_channels_pass(between, holds, text, weights):
    holds(between(text, opset=18, **weights), {"c1": 8})


@pytest.mark.parametrize(
    ("text", "weights", "reason"),
    [
        ("[g] r = GatherElements <axis=1> (h, k)", {"k": np.arange(2 * 8 * 6 * 7).reshape(2, 8, 6, 7) % 8}, "indices"),
        ("[g] r = GatherElements <axis=2> (h, k)", {"k": np.zeros((2, 5, 6, 7), np.int64)}, "only the first positions"),
        (
            "[t] t = Transpose <perm=[1,0,2,3]> (h)\n[g] g = GatherND(t, k)\n[b] r = Unsqueeze(g, zero)",
            _ints(k=[[0, 1], [1, 1], [5, 0]], zero=[0]),
            "indices",
        ),
        (
            "[t] t = Transpose <perm=[1,0,2,3]> (h)\n[g] g = ScatterND(t, k, u)\n"
            "[b] r = Transpose <perm=[1,0,2,3]> (g)",
            {**_ints(k=[[3], [4]]), "u": np.ones((2, 2, 6, 7), np.float32)},
            "indices",
        ),
        ("[g] r = ReverseSequence <time_axis=1, batch_axis=0> (h, k)", _ints(k=[3, 4]), "reverses this axis"),
        ("[g] g = Compress <axis=1> (h, c)\n[e] r = Relu(g)", {"c": np.array([1, 0, 1, 1, 0] * 2, bool)[:8]}, "single"),
        ("[g] g = NonZero(h)\n[c] c = Cast <to=1> (g)\n[m] m = ReduceMax <keepdims=0> (c)\n"
         "[a] r = Add(m, h)", {}, "count"),
        ("[n] n = RandomNormalLike(h)\n[a] r = Add(n, h)", {}, "makes a tensor of this size"),
        ("[t] t = Transpose <perm=[0,2,3,1]> (h)\n[g] g = Trilu(t)\n"
         "[b] r = Transpose <perm=[0,3,1,2]> (g)", {}, "places"),
    ],
)  # fmt: skip
def test_channels_that_are_addressed_freeze(between, refuses, text, weights, reason):
    out = {"GatherElements <axis=2>": 5, "GatherND": 3, "Compress": 5}
    channels = next((n for operator, n in out.items() if operator in text), 8)
    refuses(between(text, opset=18, out=channels, **weights), {"c1": reason})


def test_heads_taken_by_gather_nd(net, holds):
    """Falcon by dynamo: of six heads in one projection the last two are the key and the value."""
    model = net(
        """g (float[N,S,6] x) => (float[a,b,c] y) {
            [qkv] h = MatMul(x, w1)
            [r] r = Reshape(h, heads)
            [q] q0 = Slice(r, zero, end, two)
            [t] t = Transpose <perm=[2,0,1,3]> (r)
            [gk] k0 = GatherND(t, fifth)
            [gv] v0 = GatherND(t, last)
            [qt] q = Transpose <perm=[0,2,1,3]> (q0)
            [kt] k = Transpose <perm=[1,0,3,2]> (k0)
            [vt] v = Transpose <perm=[1,0,2,3]> (v0)
            [qk] s = MatMul(q, k)
            [sm] p = Softmax <axis=-1> (s)
            [pv] o = MatMul(p, v)
            [ot] ot = Transpose <perm=[0,2,1,3]> (o)
            [j] j = Reshape(ot, flat)
            [out] y = MatMul(j, w2)
        }""",
        w1=(6, 30), w2=(20, 4),
        **_ints(heads=[0, 0, 6, 5], zero=[0], end=[-2], two=[2], fifth=[[-2]], last=[[-1]], flat=[0, 0, -1]),
    )  # fmt: skip
    structure = holds(model, {"qkv": 4, "qkv#2": 5}, {"x": (2, 3, 6)}, run_shapes={"x": (3, 4, 6)})
    assert [consumer.name for consumer in structure.prunable[0].consumers] == ["out"]


def test_scores_of_labels(net, holds):
    """OneHot makes classes that a table is looked up by; the table's columns are units."""
    model = net(
        """g (int64[2,5] tokens, float[2,5,3] x) => (float[a,b,c] y) {
            [o] o = OneHot(tokens, depth, values)
            [m1] h = MatMul(o, w1)
            [m2] k = MatMul(x, w2)
            [a] a = Add(h, k)
            [m3] y = MatMul(a, w3)
        }""",
        w1=(7, 8), w2=(3, 8), w3=(8, 3), depth=np.array(7), values=np.float32([0, 1]),
    )  # fmt: skip
    structure = holds(model, {"m1": 8})
    assert [use.node.name for use in structure.prunable[0].producers] == ["m1", "m2"]


def test_positions_counted_up_to_the_sequence(net, holds):
    """A causal mask made of Range: the positions it counts are those of the sequence, so heads are found."""
    model = net(
        """g (float[N,T,6] x) => (float[a,b,c] y) {
            [up] h = MatMul(x, w1)
            [s] s = Shape <start=1, end=2> (x)
            [q] n = Squeeze(s, zero)
            [c] i = Range(nought, n, unit)
            [f] f = Cast <to=1> (i)
            [u] u = Unsqueeze(f, one)
            [add] a = Mul(h, u)
            [r] r = Reshape(a, split)
            [t] t = Transpose <perm=[0,2,1,3]> (r)
            [b] b = Transpose <perm=[0,2,1,3]> (t)
            [m] m = Reshape(b, flat)
            [down] y = MatMul(m, w2)
        }""",
        w1=(6, 12), w2=(12, 5), nought=np.array(0), unit=np.array(1),
        **_ints(zero=[0], one=[1], split=[0, 0, -1, 4], flat=[0, 0, -1]),
    )  # fmt: skip
    holds(model, {"up": 3, "up#2": 4}, {"x": (2, 7, 6)}, run_shapes={"x": (3, 5, 6)})


def test_a_range_over_the_channels_freezes_them(net, refuses):
    model = net(
        """g (float[2,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [s] s = Shape <start=1, end=2> (h)
            [q] n = Squeeze(s, zero)
            [c] i = Range(nought, n, unit)
            [f] f = Cast <to=1> (i)
            [a] a = Mul(h, f)
            [m2] y = MatMul(a, w2)
        }""",
        w1=(6, 8), w2=(8, 3), nought=np.array(0), unit=np.array(1), zero=np.array([0]),
    )  # fmt: skip
    refuses(model, {"m1": "computes with the size of this axis"})


def test_classes_as_many_as_a_width_freeze_it(net, refuses):
    """The depth of a OneHot is the width of a layer: with fewer units the codes would be others."""
    model = net(
        """g (int64[2] tokens, float[2,6] x) => (float[a,b] y) {
            [m1] h = MatMul(x, w1)
            [s] s = Shape <start=1, end=2> (h)
            [o] o = OneHot(tokens, s, values)
            [a] a = Mul(h, o)
            [m2] y = MatMul(a, w2)
        }""",
        w1=(6, 8), w2=(8, 3), values=np.float32([0, 1]),
    )  # fmt: skip
    refuses(model, {"m1": "computes with the size of this axis"})


def test_boxes_that_are_suppressed_keep_their_scores(net, refuses):
    model = net(
        """g (float[1,5,6] x, float[1,5,4] boxes) => (int64[n,3] y, float[a,b,c] z) {
            [m1] h = MatMul(x, w1)
            [t] t = Transpose <perm=[0,2,1]> (h)
            [n] y = NonMaxSuppression(boxes, t, most)
            [m2] z = MatMul(h, w2)
        }""",
        w1=(6, 8), w2=(8, 3), most=np.array([2]),
    )  # fmt: skip
    refuses(model, {"m1": "returns positions that count along this axis"})


@pytest.mark.parametrize("axis", [0, 2, -1])
def test_codes_lie_where_the_axis_says(net, holds, axis):
    """The new axis is behind, between or before those of the indices; it is brought to the end."""
    perms = {0: "[1,2,0]", 2: "[0,1,2]", -1: "[0,1,2]"}
    model = net(
        f"""g (int64[2,5] tokens, float[2,5,3] x) => (float[a,b,c] y) {{
            [o] o = OneHot <axis={axis}> (tokens, depth, values)
            [t] t = Transpose <perm={perms[axis]}> (o)
            [m1] h = MatMul(t, w1)
            [m2] k = MatMul(x, w2)
            [a] a = Add(h, k)
            [m3] y = MatMul(a, w3)
        }}""",
        w1=(7, 8), w2=(3, 8), w3=(8, 3), depth=np.array(7), values=np.float32([0, 1]),
    )  # fmt: skip
    holds(model, {"m1": 8})


def test_a_cache_that_is_written_to(net, holds):
    """TensorScatter: channels of the cache are those of the update."""
    model = net(
        """g (float[2,4,3] x, float[2,1,3] z, int64[2] at) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [m2] k = MatMul(z, w2)
            [t] t = TensorScatter(h, k, at)
            [m3] y = MatMul(t, w3)
        }""",
        opset=24, ir=12, w1=(3, 8), w2=(3, 8), w3=(8, 5),
    )  # fmt: skip
    structure = holds(model, {"m1": 8})
    assert {use.constant.name for use in structure.prunable[0].producers} == {"w1", "w2"}


def test_a_cache_that_is_written_along_its_channels(net, refuses):
    model = net(
        """g (float[2,4,3] x, float[2,4,1] z) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [t] t = TensorScatter <axis=2> (h, z)
            [m3] y = MatMul(t, w3)
        }""",
        opset=24, ir=12, w1=(3, 8), w3=(8, 5),
    )  # fmt: skip
    refuses(model, {"m1": "TensorScatter 't' writes at places along this axis"})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("com.microsoft.GatherND(h, where)", 8),
        ("com.microsoft.Trilu(h)", 8),
    ],
)
def test_forms_of_the_runtime(net, holds, text, expected):
    model = net(
        f"""g (float[2,3,4,4] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1, b1)
            r = {text}
            [c2] y = Conv(r, w2)
        }}""",
        domains=', "com.microsoft" : 1', w1=(8, 3, 1, 1), b1=(8,), w2=(4, 8, 1, 1), where=np.array([[0], [1], [0]]),
    )  # fmt: skip
    if "where" not in text:
        model.graph.initializer.pop()
    holds(model, {"c1": expected})
