"""Whole branches: which groups may lose all their units, and that the network without them equals the masked one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

import numpy as np
import onnx
import pytest

from onnx_subprune.evaluate import random_feeds
from onnx_subprune.model import input_specs, open_session, run
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import RecoveryOptions
from onnx_subprune.plan import Plan, PlannedGroup

Gone = Callable[..., Counter[str]]


def without(analysis: Analysis, names: Collection[str], recovery: str = "none") -> Plan:
    """Return the plan that removes these groups as a whole and half of the units of every second other group."""
    groups = []
    for place, group in enumerate(analysis.structure.prunable):
        kept = tuple(range(group.size)) if place % 2 else tuple(range(max(1, group.size // 2)))
        groups.append(PlannedGroup(group.name, group.size, () if group.name in names else kept))
    return Plan(analysis.fingerprint, "by hand", tuple(groups), RecoveryOptions(recovery=recovery, ridge=0.0))


@pytest.fixture
def gone() -> Gone:
    """`gone(model, groups)`: these may go together, the mask oracle holds; returns the operators that are left."""

    def check(model: onnx.ModelProto, names: Collection[str]) -> Counter[str]:
        analysis = analyse(model)
        assert {*names} <= {group.name for group in analysis.structure.removable}, _why(analysis)
        shrunk, masked = references(analysis, without(analysis, names))
        onnx.checker.check_model(shrunk, full_check=True)
        assert [v.name for v in shrunk.graph.input] == [v.name for v in model.graph.input]
        feeds = random_feeds(input_specs(model), analysis.input_shapes, 0)
        expected, found = (run(open_session(m), feeds) for m in (masked, shrunk))
        for name, value in expected.items():
            assert np.abs(value).max() > 0
            assert relative_error(found[name], value) < 1e-4
        return Counter(node.op_type for node in shrunk.graph.node)

    return check


@pytest.fixture
def stays() -> Callable[..., None]:
    """`stays(model, {group: words})`: these may be pruned but not lose all units, for reasons with these words."""

    def check(model: onnx.ModelProto, reasons: dict[str, str]) -> None:
        structure = analyse(model).structure
        assert set(reasons) <= {group.name for group in structure.prunable}
        for name, words in reasons.items():
            assert words in (structure.removal([name]).reason or "it may go"), name

    return check


def _why(analysis: Analysis) -> str:
    structure = analysis.structure
    return "\n".join(f"{g.name}: {g.reasons or structure.removal([g.name]).reason}" for g in structure.groups)


BLOCK = """g (float[2,3,5,5] x) => (float[a,b] y) {
    [stem] s = Conv(x, w0, b0)
    [c1] h = Conv <pads=[1,1,1,1]> (s, w1, b1)
    [r1] r = Relu(h)
    [c2] u = Conv <pads=[1,1,1,1]> (r, w2, b2)
    [add] t = Add(u, s)
    [r2] v = Relu(t)
    [p] p = GlobalAveragePool(v)
    [f] f = Flatten(p)
    [fc] y = Gemm(f, w3, b3)
}"""
WEIGHTS = {"w0": (6, 3, 1, 1), "b0": (6,), "w1": (5, 6, 3, 3), "b1": (5,), "w2": (6, 5, 3, 3), "w3": (6, 4), "b3": (4,)}


def test_a_residual_branch_leaves_its_bias_in_the_conv_before(net, gone):
    """The stem is read by the Add alone once the branch is gone, so its bias takes the constant."""
    left = gone(net(BLOCK, **WEIGHTS, b2=(6,)), ["c1"])
    assert left == Counter(Conv=1, Relu=1, GlobalAveragePool=1, Flatten=1, Gemm=1)


def test_a_branch_without_bias_leaves_nothing(net, gone):
    left = gone(net(BLOCK.replace("(r, w2, b2)", "(r, w2)"), **WEIGHTS), ["c1"])
    assert left == Counter(Conv=1, Relu=1, GlobalAveragePool=1, Flatten=1, Gemm=1)


def test_behind_an_activation_one_add_of_a_constant_stays(net, gone):
    text = BLOCK.replace("[stem] s = Conv(x, w0, b0)", "[stem] q = Conv(x, w0, b0)\n[r0] s = Relu(q)")
    left = gone(net(text, **WEIGHTS, b2=(6,)), ["c1"])
    assert left == Counter(Conv=1, Relu=2, Add=1, GlobalAveragePool=1, Flatten=1, Gemm=1)


def test_a_stream_that_the_outputs_need_stays(net, stays):
    stays(net(BLOCK, **WEIGHTS, b2=(6,)), {"stem": "graph output 'y'"})


def test_a_plain_chain_stays(between, stays):
    model = between("[r] r = Relu(h)")
    stays(model, {"c1": "nothing of graph output 'y' would depend on the inputs"})


def test_a_chain_of_one_sample_stays(net, stays):
    # Where the batch has one entry, the constant that stands for the hidden layer has the shape of what it stands for.
    model = net(
        """g (float[1,6] x) => (float[1,3] y) {
            [f1] h = Gemm(x, w1)
            [r1] r = Relu(h)
            [f2] k = Gemm(r, w2)
            [r2] s = Relu(k)
            [f3] y = Gemm(s, w3)
        }""",
        w1=(6, 5), w2=(5, 4), w3=(4, 3),
    )  # fmt: skip
    stays(model, dict.fromkeys(("f1", "f2"), "nothing of graph output 'y' would depend on the inputs"))


def test_an_add_that_broadcasts_the_other_side_stays(net, gone):
    # u + b has six channels only by b: without it one channel would be left.
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y) {
            [u] u = Conv(x, w0, b0)
            [c1] h = Conv(x, w1, b1)
            [c2] b = Conv(h, w2)
            [add] t = Add(u, b)
            [end] y = Conv(t, w3)
        }""",
        w0=(1, 3, 1, 1), b0=(1,), w1=(5, 3, 1, 1), b1=(5,), w2=(6, 5, 1, 1), w3=(2, 6, 1, 1),
    )  # fmt: skip
    assert gone(model, ["c1"]) == Counter(Conv=2, Add=1)


@pytest.mark.parametrize("bias", [False, True])
def test_an_add_that_gives_an_axis_stays(net, gone, bias):
    model = net(
        f"""g (float[4,6] x, float[1,4,3] z) => (float[a,b,c] y) {{
            [f0] u = Gemm(x, w0, b0)
            [f1] h = MatMul(z, w1)
            [f2] k = MatMul(h, w2)
            {"[b2] b = Add(k, b2)" if bias else ""}
            [add] t = Add(u, {"b" if bias else "k"})
            [end] y = MatMul(t, w3)
        }}""",
        w0=(6, 5), b0=(5,), w1=(3, 7), w2=(7, 5), w3=(5, 2), **({"b2": (5,)} if bias else {}),
    )  # fmt: skip
    assert gone(model, ["f1"]) == Counter(Gemm=1, MatMul=1, Add=1)


@pytest.mark.parametrize("last", ["Sigmoid", "HardSigmoid", "HardSwish"])
def test_a_squeeze_leaves_a_gate_that_does_not_move(between, gone, last):
    text = f"""[p] p = GlobalAveragePool(h)
        [s1] s = Conv(p, ws, bs)
        [r] q = Relu(s)
        [s2] e = Conv(q, we, be)
        [g] g = {last}(e)
        [m] r = Mul(h, g)"""
    left = gone(between(text, ws=(2, 8, 1, 1), bs=(2,), we=(8, 2, 1, 1), be=(8,)), ["s1"])
    assert left == Counter(Conv=2, Mul=1)


PATHS = """[a] a = Conv(h, wa, ba)
    [b] b = Conv(h, wb, bb)
    [d] d = Relu(b)
    [k] r = Concat <axis=1> (a, d, h)"""


@pytest.mark.parametrize(("names", "left"), [(["a"], {"Conv": 3, "Relu": 1, "Concat": 1}), (["a", "b"], {"Conv": 2})])
def test_pieces_of_a_concat_disappear(between, gone, names, left):
    model = between(PATHS, out=13, wa=(2, 8, 1, 1), ba=(2,), wb=(3, 8, 1, 1), bb=(3,))
    assert gone(model, names) == Counter(left)


def test_a_constant_cannot_be_a_piece_of_a_concat(between, stays):
    text = """[a] a = Conv(h, wa, ba)
        [b] b = Conv(a, wb, bb)
        [k] r = Concat <axis=1> (b, h)"""
    model = between(text, out=11, wa=(2, 8, 1, 1), ba=(2,), wb=(3, 2, 1, 1), bb=(3,))
    stays(model, {"a": "Concat 'k' would read a constant of one entry"})


def test_pieces_of_a_split_disappear(between, gone):
    text = """[s] a, b, d = Split <axis=1> (h, sizes)
        [c] c = Conv(a, wa, ba)
        [t] t = Add(c, b)
        [r] r = Relu(t)
        [e] e = Conv(d, wd, bd)"""
    model = between(text, out=3, sizes=np.array([2, 3, 3]), wa=(3, 2, 1, 1), ba=(3,), wd=(1, 3, 1, 1), bd=(1,))
    first = next(group.name for group in analyse(model).structure.prunable if group.size == 2)
    assert gone(model, [first])["Conv"] == 2


def test_a_slice_counted_from_the_end_takes_all_once_the_rest_is_gone(net, gone):
    model = net(
        """g (float[2,3,5,5] x) => (float[a,b,c,d] y, float[e,f,i,j] z) {
            [a] a = Conv(x, wa)
            [b] b = Conv(x, wb)
            [k] k = Concat <axis=1> (a, b)
            [s] s = Slice(k, low, high, axis)
            [c2] y = Conv(s, w2)
            [c3] z = Conv(k, w3)
        }""",
        wa=(4, 3, 1, 1), wb=(2, 3, 1, 1), w2=(3, 4, 1, 1), w3=(3, 6, 1, 1),
        low=np.array([0]), high=np.array([-2]), axis=np.array([1]),
    )  # fmt: skip
    gone(model, ["b"])


ATTENTION = """g (float[2,5,6] x) => (float[a,b,c] y) {
    [e] m = MatMul(x, we)
    [eb] t = Add(m, be)
    [q] q0 = MatMul(t, wq)
    [k] k0 = MatMul(t, wk)
    [v] v0 = MatMul(t, wv)
    [q1] q1 = Reshape(q0, split)
    [k1] k1 = Reshape(k0, split)
    [v1] v1 = Reshape(v0, split)
    [q2] q2 = Transpose <perm=[0,2,1,3]> (q1)
    [k2] k2 = Transpose <perm=[0,2,3,1]> (k1)
    [v2] v2 = Transpose <perm=[0,2,1,3]> (v1)
    [s] s = MatMul(q2, k2)
    [p] p = Softmax <axis=-1> (s)
    [o] o = MatMul(p, v2)
    [o1] o1 = Transpose <perm=[0,2,1,3]> (o)
    [o2] o2 = Reshape(o1, merge)
    [w] w = MatMul(o2, wo)
    [wb] z = Add(w, bo)
    [add] r = Add(t, z)
    [n] n = LayerNormalization(r, g, g)
    [h] h = MatMul(n, wh)
    [hb] y = Add(h, bh)
}"""
HEADS = {
    **dict.fromkeys(("we", "wo"), (6, 6)), **dict.fromkeys(("wq", "wk", "wv"), (6, 6)), "wh": (6, 3),
    **dict.fromkeys(("be", "bo", "g"), (6,)), "bh": (3,), "split": np.array([0, 0, 2, 3]), "merge": np.array([0, 0, 6]),
}  # fmt: skip


def test_attention_without_heads_is_a_constant_in_the_bias_before(net, gone):
    model = net(ATTENTION, **HEADS)
    heads = next(group.name for group in analyse(model).structure.prunable if group.size == 2)
    assert gone(model, [heads]) == Counter(MatMul=2, Add=2, LayerNormalization=1)


def test_attention_without_value_channels_is_gone_too(net, gone):
    model = net(ATTENTION, **HEADS)
    (values,) = (g.name for g in analyse(model).structure.prunable if g.size == 3 and not g.contractions)
    assert gone(model, [values]) == Counter(MatMul=2, Add=2, LayerNormalization=1)


@pytest.mark.parametrize("remembered", [True, False])
def test_an_attention_whose_keys_are_remembered_keeps_a_head(net, stays, gone, remembered):
    """Queries, keys and values are one tensor, which is not empty when the queries are gone."""
    model = net(
        f"""g (float[2,5,10] x) => (float[a,b,c] y{", float[d,e,f,h] nk" if remembered else ""}) {{
            [stem] t = MatMul(x, wt)
            [qkv] q = MatMul(t, w)
            [att] o, nk, nv = com.microsoft.GroupQueryAttention <num_heads=4, kv_num_heads=2> (q, , , , , lens, total)
            [out] u = MatMul(o, wo)
            [add] y = Add(t, u)
        }}""",
        domains=', "com.microsoft" : 1', wt=(10, 7), w=(7, 128), wo=(64, 7),
        lens=np.array([4, 4], np.int32), total=np.array(5, np.int32),
    )  # fmt: skip
    heads = next(group.name for group in analyse(model).structure.prunable if group.name != "stem" and group.size == 2)
    if remembered:
        stays(model, {heads: "GroupQueryAttention 'att' would be left with num_heads of 0"})
        assert heads not in {group.name for group in analyse(model).structure.removable}
    else:
        assert gone(model, [heads])["GroupQueryAttention"] == 0


def test_scores_over_no_channels_would_be_uniform_attention(net, stays):
    model = net(ATTENTION, **HEADS)
    (pairs,) = (g.name for g in analyse(model).structure.prunable if g.contractions)
    stays(model, {pairs: "needs an entry of"})


def test_where_two_branches_meet_one_of_them_stays(between):
    """Either may be a constant; the sum of both would have no positions."""
    text = """[a1] u = Conv(h, wa)
        [a2] v = Conv(u, wb)
        [b1] p = Conv(h, wa2)
        [b2] q = Conv(p, wb2)
        [t] t = Add(v, q)
        [r] r = MaxPool <kernel_shape=[2,2]> (t)"""
    shapes = {"wa": (2, 8, 1, 1), "wb": (8, 2, 1, 1)}
    model = between(text, **shapes, **{f"{k}2": v for k, v in shapes.items()})
    structure = analyse(model).structure
    assert {"a1", "b1"} <= {group.name for group in structure.removable}
    assert list(structure.needed(["a1", "b1"])) == ["b1"]
    assert list(structure.needed(["b1", "a1"])) == ["a1"]


def test_the_shape_of_a_branch_is_still_asked_for(between, stays):
    text = """[a] a = Conv(h, wa)
        [s] s = Shape(a)
        [b] b = Conv(a, wb)
        [i] i = Slice(s, two, four)
        [j] j = Concat <axis=0> (ones, i)
        [e] e = Expand(m, j)
        [t] t = Add(h, b)
        [r] r = Mul(t, e)"""
    model = between(
        text, wa=(2, 8, 1, 1), wb=(8, 2, 1, 1), m=np.float32([[[[0.5]]]]),
        two=np.array([2]), four=np.array([4]), ones=np.array([1, 1]),
    )  # fmt: skip
    stays(model, {"a": "Shape 's' needs an entry of 'a'"})


@pytest.mark.parametrize("slope", [(8, 1, 1), (1,)])
def test_a_constant_goes_through_prelu(between, gone, slope):
    text = """[a] a = Conv(h, wa)
        [b] b = Conv(a, wb, bb)
        [q] q = PRelu(b, slope)
        [t] r = Add(h, q)"""
    left = gone(between(text, wa=(2, 8, 1, 1), wb=(8, 2, 1, 1), bb=(8,), slope=slope), ["a"])
    assert left == Counter(Conv=2)


def test_a_grouped_conv_may_lose_its_features(between, gone):
    text = """[a] a = Conv(h, wa)
        [b] b = Conv <group=2> (a, wb, bb)
        [t] r = Add(h, b)"""
    model = between(text, wa=(4, 8, 1, 1), wb=(8, 2, 1, 1), bb=(8,))
    inner = next(group.name for group in analyse(model).structure.removable if group.producers[0].node.name == "a")
    assert gone(model, [inner])["Conv"] == 2


@pytest.mark.parametrize("shape", [(6,), (1, 6), ()])
def test_a_gemm_gives_its_bias(net, gone, shape):
    model = net(
        """g (float[4,3] x) => (float[a,b] y) {
            [f1] h = Gemm(x, w1, b1)
            [f2] a = Gemm <alpha=0.5, beta=2.0> (h, w2, b2)
            [f0] s = Gemm <beta=0.5> (x, w0, b0)
            [t] t = Add(a, s)
            [r] r = Relu(t)
            [f3] y = Gemm(r, w3)
        }""",
        w1=(3, 5), b1=(5,), w2=(5, 6), b2=shape, w0=(3, 6), b0=(6,), w3=(6, 2),
    )  # fmt: skip
    left = gone(model, ["f1"])
    assert left == Counter(Gemm=2, Relu=1)


def test_a_bias_that_is_computed_cannot_be_a_constant(net, stays):
    model = net(
        """g (float[4,3] x) => (float[a,b] y) {
            [f1] h = Gemm(x, w1, b1)
            [f0] s = Gemm(x, w0)
            [f2] a = Gemm(h, w2, s)
            [f3] y = Gemm(a, w3)
        }""",
        w1=(3, 5), b1=(5,), w2=(5, 6), w0=(3, 6), w3=(6, 2),
    )  # fmt: skip
    stays(model, {"f1": "Gemm 'f2' needs an entry of 'h'"})


def test_an_input_that_only_a_branch_read_stays_an_input(net, gone):
    model = net(
        """g (float[2,3,5,5] x, float[2,3,5,5] z) => (float[a,b,c,d] y) {
            [a] a = Conv(z, wa)
            [b] b = Conv(a, wb)
            [s] s = Conv(x, w0)
            [t] t = Add(s, b)
            [c] y = Conv(t, w1)
        }""",
        wa=(4, 3, 1, 1), wb=(6, 4, 1, 1), w0=(6, 3, 1, 1), w1=(2, 6, 1, 1),
    )  # fmt: skip
    assert gone(model, ["a"]) == Counter(Conv=2)
