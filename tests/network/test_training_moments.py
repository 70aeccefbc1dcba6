"""Inputs that a network was not trained on, as its first BatchNormalization remembers."""

from __future__ import annotations

import logging
import re
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_subprune import Options, Target, load_demo, prune
from onnx_subprune.calibration import open_data
from onnx_subprune.model import Runtime, input_specs, load_model, open_session, run
from onnx_subprune.network.training_moments import unlike_training

RNG = np.random.default_rng(0)
IMAGES = RNG.random((48, 3, 8, 8)).astype(np.float32)
HEAD = '<ir_version: 8, opset_import: ["" : 17]> g '
CONV = """(float[N, 3, 8, 8] x) => (float[N, 6, 8, 8] y) {
    c = Conv(x, w)
    r = Relu(c)
    [norm] b = BatchNormalization(r, one, zero, mean, variance)
    y = Sigmoid(b)
}"""


def trained(text: str, normalised: str, feeds: dict[str, np.ndarray], **weights: Any) -> onnx.ModelProto:
    """Return a network whose BatchNormalization remembers the moments of a tensor on these inputs."""
    model = onnx.parser.parse_model(HEAD + text)
    for name, value in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
    value = feeds.get(normalised)
    if value is None:
        probe = onnx.ModelProto()
        probe.CopyFrom(model)
        end = next(place for place, node in enumerate(probe.graph.node) if normalised in node.output) + 1
        del probe.graph.node[end:]
        del probe.graph.output[:]
        probe.graph.output.append(onnx.ValueInfoProto(name=normalised))
        value = run(open_session(probe), feeds)[normalised]
    axes = (0, *range(2, value.ndim))
    channels = value.shape[1]
    moments = {
        "mean": value.mean(axes),
        "variance": value.var(axes),
        "one": np.ones(channels),
        "zero": np.zeros(channels),
    }
    for name, array in moments.items():
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    onnx.checker.check_model(model)
    return model


def conv() -> onnx.ModelProto:
    return trained(CONV, "r", {"x": IMAGES}, w=RNG.standard_normal((6, 3, 1, 1)))


def warnings(model: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[str]:
    return unlike_training(model, open_data(feeds, input_specs(model)), Runtime(threads=1, batch_size=8))


@pytest.mark.parametrize("scale", [1.0, 0.6, 1.6])
def test_inputs_as_in_training_are_no_matter(scale: float) -> None:
    assert warnings(conv(), {"x": IMAGES[:16] * np.float32(scale)}) == []


@pytest.mark.parametrize(("scale", "times"), [(255.0, "25[0-9]"), (1 / 255, r"0\.0[0-9]+")])
def test_pixels_of_another_scale_are_told_with_the_numbers(scale: float, times: str) -> None:
    (warning,) = warnings(conv(), {"x": IMAGES * np.float32(scale)})
    assert "'norm', the first behind input 'x'" in warning
    assert re.search(rf"vary {times} times as much as in training", warning)


def test_a_mean_that_is_off_is_told() -> None:
    (warning,) = warnings(conv(), {"x": IMAGES + np.float32(3)})
    assert "means are off by" in warning


def test_the_demo_and_the_demo_with_pixels() -> None:
    demo = load_demo()
    model = load_model(demo.model_path)
    assert warnings(model, {"image": demo.calibration["image"][:64]}) == []
    assert len(warnings(model, {"image": 255 * demo.calibration["image"][:64]})) == 1
    options = Options.of_effort("fast", target=Target.parse("macs=0.8"), threads=1, samples=64)
    for scale in (1, 255):
        result = prune(model, {"image": scale * demo.calibration["image"]}, options)
        told = [line for line in result.warnings if "trained on" in line]
        assert len(told) == (scale == 255)
        assert [line for line in result.document()["warnings"] if "trained on" in line] == told


def test_every_input_has_a_first_normalisation_of_its_own() -> None:
    text = """(float[N, 4] x, float[N, 4] z, int64[N] ids) => (float[N, 4] y, float[N, 4] u) {
        [left] a = BatchNormalization(x, one, zero, mean, variance)
        [later] b = BatchNormalization(a, one, zero, mean, variance)
        y = Relu(b)
        t = Abs(z)
        [right] u = BatchNormalization(t, one, zero, mean, variance)
    }"""
    x = RNG.standard_normal((64, 4)).astype(np.float32)
    feeds = {"x": x, "z": x, "ids": np.zeros(64, np.int64)}
    model = trained(text, "x", {"x": x})
    assert warnings(model, feeds) == []
    (left,) = warnings(model, {**feeds, "x": 100 * x})
    (right,) = warnings(model, {**feeds, "z": 100 * x})
    assert "'left', the first behind input 'x'" in left
    assert "'right', the first behind input 'z'" in right


def test_half_precision_that_overflows_is_told() -> None:
    model = conv()
    for tensor in model.graph.initializer:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = onnx.TensorProto.FLOAT16
    assert warnings(model, {"x": IMAGES.astype(np.float16)}) == []
    (warning,) = warnings(model, {"x": (IMAGES * 60000).astype(np.float16)})
    assert "values are too large to be finite; scale" in warning


@pytest.mark.parametrize("reason", ["folded", "training", "computed", "few rows"])
def test_where_nothing_is_remembered_nothing_is_said(reason: str, caplog: pytest.LogCaptureFixture) -> None:
    model, count = conv(), 48
    node = model.graph.node[2]
    if reason == "folded":
        node.CopyFrom(onnx.helper.make_node("Relu", ["r"], ["b"]))
    elif reason == "training":
        node.attribute.append(onnx.helper.make_attribute("training_mode", 1))
        node.output.extend(["running_mean", "running_variance"])
    elif reason == "computed":
        model.graph.node.insert(0, onnx.helper.make_node("Abs", ["mean"], ["computed"]))
        model.graph.node[3].input[3] = "computed"
    else:
        model = trained(
            "(float[N, 4] x) => (float[N, 4] y) { y = BatchNormalization(x, one, zero, mean, variance) }",
            "x",
            {"x": IMAGES[:, :, 0, :4].reshape(-1, 4)},
        )
        assert warnings(model, {"x": np.full((16, 4), 1e6, np.float32)}) == []
        return
    with caplog.at_level(logging.WARNING):
        assert warnings(model, {"x": 255 * IMAGES[:count]}) == []
    assert not caplog.records
