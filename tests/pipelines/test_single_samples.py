"""Networks that declare a batch of any size and take one sample at a time: run at that, with one warning."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_subprune import Options, Target, apply, calibrate, factorise, fidelity, open_data, prune
from onnx_subprune.model import input_specs

RNG = np.random.default_rng(0)
X = RNG.standard_normal((48, 12, 8)).astype(np.float32)
MLP = "h = MatMul(r, up) i = Relu(h) y = MatMul(i, down)"
BODIES = {
    # The batch is written into a Reshape; it becomes a part of the sequence; a state has one sample.
    "fixed": f"<int64[3] to = {{1, 12, 8}}> {{ r = Reshape(x, to) {MLP} }}",
    "folded": f"<int64[3] to = {{1, -1, 8}}> {{ r = Reshape(x, to) {MLP} }}",
    "state": f"""<int64[1] directions = {{1}}> {{
        t = Transpose<perm = [1, 0, 2]>(x)
        z = GRU<hidden_size = 8>(t, input, recurrence, "", "", start)
        q = Squeeze(z, directions)
        r = Transpose<perm = [1, 0, 2]>(q)
        {MLP}
    }}""",
}
SHAPES = {"up": (8, 32), "down": (32, 4), "input": (1, 24, 8), "recurrence": (1, 24, 8), "start": (1, 1, 8)}
REASONS = {
    "fixed": "Reshape: The input tensor cannot be reshaped",
    "folded": "output 'y' of two samples is [1, 24, 4], of one [1, 12, 4]",
    "state": "GRU: Input initial_h must have shape {1,2,8}",
}


def network(kind: str) -> onnx.ModelProto:
    head = '<ir_version: 9, opset_import: ["" : 17]> g (float[N, 12, 8] x) => (float[a, b, 4] y)'
    model = onnx.parser.parse_model(head + BODIES[kind])
    read = {name for node in model.graph.node for name in node.input}
    for name in sorted(read & SHAPES.keys()):
        weight = np.random.default_rng(len(name)).standard_normal(SHAPES[name]) / 3
        model.graph.initializer.append(numpy_helper.from_array(weight.astype(np.float32), name))
    return model


@pytest.mark.parametrize("kind", BODIES)
def test_every_step_runs_on_single_samples(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    model = network(kind)
    options = Options(target=Target.parse("macs=0.7"), threads=1, round_to=1)
    result = prune(model, {"x": X}, options)
    assert result.options.batch_size == 1
    assert [REASONS[kind] in warning for warning in result.warnings if "one sample at a time" in warning] == [True]
    assert result.fit is not None
    single = prune(model, {"x": X}, replace(options, batch_size=1))
    assert single.model.SerializeToString() == result.model.SerializeToString()
    replayed = apply(result.plan, model, {"x": X}, options)
    assert replayed.model.SerializeToString() == result.model.SerializeToString()
    assert any(REASONS[kind] in warning for warning in replayed.warnings)
    assert any(REASONS[kind] in warning for warning in factorise(model, {"x": X}, options).warnings)
    with caplog.at_level(logging.WARNING):
        calibrate(model, {"x": X}, options)
        measured = fidelity(model, result.model, open_data({"x": X}, input_specs(model)))
    assert measured.samples == len(X)
    assert [REASONS[kind] in record.getMessage() for record in caplog.records] == [True, True]
