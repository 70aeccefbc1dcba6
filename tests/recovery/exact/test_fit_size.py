"""What there will be to fit agrees with what is fitted."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_subprune.calibration import open_data
from onnx_subprune.model import input_specs
from onnx_subprune.recovery.exact import FitSizes, LayerSize, Settings

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,3,6,6] x) => (float[N,5] y) {
    [conv] a = Conv <kernel_shape = [3, 3]> (x, w1)
    b = Relu(a)
    c = GlobalAveragePool(b)
    d = Flatten(c)
    [fc] y = Gemm(d, w2)
}"""


def sizes(samples: int) -> FitSizes:
    model = onnx.parser.parse_model(TEXT)
    for name, shape in {"w1": (4, 3, 3, 3), "w2": (4, 5)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    data = open_data({"x": np.zeros((samples, 3, 6, 6), np.float32)}, input_specs(model))
    return FitSizes(model, data, Settings(threads=1))


def test_layers_have_their_features_and_as_many_rows_as_there_are() -> None:
    size = sizes(10).at(10, Settings())
    assert size.samples == 10
    # A map of 4 x 4 positions, and one row a sample.
    assert size.layers == (LayerSize(27, 4, 160.0), LayerSize(4, 5, 10.0))


def test_rows_and_samples_are_bounded_by_what_is_asked_for() -> None:
    several = sizes(10)
    assert several.at(20_000, Settings(rows=2)).samples == 1024
    # 64 features count at least.
    assert [layer.rows for layer in several.at(20_000, Settings(rows=2)).layers] == [128.0, 128.0]
    assert several.at(20_000, Settings(rows=512)).samples > 1024


def test_blocks_of_a_conv_are_counted() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]>
        g (float[N,4,5,5] x) => (float[N,4,3,3] y) { [conv] y = Conv <group = 4, kernel_shape = [3, 3]> (x, w) }"""
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((4, 1, 3, 3), np.float32), "w"))
    data = open_data({"x": np.zeros((2, 4, 5, 5), np.float32)}, input_specs(model))
    (layer,) = FitSizes(model, data, Settings(threads=1)).at(2, Settings()).layers
    assert layer == LayerSize(9, 4, 18.0, blocks=4)
