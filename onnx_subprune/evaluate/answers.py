"""What one output of two networks answers, counted over runs: classes, maps, text, and lengths."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.evaluate.agreement import collapsed, largest_classes, mean_of_overlaps, overlaps

__all__ = ["Answers"]

Array = NDArray[Any]
_TINY = 1e-30
# How far from 1 a row of probabilities in half precision may sum.
_SUM_TOLERANCE = 5e-3
# Integers beyond are no classes, but token ids, indices or sizes.
_MOST_CLASSES = 4096


class Answers:
    """Counts over runs in which nothing is given to the pruned network.

    Args:
        name: of the output.
        classes: whether it may hold classes.
        texts: whether sequences of them may be text, a class for each step.

    """

    def __init__(self, name: str, *, classes: bool = True, texts: bool = True) -> None:
        self._name = name
        self._classes = classes
        self._may_be_text = texts
        self._entries = self._agreed = self._rows = 0
        self._kl = 0.0
        self._both: Counter[int] = Counter()
        self._union: Counter[int] = Counter()
        self._maps = False
        self._differences: list[float] = []
        self._sequences: list[tuple[Array, Array]] = []

    def add(self, dense: Array, pruned: Array) -> None:
        """Count one run, in which the shapes may differ."""
        self._differences += _length_differences(dense.shape, pruned.shape)
        expected, found = largest_classes(self._name, dense), largest_classes(self._name, pruned)
        self._classes = self._classes and expected is not None
        if not self._classes or expected is None or found is None:
            return
        several = dense.ndim == pruned.ndim == 3 and len(dense) == len(pruned)
        if self._may_be_text and several and dense.dtype.kind == "f":
            self._sequences += zip(expected, found, strict=True)
        if dense.shape == pruned.shape:
            self._add_classes(dense, expected, found)
            if dense.dtype.kind == "f" and dense.ndim == 2:
                self._add_divergence(dense.astype(np.float64), pruned.astype(np.float64))

    def _add_classes(self, dense: Array, expected: Array, found: Array) -> None:
        self._entries += expected.size
        self._agreed += int(np.sum(expected == found))
        self._maps = dense.ndim == 4 or (dense.dtype.kind != "f" and dense.ndim > 2)
        if self._maps and len(self._union) <= _MOST_CLASSES:
            both, union = overlaps(expected, found)
            self._both += both
            self._union += union

    def _add_divergence(self, dense: Array, pruned: Array) -> None:
        self._rows += len(dense)
        logs = _log_probabilities if _are_probabilities(dense) else _log_softmax
        p, q = logs(dense), logs(pruned)
        with np.errstate(invalid="ignore"):
            # A class of probability zero adds nothing, whatever its logarithm.
            terms = np.where(np.isneginf(p), 0.0, np.exp(p) * (p - q))
        total = float(terms.sum())
        self._kl += math.inf if math.isnan(total) else total

    @property
    def agreement(self) -> float | None:
        """Share of the samples, steps or entries that are of the same class."""
        return self._agreed / self._entries if self._classes and self._entries else None

    @property
    def kl(self) -> float | None:
        """Mean Kullback-Leibler divergence in nats of outputs [samples, classes]."""
        # Rounding can leave a divergence of nothing just below zero.
        return max(0.0, self._kl / self._rows) if self._classes and self._rows else None

    @property
    def iou(self) -> float | None:
        """Mean intersection over union of the classes of maps."""
        if not self._classes or not self._maps or not 0 < len(self._union) <= _MOST_CLASSES:
            return None
        return mean_of_overlaps(self._both, self._union)

    @property
    def texts(self) -> float | None:
        """Share of the sequences that are the same once collapsed; the dense network's commonest class is blank."""
        if not self._classes or not self._sequences:
            return None
        labels, counts = np.unique(np.concatenate([dense for dense, _ in self._sequences]), return_counts=True)
        if not len(labels):
            return None
        blank = int(labels[counts.argmax()])
        same = [collapsed(dense, blank) == collapsed(pruned, blank) for dense, pruned in self._sequences]
        return sum(same) / len(same)

    @property
    def lengths(self) -> float | None:
        """Mean relative difference of the sizes that differ."""
        return sum(self._differences) / len(self._differences) if self._differences else None


def _length_differences(dense: tuple[int, ...], pruned: tuple[int, ...]) -> list[float]:
    """Return the relative differences of the sizes that differ; of all entries where the axes do not correspond."""
    if len(dense) != len(pruned):
        dense, pruned = (math.prod(dense),), (math.prod(pruned),)
    return [abs(b - a) / max(a, 1) for a, b in zip(dense, pruned, strict=True) if a != b]


def _are_probabilities(x: Array) -> bool:
    return bool(np.all(x >= 0) and np.all(np.abs(x.sum(axis=1) - 1) < _SUM_TOLERANCE))


def _log_probabilities(x: Array) -> Array:
    return np.log(np.maximum(x, _TINY))


def _log_softmax(x: Array) -> Array:
    with np.errstate(invalid="ignore"):
        shifted = x - x.max(axis=1, keepdims=True)
        result: Array = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return result
