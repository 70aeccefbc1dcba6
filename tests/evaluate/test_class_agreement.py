"""The agreement of classes is that of the fidelity, and the dense network is run once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.evaluate import fidelity
from onnx_subprune.evaluate.class_agreement import ClassAgreement
from onnx_subprune.model import Runtime, input_specs

RNG = np.random.default_rng(0)
RUNTIME = Runtime(threads=1, batch_size=8)


def classifier(noise: float) -> onnx.ModelProto:
    """Two outputs of classes, a map and a vector of one number."""
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[N,4] x) => (float[N,3] y, float[N,2] z, float[N,2,2] m, float[N,1] v) {
            y = MatMul(x, w)
            z = MatMul(x, u)
            m = Reshape(x, square)
            v = ReduceSum(x, last)
        }"""
    )
    rng = np.random.default_rng(1)
    values = {
        "w": rng.standard_normal((4, 3)) + noise * RNG.standard_normal((4, 3)),
        "u": rng.standard_normal((4, 2)),
    }
    for name, value in values.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(value.astype(np.float32), name))
    for name, shape in {"square": [-1, 2, 2], "last": [1]}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(shape), name))
    return model


@pytest.fixture
def data() -> Dataset:
    return open_data({"x": RNG.standard_normal((37, 4)).astype(np.float32)}, input_specs(classifier(0.0)))


def test_it_is_the_least_agreement_of_the_fidelity(data: Dataset) -> None:
    dense, other = classifier(0.0), classifier(2.0)
    outputs = fidelity(dense, other, data, threads=1, batch_size=8).outputs
    agreements = [output.agreement for output in outputs.values() if output.agreement is not None]
    assert len(agreements) == 3
    agreement = ClassAgreement(dense, data, RUNTIME)
    assert agreement(other) == min(agreements) < 1.0
    assert agreement(dense) == 1.0


def test_named_tensors_count_in_the_place_of_outputs(data: Dataset) -> None:
    dense, other = classifier(0.0), classifier(2.0)
    by_name = {at: ClassAgreement(dense, data, RUNTIME, at)(other) for at in (("y",), ("z",), ("y", "z"), ("z", "v"))}
    assert by_name["y",] == by_name["y", "z"] == ClassAgreement(dense, data, RUNTIME)(other) < 1.0
    assert by_name["z",] == 1.0
    # One number for each sample is no class.
    assert by_name["z", "v"] is None


def test_the_dense_network_is_run_once(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    dense = classifier(0.0)
    runs: list[bool] = []
    genuine = Runtime.session
    monkeypatch.setattr(Runtime, "session", lambda self, model: runs.append(model is dense) or genuine(self, model))
    agreement = ClassAgreement(dense, data, RUNTIME)
    for noise in (0.1, 0.5, 1.0):
        agreement(classifier(noise))
    assert runs.count(True) == 1


def test_without_classes_there_is_nothing_to_agree_on() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,4] x) => (float[N,4,1] y) '
        "{ axes = Constant <value_ints = [2]> () y = Unsqueeze(x, axes) }"
    )
    data = open_data({"x": np.ones((5, 4), np.float32)}, input_specs(model))
    assert ClassAgreement(model, data, RUNTIME)(model) is None


def test_data_of_one_pass_is_read_again(data: Dataset) -> None:
    """Every network reads all samples anew."""
    agreement = ClassAgreement(classifier(0.0), data, RUNTIME)
    other = classifier(1.0)
    results: Iterator[float | None] = (agreement(other) for _ in range(2))
    assert len(set(results)) == 1


def mapped(noise: float, tail: str, output: str) -> onnx.ModelProto:
    """One output that is a sequence, or the classes of its steps."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": 17]> g (float[N,6,4] x) => ({output}) {{ z = MatMul(x, w) {tail} }}'
    )
    rng = np.random.default_rng(1)
    w = rng.standard_normal((4, 3)) + noise * rng.standard_normal((4, 3))
    model.graph.initializer.append(onnx.numpy_helper.from_array(w.astype(np.float32), "w"))
    return model


@pytest.mark.parametrize(
    ("tail", "output"),
    [("y = Identity(z)", "float[N,6,3] y"), ("y = ArgMax<axis = 2, keepdims = 0>(z)", "int64[N,6] y")],
)
def test_steps_of_sequences_and_integers_agree_as_in_the_fidelity(tail: str, output: str) -> None:
    x = RNG.standard_normal((19, 6, 4)).astype(np.float32)
    dense, other = mapped(0.0, tail, output), mapped(1.0, tail, output)
    samples = open_data({"x": x}, input_specs(dense))
    classes = [(x @ onnx.numpy_helper.to_array(model.graph.initializer[0])).argmax(axis=2) for model in (dense, other)]
    expected = np.mean(classes[0] == classes[1])
    agreement = ClassAgreement(dense, samples, RUNTIME)
    assert agreement(other) == expected < 1.0
    assert agreement(dense) == 1.0
    assert fidelity(dense, other, samples, threads=1).outputs["y"].agreement == expected
