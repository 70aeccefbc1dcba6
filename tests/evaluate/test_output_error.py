"""How far outputs are from the dense network's: by hand, on samples held out, and for outputs that are no numbers."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.model import Runtime, input_specs

RUNTIME = Runtime(threads=1, batch_size=4)


def network(scale: float, text: str = "y = Mul(x, s)", outputs: str = "float[N,3] y") -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,3] x) => ({outputs}) {{ {text} }}'
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(scale, np.float32), "s"))
    return model


def data(count: int = 40) -> Dataset:
    x = np.random.default_rng(0).standard_normal((count, 3)).astype(np.float32)
    return open_data({"x": x}, input_specs(network(1.0)))


def test_the_error_is_relative_to_the_squares_of_the_dense_outputs() -> None:
    distance = OutputDistance(network(2.0), data(), RUNTIME, 100)
    assert distance(network(2.0)) == 0.0
    assert distance(network(3.0)) == pytest.approx(0.25)
    assert distance(network(0.0)) == pytest.approx(1.0)


def test_of_several_outputs_the_mean_counts() -> None:
    text, outputs = "y = Mul(x, s) z = Add(x, x)", "float[N,3] y, float[N,3] z"
    distance = OutputDistance(network(1.0, text, outputs), data(), RUNTIME, 100)
    assert distance(network(2.0, text, outputs)) == pytest.approx(0.5)


def test_outputs_that_are_no_numbers_do_not_count() -> None:
    text, outputs = "y = Mul(x, s) i = ArgMax <axis=1, keepdims=0> (y)", "float[N,3] y, int64[N] i"
    distance = OutputDistance(network(1.0, text, outputs), data(), RUNTIME, 100)
    assert distance(network(-1.0, text, outputs)) == pytest.approx(4.0)


def test_outputs_that_are_not_finite_are_infinitely_wrong() -> None:
    distance = OutputDistance(network(1.0), data(), RUNTIME, 100)
    assert distance(network(float("inf"))) == float("inf")


def test_entries_that_are_infinite_in_the_dense_network_do_not_count() -> None:
    """A mask of minus infinity is the same in both."""
    text = "p = Log(c) y = Add(x, p) z = Mul(y, s)"
    dense, other = network(1.0, text, "float[N,3] z"), network(1.5, text, "float[N,3] z")
    for model in (dense, other):
        values = np.array([1.0, 1.0, 0.0], np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, "c"))
    assert OutputDistance(dense, data(), RUNTIME, 100)(other) == pytest.approx(0.25)


def test_samples_held_out_are_taken_where_there_are_any() -> None:
    assert OutputDistance(network(1.0), data(64), RUNTIME, 100).holds_out
    few = OutputDistance(network(1.0), data(2), RUNTIME, 100)
    assert not few.holds_out
    assert few(network(2.0)) == pytest.approx(1.0), "all where none is held out"


def test_the_dense_network_runs_once(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    real = Runtime.session

    def counting(self: Runtime, model: onnx.ModelProto, **how: bool) -> object:
        opened.append(1)
        return real(self, model, **how)

    monkeypatch.setattr(Runtime, "session", counting)
    distance = OutputDistance(network(1.0), data(), RUNTIME, 100)
    for scale in (2.0, 3.0, 4.0):
        distance(network(scale))
    assert len(opened) == 4, "one for the dense network, one for each other"


def test_fewer_samples_are_the_first_ones() -> None:
    distance = OutputDistance(network(1.0), data(400), RUNTIME, 1000)
    whole, part = distance(network(2.0)), distance(network(2.0), samples=4)
    assert whole == pytest.approx(part) == pytest.approx(1.0)
