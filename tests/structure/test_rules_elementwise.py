"""Elementwise operators, and constants of every shape that broadcasts."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.structure.rules.elementwise import UNARY

# What makes an argument that the function is defined for.
DOMAINS = {
    **dict.fromkeys(("Log", "Sqrt", "Reciprocal"), "p = Abs(h)\ns = Add(p, half)"),
    "Acosh": "p = Abs(h)\ns = Add(p, two)",
    **dict.fromkeys(("Acos", "Asin", "Atanh"), "p = Tanh(h)\ns = Mul(p, half)"),
}
OTHERS = {"BitCast", "BitwiseNot", "IsInf", "IsNaN", "Not", "Cast", "Clip", "Swish"}


@pytest.mark.parametrize("operator", sorted(set(UNARY) - OTHERS))
def test_functions_of_one_tensor_pass_the_channels(between, holds, operator):
    domain = DOMAINS.get(operator, "s = Identity(h)")
    text = f"{domain}\n[op] r = {operator}(s)"
    holds(between(text, opset=20, half=np.float32(0.5), two=np.float32(2)), {"c1": 8})


@pytest.mark.parametrize(
    "text",
    [
        "[n] n = Greater(h, zero)\n[m] m = Not(n)\n[c] r = Cast <to=1> (m)",
        "[n] n = IsNaN(h)\n[c] k = Cast <to=1> (n)\n[s] r = Add(h, k)",
        "[n] n = IsInf(h)\n[w] r = Where(n, zero, h)",
        "[n] n = Less(h, zero)\n[m] m = GreaterOrEqual(h, one)\n[o] o = Or(n, m)\n[w] r = Where(o, zero, h)",
        "[n] n = LessOrEqual(h, zero)\n[m] m = Equal(h, one)\n[o] o = Xor(n, m)\n[w] r = Where(o, h, one)",
        "[c] r = Clip(h, zero, one)",
        "[c] r = Clip(h, , one)",
        "[c] c = Cast <to=11> (h)\n[d] r = Cast <to=1> (c)",
        "[d] d, m = Dropout(h)\n[c] r = Where(m, d, zero)",
        "[m] m = Max(h, zero, one)\n[n] n = Min(m, one)\n[k] k = Mean(m, n)\n[s] r = Sum(k, h, m)",
        "[p] r = Pow(h, two)",
        "[m] r = Mod <fmod=1> (h, one)",
    ],
)
def test_comparisons_conversions_and_bounds(between, holds, text):
    model = between(text, zero=np.float32(0), one=np.float32(1), two=np.float32(2))
    holds(model, {"c1": 8})


@pytest.mark.parametrize("shape", [(), (1,), (8, 1, 1), (1, 8, 1, 1), (1, 1, 1), (6, 7), (8, 6, 7), (2, 8, 6, 7), (7,)])
@pytest.mark.parametrize("operator", ["Add", "Sub", "Mul", "Div", "PRelu"])
def test_a_constant_of_any_shape_is_sliced_where_it_follows_the_channels(between, holds, operator, shape):
    constant = np.linspace(0.5, 1.5, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    structure = holds(between(f"[op] r = {operator}(h, k)", k=constant), {"c1": 8})
    carried = {use.constant.name for use in structure.prunable[0].carriers}
    assert carried == ({"b1", "k"} if 8 in shape else {"b1"})


def test_a_constant_on_the_left(between, holds):
    holds(between("[op] r = Sub(k, h)", k=(8, 1, 1)), {"c1": 8})


def test_a_constant_that_widens_the_rank(net, holds):
    model = net(
        """g (float[5,6] x) => (float[a,b,c] y) {
            [m1] h = MatMul(x, w1)
            [s] s = Add(h, k)
            [m2] y = MatMul(s, w2)
        }""",
        w1=(6, 8), k=(4, 1, 8), w2=(8, 3),
    )  # fmt: skip
    holds(model, {"m1": 8})


def test_a_residual_ties_all_that_write_it(net, holds):
    model = net(
        """g (float[2,3,6,6] x) => (float[a,b,c,d] y) {
            [stem] s = Conv(x, w0, b0)
            [c1] h = Conv <pads=[1,1,1,1]> (s, w1)
            [r] r = Relu(h)
            [c2] v = Conv(r, w2, b2)
            [add] a = Add(s, v)
            [c3] u = Conv(a, w3)
            [add2] e = Add(a, u)
            [c4] y = Conv(e, w4)
        }""",
        w0=(8, 3, 1, 1), b0=(8,), w1=(6, 8, 3, 3), w2=(8, 6, 1, 1), b2=(8,), w3=(8, 8, 1, 1), w4=(4, 8, 1, 1),
    )  # fmt: skip
    structure = holds(model, {"stem": 8, "c1": 6})
    stem = structure.prunable[0]
    assert [use.node.name for use in stem.producers] == ["stem", "c2", "c3"]
    assert [consumer.name for consumer in stem.consumers] == ["c1", "c3", "c4"]


def test_squeeze_and_excite(between, holds):
    text = """[gp] gp = GlobalAveragePool(h)
            [s1] s1 = Conv(gp, ws, bs)
            [re] re = Relu(s1)
            [s2] s2 = Conv(re, wt, bt)
            [hs] hs = HardSigmoid(s2)
            [mul] r = Mul(h, hs)"""
    structure = holds(between(text, ws=(4, 8, 1, 1), bs=(4,), wt=(8, 4, 1, 1), bt=(8,)), {"c1": 8, "s1": 4})
    assert [use.node.name for use in structure.prunable[0].producers] == ["c1", "s2"]


def test_a_gate_of_one_channel_ties_nothing(between, holds):
    holds(between("[g] g = Conv(h, wg)\n[s] s = Sigmoid(g)\n[m] r = Mul(s, h)", wg=(1, 8, 1, 1)), {"c1": 8})


def test_a_gated_mlp(net, holds):
    model = net(
        """g (float[2,5,6] x) => (float[a,b,c] y) {
            [gate] g = MatMul(x, wg)
            [s] s = Sigmoid(g)
            [silu] a = Mul(g, s)
            [up] u = MatMul(x, wu)
            [mul] m = Mul(a, u)
            [down] y = MatMul(m, wd)
        }""",
        wg=(6, 10), wu=(6, 10), wd=(10, 6),
    )  # fmt: skip
    structure = holds(model, {"gate": 10})
    assert [use.node.name for use in structure.prunable[0].producers] == ["gate", "up"]


def test_a_tensor_with_two_readers(between, holds):
    holds(
        between("[a] a = Relu(h)\n[b] b = Conv(h, wb)\n[t] t = Conv(a, wt)\n[s] r = Add(b, t)",
                 wb=(8, 8, 1, 1), wt=(8, 8, 1, 1)),
        {"c1": 8, "b": 8},
    )  # fmt: skip


def test_batches_of_unknown_size_meet(net, holds):
    model = net(
        """g (float[N,3,5,5] x, float[N,3,5,5] z) => (float[N,b,c,d] y) {
            [c1] h = Conv(x, w1)
            [c2] v = Conv(z, w2)
            [a] a = Add(h, v)
            [c3] y = Conv(a, w3)
        }""",
        w1=(8, 3, 1, 1), w2=(8, 3, 1, 1), w3=(4, 8, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 8}, run_shapes={"x": (3, 3, 5, 5), "z": (3, 3, 5, 5)})


@pytest.mark.parametrize("same", [True, False])
def test_channels_folded_into_the_batch_stay_together(net, holds, same):
    """[N*C, ...] meets [N*C, ...]: the channels on both sides have to go together, whatever N is."""
    other = "N" if same else "M"
    model = net(
        f"""g (float[N,3,5,5] x, float[{other},3,5,5] z) => (float[a,b,c,d] y) {{
            [c1] h = Conv(x, w1)
            [c2] v = Conv(z, w2)
            [f] f = Reshape(h, fold)
            [g] g = Reshape(v, fold)
            [a] a = Add(f, g)
            [u] u = Reshape(a, unfold)
            [c3] y = Conv(u, w3)
        }}""",
        w1=(8, 3, 1, 1), w2=(8, 3, 1, 1), w3=(4, 8, 1, 1),
        fold=np.array([-1, 5, 5]), unfold=np.array([-1, 8, 5, 5]),
    )  # fmt: skip
    shapes = {"x": (2, 3, 5, 5), "z": (2, 3, 5, 5)}
    # Neither is broadcast, for both have 8 entries at least; so N is M.
    holds(model, {"c1": 8}, shapes, run_shapes={"x": (3, 3, 5, 5), "z": (3, 3, 5, 5)})


def test_clip_of_old_opsets_has_attributes(between, holds):
    holds(between("[c] r = Clip <min=-0.5, max=0.5> (h)", opset=9), {"c1": 8})


@pytest.mark.parametrize("opset", [7, 10, 12, 13])
def test_dropout_of_every_form(between, holds, opset):
    holds(between("[d] r = Dropout <ratio=0.4> (h)" if opset < 12 else "[d] r = Dropout(h, k)", opset=opset,
                   **({} if opset < 12 else {"k": np.float32(0.4)})), {"c1": 8})  # fmt: skip


def test_half_precision(net, holds):
    rng = np.random.default_rng(0)

    def small(*shape):
        return rng.integers(-2, 3, shape).astype(np.float16)

    # Small integers are exact in half precision, so the oracle's tolerance holds.
    model = net(
        """g (float16[2,3,6,6] x) => (float16[a,b,c,d] y) {
            [i] i = Round(x)
            [c1] h = Conv(i, w1, b1)
            [r] r = Relu(h)
            [c2] y = Conv(r, w2)
        }""",
        w1=small(8, 3, 1, 1), b1=small(8), w2=small(4, 8, 1, 1),
    )  # fmt: skip
    holds(model, {"c1": 8})


# SwiGLU is of opset 28, which the runtime refuses as a whole.
@pytest.mark.parametrize(("opset", "text"), [(26, "i = BitCast <to=6> (h)\nm = Neg(i)\nr = BitCast <to=1> (m)")])
def test_functions_that_the_runtime_has_no_kernel_for_yet(between, holds_by_definition, opset, text):
    holds_by_definition(between(text, opset=opset), {"c1": 8}, [])
