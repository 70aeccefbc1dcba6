"""Attention in one operator, of ONNX Runtime and of ONNX: heads, value channels, pairs of query and key channels."""

from __future__ import annotations

import numpy as np
import pytest

MS = ', "com.microsoft" : 1'


def _cache(kind: str, heads: int = 3) -> str:
    return f"float[2,{heads},4,{kind}]"


@pytest.mark.parametrize("unidirectional", [0, 1])
@pytest.mark.parametrize("sizes", ["", ", qkv_hidden_sizes=[12,12,12]", ", qkv_hidden_sizes=[12,12,18]"])
def test_packed_weights(net, holds, sizes, unidirectional):
    """With a bias: ONNX Runtime's CPU kernel crashes without."""
    v = 18 if "18" in sizes else 12
    model = net(
        f"""g (float[2,5,10] x) => (float[a,b,c] y) {{
            [in] h = MatMul(x, w0)
            [t] t = Tanh(h)
            [att] o = com.microsoft.Attention <num_heads=3, unidirectional={unidirectional}{sizes}> (t, w, b)
            [out] y = MatMul(o, wo)
        }}""",
        domains=MS, w0=(10, 8), w=(8, 24 + v), b=(24 + v,), wo=(v, 7),
    )  # fmt: skip
    structure = holds(model, {"in": 8, "att": 3, "att#3": v // 3})
    (frozen,) = [group for group in structure.frozen if group.name == "att#2"]
    assert frozen.reasons == ("Attention 'att' multiplies queries by keys over this axis, out of sight",)


def test_packed_weights_with_a_mask_and_scores_of_each_head(net, holds):
    model = net(
        """g (float[2,5,10] x, int32[2,5] m) => (float[a,b,c] y) {
            [att] o = com.microsoft.Attention <num_heads=3> (x, w, b, m, , scores)
            [out] y = MatMul(o, wo)
        }""",
        domains=MS, w=(10, 36), b=(36,), wo=(12, 7), scores=(1, 3, 5, 5),
    )  # fmt: skip
    holds(model, {"att": 3, "att#3": 4})


def test_packed_weights_that_remember(net, refuses):
    """The memory is the graph's: the heads in it stay."""
    model = net(
        """g (float[2,5,10] x, float[2,2,3,4,4] past) => (float[a,b,c] y, float[d,e,f,g,h] present) {
            [att] o, present = com.microsoft.Attention <num_heads=3, unidirectional=1> (x, w, b, , past)
            [out] y = MatMul(o, wo)
        }""",
        domains=MS, w=(10, 36), b=(36,), wo=(12, 7),
    )  # fmt: skip
    refuses(
        model,
        {
            "att": "axis 2 of graph input 'past'",
            "att#2": "graph input 'past'",
            "att#3": "keys and values in one tensor",
        },
    )


PROJECTIONS = """
    [q] q = MatMul(x, wq)
    [k] k = MatMul(x, wk)
    [v] v = MatMul(x, wv)
"""
WEIGHTS = {"wq": (10, 12), "wk": (10, 12), "wv": (10, 18), "wo": (18, 7)}


@pytest.mark.parametrize("attributes", ["num_heads=3", "num_heads=3, unidirectional=1", "num_heads=3, scale=0.3"])
def test_multi_head_attention(net, holds, attributes):
    model = net(
        f"""g (float[2,5,10] x, float[2,1,5,5] m) => (float[a,b,c] y) {{
            {PROJECTIONS}
            [att] o = com.microsoft.MultiHeadAttention <{attributes}> (q, k, v, , , m)
            [out] y = MatMul(o, wo)
        }}""",
        domains=MS, **WEIGHTS,
    )  # fmt: skip
    structure = holds(model, {"q": 3, "q#2": 4, "v": 6})
    heads, pairs, _ = structure.prunable
    assert not heads.contractions
    assert [one.blocks.size for one in pairs.contractions] == [3]


def test_multi_head_attention_with_a_bias(net, holds):
    model = net(
        f"""g (float[2,5,10] x) => (float[a,b,c] y) {{
            {PROJECTIONS}
            [att] o = com.microsoft.MultiHeadAttention <num_heads=3> (q, k, v, bias, , scores)
            [out] y = MatMul(o, wo)
        }}""",
        domains=MS, **WEIGHTS, bias=(42,), scores=(1, 3, 5, 5),
    )  # fmt: skip
    structure = holds(model, {"q": 3, "v": 6})
    assert any("adds a bias before it multiplies" in group.reasons[0] for group in structure.frozen)


def test_multi_head_attention_across(net, holds):
    """Keys and values come from elsewhere, and as [B, H, L, C]."""
    model = net(
        """g (float[2,5,10] x, float[2,7,9] z) => (float[a,b,c] y) {
            [q] q = MatMul(x, wq)
            [k] k0 = MatMul(z, wk)
            [v] v0 = MatMul(z, wv)
            [k1] k1 = Reshape(k0, split)
            [v1] v1 = Reshape(v0, split)
            [k2] k2 = Transpose <perm=[0,2,1,3]> (k1)
            [v2] v2 = Transpose <perm=[0,2,1,3]> (v1)
            [att] o = com.microsoft.MultiHeadAttention <num_heads=3> (q, k2, v2)
            [out] y = MatMul(o, wo)
        }""",
        domains=MS, wq=(10, 12), wk=(9, 12), wv=(9, 12), wo=(12, 7), split=np.array([0, 0, 3, 4]),
    )  # fmt: skip
    structure = holds(model, {"q": 3})
    assert any("one size of head" in reason for group in structure.frozen for reason in group.reasons)


def test_multi_head_attention_with_a_cache(net, refuses):
    model = net(
        f"""g (float[2,5,10] x, {_cache("4")} pk, {_cache("4")} pv)
              => (float[a,b,c] y, float[d,e,f,g] nk, float[h,i,j,k] nv) {{
            {PROJECTIONS}
            [att] o, nk, nv = com.microsoft.MultiHeadAttention <num_heads=3> (q, k, v, , , , pk, pv)
            [out] y = MatMul(o, wo)
        }}""",
        domains=MS, wq=(10, 12), wk=(10, 12), wv=(10, 12), wo=(12, 7),
    )  # fmt: skip
    refuses(model, {"q": "axis 1 of graph input 'pk'", "q#2": "one size of head", "v": "one size of head"})


def test_multi_head_attention_with_a_constant_cache(net, holds):
    """A prefix of keys and values that was learnt: the heads in it go with the others."""
    model = net(
        f"""g (float[2,5,10] x) => (float[a,b,c] y) {{
            {PROJECTIONS}
            [att] o, nk, nv = com.microsoft.MultiHeadAttention <num_heads=3> (q, k, v, , , , pk, pv)
            [out] y = MatMul(o, wo)
        }}""",
        domains=MS, wq=(10, 12), wk=(10, 12), wv=(10, 12), wo=(12, 7), pk=(2, 3, 4, 4), pv=(2, 3, 4, 4),
    )  # fmt: skip
    holds(model, {"q": 3})


def test_queries_keys_and_values_in_one_tensor_are_refused(net, refuses):
    model = net(
        """g (float[2,5,10] x) => (float[a,b,c] y) {
            [qkv] q = MatMul(x, w)
            [r] r = Reshape(q, shape)
            [att] o = com.microsoft.MultiHeadAttention <num_heads=3> (r)
            [out] y = MatMul(o, wo)
        }""",
        domains=MS, w=(10, 36), wo=(12, 7), shape=np.array([0, 0, 3, 3, 4]),
    )  # fmt: skip
    refuses(model, {"qkv": "packed in one tensor"})


GROUPED = {"lens": np.array([4, 4], np.int32), "total": np.array(5, np.int32)}


def test_grouped_queries(net, holds):
    """Six heads of queries over two of keys and values: pairs of the two, or one query head of each."""
    model = net(
        """g (float[2,5,10] x) => (float[a,b,c] y) {
            [q] q = MatMul(x, wq)
            [k] k = MatMul(x, wk)
            [v] v = MatMul(x, wv)
            [att] o, nk, nv = com.microsoft.GroupQueryAttention <num_heads=6, kv_num_heads=2>
                (q, k, v, , , lens, total)
            [out] y = MatMul(o, wo)
        }""",
        domains=MS, wq=(10, 48), wk=(10, 16), wv=(10, 16), wo=(48, 7), **GROUPED,
    )  # fmt: skip
    holds(model, {"q": 2, "q#2": 3})


@pytest.mark.parametrize("rotary", ["", ", do_rotary=1"])
def test_grouped_queries_in_one_tensor(net, holds, rotary):
    caches = ", cos, sin" if rotary else ""
    angles = np.outer(np.arange(9), np.arange(1, 9)).astype(np.float32)
    model = net(
        f"""g (float[2,5,10] x) => (float[a,b,c] y) {{
            [qkv] q = MatMul(x, w)
            [att] o, nk, nv = com.microsoft.GroupQueryAttention <num_heads=12, kv_num_heads=3{rotary}>
                (q, , , , , lens, total{caches})
            [out] y = MatMul(o, wo)
        }}""",
        domains=MS, w=(10, 288), wo=(192, 7), **GROUPED,
        **({"cos": np.cos(angles), "sin": np.sin(angles)} if rotary else {}),
    )  # fmt: skip
    holds(model, {"qkv": 3, "qkv#2": 4})


def test_grouped_queries_with_a_cache_of_the_graph(net, refuses):
    model = net(
        f"""g (float[2,1,10] x, {_cache("8", 2)} pk, {_cache("8", 2)} pv)
              => (float[a,b,c] y, float[d,e,f,g] nk, float[h,i,j,k] nv) {{
            [q] q = MatMul(x, wq)
            [k] k = MatMul(x, wk)
            [v] v = MatMul(x, wv)
            [att] o, nk, nv = com.microsoft.GroupQueryAttention <num_heads=6, kv_num_heads=2>
                (q, k, v, pk, pv, lens, total)
            [out] y = MatMul(o, wo)
        }}""",
        domains=MS, wq=(10, 48), wk=(10, 16), wv=(10, 16), wo=(48, 7), **GROUPED,
    )  # fmt: skip
    refuses(model, {"q": "axis 1 of graph input 'pk'", "q#3": "one size of head"}, allowed=["q#2"])


@pytest.mark.parametrize("heads", [(3, 3), (6, 3)])
@pytest.mark.parametrize("attributes", ["is_causal=0", "is_causal=1, scale=0.3", "softcap=2.0"])
def test_attention_of_onnx(net, holds, heads, attributes):
    queries, keys = heads
    model = net(
        f"""g (float[2,5,10] x) => (float[a,b,c] y) {{
            {PROJECTIONS}
            [att] o = Attention <q_num_heads={queries}, kv_num_heads={keys}, {attributes}> (q, k, v)
            [out] y = MatMul(o, wo)
        }}""",
        opset=23, ir=11, wq=(10, queries * 4), wk=(10, keys * 4), wv=(10, keys * 6), wo=(queries * 6, 7),
    )  # fmt: skip
    expected = {"q": 3, "q#2": 4, "v": 6} if queries == keys else {"q": 3, "q#2": 2, "v": 6}
    holds(model, expected)


def test_learned_queries_are_a_constant(net, holds):
    model = net(
        """g (float[1,5,10] x) => (float[a,b,c] y) {
            [k] k = MatMul(x, wk)
            [v] v = MatMul(x, wv)
            [att] o = Attention <q_num_heads=3, kv_num_heads=3> (learned, k, v)
            [out] y = MatMul(o, wo)
        }""",
        opset=23, ir=11, learned=(1, 4, 12), wk=(10, 12), wv=(10, 18), wo=(18, 7),
    )  # fmt: skip
    structure = holds(model, {"k": 3, "v": 6})
    assert "are constant" in structure.frozen[0].reasons[0]


def heads_in_the_batch(net, mask):
    """PyTorch's own layout: sequence first, and the heads of all samples in one batch of single heads."""
    parts = "\n".join(f"{n}1 = Reshape({n}, split) {n}2 = Transpose <perm=[1,0,2]> ({n}1)" for n in "qkv")
    return net(
        f"""g (float[5,2,10] x) => (float[a,b,c] y) {{
            {PROJECTIONS}
            {parts}
            [att] o1 = Attention <q_num_heads=1, kv_num_heads=1> (q2, k2, v2{mask})
            o2 = Transpose <perm=[1,0,2]> (o1)
            o = Reshape(o2, flat)
            [out] y = MatMul(o, wo)
        }}""",
        opset=23, ir=11, wq=(10, 12), wk=(10, 12), wv=(10, 12), wo=(12, 7),
        split=np.array([5, 6, 4]), flat=np.array([5, 2, 12]), **({"m": (6, 1, 5, 5)} if mask else {}),
    )  # fmt: skip


def test_heads_in_the_batch(net, holds):
    holds(heads_in_the_batch(net, ""), {"q": 3, "q#2": 4, "v": 4})


def test_heads_in_the_batch_with_a_mask_for_each(net, holds):
    holds(heads_in_the_batch(net, ", m"), {"q#2": 4, "v": 4})


def test_attention_of_onnx_with_heads_apart_and_a_mask_for_each(net, holds):
    model = net(
        f"""g (float[2,5,10] x) => (float[a,b,c] y) {{
            {PROJECTIONS}
            [q1] q1 = Reshape(q, split)
            [k1] k1 = Reshape(k, split)
            [v1] v1 = Reshape(v, splitv)
            [q2] q2 = Transpose <perm=[0,2,1,3]> (q1)
            [k2] k2 = Transpose <perm=[0,2,1,3]> (k1)
            [v2] v2 = Transpose <perm=[0,2,1,3]> (v1)
            [att] o = Attention(q2, k2, v2, m)
            [o1] o1 = Transpose <perm=[0,2,1,3]> (o)
            [o2] o2 = Reshape(o1, merge)
            [out] y = MatMul(o2, wo)
        }}""",
        opset=23, ir=11, **WEIGHTS, m=(1, 3, 5, 5), split=np.array([0, 0, 3, 4]), splitv=np.array([0, 0, 3, 6]),
        merge=np.array([0, 0, -1]),
    )  # fmt: skip
    holds(model, {"q": 3, "q#2": 4, "v": 6})


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize("contrib", [True, False])
def test_rotated_queries_and_keys(net, holds, flat, contrib):
    """Heads pass; the channels that are turned stay, those of values do not."""
    angles = np.outer(np.arange(9), np.arange(1, 4)).astype(np.float32)
    turn = "com.microsoft.RotaryEmbedding" if contrib else "RotaryEmbedding"
    places = "positions, cos, sin" if contrib else "cos, sin, positions"
    attributes = "<num_heads=3>" if flat and not contrib else ""
    split = "" if flat else "[q1] q1 = Reshape(q, split)\n[q2] q2 = Transpose <perm=[0,2,1,3]> (q1)"
    merge = "" if flat else "[q4] q4 = Transpose <perm=[0,2,1,3]> (q3)\n[q5] q5 = Reshape(q4, merge)"
    model = net(
        f"""g (float[2,5,10] x) => (float[a,b,c] y) {{
            {PROJECTIONS}
            {split}
            [r1] {"q5" if flat else "q3"} = {turn} {attributes} ({"q" if flat else "q2"}, {places})
            {merge}
            [r2] k5 = {turn} {attributes or "<num_heads=3>"} (k, {places})
            [att] o = com.microsoft.MultiHeadAttention <num_heads=3> (q5, k5, v)
            [out] y = MatMul(o, wo)
        }}""",
        opset=23, ir=11, domains=MS,
        wq=(10, 18), wk=(10, 18), wv=(10, 18), wo=(18, 7), cos=np.cos(angles), sin=np.sin(angles),
        positions=np.array([[0, 1, 2, 3, 4], [4, 3, 2, 1, 0]]),
        **({} if flat else {"split": np.array([0, 0, 3, 6]), "merge": np.array([0, 0, 18])}),
    )  # fmt: skip
    holds(model, {"q": 3, "v": 6})
