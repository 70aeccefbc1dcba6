"""Layers behind a decision are fitted as others are: the pruned network is given what the dense one decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnx_subprune import Options, Target
from onnx_subprune.calibration import open_data
from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.model import Runtime, input_specs
from onnx_subprune.pipeline import apply, prune
from onnx_subprune.result import Result

TRUNK = "[t1] a = MatMul(x, w1) a1 = Add(a, b1) b = Relu(a1) [t2] f = MatMul(b, w2) g = Relu(f)"
HEAD = "[h1] p = MatMul(rows, v1) q = Add(p, c1) r = Relu(q) [h2] y = MatMul(r, v2)"
DECISIONS = {
    # The five of twelve rows that score highest.
    "selection": """[score] s = MatMul(g, u) s1 = Squeeze(s, last) t, i = TopK<axis = 1>(s1, five)
        i1 = Unsqueeze(i, last) i2 = Expand(i1, wide) rows = GatherElements<axis = 1>(g, i2)""",
    # As many rows as score more than a bound.
    "number": """[score] s = MatMul(g, u) over = Greater(s, bound) s1 = Squeeze(over, last)
        z = NonZero(s1) zt = Transpose(z) rows = GatherND(g, zt)""",
    # What a table holds of the largest class.
    "class": """[score] s = MatMul(g, u8) i = ArgMax<axis = 2, keepdims = 0>(s) e = Gather(table, i)
        rows = Concat<axis = 2>(g, e)""",
    # As many steps as the network predicts.
    "length": """[score] s = MatMul(g, u) m = ReduceMean<keepdims = 0>(s) m1 = Abs(m) m2 = Mul(m1, twenty)
        n = Ceil(m2) n1 = Cast<to = 7>(n) n2 = Add(n1, one) w = Concat<axis = 0>(one, n2, one)
        e = ReduceMean<axes = [1], keepdims = 1>(g) long = Tile(e, w) n3 = Squeeze(n2) steps = Range(zero, n3, step)
        sf = Cast<to = 1>(steps) su = Unsqueeze(sf, end) sc = Cos(su) rows = Mul(long, sc)""",
    # Noise: the same in both networks without being given.
    "noise": "n = RandomNormalLike(g) rows = Mul(g, n)",
}
CONSTANTS = {
    "last": [2], "end": [-1], "five": [5], "wide": [1, 1, 16], "one": [1], "zero": 0, "step": 1,
    "bound": np.float32(0.3), "twenty": np.float32(20),
}  # fmt: skip
GENERATOR = np.random.default_rng(5)
# Features that depend on each other, as those of images do.
DATA = (GENERATOR.standard_normal((256, 12, 4)) @ GENERATOR.standard_normal((4, 6))).astype(np.float32)


def build(kind: str) -> onnx.ModelProto:
    """Return a trunk, a decision and a head behind it; every layer has a name."""
    text = f"{TRUNK} {DECISIONS[kind]} {HEAD}"
    inputs, outputs = "float[N,12,6] x", "float y"
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {text} }}'
    )
    model.graph.output[0].type.tensor_type.ClearField("shape")
    wide = 24 if kind == "class" else 16
    shapes = {
        "w1": (6, 24), "b1": (24,), "w2": (24, 16), "u": (16, 1), "u8": (16, 8), "table": (8, 8),
        "v1": (wide, 24), "c1": (24,), "v2": (24, 5),
    }  # fmt: skip
    rng = np.random.default_rng(0)
    values = {name: rng.standard_normal(shape) / np.sqrt(shape[0]) for name, shape in shapes.items()}
    arrays = {name: value.astype(np.float32) for name, value in values.items()}
    arrays |= {name: np.asarray(value) for name, value in CONSTANTS.items()}
    read = {name for node in model.graph.node for name in node.input}
    for name in sorted(read & arrays.keys()):
        model.graph.initializer.append(onnx.numpy_helper.from_array(arrays[name], name))
    return model


def options(kind: str) -> Options:
    return Options(Target("units", 0.6), threads=1, batch_size=1 if kind == "length" else 32, rows=64)


def error(result: Result, kind: str) -> float:
    """Return the error at the outputs and before the decisions, on all samples, with the dense decisions given."""
    data = open_data({"x": DATA}, input_specs(result.analysis.model))
    runtime = Runtime(threads=1, batch_size=options(kind).batch_size)
    return OutputDistance(result.analysis.normalised, data, runtime, len(DATA))(result.model)


@pytest.mark.parametrize("kind", DECISIONS)
def test_layers_behind_a_decision_are_fitted_and_the_outputs_are_nearer(kind: str) -> None:
    model = build(kind)
    exact = prune(model, {"x": DATA}, options(kind))
    by_channel = replace(exact.plan, options=replace(exact.plan.options, recovery="channel"))
    channel = apply(by_channel, model, {"x": DATA}, options(kind))
    assert exact.fit is not None, exact.warnings
    assert exact.fit.left == {}
    layers = {layer.name: layer for layer in exact.fit.layers}
    assert {"t1", "t2", "h1", "h2"} <= layers.keys()
    assert all(layers[name].after <= layers[name].before for name in ("h1", "h2"))
    assert layers["h1"].before < 0.1
    share = 0.97 if kind in ("selection", "number", "class") else 1.0
    assert error(exact, kind) < share * error(channel, kind)


def test_the_same_samples_give_the_same_bytes() -> None:
    first, second = (prune(build("number"), {"x": DATA}, options("number")).model for _ in range(2))
    assert first.SerializeToString(deterministic=True) == second.SerializeToString(deterministic=True)
