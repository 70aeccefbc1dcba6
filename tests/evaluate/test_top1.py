from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.evaluate import Top1, top1
from onnx_subprune.model import input_specs


def model(signature: str = "(float[N,3] x) => (float[N,3] y)", body: str = "y = Neg(x)") -> onnx.ModelProto:
    return onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["" : 20]> g {signature} {{ {body} }}')


X = np.array([[1, 2, 0], [0, 3, 1], [5, 4, 6], [2, 2, 1], [0, 1, 2]], dtype=np.float32)
LOWEST = np.array([2, 0, 1, 2, 0])


def measure(labels: Any, network: onnx.ModelProto | None = None, **options: Any) -> Top1:
    network = network or model()
    return top1(network, open_data({"x": X, "labels": labels}, input_specs(network)), **options)


@pytest.mark.parametrize("batch_size", [1, 2, 5])
def test_accuracy_is_the_share_of_samples_whose_largest_class_is_the_label(batch_size: int):
    assert measure(LOWEST, batch_size=batch_size) == Top1(1.0, 5, 5)
    assert measure([2, 0, 0, 0, 0], batch_size=batch_size) == Top1(0.6, 3, 5)
    assert measure(LOWEST[:, None].astype(np.uint8), batch_size=batch_size).correct == 5


def test_labels_follow_the_samples_that_are_chosen():
    network = model()
    data = open_data({"x": X, "labels": LOWEST}, input_specs(network), samples=3, seed=7)
    assert top1(network, data, batch_size=2) == Top1(1.0, 3, 3)


def test_labels_past_the_last_full_batch_of_a_fixed_size_are_left_out():
    assert measure(LOWEST, model("(float[2,3] x) => (float[2,3] y)")) == Top1(1.0, 4, 4)


def test_the_first_float_output_of_two_axes_is_used():
    network = model(
        "(float[N,3] x) => (int64[N,1] k, float[N,1,3] r, float[N,3] y, float[N,3] z)",
        "k = ArgMax<axis=1, keepdims=1>(x) a = Constant<value_ints=[1]>() r = Unsqueeze(x, a) y = Neg(x) z = Abs(x)",
    )
    assert measure(LOWEST, network).accuracy == 1
    with pytest.raises(ModelError, match=r"a float output \[samples, classes\] expected .*'k' tensor\(int64\)"):
        measure(LOWEST, model("(float[N,3] x) => (int64[N,1] k)", "k = ArgMax<axis=1, keepdims=1>(x)"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([2, 0, 3, 2, 0], "labels expected from 0 to 2, .* found 3"),
        ([2, 0, -1, 2, 0], "labels expected from 0 to 2, .* found -1"),
        ([2.0, 0.0, 1.0, 2.0, 0.0], "vector of class numbers, found float64"),
        (np.zeros((5, 3), np.int64), r"vector of class numbers, found int64 of shape \(5, 3\)"),
    ],
)
def test_labels_that_are_not_classes_are_refused(labels: Any, message: str):
    with pytest.raises(DataError, match=message):
        measure(labels)


def test_data_without_labels_is_refused():
    network = model()
    with pytest.raises(DataError, match="dict: labels expected for top-1, found none"):
        top1(network, open_data({"x": X}, input_specs(network)))


def test_an_output_that_is_not_a_row_per_sample_is_refused():
    network = model("(float[N,3] x) => (float[M,3] y)", "y = Concat<axis=0>(x, x)")
    with pytest.raises(DataError, match=r"a row of output 'y' and a label for each of 5 samples .*, found 10 rows"):
        measure(LOWEST, network)
