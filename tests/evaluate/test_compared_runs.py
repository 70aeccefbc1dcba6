"""Two networks on the same inputs: the second with the decisions of the first, at the tensors that are asked for."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import ModelError, OptionError
from onnx_subprune.evaluate.compared_runs import ComparedNetwork, ReferenceNetwork
from onnx_subprune.model import Runtime

RUNTIME = Runtime(threads=1)
X = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
CHOSEN = "h = MatMul(x, w) a = ArgMax<axis = 1>(h) y = GatherElements<axis = 1>(h, a)"


def build(text: str, seed: int = 0, outputs: str = "float[A,B] y") -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => ({outputs}) {{ {text} }}'
    )
    values = np.random.default_rng(seed).standard_normal((4, 5)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(values, "w"))
    return model


def test_the_second_network_is_given_the_decisions_of_the_first() -> None:
    reference = ReferenceNetwork(build(CHOSEN), RUNTIME)
    dense = reference.run({"x": X})
    values = ComparedNetwork(build(CHOSEN, 1), reference).run(dense)
    assert sorted(values) == ["h", "y"]
    np.testing.assert_array_equal(values["y"], np.take_along_axis(values["h"], dense.values["h"].argmax(1)[:, None], 1))


def test_a_tensor_that_is_asked_for_is_the_only_one() -> None:
    reference = ReferenceNetwork(build(CHOSEN), RUNTIME, at=["h"])
    assert [point.tensor for point in reference.points] == ["h"]
    assert list(ComparedNetwork(build(CHOSEN, 1), reference).run(reference.run({"x": X}))) == ["h"]


def test_a_tensor_that_is_asked_for_counts_also_where_it_lost_units() -> None:
    """Left out it would be taken for equal."""
    text = "h = MatMul(x, w) r = Relu(h) y = ReduceSum<keepdims = 1>(r)"
    narrow = build(text)
    narrow.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(np.ones((4, 3), np.float32), "w"))
    reference = ReferenceNetwork(build(text), RUNTIME, at=["h"])
    assert ComparedNetwork(narrow, reference).run(reference.run({"x": X}))["h"].shape == (6, 3)


def test_what_is_asked_for_and_missing_or_no_float_is_an_error() -> None:
    reference = ReferenceNetwork(build(CHOSEN), RUNTIME, at=["h"])
    with pytest.raises(ModelError, match=r"expected tensor 'h' in both networks .* found it in one only"):
        ComparedNetwork(build("k = MatMul(x, w) y = Neg(k)"), reference)
    with pytest.raises(OptionError, match="expected a tensor of floats to compare networks at, found 'b' of int32"):
        ReferenceNetwork(build("h = MatMul(x, w) b = Cast<to = 6>(x) y = Neg(h)"), RUNTIME, at=["b"]).run({"x": X})


def test_a_sequence_that_is_decided_is_left_to_each_network() -> None:
    text = """h = MatMul(x, w) top = ReduceMax<keepdims = 0>(h) zero = Constant<value = float {0}>()
        c = Greater(top, zero) first = Constant<value = int64 {0}>()
        s = If(c) <then_branch = a () => (seq(float[A,B]) p) { r = Round(h) p = SequenceConstruct(r) },
                   else_branch = b () => (seq(float[A,B]) q) { q = SequenceConstruct(h) }>
        y = SequenceAt(s, first)"""
    model = build(text)
    reference = ReferenceNetwork(model, RUNTIME)
    assert set(reference.decision_types) == {"c"}
    assert "s" in {decision.tensor for decision in reference.comparisons.decisions}
    dense = reference.run({"x": X})
    given = ComparedNetwork(model, reference).run(dense)
    assert given
    for name, value in given.items():
        np.testing.assert_array_equal(value, dense.values[name])
