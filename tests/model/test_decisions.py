"""Where networks decide, and the tensors at which they can be compared."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.model import open_session, run
from onnx_subprune.model.compared_models import opened_for_comparison, restore_draws, seeded
from onnx_subprune.model.decisions import Comparisons, comparisons_of

FLOATS = {"w": (4, 6), "v": (6, 3)}


def build(text: str, inputs: str = "float[N,4] x", outputs: str = "float[N,3] y") -> onnx.ModelProto:
    """Return a network that may read the weights w [4,6] and v [6,3]."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {text} }}'
    )
    rng = np.random.default_rng(0)
    read = {name for node in model.graph.node for name in node.input}
    for name, shape in FLOATS.items():
        if name in read:
            values = rng.standard_normal(shape).astype(np.float32)
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


def points(comparisons: Comparisons) -> dict[str, tuple[str, ...]]:
    return {point.tensor: point.outputs for point in comparisons.points}


def decided(comparisons: Comparisons) -> dict[str, tuple[str, ...]]:
    return {decision.tensor: decision.sources for decision in comparisons.decisions}


def test_a_continuous_network_is_compared_at_its_outputs() -> None:
    comparisons = comparisons_of(build("h = MatMul(x, w) r = Relu(h) y = MatMul(r, v)"))
    assert points(comparisons) == {"y": ("y",)}
    assert comparisons.points[0].reason is None
    assert comparisons.decisions == ()


@pytest.mark.parametrize("operator", ["Sigmoid", "Softmax", "Tanh"])
@pytest.mark.parametrize(
    "behind",
    [
        "y = {}(h)",
        "s = {}(h) y = Identity(s)",
        "s = {}(h) axis = Constant<value_ints = [0]>() u = Unsqueeze(s, axis) y = Squeeze(u, axis)",
        "s = {}(h) t = Transpose(s) y = Transpose(t)",
        "s = {}(h) d = Cast<to = 11>(s) y = Cast<to = 1>(d)",
        "s = {}(h) wide = Constant<value_ints = [1, 1]>() t = Tile(s, wide) y = Expand(t, wide)",
    ],
)
def test_saturated_outputs_are_compared_before_they_saturate(operator: str, behind: str) -> None:
    comparisons = comparisons_of(build(f"g = MatMul(x, w) h = MatMul(g, v) {behind.format(operator)}"))
    assert points(comparisons) == {"h": ("y",)}
    assert operator in str(comparisons.points[0].reason)


def test_of_a_concat_only_the_saturated_part_is_compared_before() -> None:
    text = "g = MatMul(x, w) h = MatMul(g, v) s = Sigmoid(h) y = Concat<axis = 1>(s, g)"
    assert points(comparisons_of(build(text, outputs="float[N,9] y"))) == {"h": ("y",), "g": ("y",)}


@pytest.mark.parametrize(
    ("text", "outputs", "decision"),
    [
        ("y = ArgMax(h)", "int64[A,B] y", "y"),
        ("y = Cast<to = 7>(h)", "int64[N,6] y", "y"),
        ("y = Cast<to = 9>(h)", "bool[N,6] y", "y"),
        ("y = NonZero(h)", "int64[2,K] y", "y"),
        ("r = Round(h) y = Neg(r)", "float[N,6] y", "r"),
        ("c = Ceil(h) y = Neg(c)", "float[N,6] y", "c"),
        ("k = Constant<value_ints = [2]>() t, i = TopK(h, k) y = Cast<to = 1>(i)", "float[N,2] y", "i"),
    ],
)
def test_operators_that_jump_decide(text: str, outputs: str, decision: str) -> None:
    comparisons = comparisons_of(build(f"h = MatMul(x, w) {text}", outputs=outputs))
    assert decided(comparisons) == {decision: ("h",)}
    assert "h" in points(comparisons)


def test_an_index_computed_from_weights_is_given_and_the_rest_is_compared() -> None:
    text = "h = MatMul(x, w) a = ArgMax<axis = 1, keepdims = 0>(h) y = Gather<axis = 1>(h, a)"
    comparisons = comparisons_of(build(text, outputs="float[N,M] y"))
    assert set(decided(comparisons)) == {"a"}
    assert points(comparisons).keys() == {"y", "h"}


def test_a_condition_computed_from_weights_is_a_decision() -> None:
    text = """
        h = MatMul(x, w) m = ReduceMax<keepdims = 0>(h) zero = Constant<value = float {0}>() c = Greater(m, zero)
        y = If(c) <
            then_branch = a () => (float[N,6] p) { p = Neg(h) },
            else_branch = b () => (float[N,6] q) { q = Abs(h) }
        >
    """
    comparisons = comparisons_of(build(text, outputs="float[N,6] y"))
    assert set(decided(comparisons)) == {"c"}
    assert set(points(comparisons)) == {"y", "m"}


@pytest.mark.parametrize(
    ("text", "outputs"),
    [
        ("y = Greater(h, zero)", "bool[N,6] y"),
        ("c = Less(h, zero) n = Not(c) y = Cast<to = 1>(n)", "float[N,6] y"),
        ("s = Sigmoid(h) c = Greater(s, zero) y = Cast<to = 1>(c)", "float[N,6] y"),
        ("c = Greater(h, zero) y = Where(c, one, zero)", "float[N,6] y"),
        ("c = Greater(h, zero) d = Less(h, one) b = And(c, d) y = Cast<to = 2>(b)", "uint8[N,6] y"),
        ("c = Greater(h, zero) y = NonZero(c)", "int64[2,K] y"),
    ],
)
def test_numbers_are_compared_before_something_compares_them(text: str, outputs: str) -> None:
    constants = "zero = Constant<value = float {0}>() one = Constant<value = float {1}>()"
    comparisons = comparisons_of(build(f"h = MatMul(x, w) {constants} {text}", outputs=outputs))
    assert points(comparisons) == {"h": ("y",)}


def test_activations_that_are_written_out_hold_no_points() -> None:
    text = """h = MatMul(x, w) zero = Constant<value = float {0}>() c = Greater(h, zero) l = Mul(h, tenth)
        r = Where(c, h, l) y = MatMul(r, v)"""
    text = f"tenth = Constant<value = float {{0.1}}>() {text}"
    assert points(comparisons_of(build(text))) == {"y": ("y",)}


def test_what_inputs_alone_decide_is_no_decision() -> None:
    text = "k = Cast<to = 7>(mask) h = MatMul(x, w) y = Gather(h, k)"
    comparisons = comparisons_of(build(text, "float[N,4] x, float[2] mask", "float[2,6] y"))
    assert points(comparisons) == {"y": ("y",)}
    assert comparisons.decisions == ()


def test_sizes_are_no_decisions() -> None:
    text = "h = MatMul(x, w) s = Shape(h) f = Cast<to = 1>(s) p = ReduceProd<keepdims = 0>(f) y = Mul(h, p)"
    assert comparisons_of(build(text, outputs="float[N,6] y")).decisions == ()


def test_a_loop_that_counts_by_weights_decides_as_a_whole() -> None:
    text = """
        h = MatMul(x, w) start = ReduceSum<keepdims = 0>(h)
        most = Constant<value = int64 {9}>() yes = Constant<value = bool {1}>()
        last = Loop(most, yes, start) <body = b (int64 i, bool c, float s) => (bool more, float next) {
            two = Constant<value = float {2}>() next = Div(s, two)
            one = Constant<value = float {1}>() more = Greater(next, one)
        }>
        y = Mul(h, last)
    """
    comparisons = comparisons_of(build(text, outputs="float[N,6] y"))
    assert "last" in decided(comparisons)
    assert set(points(comparisons)) >= {"y", "start"}


def test_points_can_be_asked_for() -> None:
    model = build("h = MatMul(x, w) y = MatMul(h, v)")
    assert points(comparisons_of(model, ["h"])) == {"h": ()}


def test_given_decisions_replace_those_of_the_network() -> None:
    model = build(
        "h = MatMul(x, w) a = ArgMax<axis = 1, keepdims = 0>(h) y = Gather<axis = 1>(h, a)", outputs="float[N,M] y"
    )
    opened = opened_for_comparison(model, ["y"], {"a": onnx.TensorProto.INT64})
    x = np.ones((1, 4), np.float32)
    h = run(open_session(opened_for_comparison(model, ["h"])), {"x": x})["h"]
    for index in (0, 5):
        given = run(open_session(opened), {"x": x, "a": np.array([index], np.int64)})["y"]
        np.testing.assert_array_equal(given[:, 0], h[:, index])
    assert [value.name for value in model.graph.input] == ["x"], "the model itself stays as it is"


def test_a_network_that_needs_nothing_is_not_copied() -> None:
    model = build("h = MatMul(x, w) y = MatMul(h, v)")
    assert opened_for_comparison(model, ["y"]) is model
    assert seeded(model) is model


NOISE = "h = MatMul(x, w) z = RandomNormalLike{}(h) s = Add(h, z) y = MatMul(s, v)"


def test_random_operators_draw_alike_once_seeded_and_get_their_own_seeds_back() -> None:
    model, fixed = build(NOISE.format("")), build(NOISE.format("<seed = 5.0>"))
    x = np.ones((3, 4), np.float32)
    draws = [run(open_session(seeded(model)), {"x": x})["y"] for _ in range(2)]
    np.testing.assert_array_equal(*draws)
    assert not np.array_equal(run(open_session(model), {"x": x})["y"], draws[0])
    for original in (model, fixed):
        network = seeded(original)
        assert network.SerializeToString(deterministic=True) != original.SerializeToString(deterministic=True)
        restore_draws(network, original)
        assert network.SerializeToString(deterministic=True) == original.SerializeToString(deterministic=True)


@pytest.mark.parametrize(
    "text",
    [
        "h = MatMul(x, w) p = Sigmoid(h) c = Greater(p, t) b = Not(c) y = Cast<to = 9>(b)",
        "h = MatMul(x, w) p = Sigmoid(h) c = LessOrEqual(p, t) d = IsNaN(h) y = Or(c, d)",
        "h = MatMul(x, w) p = Sigmoid(h) c = Greater(p, t) d = Identity(c) y = Equal(c, d)",
        "h = MatMul(x, w) p = Sigmoid(h) c = Greater(p, t) d = IsInf(h) y = Concat<axis = 0>(c, d)",
        "h = MatMul(x, w) p = Sigmoid(h) c0 = Greater(p, t) "
        + "".join(f"c{place + 1} = Or(c{place}, c{place}) " for place in range(60))
        + "y = Not(c60)",
    ],
)
def test_what_is_true_or_false_is_compared_before_it(text: str) -> None:
    comparisons = comparisons_of(build(f"t = Constant<value_float = 0.5>() {text}", outputs="bool[N,6] y"))
    assert points(comparisons)["h"] == ("y",)
    assert not {"p", "c", "b", "d", "y"} & points(comparisons).keys()
    assert all(point.reason for point in comparisons.points)


def test_the_condition_of_a_branch_is_compared_before_it() -> None:
    text = """h = MatMul(x, w) p = ReduceMax<keepdims = 0>(h) t = Constant<value_float = 0.5>() c = Greater(p, t)
        y = If(c)<then_branch = a () => (float[N,3] s) { s = MatMul(h, v) },
                  else_branch = b () => (float[N,3] s) { z = MatMul(h, v) s = Neg(z) }>"""
    comparisons = comparisons_of(build(text))
    assert "p" in points(comparisons)
    assert "c" not in points(comparisons)
    assert "c" in decided(comparisons)
