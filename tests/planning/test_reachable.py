"""What is known to fail is refused before calibration begins."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune import calibration, pipeline
from onnx_subprune.calibration import Statistics
from onnx_subprune.errors import ModelError, OptionError, TargetError
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.options import Options, Target

SAMPLES = {"x": np.random.default_rng(1).standard_normal((80, 6)).astype(np.float32)}


class Begun(Exception):  # noqa: N818 - it is no error
    """Calibration has begun."""


@pytest.fixture
def uncalibrated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every calibration, and every rehearsal of one, end the test."""

    def begun(*_: Any, **__: Any) -> Any:
        raise Begun

    monkeypatch.setattr(pipeline, "pruning_statistics", begun)
    monkeypatch.setattr(pipeline, "foresee", begun)


def prune(model: onnx.ModelProto, **chosen: Any) -> None:
    """Prune on the samples, or on statistics where some are given."""
    statistics = chosen.pop("statistics", None)
    effort = chosen.pop("effort", "balanced")
    options = Options.of_effort(effort, threads=1, cache=False, **chosen)
    pipeline.prune(model, SAMPLES if statistics is None else None, options, statistics=statistics)


@pytest.mark.usefixtures("uncalibrated")
@pytest.mark.parametrize("effort", ["fast", "balanced", "best"])
@pytest.mark.parametrize("kind", ["macs", "params"])
def test_a_target_that_no_widths_meet(small_network: onnx.ModelProto, kind: str, effort: str) -> None:
    with pytest.raises(TargetError, match=rf"ask for {kind}=0\.\d+ or more") as refused:
        prune(small_network, effort=effort, target=Target(kind, 0.001), round_to=1)
    assert refused.value.nearest is not None
    with pytest.raises(Begun):
        prune(small_network, effort=effort, target=Target(kind, refused.value.nearest), round_to=1)


@pytest.mark.usefixtures("uncalibrated")
def test_units_of_which_none_can_go(small_network: onnx.ModelProto) -> None:
    with pytest.raises(TargetError, match="no unit can go"):
        prune(small_network, target=Target("units", 0.5), ignore=("*",))
    with pytest.raises(Begun):
        prune(small_network, target=Target("units", 0.5))


def test_a_network_without_prunable_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: Any, **__: Any) -> Any:
        raise Begun

    monkeypatch.setattr(calibration, "calibrate", begun)
    text = """<ir_version: 8, opset_import: ["": 17]> g (float[N,6] x) => (float[N,6] y) { y = Relu(x) }"""
    with pytest.raises(OptionError, match="expected at least one prunable group"):
        prune(onnx.parser.parse_model(text))


@pytest.fixture
def statistics(small_network: onnx.ModelProto) -> Statistics:
    return pipeline.calibrate(small_network, SAMPLES, Options(threads=1, cache=False))


@pytest.fixture
def unranked(monkeypatch: pytest.MonkeyPatch) -> None:
    def begun(*_: Any, **__: Any) -> Any:
        raise Begun

    monkeypatch.setattr(pipeline, "rank_groups", begun)


@pytest.mark.usefixtures("unranked")
@pytest.mark.parametrize(
    ("chosen", "needs"),
    [
        ({}, "allocation 'measured' and exact recovery would run samples"),
        ({"recovery": "channel"}, "allocation 'measured' would run samples"),
        ({"allocation": "uniform"}, "exact recovery would run samples"),
    ],
)
def test_statistics_where_samples_are_run(
    small_network: onnx.ModelProto, statistics: Statistics, chosen: dict[str, Any], needs: str
) -> None:
    with pytest.raises(OptionError, match=needs):
        prune(small_network, statistics=statistics, **chosen)
    with pytest.raises(Begun):
        prune(small_network, statistics=statistics, effort="fast")


@pytest.mark.usefixtures("unranked")
def test_a_drop_without_anything_to_measure_it_on(small_network: onnx.ModelProto, statistics: Statistics) -> None:
    with pytest.raises(OptionError, match="found statistics alone; give --data"):
        prune(small_network, statistics=statistics, effort="fast", target=Target("drop", 0.01))


@pytest.mark.usefixtures("uncalibrated")
def test_a_drop_in_a_network_without_classes(small_network: onnx.ModelProto) -> None:
    with pytest.raises(Begun):
        prune(small_network, target=Target("drop", 0.01))
    vector = onnx.ModelProto()
    vector.CopyFrom(small_network)
    vector.graph.output[0].type.tensor_type.shape.dim.pop()
    vector.graph.node[-1].output[0] = "z"
    vector.graph.node.append(onnx.helper.make_node("ReduceSum", ["z", "last_axis"], ["y"], keepdims=0))
    vector.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "last_axis"))
    with pytest.raises(OptionError, match="expected an output of classes to compare"):
        prune(vector, target=Target("drop", 0.01))


@pytest.mark.usefixtures("uncalibrated")
def test_a_cost_that_cannot_be_counted(small_network: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    def uncounted(*_: Any) -> Any:
        raise ModelError("sizes expected, found none; give --input-shapes")

    monkeypatch.setattr(Analysis, "measure_cost", uncounted)
    with pytest.raises(ModelError, match="sizes expected"):
        prune(small_network, target=Target("variance", 0.9))
