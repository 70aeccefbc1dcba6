"""A target `drop` returns the network that it measured, says what it measured, and searches the cost it is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune import pipeline
from onnx_subprune.calibration import open_data
from onnx_subprune.demo import Demo, load_demo
from onnx_subprune.errors import OptionError, TargetError
from onnx_subprune.evaluate import fidelity, top1
from onnx_subprune.model import input_specs, load_model
from onnx_subprune.options import Options, Target
from onnx_subprune.pipeline import Result, prune
from onnx_subprune.planning import drop_search as dropping
from onnx_subprune.report import drop_line


@pytest.fixture(scope="module")
def demo() -> Demo:
    return load_demo()


@pytest.fixture(scope="module")
def dense(demo: Demo) -> onnx.ModelProto:
    return load_model(demo.model_path)


@pytest.fixture(scope="module")
def labelled(demo: Demo) -> dict[str, np.ndarray]:
    return {**{name: values[:400] for name, values in demo.test.items()}, "labels": demo.labels[:400]}


def _pruned(demo: Demo, dense: onnx.ModelProto, evaluation: Any = None, **more: Any) -> Result:
    target = Target("drop", more.pop("drop", 0.02))
    options = Options.of_effort("fast", target=target, threads=1, **more)
    return prune(
        dense, {name: values[:256] for name, values in demo.calibration.items()}, options, evaluation=evaluation
    )


def test_the_fall_that_was_measured_is_that_of_the_result(
    demo: Demo, dense: onnx.ModelProto, labelled: dict[str, np.ndarray]
) -> None:
    result = _pruned(demo, dense, labelled)
    data = open_data(labelled, input_specs(dense))
    before, after = (top1(model, data, threads=1).accuracy for model in (dense, result.model))
    assert result.drop is not None
    assert (result.drop.metric, result.drop.allowed, result.drop.cost) == ("top-1", 0.02, "macs")
    assert result.drop.fall == pytest.approx(before - after)
    assert result.drop.fall <= 0.02
    assert result.pruned.macs < 0.9 * result.dense.macs
    assert result.document()["drop"]["tried"][0]["fraction"] == 0.95
    assert f"falls by {100 * result.drop.fall:.2f} points, of 2.00 allowed" in drop_line(result.document())


@pytest.mark.parametrize(("at", "said"), [((), "an output of classes"), (("p",), "classes at every one of 'p'")])
def test_without_classes_there_is_nothing_to_compare(at: tuple[str, ...], said: str) -> None:
    network = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
        g (float[N,4] x) => (float[N,1] y) { h = MatMul(x, w) r = Relu(h) p = MatMul(r, v) y = Neg(p) }""")
    for name, shape in {"w": (4, 8), "v": (8, 1)}.items():
        network.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    options = Options.of_effort("fast", target=Target("drop", 0.1), threads=1, outputs_at=at)
    with pytest.raises(
        OptionError, match=f"expected {said} to compare, as scores .samples, classes., of a sequence or"
    ):
        prune(network, {"x": np.ones((8, 4), np.float32)}, options)


def test_without_labels_classes_are_compared(demo: Demo, dense: onnx.ModelProto) -> None:
    result = _pruned(demo, dense)
    data = open_data({name: values[:256] for name, values in demo.calibration.items()}, input_specs(dense))
    agreement = fidelity(dense, result.model, data, threads=1).outputs["logits"].agreement
    assert result.drop is not None
    assert agreement is not None
    assert result.drop.fall == pytest.approx(1 - agreement)
    assert "of the samples change their largest class" in drop_line(result.document())


@pytest.mark.parametrize("cost", ["macs", "params"])
def test_the_search_is_over_the_cost_that_is_asked_for(demo: Demo, dense: onnx.ModelProto, cost: str) -> None:
    result = _pruned(demo, dense, lambda model: 0.0, cost=cost)
    assert result.drop is not None
    assert result.plan.target == f"{cost}={result.drop.tried[-1].fraction:g}" == f"{cost}=0.05"
    costs = {
        "macs": (result.pruned.macs, result.dense.macs),
        "params": (result.pruned.parameters, result.dense.parameters),
    }
    now, before = costs[cost]
    assert 0.045 < now / before <= 0.05
    assert "the metric falls by 0, of 0.02 allowed" in drop_line(result.document())


def test_every_network_is_made_once(demo: Demo, dense: onnx.ModelProto, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    real = dropping.recover

    def counting(*given: Any, **more: Any) -> Any:
        made.append(given[1].target)
        return real(*given, **more)

    monkeypatch.setattr(dropping, "recover", counting)
    monkeypatch.setattr(pipeline, "recover", counting)
    result = _pruned(demo, dense)
    assert result.drop is not None
    assert len(made) == len(set(made)) == len(result.drop.tried)
    assert result.plan.target in made


def test_a_fall_that_nothing_keeps_to_is_refused(demo: Demo, dense: onnx.ModelProto) -> None:
    size = len(dense.graph.node)
    with pytest.raises(TargetError, match=r"found a fall of 1\.0000 at 0\.95 of the params; ask for drop=1\.0000"):
        _pruned(demo, dense, lambda model: float(len(model.graph.node) == size), cost="params")


def test_a_cost_goes_with_a_drop_alone() -> None:
    with pytest.raises(OptionError, match="leave --cost out"):
        Options(target=Target("macs", 0.5), cost="params")
    with pytest.raises(OptionError, match="expected a cost among"):
        Options(target=Target("drop", 0.01), cost="watts")
