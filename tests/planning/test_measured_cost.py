"""Whether a target was reached is read off the network that comes out."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_subprune import Options, prune
from onnx_subprune.errors import TargetError
from onnx_subprune.factorisation import factorise
from onnx_subprune.model import Cost
from onnx_subprune.options import ALLOCATIONS, Target
from onnx_subprune.planning.measured_cost import check_reached, share_of

DATA = {"x": np.random.default_rng(1).standard_normal((96, 12)).astype(np.float32)}
# Products without biases: recovery gives each of them one.
LAYERS = "a = MatMul(x, w1)  b = Relu(a)  c = MatMul(b, w2)  d = Relu(c)"
SHAPES = {"w1": (12, 16), "w2": (16, 10), "w3": (10, 4)}


def build(text: str = "y = MatMul(d, w3)", **more: tuple[int, ...]) -> onnx.ModelProto:
    model = parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[n,12] x) => (float[p,q] y) {{ {LAYERS} {text} }}'
    )
    rng = np.random.default_rng(0)
    for name, shape in {**SHAPES, **more}.items():
        model.graph.initializer.append(numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name))
    return model


FIXED = """h = MatMul(d, w3)  t = Shape(h)  n = Size(t)  y = Loop(n, , h) <
    body = l (int64 i, bool go, float[n,4] s) => (bool on, float[n,4] r) { on = Identity(go)  r = MatMul(s, own) }>"""


def test_a_share_is_one_of_the_kind_of_the_target():
    dense, pruned = Cost(100, 50, 0), Cost(60, 45, 0)
    shares = [share_of(Target(kind, 0.5), dense, pruned) for kind in ("macs", "params", "units", "variance")]
    assert shares == [0.6, 0.9, None, None]


@pytest.mark.parametrize(("left", "reached"), [(500, True), (501, True), (502, False)])
def test_a_target_is_reached_within_a_thousandth(left, reached):
    costs = Cost(1000, 0, 0), Cost(left, 0, 0)
    if reached:
        check_reached(Target("macs", 0.5), *costs, removes=True)
        return
    with pytest.raises(
        TargetError, match=r"expected to reach macs=0.5, .* has 0.5020 .* ask for macs=0.5020"
    ) as missed:
        check_reached(Target("macs", 0.5), *costs, removes=True)
    assert missed.value.nearest == 0.502


@pytest.mark.parametrize("effort", ["fast", "balanced"])
@pytest.mark.parametrize("value", [0.5, 0.7])
def test_biases_that_recovery_adds_are_part_of_the_parameters(value: float, effort: str):
    result = prune(build(), DATA, Options.of_effort(effort, target=Target("params", value)))
    assert "Add" in [node.op_type for node in result.model.graph.node]
    assert 0.9 * value < result.pruned.parameters / result.dense.parameters <= value + 1e-3


@pytest.mark.parametrize("allocation", ALLOCATIONS)
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_what_cannot_be_pruned_counts(kind: str, allocation: str):
    """The loop takes a tenth; what is asked for leaves room for less than it."""
    model = build(FIXED, own=(4, 4))
    options: dict[str, Any] = {"allocation": allocation, "recovery": "channel"}
    result = prune(model, DATA, Options(target=Target(kind, 0.5), **options))
    left = {
        "macs": result.pruned.macs / result.dense.macs,
        "params": result.pruned.parameters / result.dense.parameters,
    }
    assert 0.4 < left[kind] <= 0.501
    with pytest.raises(TargetError, match=rf"ask for {kind}=0\.\d+ or more") as missed:
        prune(model, DATA, Options(target=Target(kind, 0.05), **options))
    again = prune(model, DATA, Options(target=Target(kind, missed.value.nearest), **options))
    assert again.plan.removes


def test_units_that_all_stay_for_their_rounding_are_no_pruning():
    with pytest.raises(TargetError, match="no unit can go"):
        prune(build(), DATA, Options(target=Target("units", 0.5), round_to=32))


@pytest.mark.parametrize("kind", ["macs", "params"])
def test_a_factorisation_is_held_to_the_same(kind: str):
    result = factorise(build(FIXED, own=(4, 4)), DATA, Options(target=Target(kind, 0.7)))
    cost = {
        "macs": (result.pruned.macs, result.dense.macs),
        "params": (result.pruned.parameters, result.dense.parameters),
    }
    assert cost[kind][0] <= 0.701 * cost[kind][1]
    with pytest.raises(TargetError, match="ask for"):
        factorise(build(FIXED, own=(4, 4)), DATA, Options(target=Target(kind, 0.05)))
