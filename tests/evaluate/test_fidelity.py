from __future__ import annotations

import numpy as np
import onnx
import pytest
from scipy.special import expit, log_softmax

from onnx_subprune.calibration import Dataset, open_data
from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.evaluate import fidelity
from onnx_subprune.model import input_specs


def linear(weight: np.ndarray, tail: str = "y = Identity(z)", outputs: str = "float[N,5] y") -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N,4] x) => ({outputs})
    <float[4,5] w>
    {{
        z = MatMul(x, w)
        {tail}
    }}""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight.astype(np.float32), "w"))
    return model


GENERATOR = np.random.default_rng(0)
W = GENERATOR.standard_normal((4, 5))
V = W + 0.5 * GENERATOR.standard_normal((4, 5))
X = GENERATOR.standard_normal((33, 4)).astype(np.float32)


def data(model: onnx.ModelProto) -> Dataset:
    return open_data({"x": X}, input_specs(model))


@pytest.mark.parametrize("batch_size", [1, 10, 64])
def test_figures_equal_their_definitions(batch_size: int):
    dense, pruned = linear(W), linear(V)
    found = fidelity(dense, pruned, data(dense), batch_size=batch_size)
    d, p = X @ W, X @ V
    output = found.outputs["y"]
    assert found.samples == 33
    assert found.relative_l2 == output.relative_l2
    assert output.relative_l2 == pytest.approx(np.linalg.norm(p - d) / np.linalg.norm(d), rel=1e-5)
    assert output.cosine == pytest.approx((p * d).sum() / np.linalg.norm(p) / np.linalg.norm(d), rel=1e-5)
    assert output.max_abs == pytest.approx(np.abs(p - d).max(), rel=1e-5)
    assert output.agreement == np.mean(d.argmax(1) == p.argmax(1))
    logs, others = log_softmax(d, axis=1), log_softmax(p, axis=1)
    assert output.kl == pytest.approx((np.exp(logs) * (logs - others)).sum(axis=1).mean(), rel=1e-5)


def test_a_model_against_itself_is_perfect():
    model = linear(W)
    output = fidelity(model, model, data(model)).outputs["y"]
    assert (output.relative_l2, output.max_abs, output.agreement, output.kl) == (0, 0, 1, 0)
    assert output.cosine == pytest.approx(1, abs=1e-12)


def test_probabilities_are_not_normalised_twice():
    tail = "y = Softmax<axis=1>(z)"
    logits = fidelity(linear(W), linear(V), data(linear(W))).outputs["y"]
    probabilities = fidelity(linear(W, tail), linear(V, tail), data(linear(W))).outputs["y"]
    assert probabilities.kl == pytest.approx(logits.kl, rel=1e-4)


def test_sequences_and_integers_agree_by_entries_and_integers_have_no_distances():
    tail = """
    one = Constant<value_ints=[1]>()
    y = Unsqueeze(z, one)
    k = ArgMax<axis=1, keepdims=1>(z)
    """
    outputs = "float[N,1,5] y, int64[N,1] k"
    found = fidelity(linear(W, tail, outputs), linear(V, tail, outputs), data(linear(W)))
    assert found.outputs.keys() == {"y", "k"}
    expected = np.mean((X @ W).argmax(1) == (X @ V).argmax(1))
    assert all(output.agreement == expected and output.kl is None for output in found.outputs.values())
    assert found.outputs["k"].relative_l2 is found.outputs["k"].cosine is found.outputs["k"].max_abs is None
    assert found.relative_l2 == max(output.relative_l2 for output in found.compared.values() if output.relative_l2) > 0
    assert found.points.keys() == {"z"}
    assert found.points["z"].relative_l2 == pytest.approx(found.outputs["y"].relative_l2)


def test_distances_are_taken_at_named_tensors_alone():
    dense, pruned = linear(W, "y = Sigmoid(z)"), linear(V, "y = Sigmoid(z)")
    found = fidelity(dense, pruned, data(dense), outputs_at=["z"])
    d, p = X @ W, X @ V
    assert found.points["z"].relative_l2 == pytest.approx(np.linalg.norm(p - d) / np.linalg.norm(d), rel=1e-5)
    assert found.points["z"].label("z") == "z, asked for"
    assert found.relative_l2 == found.points["z"].relative_l2
    assert (found.outputs["y"].relative_l2, found.outputs["y"].cosine) == (None, None)
    assert found.outputs["y"].agreement == np.mean(d.argmax(1) == p.argmax(1))
    at_output = fidelity(dense, pruned, data(dense), outputs_at=["y"])
    assert at_output.points == {}
    assert at_output.outputs["y"].relative_l2 == pytest.approx(
        np.linalg.norm(expit(p) - expit(d)) / np.linalg.norm(expit(d)), rel=1e-5
    )


def test_named_tensors_must_be_in_both_models_and_of_one_size():
    narrow = linear(W[:, :3], "y = MatMul(z, v)")
    dense = linear(W, "y = MatMul(z, v)")
    for model, rows in ((narrow, 3), (dense, 5)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((rows, 5), np.float32), "v"))
    with pytest.raises(DataError, match=r"tensor 'z' expected of shape \(32, 5\) .* found \(32, 3\); compare"):
        fidelity(dense, narrow, data(dense), outputs_at=["z"])
    with pytest.raises(OptionError, match="found 'u', which the model does not have"):
        fidelity(dense, narrow, data(dense), outputs_at=["u"])
    other = linear(W)
    other.graph.node[0].output[0] = other.graph.node[1].input[0] = "inside"
    with pytest.raises(ModelError, match=r"expected tensor 'z' in both networks .* found it in one only"):
        fidelity(dense, other, data(dense), outputs_at=["z"])


def test_what_saturates_is_compared_before_it_as_well():
    tail = "y = Sigmoid(z)"
    dense, pruned = linear(W, tail), linear(V, tail)
    found = fidelity(dense, pruned, data(dense))
    logits = fidelity(linear(W), linear(V), data(dense)).outputs["y"]
    assert found.points["z"].relative_l2 == pytest.approx(logits.relative_l2)
    assert found.points["z"].label("z") == "z, before Sigmoid"
    assert found.document()["points"]["z"]["reason"].startswith("Sigmoid")
    assert set(found.document()["outputs"]["y"]) == {"relative_l2", "cosine", "max_abs", "agreement", "kl"}


def test_distances_are_taken_with_the_decisions_given_and_agreement_without():
    tail = """
    a = ArgMax<axis=1, keepdims=1>(z)
    f = Cast<to=1>(a)
    y = Mul(z, f)
    """
    found = fidelity(linear(W, tail), linear(V, tail), data(linear(W))).outputs["y"]
    d, p = X @ W, X @ V
    a, b = d.argmax(1)[:, None], p.argmax(1)[:, None]
    assert found.relative_l2 == pytest.approx(np.linalg.norm((p - d) * a) / np.linalg.norm(d * a), rel=1e-5)
    assert found.agreement == np.mean((d * a).argmax(1) == (p * b).argmax(1))


def test_masked_logits_that_agree_are_no_error():
    tail = """
    low = Constant<value = float {-inf}>()
    masked = Constant<value = bool[5] {1, 0, 0, 1, 0}>()
    y = Where(masked, low, z)
    """
    kept = [1, 2, 4]
    found = fidelity(linear(W, tail), linear(V, tail), data(linear(W))).outputs["y"]
    d, p = (X @ W)[:, kept], (X @ V)[:, kept]
    assert found.relative_l2 == pytest.approx(np.linalg.norm(p - d) / np.linalg.norm(d), rel=1e-5)
    logs, others = log_softmax(d, axis=1), log_softmax(p, axis=1)
    assert found.kl == pytest.approx((np.exp(logs) * (logs - others)).sum(axis=1).mean(), rel=1e-5)


def test_a_pruned_model_that_is_not_finite_is_infinitely_far():
    found = fidelity(linear(W), linear(W, "y = Log(z)"), data(linear(W))).outputs["y"]
    assert found.relative_l2 == found.max_abs == found.kl == np.inf


def test_zero_outputs_are_equal_to_zero_and_far_from_the_rest():
    nothing = linear(0 * W)
    assert fidelity(nothing, nothing, data(nothing)).outputs["y"].cosine == 1
    found = fidelity(nothing, linear(W), data(nothing)).outputs["y"]
    assert (found.relative_l2, found.cosine) == (np.inf, 0)


def test_models_that_answer_differently_are_refused():
    with pytest.raises(ModelError, match=r"found \['y'\] and \['z'\]"):
        fidelity(linear(W), linear(W, "y = Identity(z)", "float[N,5] z"), data(linear(W)))


def test_sizes_that_differ_are_no_error():
    found = fidelity(linear(W), linear(W, "y = ReduceSum(z, a)\n a = Constant<value_ints=[1]>()"), data(linear(W)))
    assert found.outputs["y"].lengths == pytest.approx(0.8)
    assert found.outputs["y"].agreement is found.outputs["y"].relative_l2 is None
    assert np.isnan(found.relative_l2)
