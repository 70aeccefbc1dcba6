"""Axes that a normalisation takes statistics over: recognised in every spelling, frozen unless the user asks."""

from __future__ import annotations

import numpy as np
import pytest

HINT = "--prune-normalised lets it shrink"
ONE, HALF, TWO, EPSILON = (np.array(v, np.float32) for v in (1, 0.5, 2, 1e-3))
STREAM = {"we": (6, 8), "wu": (8, 12), "wd": (12, 8), "wh": (8, 3)}

OPERATORS = {
    "LayerNormalization": (17, "n = LayerNormalization(e, s, b)", {"s": (8,), "b": (8,)}),
    "LayerNormalization without a shift": (17, "n = LayerNormalization <epsilon=0.01> (e, s)", {"s": (8,)}),
    "RMSNormalization": (23, "n = RMSNormalization(e, s)", {"s": (8,)}),
    "LpNormalization 2": (17, "n = LpNormalization <axis=-1> (e)", {}),
    "LpNormalization 1": (17, "n = LpNormalization <axis=-1, p=1> (e)", {}),
}
WRITTEN_OUT = {
    "RMSNorm: torch dynamo": (
        18,
        """p = Pow(e, two)
        m = ReduceMean <keepdims=1> (p, last)
        v = Add(m, epsilon)
        r = Sqrt(v)
        i = Reciprocal(r)
        k = Mul(e, i)
        n = Mul(k, s)""",
        {"two": TWO, "last": np.array([-1]), "epsilon": EPSILON, "s": (8,)},
    ),
    "RMSNorm: TorchScript, with casts": (
        17,
        """c = Cast <to=1> (e)
        p = Pow(c, two)
        m = ReduceMean <axes=[-1]> (p)
        v = Add(m, epsilon)
        r = Sqrt(v)
        i = Div(one, r)
        k = Mul(c, i)
        f = Cast <to=1> (k)
        n = Mul(s, f)""",
        {"two": TWO, "one": ONE, "epsilon": EPSILON, "s": (8,)},
    ),
    "RMSNorm: a negative power": (
        13,
        """p = Mul(e, e)
        m = ReduceMean <axes=[2]> (p)
        v = Add(m, epsilon)
        r = Pow(v, power)
        n = Mul(r, e)""",
        {"epsilon": EPSILON, "power": -HALF},
    ),
    "LayerNorm: TorchScript": (
        13,
        """m = ReduceMean <axes=[-1]> (e)
        d = Sub(e, m)
        p = Pow(d, two)
        w = ReduceMean <axes=[-1]> (p)
        v = Add(w, epsilon)
        r = Sqrt(v)
        k = Div(d, r)
        g = Mul(k, s)
        n = Add(g, b)""",
        {"two": TWO, "epsilon": EPSILON, "s": (8,), "b": (8,)},
    ),
    "LayerNorm: Keras": (
        17,
        """m = ReduceMean <axes=[2]> (e)
        d = Sub(e, m)
        p = Mul(d, d)
        w = ReduceMean <axes=[2]> (p)
        v = Add(w, epsilon)
        r = Sqrt(v)
        i = Reciprocal(r)
        g = Mul(i, s)
        h = Mul(e, g)
        k = Mul(m, g)
        l = Sub(b, k)
        n = Add(h, l)""",
        {"epsilon": EPSILON, "s": (8,), "b": (8,)},
    ),
    "LayerNorm: Flax": (
        17,
        """m = ReduceMean <axes=[2]> (e)
        p = Mul(e, e)
        w = ReduceMean <axes=[2]> (p)
        q = Mul(m, m)
        h = Sub(w, q)
        z = Max(h, zero)
        v = Add(z, epsilon)
        r = Sqrt(v)
        i = Reciprocal(r)
        d = Sub(e, m)
        n = Mul(d, i)""",
        {"epsilon": EPSILON, "zero": np.array(0, np.float32)},
    ),
    "L2 normalisation: ReduceL2": (
        17,
        """q = ReduceL2 <axes=[-1]> (e)
        c = Clip(q, epsilon)
        f = Shape(e)
        k = Expand(c, f)
        n = Div(e, k)""",
        {"epsilon": EPSILON},
    ),
    "L2 normalisation: a root of a sum": (
        17,
        """p = Pow(e, two)
        q = ReduceSum(p, last)
        r = Pow(q, half)
        n = Div(e, r)""",
        {"two": TWO, "half": HALF, "last": np.array([-1])},
    ),
    "L2 normalisation: ReduceSumSquare": (
        17,
        """q = ReduceSumSquare <axes=[2]> (e)
        r = Sqrt(q)
        n = Div(e, r)""",
        {},
    ),
}


def stream(net, opset, text, weights):
    """A block with a shortcut, normalised before it (`text` makes n from e)."""
    return net(
        f"""g (float[2,5,6] x) => (float[a,b,c] y) {{
            [emb] e = MatMul(x, we)
            {text}
            [up] u = MatMul(n, wu)
            [act] a = Relu(u)
            [down] o = MatMul(a, wd)
            [add] t = Add(e, o)
            [head] y = MatMul(t, wh)
        }}""",
        opset=opset, ir=10, **STREAM, **weights,
    )  # fmt: skip


@pytest.mark.parametrize("spelling", [*OPERATORS, *WRITTEN_OUT])
def test_a_normalised_stream_shrinks_if_asked(net, holds, spelling):
    model = stream(net, *(OPERATORS | WRITTEN_OUT)[spelling])
    structure = holds(model, {"emb": 8, "up": 12}, prune_normalised=True)
    assert {consumer.name for consumer in structure.prunable[0].consumers} == {"up", "head"}
    assert [one.kind for one in structure.records.normalisations] == [spelling.partition(":")[0].split()[0]] or (
        spelling.startswith("L2") and structure.records.normalisations[0].kind == "L2 normalisation"
    )


@pytest.mark.parametrize("spelling", [*OPERATORS, *WRITTEN_OUT])
def test_a_normalised_stream_stays_whole_otherwise(net, holds, spelling):
    structure = holds(stream(net, *(OPERATORS | WRITTEN_OUT)[spelling]), {"up": 12})
    (reason, *_) = structure.frozen[0].reasons
    kind = spelling.partition(":")[0]
    assert reason.startswith(kind + " written out at Reduce" if spelling in WRITTEN_OUT else kind.split()[0])
    assert reason.endswith(f"normalises over this axis; {HINT}")


@pytest.mark.parametrize(
    "text",
    [
        "[p] p = ReduceMean <axes=[-1]> (e)\nn = Mul(e, p)",
        "[p] p = ReduceMax <axes=[-1]> (e)\nn = Sub(e, p)",
        "q = Exp(e)\n[p] p = ReduceSum(q, last)\nn = Div(q, p)",
        "q = Mul(e, e)\n[p] p = ReduceMean <axes=[-1]> (q)\nn = Div(e, p)",
        "q = Mul(e, e)\n[p] p = ReduceMean <axes=[-1]> (q)\nr = Sqrt(p)\nn = Div(r, e)",
        "q = Mul(e, e)\n[p] p = ReduceMean <axes=[-1]> (q)\nr = Sqrt(p)\nz = Sigmoid(e)\nn = Div(z, r)",
        "q = Mul(e, e)\n[p] p = ReduceMean <axes=[-1]> (q)\nr = Sqrt(p)\nz = Sigmoid(r)\nn = Mul(e, z)",
        "[p] p = ReduceMean <axes=[-1]> (e)\nd = Sub(p, e)\nn = Relu(d)",
    ],
)
def test_other_reductions_freeze_their_axis_even_if_asked(net, holds, text):
    weights = {"last": np.array([-1])} if "last" in text else {}
    structure = holds(stream(net, 17, text, weights), {"up": 12}, prune_normalised=True)
    assert "'p' reduces over this axis" in structure.frozen[0].reasons[0]


def test_statistics_that_are_given_back_are_those_of_the_whole_axis(net, refuses):
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y, float[a,b,d] m) {
            [emb] e = MatMul(x, we)
            [ln] n, m = LayerNormalization(e, s)
            [head] y = MatMul(n, wh)
        }""",
        we=(6, 8), s=(8,), wh=(8, 3),
    )  # fmt: skip
    refuses(model, {"emb": HINT})


GROUPED = """g (float[2,3,{size}] x) => (float[a,b,c,d] y) {{
    [c1] h = Conv(x, w1)
    {text}
    [c2] y = Conv(r, w2)
}}"""


@pytest.mark.parametrize("size", ["4,5", "h,w"])
def test_group_normalisation_gives_up_groups_or_if_asked_channels_of_each(net, holds, size):
    text = "[gn] r = GroupNormalization <num_groups=4> (h, s, b)"
    model = net(GROUPED.format(size=size, text=text), opset=21, ir=10, w1=(8, 3, 1, 1), w2=(4, 8, 3, 3),
                s=(8,), b=(8,))  # fmt: skip
    shapes, other = {"x": (2, 3, 4, 5)}, {"x": (2, 3, 5, 7)} if "h" in size else None
    structure = holds(model, {"c1": 4}, shapes, run_shapes=other)
    assert HINT in structure.frozen[0].reasons[0]
    holds(model, {"c1": 4, "c1#2": 2}, shapes, run_shapes=other, prune_normalised=True)


@pytest.mark.parametrize("size", ["4,5", "h,w"])
def test_group_normalisation_as_instance_normalisation(net, holds, size):
    text = """f = Shape(h)
    i = Reshape(h, grouped)
    [in] j = InstanceNormalization(i, s, b)
    k = Reshape(j, f)
    m = Mul(k, gamma)
    r = Add(m, beta)"""
    model = net(GROUPED.format(size=size, text=text), w1=(8, 3, 1, 1), w2=(4, 8, 1, 1), s=(4,), b=(4,),
                grouped=np.array([0, 4, -1]), gamma=(8, 1, 1), beta=(8, 1, 1))  # fmt: skip
    shapes, other = {"x": (2, 3, 4, 5)}, {"x": (2, 3, 5, 7)} if "h" in size else None
    holds(model, {"c1": 4}, shapes, run_shapes=other)
    holds(model, {"c1": 4, "c1#2": 2}, shapes, run_shapes=other, prune_normalised=True)


def test_channels_first(between, holds):
    """ConvNeXt: a LayerNorm over the channels of a map, written out."""
    text = """m = ReduceMean <axes=[1]> (h)
    d = Sub(h, m)
    p = Pow(d, two)
    w = ReduceMean <axes=[1]> (p)
    v = Add(w, epsilon)
    q = Sqrt(v)
    n = Div(d, q)
    g = Mul(n, s)
    r = Add(g, b)"""
    weights = {"two": TWO, "epsilon": EPSILON, "s": (8, 1, 1), "b": (8, 1, 1)}
    holds(between(text, opset=13, **weights), {"c1": 8}, prune_normalised=True)


def test_several_axes_at_once(between, holds):
    text = "[n] r = LayerNormalization <axis=1> (h, s, b)"
    holds(between(text, s=(8, 6, 7), b=(8, 6, 7)), {"c1": 8}, prune_normalised=True)


def test_a_gated_half(net, holds):
    """gMLP: the normalised half, the other half that it gates, and what they are split from."""
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [up] u = MatMul(x, wu)
            [split] v, w = Split <axis=-1> (u)
            [ln] n = LayerNormalization(w, s, b)
            [gate] t = Mul(v, n)
            [down] y = MatMul(t, wd)
        }""",
        wu=(6, 16), s=(8,), b=(8,), wd=(8, 3),
    )  # fmt: skip
    holds(model, {"up": 8}, prune_normalised=True)


def test_post_norm_with_tied_embeddings(net, holds):
    """BERT: normalised after the shortcut; the table of tokens is the output projection too."""
    model = net(
        """g (int64[2,5] x) => (float[a,b,c] y) {
            [tok] t = Gather(table, x)
            [pos] e = Add(t, places)
            [ln0] n = LayerNormalization(e, s, b)
            [up] u = MatMul(n, wu)
            [act] a = Relu(u)
            [down] o = MatMul(a, wd)
            [add] h = Add(n, o)
            [ln1] m = LayerNormalization(h, s, b)
            [turn] w = Transpose <perm=[1,0]> (table)
            [head] y = MatMul(m, w)
        }""",
        table=(20, 8), places=(5, 8), s=(8,), b=(8,), wu=(8, 12), wd=(12, 8),
    )  # fmt: skip
    structure = holds(model, {"tok": 8, "up": 12}, prune_normalised=True)
    assert {use.constant.name for use in structure.prunable[0].producers} == {"table", "wd"}


def test_a_constant_normalised_with_a_computed_scale(net, holds):
    model = net(
        """g (float[1,6] x) => (float[a,b] y) {
            [s] k = MatMul(x, ws)
            s = Squeeze(k, first)
            n = RMSNormalization(table, s)
            [h] y = MatMul(n, wh)
        }""",
        opset=23, ws=(6, 8), wh=(8, 3), table=(5, 8), first=np.array([0]),
    )  # fmt: skip
    holds(model, {"s": 8}, prune_normalised=True)


def test_a_sum_of_products_is_a_contraction(net, holds):
    """The scores of a two-tower network, with and without normalised embeddings."""
    text = """g (float[2,6] x, float[2,6] z) => (float[a] y) {{
        [user] u = MatMul(x, wu)
        [item] i = MatMul(z, wi)
        {norm}
        [product] p = Mul(a, i)
        [score] y = ReduceSum <keepdims=0> (p, last)
    }}"""
    weights = {"wu": (6, 8), "wi": (6, 8), "last": np.array([-1])}
    holds(net(text.format(norm="a = Tanh(u)"), **weights), {"user": 8})
    l2 = "q = ReduceL2 <axes=[-1]> (u)\na = Div(u, q)"
    holds(net(text.format(norm=l2), **weights), {"user": 8}, prune_normalised=True)


@pytest.mark.parametrize("simple", [True, False])
def test_a_sum_that_one_operator_normalises(net, holds, simple):
    op, more = ("SkipSimplifiedLayerNormalization", "s, b") if simple else ("SkipLayerNormalization", "s, b, c")
    model = net(
        f"""g (float[2,5,6] x) => (float[a,b,c0] y) {{
            [emb] e = MatMul(x, we)
            [more] f = MatMul(x, wf)
            [n] n, , , t = com.microsoft.{op} <epsilon=0.01> (e, f, {more})
            [up] u = MatMul(n, wu)
            [act] a = Relu(u)
            [down] o = MatMul(a, wd)
            [add] k = Add(t, o)
            [head] y = MatMul(k, wh)
        }}""",
        domains=', "com.microsoft" : 1', **STREAM, wf=(6, 8), s=(8,), b=(8,), **({} if simple else {"c": (8,)}),
    )  # fmt: skip
    structure = holds(model, {"emb": 8, "up": 12}, prune_normalised=True)
    assert [one.node.name for one in structure.normalisations] == ["n"]


SPATIAL_ATTENTION = """g (float[2,3,6,7] x) => (float[a,b,c,d] y) {{
    [c1] h = Conv(x, w1, b1)
    [m] m = ReduceMean <axes=[1]> (h)
    [e] e = {extreme} <axes=[1]> ({read})
    [cat] k = Concat <axis=1> (m, e)
    [ca] a = Conv <pads=[3,3,3,3]> (k, wa)
    s = Sigmoid(a)
    r = Mul(h, s)
    [c2] y = Conv(r, w2)
}}"""


@pytest.mark.parametrize(("extreme", "read"), [("ReduceMax", "h"), ("ReduceMin", "h")])
def test_spatial_attention_summarises_the_channels_that_are_there(net, holds, refuses, extreme, read):
    """CBAM: a removed channel is neither in the mean nor the largest."""
    text = SPATIAL_ATTENTION.format(extreme=extreme, read=read)
    model = net(text, w1=(8, 3, 1, 1), b1=(8,), wa=(1, 2, 7, 7), w2=(4, 8, 1, 1))
    refuses(model, {"c1": f"ReduceMean 'm' reduces over this axis; {HINT}"})
    holds(model, {"c1": 8}, prune_normalised=True)


def test_summaries_that_go_elsewhere_too_hold_their_channels(net, refuses):
    text = SPATIAL_ATTENTION.format(extreme="ReduceMax", read="h").replace("Mul(h, s)", "Mul(h, m)")
    model = net(text.replace("Mul(h, m)", "Add(h, m)"), w1=(8, 3, 1, 1), b1=(8,), wa=(1, 2, 7, 7), w2=(4, 8, 1, 1))
    refuses(model, {"c1": "ReduceMean 'm' reduces over this axis"}, prune_normalised=True)
