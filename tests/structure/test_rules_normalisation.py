"""Normalisations carry the channels where each is normalised by itself, and freeze them where not."""

from __future__ import annotations

import numpy as np
import pytest

PARAMETERS = {"s": (8,), "b": (8,), "m": (8,), "v": np.linspace(0.5, 2, 8, dtype=np.float32)}


@pytest.mark.parametrize("opset", [7, 9, 14, 15])
def test_batch_normalisation_that_cannot_be_folded(between, holds, opset):
    """The convolution has a second reader, so the normalisation stays in the graph."""
    model = between("[bn] n = BatchNormalization(h, s, b, m, v)\n[add] r = Add(n, h)", opset=opset, **PARAMETERS)
    structure = holds(model, {"c1": 8})
    assert {use.constant.name for use in structure.prunable[0].carriers} == {"b1", "s", "b", "m", "v"}


def test_batch_normalisation_in_front(net, holds):
    """Pre-activation: nothing to fold into; the constants follow the channels of what they read."""
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [c2] k = Conv(x, w2)
            [cat] t = Concat <axis=1> (h, k)
            [bn] n = BatchNormalization(t, s, b, m, v)
            [r] r = Relu(n)
            [c3] y = Conv(r, w3)
        }""",
        w1=(5, 3, 1, 1), w2=(3, 3, 1, 1), w3=(4, 8, 1, 1), **PARAMETERS,
    )  # fmt: skip
    holds(model, {"c1": 5, "c2": 3})


def test_batch_normalisation_in_training_is_a_barrier(between, refuses):
    text = "[bn] n, m1, v1 = BatchNormalization <training_mode=1> (h, s, b, m, v)\n[add] r = Add(n, h)"
    refuses(between(text, **PARAMETERS), {"c1": "is in training mode"})


def test_instance_normalisation(between, holds):
    holds(between("[n] r = InstanceNormalization(h, s, b)", s=(8,), b=(8,)), {"c1": 8})


@pytest.mark.parametrize(
    ("opset", "text", "weights", "reason"),
    [
        (17, "[n] r = Softmax <axis=1> (h)", {}, "Softmax 'n' normalises over this axis"),
        (11, "[n] r = Softmax <axis=1> (h)", {}, "Softmax 'n' normalises over this axis"),
        (11, "[n] r = Softmax(h)", {}, "Softmax 'n' normalises over this axis"),
        (17, "[n] r = LogSoftmax <axis=-3> (h)", {}, "LogSoftmax 'n' normalises over this axis"),
        (17, "[n] r = Hardmax <axis=1> (h)", {}, "Hardmax 'n' normalises over this axis"),
        (17, "[n] r = LRN <size=3> (h)", {}, "LRN 'n' normalises over channels"),
        (17, "[n] r = LpNormalization <axis=1> (h)", {}, "LpNormalization 'n' normalises over this axis"),
        (17, "[n] r = LayerNormalization <axis=1> (h, s, b)", {"s": (8, 6, 7), "b": (8, 6, 7)},
         "LayerNormalization 'n' normalises over this axis"),
    ],
)  # fmt: skip
def test_a_normalisation_over_the_channels_freezes_them(between, refuses, opset, text, weights, reason):
    refuses(between(text, opset=opset, **weights), {"c1": reason})


@pytest.mark.parametrize(
    ("opset", "text", "weights"),
    [
        (17, "[n] r = Softmax <axis=-1> (h)", {}),
        (17, "[n] r = Softmax(h)", {}),
        (11, "[n] r = Softmax <axis=2> (h)", {}),
        (17, "[n] r = LayerNormalization(h, s)", {"s": (7,)}),
        (17, "[n] r = MeanVarianceNormalization <axes=[2,3]> (h)", {}),
        (17, "[n] r = LpNormalization <axis=2> (h)", {}),
    ],
)
def test_a_normalisation_over_other_axes_passes_them(between, holds, opset, text, weights):
    holds(between(text, opset=opset, **weights), {"c1": 8})


def test_a_layer_norm_freezes_the_residual_but_not_the_hidden_layer(net, holds):
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [emb] e = MatMul(x, we)
            [ln] n = LayerNormalization(e, s, b)
            [up] u = MatMul(n, wu)
            [g] g = Gelu_(u)
            [down] d = MatMul(g, wd)
            [add] a = Add(e, d)
            [head] y = MatMul(a, wh)
        }""".replace("Gelu_", "Relu"),
        we=(6, 8), s=(8,), b=(8,), wu=(8, 12), wd=(12, 8), wh=(8, 3),
    )  # fmt: skip
    structure = holds(model, {"up": 12})
    assert structure.frozen[0].reasons == (
        "LayerNormalization 'ln' normalises over this axis; --prune-normalised lets it shrink",
    )


def test_group_normalisation_takes_its_statistics_over_the_positions_too(net, refuses):
    model = net(
        """g (float[2,4,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [n] r = GroupNormalization <num_groups=2> (h, s, t)
            [m2] y = MatMul(r, w2)
        }""",
        opset=21, w1=(6, 8), w2=(8, 3), s=(4,), t=(4,),
    )  # fmt: skip
    refuses(model, {"m1": "GroupNormalization 'n' normalises over this axis"})
