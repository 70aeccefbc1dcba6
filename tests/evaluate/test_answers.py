"""Text and lengths of outputs over runs."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.evaluate.answers import Answers


def one_hot(*rows: list[int]) -> np.ndarray:
    return np.eye(3, dtype=np.float32)[list(rows)]


def test_text_of_other_lengths_may_be_the_same() -> None:
    answers = Answers("y")
    answers.add(one_hot([0, 1, 1, 0], [0, 0, 2, 0]), one_hot([1, 0, 0, 0, 0], [0, 1, 0, 2, 0]))
    assert answers.texts == 0.5
    assert answers.agreement is None
    assert answers.lengths == 0.25
    answers.add(one_hot([0, 2, 0, 0]), one_hot([0, 2, 2, 0]))
    assert answers.texts == pytest.approx(2 / 3)
    assert answers.agreement == 0.75
    assert answers.lengths == 0.25


def test_cached_states_are_no_classes() -> None:
    state = np.ones((2, 4, 8, 6), np.float32)
    answers = Answers("present.0.key")
    answers.add(state, state)
    assert answers.agreement is answers.iou is answers.texts is None


def test_maps_over_runs_are_one_map() -> None:
    answers = Answers("y")
    dense, pruned = np.random.default_rng(0).integers(0, 3, (2, 2, 4, 5))
    for a, b in zip(dense, pruned, strict=True):
        answers.add(a[None], b[None])
    shares = [((dense == k) & (pruned == k)).sum() / ((dense == k) | (pruned == k)).sum() for k in range(3)]
    assert answers.iou == pytest.approx(np.mean(shares))
    assert answers.agreement == np.mean(dense == pruned)
