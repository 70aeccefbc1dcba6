"""Conv, ConvTranspose, Gemm, MatMul: what their weights produce and contract."""

from __future__ import annotations

import numpy as np
import pytest


def test_a_conv_produces_what_the_next_contracts(net, holds):
    model = net(
        """g (float[2,3,8,8] x) => (float[a,b,c,d] y) {
            [c1] h = Conv <pads=[1,1,1,1]> (x, w1, b1)
            [r] r = Relu(h)
            [c2] y = Conv(r, w2)
        }""",
        w1=(10, 3, 3, 3), b1=(10,), w2=(5, 10, 3, 3),
    )  # fmt: skip
    structure = holds(model, {"c1": 10})
    (group,) = structure.prunable
    assert [use.constant.name for use in group.producers] == ["w1"]
    assert [use.constant.name for use in group.carriers] == ["b1"]
    assert [consumer.name for consumer in group.consumers] == ["c2"]
    assert group.macs == 2 * 10 * 64 * 27 + 2 * 5 * 36 * 90
    assert [g.reasons for g in structure.frozen] == [("graph output 'y'",)]


@pytest.mark.parametrize(
    ("image", "kernel", "attributes"),
    [
        ("2,3,12", (3,), "strides=[2], pads=[1,0], dilations=[2]"),
        ("2,3,6,7,5", (2, 3, 1), "strides=[1,2,1], pads=[0,1,0,1,1,0]"),
        ("2,3,9,8", (3, 3), 'auto_pad="SAME_LOWER", strides=[2,2]'),
        ("2,3,9,8", (3, 2), 'auto_pad="VALID", dilations=[2,3]'),
    ],
)
def test_convs_of_any_rank(net, holds, image, kernel, attributes):
    model = net(
        f"""g (float[{image}] x) => (float[a] y) {{
            [c1] h = Conv <{attributes}> (x, w1, b1)
            [c2] v = Conv <auto_pad="SAME_UPPER"> (h, w2)
            [f] f = Flatten(v)
            [s] y = ReduceSum <keepdims=0> (f, last)
        }}""",
        w1=(8, 3, *kernel), b1=(8,), w2=(6, 8, *kernel), last=np.array([1]),
    )  # fmt: skip
    holds(model, {"c1": 8})


def test_a_grouped_conv_has_groups_and_channels_within(net, holds):
    model = net(
        """g (float[2,3,6,6] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [c2] v = Conv <group=4, pads=[1,1,1,1]> (h, w2, b2)
            [c3] y = Conv(v, w3)
        }""",
        w1=(12, 3, 1, 1), b1=(12,), w2=(8, 3, 3, 3), b2=(8,), w3=(5, 8, 1, 1),
    )  # fmt: skip
    # 12 channels are 4 groups x 3 within; the grouped Conv makes 2 within each.
    structure = holds(model, {"c1": 4, "c1#2": 3, "c2": 2})
    sizes = {group.name: [c.name for c in group.consumers] for group in structure.prunable}
    assert sizes == {"c1": ["c3"], "c1#2": ["c2"], "c2": ["c3"]}


def test_two_grouped_convs_with_different_groups(net, holds):
    model = net(
        """g (float[2,3,6,6] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [c2] v = Conv <group=2> (h, w2, b2)
            [c3] u = Conv <group=4> (v, w3, b3)
            [c4] y = Conv(u, w4)
        }""",
        w1=(8, 3, 1, 1), w2=(16, 4, 1, 1), b2=(16,), w3=(8, 4, 1, 1), b3=(8,), w4=(3, 8, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 2, "c1#2": 4, "c2": 2, "c2#2": 4, "c3": 2})


@pytest.mark.parametrize("multiplier", [1, 3])
def test_a_depthwise_conv_carries_its_channels(net, holds, multiplier):
    model = net(
        """g (float[2,3,6,6] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [dw] v = Conv <group=8, pads=[1,1,1,1]> (h, wd, bd)
            [c2] y = Conv(v, w2)
        }""",
        w1=(8, 3, 1, 1), b1=(8,), wd=(8 * multiplier, 1, 3, 3), bd=(8 * multiplier,), w2=(4, 8 * multiplier, 1, 1),
    )  # fmt: skip
    structure = holds(model, {"c1": 8} if multiplier == 1 else {"c1": 8, "dw": multiplier})
    group = structure.prunable[0]
    assert [use.constant.name for use in group.carriers] == ["b1", "bd", "wd"]
    assert [consumer.name for consumer in group.consumers] == ["c2"]


def test_a_depthwise_conv_on_a_concatenation(net, holds):
    model = net(
        """g (float[2,3,6,6] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [c2] v = Conv(x, w2)
            [cat] k = Concat <axis=1> (h, v)
            [dw] u = Conv <group=10> (k, wd)
            [c3] y = Conv(u, w3)
        }""",
        w1=(4, 3, 1, 1), w2=(6, 3, 1, 1), wd=(20, 1, 3, 3), w3=(4, 20, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 4, "c2": 6, "dw": 2})


@pytest.mark.parametrize(
    "attributes", ["strides=[1,1]", "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]", "dilations=[2,1]"]
)
def test_a_transposed_conv(net, holds, attributes):
    model = net(
        f"""g (float[2,3,5,5] x) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1, b1)
            [t] v = ConvTranspose <{attributes}> (h, wt, bt)
            [c2] y = Conv(v, w2)
        }}""",
        w1=(8, 3, 1, 1), b1=(8,), wt=(8, 6, 3, 3), bt=(6,), w2=(4, 6, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 8, "t": 6})


def test_a_transposed_conv_with_a_given_output_shape_feeds_a_flattened_layer(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b] y) {
            [c1] h = Conv(x, w1)
            [t] v = ConvTranspose <strides=[2,2], output_shape=[9,10]> (h, wt)
            [f] f = Flatten(v)
            [fc] y = Gemm(f, wf)
        }""",
        w1=(8, 3, 1, 1), wt=(8, 6, 3, 3), wf=(540, 4),
    )  # fmt: skip
    holds(model, {"c1": 8, "t": 6})


def test_a_grouped_transposed_conv(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [t] v = ConvTranspose <group=2, strides=[2,2]> (h, wt, bt)
            [c2] y = Conv(v, w2)
        }""",
        w1=(8, 3, 1, 1), wt=(8, 3, 2, 2), bt=(6,), w2=(4, 6, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 2, "c1#2": 4, "t": 3})


def test_a_depthwise_transposed_conv(net, holds):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [t] v = ConvTranspose <group=8, strides=[2,2]> (h, wt, bt)
            [c2] y = Conv(v, w2)
        }""",
        w1=(8, 3, 1, 1), wt=(8, 2, 2, 2), bt=(16,), w2=(4, 16, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 8, "t": 2})


def test_every_producer_has_as_many_entries_as_its_axis(net, holds):
    """Magnitudes are summed along the producing axis, so its Dim must describe the axis as it is stored."""
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [d] e = Conv <group=12> (h, wd)
            [t] v = ConvTranspose <group=4> (e, wt)
            [u] z = ConvTranspose <group=12> (v, wu)
            [c2] y = Conv(z, w2)
        }""",
        w1=(12, 3, 1, 1), wd=(24, 1, 2, 2), wt=(24, 3, 2, 2), wu=(12, 2, 1, 1), w2=(4, 24, 1, 1),
    )  # fmt: skip
    structure = holds(model, {"c1": 4, "c1#2": 3, "d": 2, "t": 3, "u": 2})
    for use in structure.records.uses:
        assert use.dim.size == use.constant.shape[use.axis], use


@pytest.mark.parametrize("trans_a", [0, 1])
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("bias", ["full", "row", "scalar", "column", "none"])
def test_gemm(net, holds, trans_a, trans_b, bias):
    shapes = {"full": (4, 10), "row": (10,), "scalar": (), "column": (4, 1)}
    left = "Transpose(x)" if trans_a else "Identity(x)"
    turn = "Transpose(h)" if trans_a else "Identity(h)"
    second = ", b1" if bias != "none" else ""
    model = net(
        f"""g (float[4,6] x) => (float[a,b] y) {{
            [i] i = {left}
            [g1] h = Gemm <transA={trans_a}, transB={trans_b}, alpha=0.5, beta=2.0> (i, w1 {second})
            [j] j = {turn}
            [g2] y = Gemm <transA={trans_a}, transB={trans_b}> (j, w2, b2)
        }}""",
        w1=(10, 6) if trans_b else (6, 10),
        w2=(3, 10) if trans_b else (10, 3),
        b2=(3,),
        **({} if bias == "none" else {"b1": np.full(shapes[bias], 0.3, np.float32)}),
    )  # fmt: skip
    holds(model, {"g1": 10})


def test_gemm_with_a_constant_on_the_left_is_not_understood(net, refuses):
    model = net(
        """g (float[6,4] x) => (float[a,b] y) {
            [g1] h = Gemm(w1, x)
            [g2] y = Gemm(h, w2)
        }""",
        w1=(5, 6), w2=(4, 3),
    )  # fmt: skip
    refuses(model, {"g2": "graph output"})


def test_matmul_in_batches(net, holds):
    model = net(
        """g (float[2,3,5,6] x) => (float[a,b,c,d] y) {
            [m1] h = MatMul(x, w1)
            [b] v = Add(h, b1)
            [r] r = Relu(v)
            [m2] y = MatMul(r, w2)
        }""",
        w1=(6, 10), b1=(10,), w2=(10, 4),
    )  # fmt: skip
    holds(model, {"m1": 10})


def test_matmul_with_its_constant_on_the_left_mixes_positions(net, holds):
    model = net(
        """g (float[2,7,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(w1, x)
            [r] r = Relu(h)
            [m2] v = MatMul(w2, r)
            [m3] u = MatMul(v, w3)
            [m4] y = MatMul(u, w4)
        }""",
        w1=(10, 7), w2=(5, 10), w3=(6, 8), w4=(8, 3),
    )  # fmt: skip
    structure = holds(model, {"m1": 10, "m3": 8})
    assert structure.prunable[0].consumers[0].axis == 1


def test_attention_written_out_keeps_heads_and_values_prunable(net, holds):
    """Heads go together in query, key and value; pairs of query and key, and what a value holds, alike in all heads."""
    model = net(
        """g (float[2,5,12] x) => (float[a,b,c] y) {
            [q] q = MatMul(x, wq)
            [k] k = MatMul(x, wk)
            [v] v = MatMul(x, wv)
            [q1] q1 = Reshape(q, split)
            [k1] k1 = Reshape(k, split)
            [v1] v1 = Reshape(v, split)
            [q2] q2 = Transpose <perm=[0,2,1,3]> (q1)
            [k2] k2 = Transpose <perm=[0,2,3,1]> (k1)
            [v2] v2 = Transpose <perm=[0,2,1,3]> (v1)
            [s] s = MatMul(q2, k2)
            [p] p = Softmax <axis=-1> (s)
            [o] o = MatMul(p, v2)
            [o1] o1 = Transpose <perm=[0,2,1,3]> (o)
            [o2] o2 = Reshape(o1, merge)
            [out] y = MatMul(o2, wo)
        }""",
        wq=(12, 12), wk=(12, 12), wv=(12, 12), wo=(12, 12),
        split=np.array([0, 0, 3, 4]), merge=np.array([0, 0, -1]),
    )  # fmt: skip
    structure = holds(model, {"q": 3, "q#2": 4, "v": 4})
    assert [use.node.name for use in structure.prunable[0].producers] == ["q", "k", "v"]


def test_fused_query_key_value(net, holds):
    model = net(
        """g (float[2,5,12] x) => (float[a,b,c] y) {
            [qkv] qkv = MatMul(x, w)
            [r] r = Reshape(qkv, split)
            [t] t = Transpose <perm=[2,0,3,1,4]> (r)
            [gq] q = Gather <axis=0> (t, zero)
            [gk] k = Gather <axis=0> (t, one)
            [gv] v = Gather <axis=0> (t, two)
            [kt] kt = Transpose <perm=[0,1,3,2]> (k)
            [s] s = MatMul(q, kt)
            [p] p = Softmax <axis=-1> (s)
            [o] o = MatMul(p, v)
            [ot] ot = Transpose <perm=[0,2,1,3]> (o)
            [om] om = Reshape(ot, merge)
            [out] y = MatMul(om, wo)
        }""",
        w=(12, 36), wo=(12, 12), split=np.array([0, 0, 3, 3, 4]), merge=np.array([0, 0, 12]),
        zero=np.array(0), one=np.array(1), two=np.array(2),
    )  # fmt: skip
    # Whole heads; channels of queries and keys in pairs; channels of values (the projection is cut before the stack).
    structure = holds(model, {"qkv": 3, "qkv#2": 4, "qkv#3": 4})
    assert [contraction.name for contraction in structure.prunable[1].contractions] == ["s"]


DEFORMED = """g (float[2,3,6,7] x, float[2,{offsets},6,7] o{mask}) => (float[a,b,c,d] y) {{
    [c1] h = Conv(x, w1, b1)
    [d] r = DeformConv <pads=[1,1,1,1], group={group}, offset_group={shared}> (h, w2, o, b2{read})
    [t] t = Tanh(r)
    [c3] y = Conv(t, w3)
}}"""


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(("group", "expected"), [(1, {"c1": 8, "d": 6}), (2, {"c1": 2, "c1#2": 4, "d": 3})])
def test_a_conv_that_reads_at_computed_places(net, holds, masked, group, expected):
    mask, read = (", float[2,9,6,7] m", ", m") if masked else ("", "")
    model = net(
        DEFORMED.format(offsets=18, mask=mask, read=read, group=group, shared=1),
        opset=19, w1=(8, 3, 1, 1), b1=(8,), w2=(6, 8 // group, 3, 3), b2=(6,), w3=(4, 6, 1, 1),
    )  # fmt: skip
    holds(model, expected)


def test_offsets_for_parts_of_the_channels_hold_them(net, refuses):
    model = net(
        DEFORMED.format(offsets=36, mask="", read="", group=1, shared=2),
        opset=19, w1=(8, 3, 1, 1), b1=(8,), w2=(6, 8, 3, 3), b2=(6,), w3=(4, 6, 1, 1),
    )  # fmt: skip
    refuses(model, {"c1": "DeformConv 'd' has offsets of their own for parts of this axis"}, allowed=["d"])


def test_places_that_a_layer_computes_stay_whole(net, holds):
    """Deformable convolution as it is used: the offsets come from a Conv over the same input."""
    model = net(
        """g (float[2,3,6,7] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [co] o = Conv <pads=[1,1,1,1]> (h, wo)
            [cm] k = Conv <pads=[1,1,1,1]> (h, wm)
            m = Sigmoid(k)
            [d] r = DeformConv <pads=[1,1,1,1]> (h, w2, o, , m)
            [c3] y = Conv(r, w3)
        }""",
        opset=19, w1=(8, 3, 1, 1), b1=(8,), wo=(18, 8, 3, 3), wm=(9, 8, 3, 3), w2=(6, 8, 3, 3), w3=(4, 6, 1, 1),
    )  # fmt: skip
    structure = holds(model, {"c1": 8, "d": 6})
    assert {c.name for g in structure.prunable for c in g.consumers if g.name == "c1"} == {"co", "cm", "d"}
    reasons = {group.name: group.reasons for group in structure.frozen}
    assert "DeformConv 'd' reads places from this axis" in reasons["co"]


def test_what_removed_units_gave_to_a_deformed_conv_is_made_up_for(net, exact):
    """Bilinear reading is linear in the map: units that are sums of others leave no trace, and its bias is moved."""
    rng = np.random.default_rng(3)
    own = rng.standard_normal((5, 3)).astype(np.float32)
    mixed = np.concatenate([own, rng.standard_normal((3, 5)).astype(np.float32) @ own]).reshape(8, 3, 1, 1)
    model = net(
        """g (float[2,3,6,7] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [d] y = DeformConv <pads=[1,1,1,1]> (h, w2, o, b2)
        }""",
        opset=19, w1=mixed, w2=(6, 8, 3, 3), b2=(6,),
        o=(rng.standard_normal((2, 18, 6, 7)) * 0.7).astype(np.float32),
    )  # fmt: skip
    exact(model)


@pytest.mark.parametrize("last", [False, True])
def test_a_causal_conv_keeps_channels_and_the_state_of_each(net, holds, last):
    turned = "Identity" if last else "Transpose <perm=[0,2,1]>"
    model = net(
        f"""g (float[2,5,3] x) => (float[a,b,c] y, float[d,e,f] z) {{
            [m1] h = MatMul(x, w1)
            i = {turned} (h)
            [k] c, n = com.microsoft.CausalConvWithState <activation="silu", channels_last={int(last)}> (i, w2, b2)
            j = {turned} (c)
            o = {turned} (n)
            [m3] y = MatMul(j, w3)
            [m4] z = MatMul(o, w3)
        }}""",
        domains=', "com.microsoft" : 1', w1=(3, 4), w2=(4, 1, 3), b2=(4,), w3=(4, 3),
    )  # fmt: skip
    structure = holds(model, {"m1": 4})
    assert {use.constant.name for use in structure.prunable[0].carriers} == {"w2", "b2"}


def test_a_state_that_is_given_holds_the_channels(net, refuses):
    model = net(
        """g (float[2,3,5] x, float[2,4,2] s) => (float[a,b,c] y) {
            [c1] h = Conv(x, w1)
            [k] c = com.microsoft.CausalConvWithState(h, w2, , s)
            [c3] y = Conv(c, w3)
        }""",
        domains=', "com.microsoft" : 1', w1=(4, 3, 1), w2=(4, 1, 3), w3=(3, 4, 1),
    )  # fmt: skip
    refuses(model, {"c1": "axis 1 of graph input 's'"})
