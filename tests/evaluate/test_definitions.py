"""Figures of the metrics against their definitions, written out in NumPy, for whatever data may come."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.calibration import Dataset, open_data, open_tokens
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.evaluate import OutputFidelity, fidelity, perplexity, top1
from onnx_subprune.evaluate.class_agreement import ClassAgreement
from onnx_subprune.evaluate.fidelity import _Sums
from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.evaluate.perplexity import _counted_tokens, _losses
from onnx_subprune.model import Runtime, input_specs

FEW = settings(max_examples=20, deadline=None)
SEEDS = st.integers(0, 2**32 - 1)


def identity(shape: str = "N,4", kind: str = "float") -> onnx.ModelProto:
    """Return a model that gives what it takes: its outputs are the data."""
    return onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : 17]> g ({kind}[{shape}] x) => ({kind}[{shape}] y) {{ y = Identity(x) }}'
    )


def scaled(weights: Sequence[float]) -> onnx.ModelProto:
    """Return y = x w, entry by entry."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N,4] x) => (float[N,4] y) { y = Mul(x, w) }'
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(weights, np.float32), "w"))
    return model


def data(x: np.ndarray, **labels: Any) -> Dataset:
    return open_data({"x": x, **labels}, input_specs(identity()))


def summed(dense: np.ndarray, pruned: np.ndarray, cuts: Sequence[int] = ()) -> OutputFidelity:
    """Return the figures of two outputs that came in batches."""
    sums = _Sums("y")
    for one, other in zip(np.split(dense, cuts), np.split(pruned, cuts), strict=True):
        sums.add(one, other)
    return sums.result()


@FEW
@given(SEEDS, st.integers(1, 12), st.integers(2, 5), st.data())
def test_batches_do_not_matter(seed: int, rows: int, classes: int, draw: st.DataObject) -> None:
    generator = np.random.default_rng(seed)
    dense, pruned = generator.standard_normal((2, rows, classes))
    cuts = sorted(draw.draw(st.lists(st.integers(0, rows), max_size=3)))
    whole, cut = summed(dense, pruned), summed(dense, pruned, cuts)
    assert whole.relative_l2 == pytest.approx(np.linalg.norm(pruned - dense) / np.linalg.norm(dense))
    assert whole.cosine == pytest.approx(
        np.vdot(dense, pruned) / np.linalg.norm(dense) / np.linalg.norm(pruned), abs=1e-12
    )
    for name in ("relative_l2", "cosine", "max_abs", "agreement", "kl"):
        assert getattr(cut, name) == pytest.approx(getattr(whole, name), abs=1e-12)


@FEW
@given(SEEDS, st.integers(1, 8), st.integers(2, 6))
def test_the_divergence_of_probabilities_is_that_of_their_logarithms(seed: int, rows: int, classes: int) -> None:
    logits = np.random.default_rng(seed).standard_normal((2, rows, classes))
    p, q = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    divergence = (p * np.log(p / q)).sum(axis=1).mean()
    assert summed(p, q).kl == pytest.approx(divergence, abs=1e-12)
    assert summed(*logits).kl == pytest.approx(divergence, abs=1e-12)
    assert summed(*(logits + 1000.0)).kl == pytest.approx(divergence, abs=1e-9), "logits may have any offset"


@pytest.mark.parametrize(("dense", "pruned", "expected"), [
    # A class that the dense network rules out costs nothing, one that only the pruned one rules out everything.
    ([[0.0, 0.0, -math.inf]], [[0.0, 0.0, -math.inf]], 0.0),
    ([[0.0, -math.inf]], [[0.0, 0.0]], math.log(2)),
    ([[0.0, 0.0]], [[0.0, -math.inf]], math.inf),
    ([[0.0, 0.0]], [[math.nan, 0.0]], math.inf),
])  # fmt: skip
def test_classes_of_no_probability(dense: list[Any], pruned: list[Any], expected: float) -> None:
    assert summed(np.array(dense), np.array(pruned)).kl == pytest.approx(expected)


@pytest.mark.parametrize(("dense", "pruned", "relative", "largest"), [
    ([[1.0, math.inf]], [[1.0, math.inf]], 0.0, 0.0),
    ([[3.0, 4.0]], [[3.0, math.nan]], math.inf, math.inf),
    ([[3.0, 4.0]], [[3.0, -math.inf]], math.inf, math.inf),
    ([[0.0, 0.0]], [[0.0, 0.0]], 0.0, 0.0),
    ([[0.0, 0.0]], [[0.0, 1.0]], math.inf, 1.0),
    ([[3.0, 4.0]], [[3.0, 9.0]], 1.0, 5.0),
])  # fmt: skip
def test_values_that_are_not_finite_or_nothing(
    dense: list[Any], pruned: list[Any], relative: float, largest: float
) -> None:
    output = summed(np.array(dense), np.array(pruned))
    assert (output.relative_l2, output.max_abs) == (relative, largest)


@pytest.mark.parametrize(("array", "classes"), [
    (np.ones((3, 2)), True), (np.ones((3, 1)), False), (np.ones(3), False), (np.ones((3, 2, 2, 2, 2)), False),
])  # fmt: skip
def test_only_rows_of_scores_are_classes(array: np.ndarray, classes: bool) -> None:
    output = summed(array, array)
    assert (output.agreement is not None, output.kl is not None) == (classes, classes)
    assert output.relative_l2 == 0.0


def test_a_batch_that_is_no_rows_of_scores_spoils_the_others() -> None:
    sums = _Sums("y")
    sums.add(np.ones((2, 3)), np.ones((2, 3)))
    sums.add(np.ones((2, 1)), np.ones((2, 1)))
    sums.add(np.ones((2, 3)), np.ones((2, 3)))
    assert sums.result().agreement is None


def test_outputs_of_other_shapes_are_refused_by_name() -> None:
    with pytest.raises(DataError, match=r"output 'y' expected of shape \(2, 3\) as in the dense model, found \(2, 4\)"):
        _Sums("y").add(np.ones((2, 3)), np.ones((2, 4)))


@FEW
@given(SEEDS, st.integers(1, 20), st.integers(1, 7))
def test_accuracy_is_a_count_of_rows(seed: int, rows: int, batch_size: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.integers(-2, 3, (rows, 4)).astype(np.float32)
    labels = generator.integers(0, 4, rows)
    measured = top1(identity(), data(x, labels=labels), batch_size=batch_size, threads=1)
    # Of equal scores the first counts.
    correct = sum(max(range(4), key=lambda k: (row[k], -k)) == label for row, label in zip(x, labels, strict=True))
    assert (measured.correct, measured.samples) == (correct, rows)
    assert measured.accuracy == correct / rows


@pytest.mark.parametrize("kind", [np.int8, np.uint16, np.int32, np.uint64])
def test_labels_may_be_integers_of_any_width_in_one_column(kind: type) -> None:
    x = np.eye(4, dtype=np.float32)
    labels = np.array([0, 1, 2, 0], kind)
    assert top1(identity(), data(x, labels=labels[:, None]), threads=1).correct == 3
    assert top1(identity(), data(x, labels=labels), threads=1).accuracy == 0.75


def test_a_negative_label_is_no_class() -> None:
    x = np.eye(4, dtype=np.float32)
    with pytest.raises(DataError, match=r"labels expected from 0 to 3, the classes of output 'y', found -1"):
        top1(identity(), data(x, labels=np.array([0, 1, -1, 3])), threads=1)


@pytest.mark.parametrize("model", [identity("N,2,2"), identity("N,4", "int32")])
def test_a_model_without_scores_has_no_accuracy(model: onnx.ModelProto) -> None:
    spec = input_specs(model)[0]
    x = np.zeros((2, *spec.shape[1:]), spec.dtype)
    with pytest.raises(ModelError, match=r"a float output \[samples, classes\] expected for top-1, found 'y'"):
        top1(model, open_data({"x": x, "labels": np.zeros(2, int)}, input_specs(model)), threads=1)


@FEW
@given(SEEDS, st.integers(1, 25), st.integers(1, 9))
def test_agreement_is_that_of_all_samples_whatever_the_batch(seed: int, rows: int, batch_size: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((rows, 4)).astype(np.float32)
    weights = generator.uniform(-1, 2, 4).astype(np.float32)
    agreement = ClassAgreement(identity(), data(x), Runtime(threads=1, batch_size=batch_size))
    expected = np.mean(x.argmax(axis=1) == (x * weights).argmax(axis=1))
    assert agreement(scaled(weights.tolist())) == expected
    assert fidelity(identity(), scaled(weights.tolist()), data(x), threads=1).outputs["y"].agreement == expected


@FEW
@given(SEEDS, st.integers(5, 25), st.integers(1, 9))
def test_the_error_is_that_of_the_samples_held_out(seed: int, rows: int, batch_size: int) -> None:
    generator = np.random.default_rng(seed)
    x = generator.standard_normal((rows, 4)).astype(np.float32)
    weights = generator.uniform(-1, 2, 4).astype(np.float32)
    distance = OutputDistance(identity(), data(x), Runtime(threads=1, batch_size=batch_size), samples=1000)
    held = x[4::5].astype(np.float64)
    expected = np.square(held * weights - held).sum() / np.square(held).sum()
    assert distance.holds_out
    assert distance(scaled(weights.tolist())) == pytest.approx(expected, rel=1e-5)


def test_of_few_samples_none_is_held_out_and_all_count() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    distance = OutputDistance(identity(), data(x), Runtime(threads=1), samples=1000)
    assert not distance.holds_out
    assert distance(scaled([2.0, 2.0, 2.0, 2.0])) == pytest.approx(1.0)
    assert distance(identity()) == 0.0


def test_outputs_of_nothing_but_zeros_have_no_error() -> None:
    distance = OutputDistance(scaled([0.0] * 4), data(np.ones((10, 4), np.float32)), Runtime(threads=1), samples=10)
    assert distance(identity()) == 0.0


@FEW
@given(SEEDS, st.integers(1, 6), st.integers(2, 9), st.integers(2, 7))
def test_losses_are_negative_logarithms_of_probabilities(seed: int, rows: int, length: int, vocabulary: int) -> None:
    generator = np.random.default_rng(seed)
    logits = 4 * generator.standard_normal((rows, length, vocabulary))
    tokens = generator.integers(0, vocabulary, (rows, length))
    mask = generator.integers(0, 2, (rows, length))
    counted = _counted_tokens({"attention_mask": mask}, tokens)
    expected = []
    for row in range(rows):
        for place, (before, now) in enumerate(pairwise(mask[row])):
            if before and now:
                likelihood = np.exp(logits[row, place]) / np.exp(logits[row, place]).sum()
                expected.append(-np.log(likelihood[tokens[row, place + 1]]))
    assert _losses(logits, tokens, counted) == pytest.approx(np.array(expected))


def test_a_mask_of_another_shape_is_none() -> None:
    tokens = np.zeros((2, 5), int)
    assert _counted_tokens({}, tokens).shape == (2, 4)
    assert _counted_tokens({"attention_mask": np.zeros((2, 1, 1, 5))}, tokens).all()


def decoder(table: np.ndarray) -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> '
        "g (int64[N,T] input_ids) => (float[N,T,V] logits) { logits = Gather(table, input_ids) }"
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(table.astype(np.float32), "table"))
    return model


@pytest.mark.parametrize(("table", "expected"), [
    (np.zeros((3, 3)), 3.0),
    (1000 * np.roll(np.eye(3), 1, axis=1), 1.0),
    (-1000 * np.roll(np.eye(3), 1, axis=1), math.inf),
])  # fmt: skip
def test_perplexity_from_certainty_to_impossibility(table: np.ndarray, expected: float) -> None:
    model = decoder(table)
    measured = perplexity(model, open_tokens(np.arange(30) % 3, input_specs(model), window=10), threads=1)
    assert measured.perplexity == pytest.approx(expected)
    assert (measured.windows, measured.tokens) == (3, 27)


def test_logits_that_are_not_finite_are_named_by_their_windows() -> None:
    table = np.zeros((3, 3))
    table[2] = math.nan
    model = decoder(table)
    windows = np.array([[0, 1, 0, 1], [0, 1, 2, 1]])
    with pytest.raises(ModelError, match="found NaN or infinity in windows 1 to 1"):
        perplexity(model, open_tokens(windows, input_specs(model)), threads=1, batch_size=1)
