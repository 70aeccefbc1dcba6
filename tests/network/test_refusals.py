"""A pass that refuses is noticed: a bug where a pruned network is made, told where a model is normalised."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune import passes
from onnx_subprune.errors import InternalError
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.rewrite import factorised, references, restructured, shrink
from onnx_subprune.plan import Plan

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
g (float[2,3,6,6] x) => (float[2,4,6,6] y) {
    [c1] h = Conv(x, w1)
    [n1] n = BatchNormalization(h, scale, shift, mean, variance)
    [r1] r = Relu(n)
    [c2] y = Conv(r, w2)
}"""


@pytest.fixture
def model() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    network = onnx.parser.parse_model(TEXT)
    shapes = {"w1": (8, 3, 1, 1), "w2": (4, 8, 1, 1), "scale": (8,), "shift": (8,), "mean": (8,), "variance": (8,)}
    for name, shape in shapes.items():
        values = np.abs(rng.standard_normal(shape)).astype(np.float32) + 0.5
        network.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return network


def _refuse(monkeypatch: pytest.MonkeyPatch, refusing: type[passes.Pass]) -> None:
    monkeypatch.setattr(refusing, "requires", lambda _self, _graph: "node 'c2' is not what it was")


@pytest.mark.parametrize(
    "refusing",
    [passes.FoldCorrections, passes.GiveBiases, passes.RescaleNormalised, passes.RewriteShapes, passes.Shrink,
     passes.Tidy],
)  # fmt: skip
def test_no_pass_may_be_left_out_of_a_pruned_network(
    model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch, refusing: type[passes.Pass]
) -> None:
    analysis = analyse(model)
    structure = restructured(analysis)
    keeps = {structure.prunable[0].atom: np.arange(8) < 5}
    _refuse(monkeypatch, refusing)
    with pytest.raises(InternalError, match=f"{refusing.__name__}: node 'c2' is not what it was"):
        shrink(analysis.normalised, structure, keeps)


@pytest.mark.parametrize("refusing", [passes.MaskConsumers, passes.MaskStatistics])
def test_nor_out_of_the_oracle(
    model: onnx.ModelProto,
    monkeypatch: pytest.MonkeyPatch,
    plan_at_random: Callable[..., Plan],
    refusing: type[passes.Pass],
) -> None:
    analysis = analyse(model)
    plan = plan_at_random(analysis)
    _refuse(monkeypatch, refusing)
    with pytest.raises(InternalError, match=refusing.__name__):
        references(analysis, plan)


def test_nor_out_of_a_factorised_network(model: onnx.ModelProto) -> None:
    with pytest.raises(InternalError, match="LowRank: 'nowhere' cannot be factorised"):
        factorised(analyse(model), {"nowhere": lambda _: pytest.fail("a layer that is not there was asked for")})


def test_a_normalising_pass_that_is_left_out_is_told(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    assert analyse(model).refusals == ()
    _refuse(monkeypatch, passes.FoldBatchNorm)
    analysis = analyse(model)
    assert analysis.refusals == ("FoldBatchNorm: node 'c2' is not what it was",)
    assert [node.op_type for node in analysis.normalised.graph.node] == ["Conv", "BatchNormalization", "Relu", "Conv"]
    assert [group.name for group in analysis.structure.prunable] == ["c1"]


def test_a_pass_that_refuses_twice_is_told_once(model: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    _refuse(monkeypatch, passes.FoldConstants)
    assert analyse(model).refusals == ("FoldConstants: node 'c2' is not what it was",)
