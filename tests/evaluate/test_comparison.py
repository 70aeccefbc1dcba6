"""Two models side by side: what is measured, what cannot be and why, and all of it as data."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.evaluate import Latency, NodeTime, Profile
from onnx_subprune.evaluate.comparison import Conditions, Timing, measure, not_faster
from onnx_subprune.model import Runtime, input_specs

ONE_THREAD = Conditions({"x": (1, 4)}, Runtime(threads=1, batch_size=8))
CPU = ("CPUExecutionProvider",)


def model(scale: float) -> onnx.ModelProto:
    """Return a classifier whose first class wins where the first feature is positive, with scaled scores."""
    proto = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        scores (float[N, 4] x) => (float[N, 2] y) { y = MatMul(x, w) }
    """)
    weight = np.zeros((4, 2), np.float32)
    weight[0] = scale, -scale
    proto.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return proto


def samples(**labels: Any) -> Dataset:
    x = np.random.default_rng(0).standard_normal((20, 4)).astype(np.float32)
    return open_data({"x": x, **labels}, input_specs(model(1.0)))


def timing(ratio: float, interval: tuple[float, float] | None) -> Timing:
    dense = Latency(2.0, 2.5, 2.0, 500.0, 1.0, (1.0, 1.0))
    pruned = Latency(2.0 * ratio, 2.5, 2.0, 500.0, ratio, interval)
    nodes = (NodeTime("a", "Conv", CPU[0], 3e-3), NodeTime("b", "Relu", CPU[0], 1e-3))
    profiles = (Profile(nodes, 5e-3, 1e-3, 20, CPU), Profile(nodes[:1], 4e-3, 1e-3, 20, CPU))
    return Timing((dense, pruned), profiles, {"x": (1, 4)}, "random numbers", 1)


def test_only_what_was_asked_for_is_measured() -> None:
    nothing = measure(model(1.0), model(2.0), ONE_THREAD, latency=False)
    assert nothing.document() == {}
    close = measure(model(1.0), model(2.0), ONE_THREAD, samples(), latency=False)
    assert set(close.document()) == {"fidelity"}
    assert close.fidelity is not None
    assert close.fidelity.samples == 20
    assert close.fidelity.relative_l2 == pytest.approx(1.0, rel=1e-5)
    assert close.fidelity.outputs["y"].agreement == 1.0


def test_accuracy_of_both_models_with_the_source_of_the_labels() -> None:
    first = samples()
    labels = (next(iter(first.batches(20)))["x"][:, 0] < 0).astype(np.int64)
    labelled = samples(labels=labels)
    document = measure(model(1.0), model(-1.0), ONE_THREAD, labelled=labelled, latency=False).document()
    assert document["top1"]["source"] == labelled.source
    assert document["top1"]["dense"] == {"accuracy": 1.0, "correct": 20, "samples": 20}
    assert document["top1"]["pruned"]["accuracy"] == 0.0


def test_what_fails_is_named_and_the_rest_is_measured() -> None:
    labelled = samples(labels=np.full(20, 7))
    measured = measure(model(1.0), model(1.0), ONE_THREAD, samples(), labelled=labelled, latency=False)
    assert measured.top1 is None
    assert measured.fidelity is not None
    assert list(measured.left) == ["accuracy"]
    assert "labels expected from 0 to 1" in measured.document()["not_measured"]["accuracy"]


def test_without_data_random_numbers_of_the_given_shapes_are_timed() -> None:
    conditions = Conditions({"x": (3, 4)}, Runtime(threads=1))
    measured = measure(model(1.0), model(1.0), conditions)
    assert measured.timing is not None
    assert (measured.timing.inputs, dict(measured.timing.shapes)) == ("random numbers", {"x": (3, 4)})
    data = measure(model(1.0), model(1.0), Conditions({}, Runtime(threads=1), timed_samples=5), samples())
    assert data.timing is not None
    assert (data.timing.inputs, dict(data.timing.shapes)) == ("the first of the calibration data", {"x": (5, 4)})
    lacking = measure(model(1.0), model(1.0), Conditions({}, Runtime(threads=1)))
    assert "a shape for input 'x' expected" in lacking.left["latency"]


def test_a_pruned_model_is_warned_of_only_where_it_is_surely_not_faster() -> None:
    (line,) = not_faster(timing(1.2, (1.1, 1.3)), 0.5)
    assert "with 50% of the MACs the pruned model takes 120% of the dense one's time here" in line
    assert not_faster(timing(1.2, (0.95, 1.3)), 0.5) == []
    assert not_faster(timing(1.2, (1.1, 1.3)), 1.0) == []
    assert len(not_faster(timing(1.0, None), 0.5)) == 1
    assert not_faster(timing(0.9, None), 0.5) == []


def test_time_by_operator_stands_side_by_side() -> None:
    document = timing(0.9, None).document()
    assert document["profile"]["dense_ms"] == pytest.approx(5.0)
    conv, relu = document["profile"]["operators"]
    assert (conv["operator"], conv["provider"], conv["pruned"]) == ("Conv", CPU[0], {"nodes": 1, "ms": 3.0})
    assert (relu["dense"]["nodes"], relu["pruned"]) == (1, {"nodes": 0, "ms": 0.0})
