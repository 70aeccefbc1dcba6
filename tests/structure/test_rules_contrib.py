"""Operators that ONNX Runtime fuses: activations with a bias, normalisations with a sum, Conv with an activation."""

from __future__ import annotations

import pytest

MS = ', "com.microsoft" : 1'


@pytest.mark.parametrize(
    "text",
    [
        "com.microsoft.BiasGelu(h, b)",
        "com.microsoft.FastGelu(h, b)",
        "com.microsoft.FastGelu(h)",
        "com.microsoft.Gelu(h)",
        "com.microsoft.QuickGelu <alpha=1.702> (h)",
    ],
)
def test_activations(net, holds, text):
    model = net(
        f"""g (float[2,5,6] x) => (float[a,b,c] y) {{
            [m1] h = MatMul(x, w1)
            [g] r = {text}
            [m2] y = MatMul(r, w2)
        }}""",
        domains=MS, w1=(6, 8), w2=(8, 7), **({"b": (8,)} if ", b" in text else {}),
    )  # fmt: skip
    structure = holds(model, {"m1": 8})
    assert len(structure.prunable[0].carriers) == (", b" in text)


@pytest.mark.parametrize("simple", [True, False])
def test_a_sum_that_is_normalised(net, holds, simple):
    op, more = ("SkipSimplifiedLayerNormalization", "gamma") if simple else ("SkipLayerNormalization", "gamma, beta, b")
    model = net(
        f"""g (float[2,5,6] x) => (float[a,b,c] y) {{
            [m0] s = MatMul(x, w0)
            [m1] h = MatMul(s, w1)
            [r] r = Tanh(h)
            [m2] t = MatMul(r, w2)
            [n] n, , , sum = com.microsoft.{op} <epsilon=0.01> (s, t, {more})
            [m3] u = MatMul(n, w3)
            [g] g = Tanh(u)
            [m4] v = MatMul(g, w4)
            [a] y = Add(v, sum)
        }}""",
        domains=MS, w0=(6, 10), w1=(10, 8), w2=(8, 10), w3=(10, 9), w4=(9, 10), gamma=(10,),
        **({} if simple else {"beta": (10,), "b": (10,)}),
    )  # fmt: skip
    structure = holds(model, {"m1": 8, "m3": 9})
    reason = f"{op} 'n' normalises over this axis; --prune-normalised lets it shrink"
    assert any(reason in group.reasons for group in structure.frozen)


@pytest.mark.parametrize("segments", [True, False])
def test_embeddings_that_are_summed_and_normalised(net, holds, segments):
    ids, table = (", int32[2,5] seg", "segments") if segments else ("", "")
    model = net(
        f"""g (int32[2,5] ids{ids}) => (float[a,b,c] y) {{
            [e] e, m, s = com.microsoft.EmbedLayerNormalization
                (ids, {"seg" if segments else ""}, words, places, {table}, gamma, beta)
            [m1] h = MatMul(e, w1)
            [r] r = Tanh(h)
            [m2] y = MatMul(r, w2)
        }}""",
        domains=MS, words=(20, 10), places=(9, 10), gamma=(10,), beta=(10,), w1=(10, 8), w2=(8, 7),
        **({"segments": (2, 10)} if segments else {}),
    )  # fmt: skip
    structure = holds(model, {"m1": 8})
    assert any("EmbedLayerNormalization 'e' normalises over this axis" in group.reasons for group in structure.frozen)


def test_simplified_normalisation_in_the_domain_of_onnx(net, holds):
    """ONNX Runtime's own name for RMSNormalization, which its optimiser writes without a domain."""
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [n] n = SimplifiedLayerNormalization <axis=-1, epsilon=0.01, stash_type=1> (h, gamma)
            [m2] k = MatMul(n, w2)
            [m3] y = MatMul(k, w3)
        }""".replace("SimplifiedLayerNormalization", "com.microsoft.Marker"),
        domains=MS, w1=(6, 8), gamma=(8,), w2=(8, 7), w3=(7, 4),
    )  # fmt: skip
    node = model.graph.node[1]
    node.op_type, node.domain = "SimplifiedLayerNormalization", ""
    holds(model, {"m2": 7})


@pytest.mark.parametrize("bias", ["b2", ""])
def test_a_conv_with_a_sum_and_an_activation(between, holds, bias):
    """The residual branch ties the channels of the sum."""
    model = between(
        f"""[f] f = com.microsoft.FusedConv <activation="Relu", pads=[1,1,1,1]> (h, wf, {bias}, h)
            [g] r = com.microsoft.FusedConv <activation="LeakyRelu", activation_params=[0.1]> (f, wg)""",
        domains=MS, wf=(8, 8, 3, 3), wg=(8, 8, 1, 1), **({"b2": (8,)} if bias else {}),
    )  # fmt: skip
    holds(model, {"c1": 8, "g": 8})


def test_a_depthwise_fused_conv(between, holds):
    model = between('[f] r = com.microsoft.FusedConv <activation="Relu", group=8> (h, wf)', domains=MS, wf=(8, 1, 3, 3))
    holds(model, {"c1": 8})


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("com.microsoft.ScaledSiLU <alpha=0.7> (h)", {}),
        ("com.microsoft.GatedAdd(h, h, gate)", {"gate": (2, 5, 1)}),
        ("com.microsoft.GatedAdd(h, side, gate)", {"side": (2, 5, 8), "gate": (2, 5, 1)}),
    ],
)
def test_more_activations(net, holds, text, weights):
    model = net(
        f"""g (float[2,5,6] x) => (float[a,b,c] y) {{
            [m1] h = MatMul(x, w1)
            [g] r = {text}
            [m2] y = MatMul(r, w2)
        }}""",
        domains=MS, w1=(6, 8), w2=(8, 7), **weights,
    )  # fmt: skip
    holds(model, {"m1": 8})


@pytest.mark.parametrize("operator", ["Affine", "ParametricSoftplus", "ScaledTanh"])
def test_activations_of_before_version_1(net, holds, operator):
    model = net(
        f"""g (float[2,6] x) => (float[a,b] y) {{
            [m1] h = MatMul(x, w1)
            [g] r = {operator} <alpha=0.5, beta=0.7> (h)
            [m2] y = MatMul(r, w2)
        }}""",
        opset=9, w1=(6, 8), w2=(8, 7),
    )  # fmt: skip
    holds(model, {"m1": 8})


def test_gates_of_a_linear_attention_have_a_value_for_each_head(net, holds):
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [m2] k = MatMul(x, w2)
            d, r = com.microsoft.LinearAttentionGate(h, bias, scale, k)
            s = Add(d, r)
            [m3] y = MatMul(s, w3)
        }""",
        domains=MS, w1=(6, 8), w2=(6, 8), w3=(8, 7), bias=(8,), scale=(8,),
    )  # fmt: skip
    structure = holds(model, {"m1": 8})
    assert {use.constant.name for use in structure.prunable[0].carriers} == {"bias", "scale"}


def test_heads_of_a_gated_norm_go_whole(net, holds):
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [m2] k = MatMul(x, w2)
            [n] n = com.microsoft.GatedRMSNorm <activation="silu", epsilon=0.01> (h, scale, k)
            [m3] y = MatMul(n, w3)
        }""",
        domains=MS, w1=(6, 12), w2=(6, 12), w3=(12, 7), scale=(4,),
    )  # fmt: skip
    structure = holds(model, {"m1": 3})
    assert any("GatedRMSNorm 'n' normalises over this axis" in group.reasons for group in structure.frozen)


def test_the_old_name_of_a_fused_product(net, holds):
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [m1] h = com.microsoft.TransposeMatMul <alpha=0.5> (x, w1)
            r = Tanh(h)
            [m2] y = com.microsoft.TransposeMatMul <transB=1> (r, w2)
        }""",
        domains=MS, w1=(6, 8), w2=(7, 8),
    )  # fmt: skip
    holds(model, {"m1": 8})


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "com.microsoft.BiasSoftmax <axis=2, is_inner_broadcast=0> (h, b)",
            "BiasSoftmax 'g' normalises over this axis",
        ),
        ("com.microsoft.ComplexMul(h, b)", "ComplexMul 'g' multiplies pairs along this axis"),
    ],
)
def test_what_mixes_units_holds_them(net, refuses, text, reason):
    model = net(
        f"""g (float[2,5,6] x) => (float[a,b,c] y) {{
            [m1] h = MatMul(x, w1)
            [g] r = {text}
            [m2] y = MatMul(r, w2)
        }}""",
        domains=MS, w1=(6, 8), b=(1, 1, 8), w2=(8, 7),
    )  # fmt: skip
    refuses(model, {"m1": reason})
