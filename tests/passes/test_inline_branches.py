"""The branch that always runs takes the place of its If; the function stays the same."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune.model import open_session, run
from onnx_subprune.network.analysis import analyse
from onnx_subprune.pipeline import Analysis

FEEDS = {"x": np.random.default_rng(0).standard_normal((2, 3, 5, 5)).astype(np.float32)}
W1 = np.random.default_rng(1).standard_normal((8, 3, 1, 1)).astype(np.float32)
W2 = np.random.default_rng(2).standard_normal((4, 8, 1, 1)).astype(np.float32)
# Both branches name their tensors alike, and the branch's hidden layer is a group once it stands in the graph.
BRANCHES = """If (c) <
    then_branch = t () => (float[e,f,g,h] out) { h = Conv(x, w1)  r = Relu(h)  out = Conv(r, w2) },
    else_branch = f () => (float[i,j,k,l] out) { h = Tanh(x)  out = Conv(h, w3) }>"""


def build(text: str, inputs: str = "float[2,3,5,5] x", opset: int = 17, **more: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]>\ng ({inputs}) => (float[a,b,c,d] y) {{ {text} }}'
    )
    known = {"w1": W1, "w2": W2, "w3": W2[:, :3].copy(), **more}
    for name, value in known.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
    return model


def operators(analysis: Analysis) -> list[str]:
    return [node.op_type for node in analysis.normalised.graph.node]


@pytest.fixture
def same() -> Callable[..., Analysis]:
    """The analysis of a model, whose normalised form computes the same."""

    def check(model: onnx.ModelProto) -> Analysis:
        analysis = analyse(model)
        onnx.checker.check_model(analysis.normalised, full_check=True)
        expected, found = (run(open_session(each), FEEDS) for each in (model, analysis.normalised))
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6)
        return analysis

    return check


@pytest.mark.parametrize("condition", [True, False])
def test_a_constant_condition(same, condition):
    analysis = same(build(f"[if] y = {BRANCHES}", c=np.array(condition)))
    assert "If" not in operators(analysis)
    assert len(analysis.structure.prunable) == int(condition)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("s = Shape(x)  k = Size(s)  c = Equal(k, four)", True),
        ("s = Shape(x)  k = Size(s)  e = Equal(k, four)  c = Not(e)", False),
        ("s = Shape(x)  n = Gather(s, one)  c = Equal(n, four)", False),
        ("s = Shape <start=1> (x)  p = ReduceProd <keepdims=0> (s)  c = Greater(p, four)", True),
    ],
)
def test_ranks_and_fixed_sizes(same, text, taken):
    given = {"four": np.array(4), "one": np.array(1)}
    analysis = same(build(f"{text}  [if] y = {BRANCHES}", **{k: v for k, v in given.items() if k in text}))
    assert "If" not in operators(analysis)
    assert ("Relu" in operators(analysis)) == taken


@pytest.mark.parametrize("inputs", ["float[2,3,5,5] x, bool c", "float[n,3,5,5] x"])
def test_what_is_known_at_run_time_only_stays(inputs):
    text = "" if "bool" in inputs else "s = Shape(x)  n = Gather(s, zero)  c = Equal(n, four)"
    more = {} if "bool" in inputs else {"four": np.array(4), "zero": np.array(0)}
    analysis = analyse(build(f"{text}  [if] y = {BRANCHES}", inputs, **more))
    assert "If" in operators(analysis)
    # What the branches do stands in the main graph, where it is pruned.
    assert [group.size for group in analysis.structure.prunable] == [8]


def test_one_size_of_a_shape_that_is_not_all_fixed(same):
    text = "s = Shape(x)  n = Gather(s, one)  c = Equal(n, three)"
    given = {"one": np.array(1), "three": np.array(3)}
    analysis = same(build(f"{text}  [if] y = {BRANCHES}", "float[n,3,m,m] x", **given))
    assert "If" not in operators(analysis)


def test_an_if_inside_a_branch_and_two_with_the_same_names(same):
    inner = BRANCHES.replace("{ h =", "{ k =").replace("(h", "(k").replace("out", "deep")
    text = f"""[one] z = If (c) <
        then_branch = t () => (float[e,f,g,h] o) {{ [deep] o = {inner} }},
        else_branch = f () => (float[i,j,k,l] o) {{ o = Conv(x, w3) }}>
    [two] v = {BRANCHES}
    y = Add(z, v)"""
    analysis = same(build(text, c=np.array(True)))
    assert operators(analysis).count("Conv") == 4
    assert "If" not in operators(analysis)
    assert len(analysis.structure.prunable) == 1


def test_a_constant_of_a_branch_may_have_the_name_of_a_later_tensor(same):
    text = """[if] z = If (c) <
        then_branch = t () => (float[e,f,g,h] o) { k = Constant <value_float=2.0> ()  o = Mul(x, k) },
        else_branch = f () => (float[i,j,k,l] o) { o = Conv(x, w3) }>
    k = Relu(z)  y = Conv(k, w3)"""
    assert "If" not in operators(same(build(text, c=np.array(True))))


def test_a_branch_that_hands_out_what_it_is_given(same):
    text = """h = Conv(x, w3)
    [if] u, v = If (c) <
        then_branch = t () => (float[e,f,g,h] a, float[e,f,g,h] a2) { a = Relu(x)  a2 = Identity(x) },
        else_branch = f () => (float[e,f,g,h] b, float[e,f,g,h] b2) { b = Tanh(x)  b2 = Neg(x) }>
    p = ReduceMax <keepdims=0> (u)  q = ReduceMin <keepdims=0> (v)
    r = Mul(p, q)  y = Add(h, r)"""
    assert "If" not in operators(same(build(text, c=np.array(True))))


def test_a_default_that_the_caller_may_replace_is_not_a_condition():
    model = build(f"[if] y = {BRANCHES}", "float[2,3,5,5] x, bool c", c=np.array(True))
    assert "If" in operators(analyse(model))


def test_inlined_branches_are_pruned_exactly(mask_oracle):
    mask_oracle(build(f"[if] y = {BRANCHES}", c=np.array(True)))
