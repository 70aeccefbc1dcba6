"""A few samples that are far larger than all others are found, and named where they decide what is pruned."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Tap, calibrate, open_data
from onnx_subprune.calibration.outliers import Magnitudes, PickedDataset
from onnx_subprune.errors import DataError
from onnx_subprune.model import input_specs

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,6] x) => (float[N,6] y) { h = Clip(x, low, high) y = Relu(x) }"""
SAMPLES = np.random.default_rng(0).standard_normal((60, 6)).astype(np.float32)


def _network() -> onnx.ModelProto:
    model = onnx.parser.parse_model(TEXT)
    for name, value in {"low": -2.0, "high": 2.0}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.float32(value), name))
    return model


def _data(*larger: tuple[int, float]) -> dict[str, np.ndarray]:
    samples = SAMPLES.copy()
    for number, value in larger:
        samples[number, 2] = value
    return {"x": samples}


def _magnitudes(samples: np.ndarray) -> Magnitudes:
    magnitudes = Magnitudes()
    for start in range(0, len(samples), 16):
        batch = samples[start : start + 16]
        magnitudes.add({"x": batch, "ids": np.ones((len(batch), 2), np.int64)}, np.arange(start, start + len(batch)))
    return magnitudes


def test_samples_alike_have_no_outliers() -> None:
    assert _magnitudes(SAMPLES).outliers() == []
    assert _magnitudes(1e6 * SAMPLES).outliers() == []
    assert Magnitudes().outliers() == []


def test_the_largest_comes_first() -> None:
    (outliers,) = _magnitudes(_data((17, -1e12), (3, 1e9))["x"]).outliers()
    assert (outliers.input, outliers.places, outliers.largest) == ("x", (17, 3), pytest.approx(1e12))
    assert outliers.others == pytest.approx(np.abs(np.delete(_data()["x"], (3, 17), axis=0)).max())


def test_many_large_samples_are_a_kind_of_their_own() -> None:
    assert _magnitudes(_data(*((number, 1e9) for number in range(4)))["x"]).outliers() == []


def test_a_sample_that_decides_is_refused_by_its_number() -> None:
    model = _network()
    data = open_data(_data((17, 1e12)), input_specs(model))
    with pytest.raises(DataError, match=r"^sample 17 of .* has magnitudes up to 1e\+12 in input 'x', .*; take it out"):
        calibrate(model, [Tap("y", 1)], data, threads=1)


def test_a_sample_that_reaches_no_statistics_is_none_of_our_business() -> None:
    model = _network()
    data = open_data(_data((17, 1e12)), input_specs(model))
    assert calibrate(model, [Tap("h", 1)], data, threads=1).warnings == ()


def test_picked_samples_are_those_of_their_places() -> None:
    model = _network()
    data = open_data(_data((17, 1e12)), input_specs(model))
    batches = list(PickedDataset(data, [17, 40]).placed(16))
    assert [int(place) for batch in batches for place in batch.places] == [17, 40]
    assert np.concatenate([batch.feeds["x"] for batch in batches]).shape == (2, 6)
