"""Runs with the decisions of the dense network given: only where they differ from plain runs, and never in silence."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import ModelError, OptionError
from onnx_subprune.evaluate.decided_runs import DecidedRuns
from onnx_subprune.model import Runtime

RUNTIME = Runtime(threads=1)
X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
ROUNDED = "h = MatMul(x, w) r = Round(h) y = Add(r, h)"


def build(text: str, seed: int = 0) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,5] y) {{ {text} }}'
    )
    values = np.random.default_rng(seed).standard_normal((4, 5)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    return model


def test_a_network_without_decisions_needs_no_runs_of_its_own() -> None:
    runs = DecidedRuns(build("y = MatMul(x, w)"), build("y = MatMul(x, w)", 1), RUNTIME, ())
    assert (runs.interior, runs.decisions, runs.run({"x": X})) == ({}, frozenset(), None)


def test_the_decisions_of_the_dense_network_are_given_to_the_other() -> None:
    runs = DecidedRuns(build(ROUNDED), build(ROUNDED, 1), RUNTIME, ())
    assert runs.decisions == {"r"}
    values = runs.run({"x": X})
    assert values is not None
    dense, pruned = values
    np.testing.assert_allclose(pruned["y"], np.round(dense["h"]) + pruned["h"], rtol=1e-5)


def test_named_tensors_take_the_place_of_others() -> None:
    runs = DecidedRuns(build("h = MatMul(x, w) y = Tanh(h)"), build("h = MatMul(x, w) y = Tanh(h)", 1), RUNTIME, ["h"])
    assert runs.interior == {"h": "asked for"}
    values = runs.run({"x": X})
    assert values is not None
    assert values[0]["h"].shape == values[1]["h"].shape == (6, 5)


def test_a_named_tensor_that_cannot_be_compared_is_an_error_and_no_warning() -> None:
    dense, other = build("h = MatMul(x, w) y = Tanh(h)"), build("k = MatMul(x, w) y = Tanh(k)")
    with pytest.raises(ModelError, match=r"expected tensor 'h' in both networks .* name one that both have"):
        DecidedRuns(dense, other, RUNTIME, ["h"])
    with pytest.raises(OptionError, match="which the model does not have"):
        DecidedRuns(dense, other, RUNTIME, ["j"])
    scales = "s = Constant<value = float {0.1}>() z = Constant<value = uint8 {128}>()"
    quantised = build(f"{scales} h = MatMul(x, w) q = QuantizeLinear(h, s, z) y = DequantizeLinear(q, s, z)")
    assert DecidedRuns(quantised, quantised, RUNTIME, ()).decisions == frozenset()
    with pytest.raises(OptionError, match="expected a float model first"):
        DecidedRuns(quantised, quantised, RUNTIME, ["h"])


def test_what_branches_saturate_counts_in_the_place_of_the_output() -> None:
    chosen = """h = MatMul(x, w) s = Sigmoid(h) most = ReduceMax<keepdims = 0>(h) zero = Constant<value = float {0}>()
        c = Greater(most, zero) y = If(c) <then_branch = a () => (float[N,5] t) { n = Neg(h) t = Sigmoid(n) },
                                           else_branch = b () => (float[N,5] e) { e = Identity(s) }>"""
    runs = DecidedRuns(build(chosen), build(chosen, 1), RUNTIME, ())
    assert runs.replaced == {"y": ("y/in_branch", "most")}
    for sign in (1, -1):
        values = runs.run({"x": sign * X[:1]})
        assert values is not None
        dense, other = values
        taken = -1 if dense["most"] > 0 else 1
        for network, seed in ((dense, 0), (other, 1)):
            weight = onnx.numpy_helper.to_array(build(chosen, seed).graph.initializer[0])
            np.testing.assert_allclose(network["y/in_branch"], taken * sign * X[:1] @ weight, rtol=1e-5)
