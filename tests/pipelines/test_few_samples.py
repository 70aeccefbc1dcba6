"""Fewer samples than features: what least squares return exactly on seen samples does not look free to remove."""

from __future__ import annotations

import numpy as np
import onnx

from onnx_subprune import Options, Target, prune
from onnx_subprune.model import open_session

# A branch of four units decides nearly all of the output; beside it stand 60 features, more than there are samples.
TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,60] x) => (float[N,5] y) {
    a = Gemm(x, w1)
    b = Relu(a)
    c = Gemm(b, w2)
    d = Relu(c)
    e = Concat<axis = 1>(x, d)
    f = Gemm(e, w3)
    h = Relu(f)
    y = Gemm(h, w4)
}"""
SHAPES = {"w1": (60, 40), "w2": (40, 4), "w3": (64, 12), "w4": (12, 5)}


def test_a_branch_is_not_removed_because_few_samples_can_do_without_it() -> None:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(TEXT)
    weights = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}
    weights["w3"][:60] *= 0.05
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in weights.items())
    samples, fresh = rng.standard_normal((2, 48, 60)).astype(np.float32)
    result = prune(model, {"x": samples}, Options(target=Target.parse("macs=0.7"), threads=1, round_to=1))
    assert all(group.kept for group in result.plan.groups)
    assert 0.65 < result.pruned.macs / result.dense.macs <= 0.7
    dense, pruned = (open_session(one).run(None, {"x": fresh})[0] for one in (model, result.model))
    assert np.linalg.norm(pruned - dense) < 0.6 * np.linalg.norm(dense)
