"""What trying a few samples shows before the long work."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import OptionError
from onnx_subprune.network.input_checks import checked_inputs
from onnx_subprune.network.inputs import prepare
from onnx_subprune.options import Options

OPTIONS = Options(threads=1, batch_size=8)
FLAT = """
<ir_version: 8, opset_import: ["" : 17]>
g (float[N, 2, 3] x) => (float[a, b, 3] y) <int64[3] one = {1, 2, 3}> { r = Reshape(x, one) y = Relu(r) }
"""


def test_options_stay_where_batches_run(model: onnx.ModelProto, samples: dict[str, np.ndarray]) -> None:
    assert checked_inputs(*prepare(model, samples, OPTIONS), OPTIONS) == (OPTIONS, [])
    assert checked_inputs(*prepare(model, None, OPTIONS), OPTIONS) == (OPTIONS, [])


def test_a_network_of_single_samples_is_run_on_single_samples() -> None:
    flat = onnx.parser.parse_model(FLAT)
    options, (warning,) = checked_inputs(*prepare(flat, {"x": np.ones((4, 2, 3), np.float32)}, OPTIONS), OPTIONS)
    assert options.batch_size == 1
    assert "runs on one sample at a time only" in warning
    assert "Input shape:{2,2,3}, requested shape:{1,2,3}" in warning


def test_latency_of_batches_that_do_not_run_is_refused_before_the_work() -> None:
    timed = Options(threads=1, latency_batch=4)
    prepared = prepare(onnx.parser.parse_model(FLAT), {"x": np.ones((4, 2, 3), np.float32)}, timed)
    with pytest.raises(OptionError, match=r"one sample at a time only \(Reshape: .*found 4; leave --latency-batch out"):
        checked_inputs(*prepared, timed)
