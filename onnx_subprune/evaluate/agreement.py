"""Whether two networks answer alike: the same classes, the same regions, the same text, the same boxes."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["class_axis", "collapsed", "largest_classes", "matched_boxes", "mean_iou", "overlaps", "unsuppressed"]

Array = NDArray[Any]

_IMAGE_CHANNELS = (1, 3)
_SAME_BOX = 0.5
# Outputs that hold activations, whose largest entry means nothing.
_ACTIVATIONS = re.compile("hidden|embed|feature|state|present|past|cache", re.IGNORECASE)


def class_axis(shape: Sequence[int]) -> int | None:
    """Return the axis along which an output of that shape holds classes.

    Args:
        shape: [samples, classes], [samples, steps, classes], [samples, classes, height, width] or
            [samples, height, width, classes].

    Returns:
        The axis; None where it is none of these, has one class only, or is an image of 1 or 3 channels.

    >>> class_axis((8, 10)), class_axis((8, 20, 37)), class_axis((1, 21, 64, 48)), class_axis((1, 64, 48, 21))
    (1, 2, 1, 3)
    >>> class_axis((8, 1)), class_axis((8, 3, 32, 32)), class_axis((8,))
    (None, None, None)

    """
    if len(shape) in (2, 3):
        return len(shape) - 1 if shape[-1] > 1 else None
    if len(shape) != 4:
        return None
    axis = 3 if shape[3] < shape[1] and _ratio(*shape[1:3]) < _ratio(*shape[2:4]) else 1
    return None if shape[axis] < 1 or shape[axis] in _IMAGE_CHANNELS else axis


def _ratio(a: int, b: int) -> float:
    return max(a, b) / min(a, b) if min(a, b) > 0 else math.inf


def largest_classes(name: str, value: object) -> Array | None:
    """Return the classes that an output names: its largest along the axis of classes, or the integers that it holds.

    Args:
        name: of the output; cached states and features are no classes in three axes or more.
        value: of the output.

    """
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return None
    if value.dtype.kind != "f":
        return value
    axis = class_axis(value.shape)
    if axis is None or (value.ndim > 2 and _ACTIVATIONS.search(name)):
        return None
    classes: Array = value.argmax(axis=axis)
    return classes


def overlaps(dense: Array, pruned: Array) -> tuple[Counter[int], Counter[int]]:
    """Return how many entries both maps give to a class, and how many at least one of them does, by class.

    >>> overlaps(np.array([0, 0, 1]), np.array([0, 1, 1]))
    (Counter({0: 1, 1: 1}), Counter({0: 2, 1: 2}))

    """
    both = _counts(dense[dense == pruned])
    # Entries on which both agree are counted once.
    union = _counts(dense) + _counts(pruned)
    union.subtract(both)
    return both, union


def _counts(classes: Array) -> Counter[int]:
    values, numbers = np.unique(classes, return_counts=True)
    return Counter(dict(zip(values.tolist(), numbers.tolist(), strict=True)))


def mean_iou(dense: Array, pruned: Array) -> float:
    """Return the mean intersection over union of the classes that occur in either of two maps of one shape.

    >>> mean_iou(np.array([[0, 0], [1, 1]]), np.array([[0, 0], [1, 2]]))
    0.5

    """
    both, union = overlaps(dense, pruned)
    return mean_of_overlaps(both, union)


def mean_of_overlaps(both: Counter[int], union: Counter[int]) -> float:
    """Return the mean intersection over union of counts by class; nan where no class occurs."""
    shares = [both[label] / entries for label, entries in union.items()]
    return sum(shares) / len(shares) if shares else math.nan


def collapsed(classes: Sequence[int] | Array, blank: int) -> tuple[int, ...]:
    """Return a sequence of classes with repeats merged and blanks taken out: greedy decoding of CTC.

    Args:
        classes: one for each step.
        blank: the class that stands for no letter; it separates letters that are the same.

    >>> collapsed([0, 3, 3, 0, 3, 5, 5, 0], blank=0)
    (3, 3, 5)

    """
    steps = np.asarray(classes)
    merged = steps[np.r_[True, steps[1:] != steps[:-1]]] if len(steps) else steps
    return tuple(int(label) for label in merged if label != blank)


def matched_boxes(
    dense: Array,
    pruned: Array,
    *,
    scores: Array | None = None,
    classes: tuple[Array, Array] | None = None,
    least: float = _SAME_BOX,
) -> int:
    """Return how many boxes have a counterpart, one to one: the box of largest overlap that is not taken yet.

    Args:
        dense: boxes [n, 4] as x1, y1, x2, y2.
        pruned: boxes [m, 4].
        scores: of the dense boxes [n]; those that score highest choose first. In order by default.
        classes: of the dense boxes [n] and of the pruned ones [m]; only boxes of one class match.
        least: intersection over union of boxes that match.

    >>> matched_boxes(np.array([[0, 0, 2, 2], [5, 5, 6, 6]]), np.array([[0, 0, 2, 1.5], [0, 0, 2, 2]]))
    1

    """
    taken = np.zeros(len(pruned), bool)
    order = np.arange(len(dense)) if scores is None else np.argsort(-scores, kind="stable")
    for box in order if len(pruned) else ():
        overlap = np.where(taken, -1.0, _box_overlaps(dense[box], pruned))
        if classes is not None:
            overlap = np.where(classes[1] == classes[0][box], overlap, -1.0)
        best = int(overlap.argmax())
        taken[best] |= overlap[best] >= least
    return int(taken.sum())


def unsuppressed(boxes: Array, scores: Array, classes: Array, most: float = _SAME_BOX) -> Array:
    """Return the numbers of the boxes that a suppression of overlaps leaves, those that score highest first.

    Args:
        boxes: [n, 4] as x1, y1, x2, y2.
        scores: [n].
        classes: [n]; only boxes of one class suppress one another.
        most: intersection over union with a box that scores higher.

    >>> unsuppressed(np.array([[0, 0, 2, 2], [0, 0, 2, 1.9], [5, 5, 6, 6]]), np.array([0.5, 0.9, 0.3]), np.zeros(3))
    array([1, 2])

    """
    order, kept = np.argsort(-scores, kind="stable"), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(best)
        order = order[(_box_overlaps(boxes[best], boxes[order]) <= most) | (classes[order] != classes[best])]
    return np.array(kept, np.int64)


def _box_overlaps(box: Array, others: Array) -> Array:
    """Return the intersection over union of a box with others; 0 for boxes without an area."""
    low, high = np.maximum(box[:2], others[:, :2]), np.minimum(box[2:], others[:, 2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    union = (box[2:] - box[:2]).prod() + (others[:, 2:] - others[:, :2]).prod(axis=1) - common
    result: Array = np.divide(common, union, out=np.zeros(len(others)), where=union > 0)
    return result
