"""Top-1 accuracy of a classifier on labelled samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from onnx_subprune.calibration import DEFAULT_BATCH_SIZE, Dataset
from onnx_subprune.calibration.batch_trial import tried_batch_size
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.model import check_model, open_session, run

__all__ = ["Top1", "top1"]

Array = NDArray[Any]
_FLOATS = ("tensor(float)", "tensor(float16)", "tensor(double)")


@dataclass(frozen=True)
class Top1:
    """The share of samples whose largest class is the label.

    Attributes:
        accuracy: in [0, 1], `correct` / `samples`.
        correct: samples that were classified as labelled.
        samples: number of them.

    """

    accuracy: float
    correct: int
    samples: int


def top1(
    model: onnx.ModelProto,
    data: Dataset,
    *,
    providers: Sequence[str] = ("cpu",),
    batch_size: int = DEFAULT_BATCH_SIZE,
    threads: int | None = None,
) -> Top1:
    """Measure top-1 accuracy on the first float output of shape [samples, classes].

    Args:
        model: a classifier.
        data: samples with `labels`: class numbers [samples], or [samples, 1].
        providers: execution providers, most wanted first.
        batch_size: samples per run.
        threads: intra-op threads of the runtime; None for its own choice.

    Raises:
        DataError: the data has no labels, or labels that are not classes of this model.
        ModelError: the model is broken, or no output is [samples, classes].

    """
    check_model(model)
    labels = _class_numbers(data)
    session = open_session(model, providers, threads=threads)
    output = _class_output(session)
    correct = seen = 0
    batch_size = tried_batch_size(data, batch_size, lambda feeds: run(session, feeds))
    for feeds, places in data.placed(batch_size):
        scores = run(session, feeds, [output])[output]
        expected = labels[places[places < len(labels)]]
        _check_scores(scores, expected, data.samples_in(feeds), output)
        correct += int(np.sum(scores.argmax(axis=1) == expected))
        seen += len(scores)
    return Top1(correct / seen, correct, seen)


def _class_numbers(data: Dataset) -> Array:
    """Return the labels as a vector of integers."""
    if data.labels is None:
        raise DataError(f"{data.source}: labels expected for top-1, found none; add an array 'labels' of class numbers")
    labels = np.asarray(data.labels)
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise DataError(
            f"{data.source}: labels expected as a vector of class numbers, found {labels.dtype} of shape "
            f"{labels.shape}; store integers, one per sample"
        )
    return labels


def _class_output(session: ort.InferenceSession) -> str:
    """Return the first float output of rank 2."""
    for output in session.get_outputs():
        if output.type in _FLOATS and len(output.shape) == 2:
            return str(output.name)
    outputs = ", ".join(f"'{output.name}' {output.type} {output.shape}" for output in session.get_outputs())
    raise ModelError(f"a float output [samples, classes] expected for top-1, found {outputs}; use another metric")


def _check_scores(scores: Array, labels: Array, samples: int, output: str) -> None:
    if len(scores) != samples or len(labels) != samples:
        raise DataError(
            f"a row of output '{output}' and a label for each of {samples} samples expected, found {len(scores)} rows "
            f"and {len(labels)} labels; use another metric or mend the labels"
        )
    outside = labels[(labels < 0) | (labels >= scores.shape[1])]
    if len(outside):
        raise DataError(
            f"labels expected from 0 to {scores.shape[1] - 1}, the classes of output '{output}', found {outside[0]}; "
            "number the classes as the model does"
        )
