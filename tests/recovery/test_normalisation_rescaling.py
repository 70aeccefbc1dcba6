"""Where the statistics over the units that stay are a fixed share of those over all, recovery is exact."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune import Options, Target, apply, prune
from onnx_subprune.errors import OptionError
from onnx_subprune.model import open_session, run
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.verify import relative_error
from onnx_subprune.options import RecoveryOptions
from onnx_subprune.pipeline import calibrate
from onnx_subprune.plan import Plan, PlannedGroup
from onnx_subprune.subspace import METHODS

RNG = np.random.default_rng(5)
CHANNEL = RecoveryOptions(recovery="channel", ridge=0.0, prune_normalised=True)
DATA = {"x": RNG.standard_normal((64, 5, 6)).astype(np.float32)}
HALF = Target.parse("units=0.5")
TWO, LAST = np.array(2, np.float32), np.array([-1])

SPELLINGS = {
    "layer": (17, "n = LayerNormalization <epsilon=1e-12> (e, s, b)", {"s", "b"}),
    "layer without a shift": (17, "n = LayerNormalization <epsilon=1e-12> (e, s)", {"s"}),
    "rms": (23, "n = RMSNormalization <epsilon=1e-12> (e, s)", {"s"}),
    "sum": (17, "n = com.microsoft.SkipLayerNormalization <epsilon=1e-12> (e, e, s, b)", {"s", "b"}),
    "rms of a sum": (17, "n = com.microsoft.SkipSimplifiedLayerNormalization <epsilon=1e-12> (e, e, s)", {"s"}),
    "lp": (17, "n = LpNormalization <axis=-1> (e)", set()),
    "rms written out": (
        17,
        "p = Pow(e, two)\nm = ReduceMean <axes=[-1]> (p)\nr = Sqrt(m)\nq = Reciprocal(r)\nk = Mul(e, q)\nn = Mul(k, s)",
        {"s", "two"},
    ),
    "rms by a negative power": (
        17,
        "p = Mul(e, e)\nm = ReduceMean <axes=[-1]> (p)\nr = Pow(m, half)\nn = Mul(e, r)",
        {"half"},
    ),
    "layer written out": (
        17,
        "m = ReduceMean <axes=[-1]> (e)\nd = Sub(e, m)\np = Pow(d, two)\nw = ReduceMean <axes=[-1]> (p)\nr = Sqrt(w)\n"
        "k = Div(d, r)\ng = Mul(k, s)\nn = Add(g, b)",
        {"two", "s", "b"},
    ),
    "layer written out, plain": (
        17,
        "m = ReduceMean <axes=[-1]> (e)\nd = Sub(e, m)\np = Mul(d, d)\nw = ReduceMean <axes=[-1]> (p)\nr = Sqrt(w)\n"
        "n = Div(d, r)",
        set(),
    ),
    "l2": (17, "q = ReduceL2 <axes=[-1]> (e)\nn = Div(e, q)", set()),
    "l2 by a sum": (17, "p = Mul(e, e)\nq = ReduceSum(p, last)\nr = Sqrt(q)\nn = Div(e, r)", {"last"}),
}
KERAS = (
    17,
    "m = ReduceMean <axes=[-1]> (e)\nd = Sub(e, m)\np = Mul(d, d)\nw = ReduceMean <axes=[-1]> (p)\nr = Sqrt(w)\n"
    "q = Reciprocal(r)\ng = Mul(q, s)\nh = Mul(e, g)\nk = Mul(m, g)\nl = Sub(b, k)\nn = Add(h, l)",
    {"s", "b"},
)


def stream(rows: int) -> np.ndarray:
    """Weights of 4 outputs that add up to zero for every input, and of 4 that are twice those: [rows, 8]."""
    half = RNG.standard_normal((rows, 4))
    half -= half.mean(axis=1, keepdims=True)
    return np.concatenate([half, 2 * half], axis=1).astype(np.float32)


def network(opset: int, text: str, names: set[str]) -> onnx.ModelProto:
    """A residual stream whose last 4 units are twice the first 4: any share of them has a fixed share of the spread."""
    model = onnx.parser.parse_model(
        f"""<ir_version: 10, opset_import: ["" : {opset}, "com.microsoft" : 1]>
        g (float[N,5,6] x) => (float[N,5,3] y) {{
            [emb] e = MatMul(x, we)
            {text}
            [up] u = MatMul(n, wu)
            [act] a = Tanh(u)
            [down] o = MatMul(a, wd)
            [add] t = Add(e, o)
            [head] y = MatMul(t, wh)
        }}"""
    )
    values = {"s": RNG.uniform(0.5, 2, 8), "b": RNG.standard_normal(8), "two": TWO, "half": -TWO / 4, "last": LAST}
    weights = {"we": stream(6), "wd": stream(12), "wu": RNG.standard_normal((8, 12)), "wh": RNG.standard_normal((8, 3))}
    for name, value in (weights | {name: values[name] for name in names}).items():
        dtype = value.dtype if name == "last" else np.float32
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, dtype), name))
    onnx.checker.check_model(model)
    return model


def plan_of(model: onnx.ModelProto, kept: tuple[int, ...]) -> Plan:
    """Keep these units of the stream and all of the hidden layer."""
    analysis = analyse(model, {"x": (1, 5, 6)}, prune_normalised=True)
    groups = tuple(
        PlannedGroup(g.name, g.size, kept if g.name == "emb" else tuple(range(g.size)))
        for g in analysis.structure.prunable
    )
    return Plan(analysis.fingerprint, "units=0.5", groups, CHANNEL)


@pytest.fixture
def error() -> Callable[[onnx.ModelProto, onnx.ModelProto], float]:
    """Return how far the outputs of the second model are from those of the first."""

    def measure(dense: onnx.ModelProto, pruned: onnx.ModelProto) -> float:
        expected, found = (run(open_session(model), DATA)["y"] for model in (dense, pruned))
        return relative_error(found, expected)

    return measure


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("kept", [(0, 1, 2, 3), (4, 5, 6, 7)])
def test_a_stream_of_multiples_is_recovered_exactly(spelling, kept, error):
    model = network(*SPELLINGS[spelling])
    result = apply(plan_of(model, kept), model, DATA)
    assert not result.warnings
    assert error(model, result.model) < 1e-4


@pytest.mark.parametrize("select", METHODS)
def test_every_ordering_ranks_a_normalised_stream(select):
    model = network(*SPELLINGS["layer"])
    options = Options.of_effort("fast", target=HALF, select=select, prune_normalised=True, threads=1)
    kept = {group.name: len(group.kept) for group in prune(model, DATA, options).plan.groups}
    assert kept["emb"] == 4


def test_a_normalisation_of_a_type_that_onnx_cannot_infer():
    """Behind an operator of ONNX Runtime: what is put behind the normalisation has the floats it is computed from."""
    text = "q = com.microsoft.QuickGelu(e)\nl = LpNormalization <axis=-1> (q)\nn = Mul(l, s)"
    model = network(17, text, {"s"})
    pruned = apply(plan_of(model, (0, 1, 2, 3)), model, DATA).model
    assert "l_bare" in {name for node in pruned.graph.node for name in node.output}, [n.name for n in pruned.graph.node]
    run(open_session(pruned), DATA)


def test_a_scale_inside_the_statistics_is_left_alone_and_said_so(error):
    model = network(*KERAS)
    result = apply(plan_of(model, (0, 1, 2, 3)), model, DATA)
    assert any("were not restored" in warning for warning in result.warnings)
    assert error(model, result.model) > 1e-3


@pytest.mark.parametrize("kept", [(0, 1), (0, 1, 2, 3)])
def test_groups_that_go_as_a_whole_lose_no_statistics(kept):
    """Of four groups of two channels the first two stay, or of each group the first channel."""
    model = onnx.parser.parse_model(
        """<ir_version: 10, opset_import: ["" : 21]>
        g (float[N,5,6] x) => (float[N,3,6] y) {
            [first] t = Conv(x, w1)
            [gn] n = GroupNormalization <num_groups=4> (t, s, b)
            [second] y = Conv(n, w2)
        }"""
    )
    weights = {"w1": (8, 5, 1), "s": (8,), "b": (8,), "w2": (3, 8, 1)}
    for name, shape in weights.items():
        values = RNG.standard_normal(shape).astype(np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    analysis = analyse(model, {"x": (1, 5, 6)}, prune_normalised=True)
    whole, inner = analysis.structure.prunable
    groups = (
        PlannedGroup(whole.name, 4, kept),
        PlannedGroup(inner.name, 2, (0, 1) if len(kept) < 4 else (0,)),
    )
    result = apply(Plan(analysis.fingerprint, "", groups, CHANNEL), model, DATA)
    assert [text for text in result.warnings if "statistics" in text] == (
        [] if len(kept) < 4 else ["the statistics of GroupNormalization at 'gn' were not restored: each of its groups "
                                  "has its own"]
    )  # fmt: skip


def test_what_most_of_the_spread_is_made_of_stays():
    """A unit that nobody reads, but that everything else is divided by."""
    model = network(*SPELLINGS["rms"])
    values = {tensor.name: onnx.numpy_helper.to_array(tensor).copy() for tensor in model.graph.initializer}
    values["we"] = np.concatenate([RNG.standard_normal((6, 7)), 30 * RNG.standard_normal((6, 1))], 1).astype(np.float32)
    values["s"][7], values["wh"][7] = 1e-3, 0
    del model.graph.initializer[:]
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in values.items())
    result = prune(model, DATA, Options(target=HALF, only=("emb",), prune_normalised=True))
    assert 7 in next(group.kept for group in result.plan.groups if group.name == "emb")


def test_statistics_without_the_option_do_not_serve_with_it():
    model = network(*SPELLINGS["layer"])
    statistics = calibrate(model, DATA, Options())
    with pytest.raises(OptionError, match="--prune-normalised"):
        prune(model, None, Options.of_effort("fast", prune_normalised=True), statistics=statistics)


def test_a_plan_replays_with_the_option_it_was_made_with(tmp_path):
    model = network(*SPELLINGS["layer"])
    first = prune(model, DATA, Options(target=HALF, prune_normalised=True))
    first.plan.save(tmp_path / "plan.json")
    again = apply(Plan.load(tmp_path / "plan.json"), model, DATA)
    assert again.plan.options.prune_normalised
    assert again.model.SerializeToString() == first.model.SerializeToString()


@pytest.mark.parametrize(
    "text",
    ["n = LayerNormalization(h, s)", "p = Mul(h, h) m = ReduceMean <axes=[-1]> (p) r = Sqrt(m) n = Div(h, r)"],
)
def test_a_branch_with_a_normalisation_inside_goes_as_a_whole(text: str) -> None:
    model = onnx.parser.parse_model(
        f"""<ir_version: 8, opset_import: ["" : 17]> g (float[n,5,6] x) => (float[a,b,c] y) {{
            [up] h = MatMul(x, w1)
            {text}
            [down] d = MatMul(n, w2)
            [add] t = Add(d, x)
            [out] y = MatMul(t, w3)
        }}"""
    )
    weights = {"w1": (6, 8), "w2": (8, 6), "w3": (6, 3)} | ({"s": (8,)} if "(h, s)" in text else {})
    for name, shape in weights.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(RNG.normal(size=shape).astype(np.float32), name))
    result = prune(model, DATA, Options(target=Target("units", 0.0), prune_normalised=True))
    assert result.warnings == ()
    assert [len(group.kept) for group in result.plan.groups] == [0]
    assert [node.op_type for node in result.model.graph.node] == ["Add", "MatMul"]
