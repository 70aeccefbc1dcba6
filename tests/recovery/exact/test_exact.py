"""Where removed units are combinations of kept ones, exact recovery gives the dense network back, on unseen data."""

from __future__ import annotations

import numpy as np
import pytest

KEPT, SIZE = 5, 8
RNG = np.random.default_rng(7)
MIX = RNG.standard_normal((SIZE - KEPT, KEPT)) / 2


def redundant(shape, axis=0, shift=0.0):
    """Random weights whose last units along `axis` are mixtures of the first, plus `shift`."""
    first = RNG.standard_normal((KEPT, *(n for i, n in enumerate(shape) if i != axis))) / 2
    rest = np.tensordot(MIX, first, axes=1) + shift
    return np.moveaxis(np.concatenate([first, rest]), 0, axis).astype(np.float32)


def _both(shift=0.7):
    """Weight and bias of a 1 x 1 convolution with 3 channels in; the mixtures are off by a constant."""
    weight = redundant((SIZE, 4))
    return {
        "w1": weight[:, :3].reshape(SIZE, 3, 1, 1),
        "b1": weight[:, 3] + np.float32(shift) * (np.arange(SIZE) >= KEPT),
    }


def _holds(pruned, distance, model, kept, one_pass, tolerance=1e-4):
    bare = pruned(model, kept, recovery="none")
    assert distance(model, bare.model) > 3e-2, "the removed units do not matter: the test would prove nothing"
    found = pruned(model, kept, one_pass=one_pass)
    assert distance(model, found.model) < tolerance, found.warnings
    return found


SPATIAL = [
    ("[c2] y = Conv <pads=[1,1,1,1]> (h, w2, b2)", {"w2": (4, 8, 3, 3), "b2": (4,)}),
    ("[c2] y = Conv <pads=[1,0,0,2], strides=[2,2]> (h, w2)", {"w2": (4, 8, 3, 3)}),
    ("[c2] y = Conv <pads=[2,2,2,2], dilations=[2,2]> (h, w2)", {"w2": (4, 8, 3, 3)}),
    ("[c2] y = ConvTranspose <strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]> (h, w2)", {"w2": (8, 4, 3, 3)}),
    ("[d] d = Conv <group=8, pads=[1,1,1,1]> (h, wd)\n[c2] y = Conv(d, w2)",
     {"wd": np.repeat(RNG.standard_normal((1, 1, 3, 3)).astype(np.float32), 8, 0), "w2": (4, 8, 1, 1)}),
    ("[f] f = Flatten(h)\n[g] u = Gemm <alpha=0.5, beta=2.0> (f, w2, b2)\n[u] y = Unsqueeze(u, k)",
     {"w2": (8 * 30, 6), "b2": (6,), "k": np.array([2, 3])}),
    ("[f] f = Flatten(h)\n[g] u = MatMul(f, w2)\n[u] y = Unsqueeze(u, k)", {"w2": (8 * 30, 6), "k": np.array([2, 3])}),
]  # fmt: skip


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize(("text", "weights"), SPATIAL)
def test_maps(net, pruned, distance, draw, text, weights, one_pass):
    shift = 0.0 if text.startswith("[d]") else 0.7
    model = net(
        f"g (float[4,3,6,5] x) => (float[a,b,c,d] y) {{ [c1] h = Conv(x, w1, b1)\n{text} }}", **_both(shift), **weights
    )
    _holds(pruned, distance, model, {"c1": range(KEPT)}, one_pass)


@pytest.mark.parametrize("one_pass", [False, True])
def test_constant_channels_are_right_at_the_borders(net, pruned, distance, one_pass):
    """A channel of a constant is nothing on the padding: no bias can stand for it, the other channels can."""
    first = redundant((SIZE, 4))
    first[KEPT:] = [0, 0, 0, 2]
    model = net(
        """g (float[4,3,6,6] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [c2] y = Conv <pads=[1,1,1,1]> (h, w2, b2)
        }""",
        w1=np.ascontiguousarray(first[:, :3]).reshape(SIZE, 3, 1, 1), b1=np.ascontiguousarray(first[:, 3]),
        w2=(4, 8, 3, 3), b2=(4,),
    )  # fmt: skip
    _holds(pruned, distance, model, {"c1": range(KEPT)}, one_pass)


@pytest.mark.parametrize("one_pass", [False, True])
def test_a_channel_that_is_another_one_shifted_is_read_through_another_tap(net, pruned, distance, one_pass):
    """The values of channels at one position, which recovery by channel goes by, say nothing of this."""
    first = RNG.standard_normal((KEPT, 3, 1, 3)).astype(np.float32)
    first[..., 2] = 0
    shifted = np.roll(first[: SIZE - KEPT], 1, axis=3)
    reader = RNG.standard_normal((4, SIZE, 1, 3)).astype(np.float32)
    reader[:, KEPT:, :, 2] = 0
    model = net(
        """g (float[4,3,6,9] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [c2] y = Conv(h, w2, b2)
        }""",
        w1=np.concatenate([first, shifted]), w2=reader, b2=(4,),
    )  # fmt: skip
    assert distance(model, pruned(model, {"c1": range(KEPT)}, recovery="channel").model) > 0.1
    _holds(pruned, distance, model, {"c1": range(KEPT)}, one_pass)


@pytest.mark.parametrize("one_pass", [False, True])
def test_groups_of_a_convolution(net, pruned, distance, one_pass):
    both = np.concatenate([redundant((SIZE, 4)) for _ in range(2)])
    model = net(
        """g (float[4,3,6,7] x) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [c2] y = Conv <group=2, pads=[1,1,1,1]> (h, w2)
        }""",
        w1=both[:, :3].reshape(16, 3, 1, 1), b1=np.ascontiguousarray(both[:, 3]), w2=(4, 8, 3, 3),
    )  # fmt: skip
    _holds(pruned, distance, model, {"c1#2": range(KEPT)}, one_pass)


@pytest.mark.parametrize("one_pass", [False, True])
def test_a_residual_stream(net, pruned, distance, one_pass):
    """All that writes the stream is redundant in the same way; what reads it is fitted on both sides of an Add."""
    stem, more = redundant((SIZE, 3)), redundant((SIZE, 6))
    model = net(
        """g (float[4,3,6,6] x) => (float[a,b,c,d] y) {
            [c1] s = Conv(x, w1)
            [c2] u = Conv <pads=[1,1,1,1]> (s, w2, b2)
            [r] r = Relu(u)
            [c3] v = Conv(r, w3)
            [a] t = Add(v, s)
            [c4] y = Conv <pads=[1,1,1,1]> (t, w4)
        }""",
        w1=stem.reshape(SIZE, 3, 1, 1), w2=(6, 8, 3, 3), b2=(6,), w3=more.reshape(SIZE, 6, 1, 1), w4=(4, 8, 3, 3),
    )  # fmt: skip
    _holds(pruned, distance, model, {"c1": range(KEPT)}, one_pass)


def _shared(weights):
    """q, k, v read the same mixtures."""
    return {
        "w1": redundant((3, SIZE), axis=1),
        "wq": (SIZE, 4),
        "wk": (SIZE, 4),
        "wv": (SIZE, 4),
        "bq": (4,),
        **weights,
    }


ATTENTION = """g (float[4,6,3] x) => (float[a,b,c] y) {
    [m1] h = MatMul(x, w1)
    [q] q0 = MatMul(h, wq)
    [qa] q = Add(q0, bq)
    [k] k = MatMul(h, wk)
    [v] v = MatMul(h, wv)
    [t] kt = Transpose <perm=[0,2,1]> (k)
    [s] s = MatMul(q, kt)
    [p] p = Softmax <axis=-1> (s)
    [o] o = MatMul(p, v)
    [m2] y = MatMul(o, wo)
}"""


@pytest.mark.parametrize("one_pass", [False, True])
def test_attention_written_out(net, pruned, distance, one_pass):
    model = net(ATTENTION, **_shared({"wo": (4, 3)}))
    found = _holds(pruned, distance, model, {"m1": range(KEPT)}, one_pass)
    assert found is not None


@pytest.mark.parametrize("one_pass", [False, True])
def test_values_of_an_attention(net, pruned, distance, one_pass):
    model = net(ATTENTION, **_shared({"w1": (3, SIZE), "wv": redundant((SIZE, SIZE), axis=1), "wo": (SIZE, 3)}))
    _holds(pruned, distance, model, {"v": range(KEPT)}, one_pass)


@pytest.mark.parametrize("one_pass", [False, True])
def test_a_gated_mlp(net, pruned, distance, one_pass):
    """Twins: the product of a gate and what it lets through is no mixture of other products, but a copy is."""
    twins = [0, 1, 2, 3, 4, 1, 3, 3]
    gate, up = (RNG.standard_normal((3, KEPT)).astype(np.float32)[:, twins] for _ in range(2))
    model = net(
        """g (float[4,6,3] x) => (float[a,b,c] y) {
            [m1] g0 = MatMul(x, w1)
            [s] g1 = Sigmoid(g0)
            [g] gate = Mul(g0, g1)
            [m2] up = MatMul(x, w2)
            [p] p = Mul(gate, up)
            [m3] y = MatMul(p, w3)
        }""",
        w1=gate, w2=up, w3=(SIZE, 3),
    )  # fmt: skip
    _holds(pruned, distance, model, {"m1": range(KEPT)}, one_pass)


@pytest.mark.parametrize("one_pass", [False, True])
def test_every_consumer_of_a_group_is_fitted(net, pruned, distance, one_pass):
    model = net(
        """g (float[4,3,6,6] x) => (float[a,b,c,d] y, float[e,f,k,l] z, float[m,n] v) {
            [c1] h = Conv(x, w1, b1)
            [c2] y = Conv <pads=[1,1,1,1]> (h, w2)
            [c3] z = Conv <strides=[2,2]> (h, w3, b3)
            [p] p = GlobalAveragePool(h)
            [f] f = Flatten(p)
            [g] v = Gemm(f, w4, b4)
        }""",
        **_both(), w2=(4, 8, 3, 3), w3=(3, 8, 2, 2), b3=(3,), w4=(8, 4), b4=(4,),
    )  # fmt: skip
    _holds(pruned, distance, model, {"c1": range(KEPT)}, one_pass)


@pytest.mark.parametrize("one_pass", [False, True])
def test_shared_weights(net, pruned, distance, one_pass):
    model = net(
        """g (float[4,3,6,6] x, float[4,3,6,6] z) => (float[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [d1] k = Conv(z, w1, b1)
            [c2] u = Conv(h, w2)
            [d2] v = Conv(k, w2)
            [s] y = Sub(u, v)
        }""",
        **_both(), w2=(4, 8, 3, 3),
    )  # fmt: skip
    found = _holds(pruned, distance, model, {"c1": range(KEPT)}, one_pass)
    assert {"c1", "d1", "c2", "d2"} == {layer.name for layer in found.fit.layers}
    assert not [text for text in found.warnings if "keeps" in text]


@pytest.mark.parametrize("one_pass", [False, True])
def test_half_precision_weights(net, pruned, distance, draw, one_pass):
    """float16 weights behind a Cast, and a network of float16 altogether."""
    both = _both(0.0)
    model = net(
        """g (float16[4,3,6,6] x) => (float16[a,b,c,d] y) {
            [c1] h = Conv(x, w1, b1)
            [c2] y = Conv <pads=[1,1,1,1]> (h, w2)
        }""",
        w1=both["w1"].astype(np.float16), b1=both["b1"].astype(np.float16),
        w2=(RNG.standard_normal((4, 8, 3, 3)) / 8).astype(np.float16),
    )  # fmt: skip
    data, fresh = ({"x": values["x"].astype(np.float16)} for values in (draw(model, 64), draw(model, 4, 3)))
    found = pruned(model, {"c1": range(KEPT)}, data, one_pass=one_pass)
    assert distance(model, found.model, fresh) < 1e-2


@pytest.mark.parametrize("one_pass", [False, True])
@pytest.mark.parametrize("chain", ["Transpose", "Cast", "Identity"])
def test_weights_behind_a_chain(net, pruned, distance, chain, one_pass):
    """Kept as a chain where the weight is a default that a caller may replace, or several chains start at it."""
    weight = RNG.standard_normal((SIZE, 4)).astype(np.float32)
    stored = {"Transpose": weight.T.copy(), "Cast": weight.astype(np.float16), "Identity": weight}[chain]
    attributes = {"Transpose": "<perm=[1,0]> ", "Cast": "<to=1> ", "Identity": ""}[chain]
    model = net(
        f"""g (float[4,6,3] x) => (float[a,b,c] y) {{
            [m1] h = MatMul(x, w1)
            [t] t = {chain} {attributes}(w2)
            [m2] y = MatMul(h, t)
        }}""",
        w1=redundant((3, SIZE), axis=1), w2=stored,
    )  # fmt: skip
    found = _holds(pruned, distance, model, {"m1": range(KEPT)}, one_pass, 1e-2 if chain == "Cast" else 1e-4)
    assert not found.warnings
