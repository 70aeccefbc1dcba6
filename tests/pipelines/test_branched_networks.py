"""Weights in the branches of an If: pruned with the rest of the network, and right whichever branch is taken."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_subprune import Options, apply, factorise, prune
from onnx_subprune.errors import DataError
from onnx_subprune.model import open_session, run
from onnx_subprune.model.forced_branches import with_branch_taken
from onnx_subprune.network.analysis import Analysis, analyse
from onnx_subprune.network.finishing import finish
from onnx_subprune.network.rewrite import references
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import Target
from onnx_subprune.plan import Plan

CASES = Path(__file__).parents[3] / "shared" / "cases"
ORACLE = 1e-4

TWO = """If (flag) <
    then_branch = t () => (float[n,8] a) { [t1] h = MatMul(x, v1)  r = Relu(h)  [t2] a = MatMul(r, v2) },
    else_branch = e () => (float[n,8] b) { [e1] h = MatMul(x, w1)  r = Tanh(h)  [e2] b = MatMul(r, w2) }>"""
TAIL = "[f1] c = MatMul(i, u1)  d = Relu(c)  [f2] y = MatMul(d, u2)"
WEIGHTS = {
    "v1": (12, 16), "v2": (16, 8), "w1": (12, 20), "w2": (20, 8), "u1": (8, 24), "u2": (24, 5),
    "k1": (8, 4, 3), "k2": (8, 8, 3), "b1": (8,), "w3": (20, 16), "mean": (1, 8),
}  # fmt: skip
NETWORKS = {
    "two": (f"[if] i = {TWO}  {TAIL}", 4),
    "no weights in the other": (
        f"""[p1] p = MatMul(x, w1)  q = Relu(p)  [p2] o = MatMul(q, w2)  [if] i = If (flag) <
        then_branch = t () => (float[n,8] a) {{ h = MatMul(x, v1)  r = Relu(h)  a = MatMul(r, v2) }},
        else_branch = e () => (float[n,8] b) {{ b = Identity(o) }}>  {TAIL}""",
        4,
    ),
    "shared": (
        f"""[if] i = If (flag) <
        then_branch = t () => (float[n,8] a) {{ h = MatMul(x, v1)  r = Relu(h)  a = MatMul(r, v2) }},
        else_branch = e () => (float[n,8] b) {{ h = MatMul(x, v1)  r = Tanh(h)  b = MatMul(r, v2) }}>  {TAIL}""",
        3,
    ),
    "if in if": (
        f"""[if] i = If (flag) <
        then_branch = t () => (float[n,8] a) {{
            h = MatMul(x, v1)
            [inner] r = If (other) <
                then_branch = tt () => (float[n,16] p) {{ g = MatMul(x, w1)  m = Relu(g)  p = MatMul(m, w3) }},
                else_branch = te () => (float[n,16] q) {{ q = Relu(h) }}>
            a = MatMul(r, v2) }},
        else_branch = e () => (float[n,8] b) {{ h = MatMul(x, w1)  r = Tanh(h)  b = MatMul(r, w2) }}>  {TAIL}""",
        4,
    ),
    "a constant": (
        f"""[if] i = If (flag) <
        then_branch = t () => (float[n,8] a) {{ h = MatMul(x, v1)  r = Relu(h)  a = MatMul(r, v2) }},
        else_branch = e () => (float[1,8] b) {{ b = Identity(mean) }}>  {TAIL}""",
        2,
    ),
    "two outputs": (
        """[if] i, j = If (flag) <
        then_branch = t () => (float[n,8] a, float[n,16] a2) {
            h = MatMul(x, v1)  a2 = Relu(h)  a = MatMul(a2, v2) },
        else_branch = e () => (float[n,8] b, float[n,16] b2) {
            h = MatMul(x, w1)  r = Relu(h)  b = MatMul(r, w2)  b2 = MatMul(r, w3) }>
        [g] k = MatMul(j, v2)  [f1] c0 = MatMul(i, u1)  c1 = MatMul(k, u1)  c = Add(c0, c1)  d = Relu(c)
        [f2] y = MatMul(d, u2)""",
        4,
    ),
}


def build(text: str, given: str = "", **stored: np.ndarray) -> onnx.ModelProto:
    given = f"float[n,12] x, bool flag{', bool other' if '(other)' in text else ''}{given}"
    model = parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> g ({given}) => (float[p,q] y) {{ {text} }}')
    rng = np.random.default_rng(0)
    for name, shape in WEIGHTS.items():
        if re.search(rf"\b{name}\b", text) and name not in stored:
            stored[name] = (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
    for name, value in stored.items():
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.checker.check_model(model, full_check=True)
    return model


def samples(number: int = 96) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(1).standard_normal((number, 12)).astype(np.float32)}


def inputs(model: onnx.ModelProto, number: int, *, flag: bool, other: bool = False) -> dict[str, np.ndarray]:
    given = {value.name for value in model.graph.input}
    every = {**samples(number), "flag": np.array(flag), "other": np.array(other)}
    return {name: value for name, value in every.items() if name in given}


def every_choice(model: onnx.ModelProto, number: int = 5) -> list[dict[str, np.ndarray]]:
    return [inputs(model, number, flag=flag, other=other) for flag in (True, False) for other in (True, False)]


def outputs(model: onnx.ModelProto, feeds: Mapping[str, np.ndarray]) -> np.ndarray:
    return run(open_session(model), feeds)["y"]


def holds_in_both(model: onnx.ModelProto, plan_at_random: Callable[..., Plan]) -> Analysis:
    """Hold what is written for a plan to the dense network with the same units masked, whichever branches are taken."""
    analysis = analyse(model)
    shrunk, masked = references(analysis, plan_at_random(analysis))
    written = finish(shrunk, analysis)
    onnx.checker.check_model(written, full_check=True)
    assert [node.op_type for node in written.graph.node] == [node.op_type for node in model.graph.node]
    for given in every_choice(model):
        expected = outputs(masked, given)
        assert relative_error(outputs(model, given), expected) > 1e-2, "the oracle would prove nothing"
        assert relative_error(outputs(written, given), expected) < ORACLE
    return analysis


def bodies_of(model: onnx.ModelProto) -> dict[str, onnx.GraphProto]:
    node = next(node for node in model.graph.node if node.op_type == "If")
    return {attribute.name: attribute.g for attribute in node.attribute}


@pytest.mark.parametrize(("text", "groups"), NETWORKS.values(), ids=NETWORKS)
def test_the_oracle_holds_in_both_branches(text: str, groups: int, plan_at_random: Callable[..., Plan]):
    analysis = holds_in_both(build(text), plan_at_random)
    assert len(analysis.structure.prunable) == groups
    assert analysis.structure.macs({}) == analysis.cost.macs
    assert analysis.structure.parameters({}) == analysis.cost.parameters
    assert all(0 < group.macs <= analysis.cost.macs for group in analysis.structure.prunable)


CONVS = """[if] i = If (flag) <
    then_branch = t () => (float[n,8,k] a) {
        [t1] h = Conv <pads = [1, 1]> (m, k1, b1)  r = Relu(h)
        [t2] s = Conv <pads = [1, 1]> (r, k2)  a = BatchNormalization(s, b1, b1, b1, b1) },
    else_branch = e () => (float[n,8,k] b) { [e1] h = Conv <pads = [1, 1]> (m, k1, b1)  b = Sigmoid(h) }>
    p = ReduceMean <axes = [2], keepdims = 0> (i)  [f1] c = MatMul(p, u1)  d = Relu(c)  [f2] y = MatMul(d, u2)"""


def test_convolutions_and_normalisations_under_an_if(plan_at_random: Callable[..., Plan]):
    """The kernel that both read is one, and so is the axis that both write."""
    model = build(
        f"m = Reshape(x, parts)  {CONVS}", parts=np.array([-1, 4, 3]), b1=np.linspace(0.5, 2, 8, dtype=np.float32)
    )
    analysis = holds_in_both(model, plan_at_random)
    assert [group.size for group in analysis.structure.prunable] == [8, 24]
    assert "BatchNormalization" not in {node.op_type for node in analysis.normalised.graph.node}


def test_weights_that_both_bodies_store_are_one(plan_at_random: Callable[..., Plan]):
    model = build(NETWORKS["shared"][0])
    weights = [tensor for tensor in model.graph.initializer if tensor.name in ("v1", "v2")]
    alone = analyse(model)
    for body in bodies_of(model).values():
        body.initializer.extend(weights)
    for tensor in weights:
        model.graph.initializer.remove(tensor)
    analysis = holds_in_both(model, plan_at_random)
    assert analysis.cost.parameters == alone.cost.parameters
    sizes = [[group.size for group in each.structure.prunable] for each in (analysis, alone)]
    assert sizes[0] == sizes[1]
    result = prune(model, {**samples(), "flag": np.array(False)}, Options(target=Target("units", 0.5)))
    assert {tensor.name: tensor.dims for tensor in result.model.graph.initializer}["v1_pruned"] == [12, 8]
    parts = (result.model.graph, *bodies_of(result.model).values())
    stored = [math.prod(tensor.dims) for part in parts for tensor in part.initializer]
    assert result.pruned.parameters == sum(stored)


def test_a_condition_that_is_computed(plan_at_random: Callable[..., Plan]):
    text = f"l = ReduceMax <keepdims = 0> (x)  flag = Greater(l, high)  [if] i = {TWO}  {TAIL}"
    model = build(text.replace("(flag)", "(chosen)").replace("flag =", "chosen ="), high=np.float32(100))
    analysis = analyse(model)
    plan = plan_at_random(analysis)
    shrunk, masked = references(analysis, plan)
    written = finish(shrunk, analysis)
    for then in (True, False):
        expected, actual = (
            outputs(with_branch_taken(each, ["i"], then=then), inputs(model, 5, flag=True))
            for each in (masked, written)
        )
        assert relative_error(actual, expected) < ORACLE
    assert len(plan.groups) == 4


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("text", ["two", "shared", "if in if", "no weights in the other"])
def test_a_target_is_met_and_layers_of_both_branches_are_recovered(text: str, effort: str):
    model = build(NETWORKS[text][0])
    result = prune(
        model, inputs(model, 512, flag=False), Options.of_effort(effort, target=Target("macs", 0.7), round_to=1)
    )
    assert 0.65 < result.pruned.macs / result.dense.macs <= 0.7
    bare = apply(replace(result.plan, options=replace(result.plan.options, recovery="none")), model).model
    for given in every_choice(model, 512):
        expected = outputs(model, given)
        recovered, plain = (float(np.square(outputs(each, given) - expected).mean()) for each in (result.model, bare))
        # Of branches within branches not every choice is calibrated.
        assert recovered < (1 if text == "if in if" else 0.6) * plain
    again = apply(result.plan, model, inputs(model, 512, flag=False), result.options)
    assert again.model == result.model


def test_units_that_are_copies_of_others_lose_nothing_in_either_branch():
    rng = np.random.default_rng(5)
    halves = {name: rng.standard_normal((WEIGHTS[name][0], WEIGHTS[name][1] // 2)) / 4 for name in ("v1", "w1", "u1")}
    copied = {name: np.concatenate([half, half], axis=1).astype(np.float32) for name, half in halves.items()}
    model = build(NETWORKS["two"][0], **copied)
    result = prune(model, inputs(model, 512, flag=False), Options(target=Target("units", 0.5), only=("t1", "e1", "f1")))
    assert [len(group.kept) / group.size for group in result.plan.groups if group.name != "t2"] == [0.5] * 3
    for given in every_choice(model, 64):
        assert relative_error(outputs(result.model, given), outputs(model, given)) < ORACLE


def test_weights_that_stay_in_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for module in ("external", "attributes", "fields", "stored"):
        monkeypatch.setattr(f"onnx_subprune.model.{module}.SMALLEST_PLACED", 16)
    monkeypatch.setattr("onnx_subprune.model.external.SMALLEST_LEFT", 0)
    options = Options.of_effort("fast", target=Target("macs", 0.6))
    in_memory, placed = build(NETWORKS["shared"][0]), tmp_path / "placed.onnx"
    feeds = inputs(in_memory, 256, flag=False)
    onnx.save(build(NETWORKS["shared"][0]), placed, save_as_external_data=True, location="weights", size_threshold=16)
    result = prune(placed, feeds, options)
    assert result.analysis.scratch is not None
    result.save(tmp_path / "pruned.onnx")
    expected, actual = prune(in_memory, feeds, options).model, onnx.load(tmp_path / "pruned.onnx")
    assert len(actual.graph.initializer) == len(expected.graph.initializer)
    for given in every_choice(in_memory):
        np.testing.assert_array_equal(outputs(actual, given), outputs(expected, given))


def decoder(*, past: bool) -> str:
    """Return a branch of a decoder: attention over the past and what is new, or over what is new alone, and an MLP."""
    keys = "kk = Concat <axis = 1> (past, k)" if past else "kk = Identity(k)"
    body = f"""e = Gather(emb, ids)  q = MatMul(e, wq)  k = MatMul(e, wk)  {keys}
        t = Transpose <perm = [0, 2, 1]> (kk)  s = MatMul(q, t)  p = Softmax <axis = -1> (s)  c = MatMul(p, kk)
        r = Add(e, c)  [up] f = MatMul(r, up_w)  g = Relu(f)  [down] d = MatMul(g, down_w)  z = Add(r, d)"""
    end = "then" if past else "else"
    outputs = f"float[n,s,12] l_{end}, float[n,u,8] k_{end}"
    return f"{end} () => ({outputs}) {{ {body}  l_{end} = MatMul(z, head)  k_{end} = Identity(kk) }}"


def merged_decoder() -> onnx.ModelProto:
    """Return a decoder that exporters merge from two: with a cache and without, over the same weights."""
    bodies = f"then_branch = {decoder(past=True)}, else_branch = {decoder(past=False)}"
    model = parser.parse_model(f"""<ir_version: 8, opset_import: ["" : 17]> g (
        int64[n,s] ids, float[n,m,8] past, bool[1] use_cache_branch) => (float[n,s,12] logits, float[n,u,8] present) {{
        logits, present = If (use_cache_branch) <{bodies}>
    }}""")
    rng = np.random.default_rng(0)
    shapes = {"emb": (12, 8), "wq": (8, 8), "wk": (8, 8), "up_w": (8, 32), "down_w": (32, 8), "head": (8, 12)}
    for name, shape in shapes.items():
        value = (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(value, name))
    onnx.checker.check_model(model, full_check=True)
    return model


def decoder_sample(rng: np.random.Generator, *, cached: bool) -> dict[str, np.ndarray]:
    past = rng.standard_normal((1, 5 if cached else 0, 8)).astype(np.float32)
    return {"ids": rng.integers(0, 12, (1, 1 if cached else 6)), "past": past, "use_cache_branch": np.array([cached])}


@pytest.mark.parametrize("cached", [(False,), (False, True)], ids=["the first step", "all steps"])
def test_a_merged_decoder(cached: tuple[bool, ...]):
    """The branch with a cache is pruned, recovered and right also where no sample takes it; weights are stored once."""
    model, rng = merged_decoder(), np.random.default_rng(1)
    data = [decoder_sample(rng, cached=cached[step % len(cached)]) for step in range(64)]
    result = prune(model, data, Options.of_effort("fast", target=Target("macs", 0.8), recovery="exact"))
    assert result.pruned.macs <= 0.801 * result.dense.macs
    assert not any(tensor.dims[0] == 32 for tensor in result.model.graph.initializer)
    stored = [tensor for body in bodies_of(result.model).values() for tensor in body.initializer]
    assert all(len(tensor.dims) < 2 for tensor in stored), "weights of both branches are stored once"
    bare = apply(replace(result.plan, options=replace(result.plan.options, recovery="none")), model).model
    for taken in (True, False):
        squares = np.zeros(2)
        for given in [decoder_sample(rng, cached=taken) for _ in range(32)]:
            expected, *pruned = (run(open_session(each), given)["logits"] for each in (model, result.model, bare))
            squares += [np.square(logits - expected).sum() for logits in pruned]
        assert squares[0] < 0.7 * squares[1]


def test_layers_within_branches_are_factorised():
    """Weights of rank 3 lose nothing, those of the branch that no sample takes neither."""
    rng = np.random.default_rng(3)
    low_rank = {
        name: (rng.standard_normal((rows, 3)) @ rng.standard_normal((3, columns)) / 4).astype(np.float32)
        for name, (rows, columns) in [(key, WEIGHTS[key]) for key in ("v1", "v2", "w1", "w2")]
    }
    model = build(NETWORKS["two"][0], **low_rank)
    result = factorise(model, inputs(model, 256, flag=False), Options(target=Target("macs", 0.8)))
    assert result.pruned.macs <= 0.8 * result.dense.macs
    assert all(sum(node.op_type == "MatMul" for node in body.node) > 2 for body in bodies_of(result.model).values())
    for given in every_choice(model, 64):
        assert relative_error(outputs(result.model, given), outputs(model, given)) < ORACLE


FAILING = {
    "does not run": """s = Reshape(x, sixteen)  [t1] h = MatMul(s, w4)  r = Relu(h)  [t2] k = MatMul(r, v2)
        a = Reshape(k, eight)""",
    "NaN": "s = Log(zeros)  z = Add(x, s)  w = Sub(z, s)  [t1] h = MatMul(w, v1)  r = Relu(h)  [t2] a = MatMul(r, v2)",
}


@pytest.mark.parametrize("reason", FAILING)
def test_a_branch_that_fails_where_it_is_not_taken_stays_whole(reason: str):
    body = FAILING[reason]
    first = "[t1] h = MatMul(x, v1)  r = Relu(h)  [t2] a = MatMul(r, v2)"
    stored = {
        "sixteen": np.array([-1, 16]),
        "eight": np.array([-1, 8]),
        "w4": np.ones((16, 16), np.float32),
        "zeros": np.zeros(1, np.float32),
    }
    given = {name: value for name, value in stored.items() if name in body}
    model = build(NETWORKS["two"][0].replace(first, body), **given)
    feeds = inputs(model, 97, flag=False)
    result = prune(model, feeds, Options.of_effort("fast", target=Target("units", 0.5)))
    assert [group.name for group in result.plan.groups] == ["e1", "f1"]
    assert len(result.analysis.refusals) == 1
    assert "the then branch of If 'if'" in result.analysis.refusals[0]
    assert reason in result.analysis.refusals[0]
    assert next(t.dims[0] for t in result.model.graph.initializer if t.name == "v2") == 16


def test_a_branch_that_fails_on_a_later_sample_stays_whole():
    """Only where the last sample is longer does the branch that is not taken divide it in vain."""
    text = NETWORKS["two"][0].replace(
        "[t1] h = MatMul(x, v1)", "s = Gather(table, n)  g = Add(x, s)  [t1] h = MatMul(g, v1)"
    )
    text = f"l = Cast <to = 7> (big)  n = Add(l, zero)  {text}"
    model = build(text, ", float[n] big", zero=np.array([0]), table=np.zeros((4, 12), np.float32))
    feeds = {**inputs(model, 96, flag=False), "big": np.where(np.arange(96) == 90, 7, 1).astype(np.float32)}
    with pytest.raises(DataError):
        run(open_session(model), {**inputs(model, 96, flag=True), "big": feeds["big"]})
    result = prune(model, feeds, Options.of_effort("fast", target=Target("units", 0.5)))
    assert [group.name for group in result.plan.groups] == ["e1", "f1"]


def test_a_loop_within_a_branch_stays_whole_and_the_rest_of_the_branch_does_not(plan_at_random: Callable[..., Plan]):
    loop = """[t1] h = MatMul(x, v1)  r = Relu(h)  [t2] q = MatMul(r, v2)
        [loop] a = Loop(three, , q) <body = l (int64 i, bool go, float[n,8] s) => (bool on, float[n,8] o) {
            on = Identity(go)  o = Tanh(s) }>"""
    model = build(
        NETWORKS["two"][0].replace("[t1] h = MatMul(x, v1)  r = Relu(h)  [t2] a = MatMul(r, v2)", loop),
        three=np.array(3),
    )
    analysis = holds_in_both(model, plan_at_random)
    assert [group.size for group in analysis.structure.prunable] == [16, 20, 24]


@pytest.mark.skipif(not CASES.exists(), reason="the cases are not on this machine")
@pytest.mark.parametrize("target", ["macs=0.6", "params=0.5"])
@pytest.mark.parametrize("name", ["weights_in_if", "merged_decoder"])
def test_networks_of_the_field(name: str, target: str):
    model = onnx.load(CASES / f"{name}.onnx")
    result = prune(model, str(CASES / f"{name}.npz"), Options(target=Target.parse(target)))
    share = {
        "macs": result.pruned.macs / result.dense.macs,
        "params": result.pruned.parameters / result.dense.parameters,
    }
    assert share[result.options.target.kind] <= result.options.target.value + 1e-3
    assert not result.analysis.refusals
    assert result.fit is not None
    assert not result.fit.left
