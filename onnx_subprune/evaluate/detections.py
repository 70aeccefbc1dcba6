"""Boxes among the outputs of a network: which outputs hold them, and how they are laid out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.evaluate.agreement import matched_boxes, unsuppressed
from onnx_subprune.evaluate.anchor_boxes import AnchorBoxes

__all__ = ["DetectionLayout", "MatchedBoxes"]

Array = NDArray[Any]

_LEAST_SCORE = 0.25
_PACKED = re.compile(r"(dets?|detections?|outputs?)([._/-]?\d+)?", re.IGNORECASE)
_SCORES = re.compile("score|conf|prob", re.IGNORECASE)
_LABELS = re.compile("label|class", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class _Image:
    """The boxes [n, 4] of one image, with scores [n] and classes [n] where there are any."""

    boxes: Array
    scores: Array | None = None
    classes: Array | None = None

    @property
    def detected(self) -> _Image:
        """The boxes that score enough to be shown; all where there are no scores."""
        if self.scores is None:
            return self
        chosen = self.scores >= _LEAST_SCORE
        return _Image(self.boxes[chosen], self.scores[chosen], None if self.classes is None else self.classes[chosen])


_NOTHING = _Image(np.zeros((0, 4)), np.zeros(0), np.zeros(0))


@dataclass(frozen=True)
class DetectionLayout:
    """Which outputs hold boxes.

    Attributes:
        boxes: the output of the boxes, [.., 4], or with scores and classes beside them, [.., 5 to 7].
        scores: the output of their scores, [..] or [.., classes].
        labels: the output of their classes, [..].
        anchors: how the output holds the boxes of all anchors, where it does; those that overlap others of their class
            and score less are then left out, as whoever reads them does.

    """

    boxes: str
    scores: str | None = None
    labels: str | None = None
    anchors: AnchorBoxes | None = None

    @classmethod
    def found_in(
        cls, outputs: Mapping[str, Array], anchors: Mapping[str, AnchorBoxes] | None = None
    ) -> DetectionLayout | None:
        """Return the layout of the outputs of one run; None where there are no boxes.

        Args:
            outputs: by name, those that hold numbers.
            anchors: the outputs that hold the boxes of all anchors, as the graph tells (`anchor_boxes`).

        """
        anchored = [name for name in anchors or () if name in outputs]
        if anchors is not None and len(anchored) == 1:
            return cls(anchored[0], anchors=anchors[anchored[0]])
        for name, value in outputs.items():
            if "box" in name.lower() and value.dtype.kind == "f" and value.ndim > 1 and value.shape[-1] == 4:
                scores = _named(_SCORES, outputs, name)
                if scores is None and value.ndim == 2:
                    # One box for each sample cannot be told from the boxes of one sample.
                    continue
                others = {other: each for other, each in outputs.items() if other != scores}
                return cls(name, scores, _named(_LABELS, others, name))
        packed = [name for name, value in outputs.items() if _is_packed(name, value)]
        return cls(packed[0]) if len(packed) == 1 else None

    @property
    def outputs(self) -> frozenset[str]:
        """Names of the outputs that take part."""
        return frozenset(name for name in (self.boxes, self.scores, self.labels) if name is not None)

    def images(self, outputs: Mapping[str, Array]) -> dict[int, _Image]:
        """Return the boxes of every image of a run, by its place or number in the batch."""
        values = outputs[self.boxes]
        if self.anchors is not None:
            every, of_classes = self.anchors.parts(values)
            labels = of_classes.argmax(axis=-1)
            scores = of_classes.max(axis=-1)
            return {image: _Image(*image_of) for image, image_of in enumerate(zip(every, scores, labels, strict=True))}
        if values.shape[-1] == 7:
            rows = values.reshape(-1, 7)
            return {int(image): _unpacked(rows[rows[:, 0] == image]) for image in np.unique(rows[:, 0])}
        images = 1 if values.ndim == 2 else len(values)
        if not values.size:
            return dict.fromkeys(range(images), _NOTHING)
        stacked = values.reshape(images, -1, values.shape[-1])
        if values.shape[-1] > 4:
            return {image: _unpacked(rows) for image, rows in enumerate(stacked)}
        count = stacked.shape[1]
        scores = None if self.scores is None else _per_box(outputs[self.scores], images, count)
        labels = None if self.labels is None else outputs[self.labels].reshape(images, count)
        if labels is None and scores is not None and scores.shape[-1] > 1:
            labels = scores.argmax(axis=-1)
        return {
            image: _Image(
                boxes.astype(np.float64),
                None if scores is None else scores[image].max(axis=-1),
                None if labels is None else labels[image],
            )
            for image, boxes in enumerate(stacked)
        }


def _named(pattern: re.Pattern[str], outputs: Mapping[str, Array], boxes: str) -> str | None:
    """Return the output of that name that has an entry for every box; scores may have one for each class as well."""
    for name, value in outputs.items():
        if name != boxes and pattern.search(name) and _is_for_each(value, outputs[boxes], several=pattern is _SCORES):
            return name
    return None


def _is_for_each(value: Array, boxes: Array, *, several: bool) -> bool:
    leading = boxes.shape[:-1]
    if value.shape in (leading, (*leading, 1)):
        return True
    if not several or value.ndim != len(leading) + 1:
        return False
    return value.shape[:-1] == leading or (value.ndim == 3 and value.shape[::2] == leading)


def _per_box(scores: Array, images: int, count: int) -> Array:
    """Return scores as [images, boxes, classes]."""
    if scores.ndim == 3 and scores.shape[1] != count and scores.shape[2] == count:
        scores = scores.transpose(0, 2, 1)
    return scores.reshape(images, count, -1).astype(np.float64)


def _is_packed(name: str, value: Array) -> bool:
    """Whether an output holds boxes with their scores: by its name, its shape and what its columns hold."""
    if not _PACKED.fullmatch(name) or value.dtype.kind != "f" or value.ndim < 2 or value.shape[-1] not in (5, 6, 7):
        return False
    if value.ndim == 2 and not name.lower().startswith("det"):
        return False
    image = _unpacked(value.reshape(-1, value.shape[-1]))
    whole = image.classes is None or bool(np.all(image.classes == np.round(image.classes)))
    return whole and image.scores is not None and bool(np.all((image.scores >= 0) & (image.scores <= 1)))


def _unpacked(rows: Array) -> _Image:
    """Return rows of boxes, scores and classes; of seven columns, the first is the image and the last the score."""
    rows = rows.astype(np.float64)
    if rows.shape[1] == 7:
        return _Image(rows[:, 1:5], rows[:, 6], rows[:, 5])
    return _Image(rows[:, :4], rows[:, 4], rows[:, 5] if rows.shape[1] == 6 else None)


class MatchedBoxes:
    """Counts, over runs, how many boxes of the dense network the pruned one finds as well.

    Of both networks those count that score at least a quarter: a network that gives a box at every anchor finds none by
    that.
    """

    def __init__(self) -> None:
        self._boxes = self._matched = 0

    def add(self, layout: DetectionLayout, dense: Mapping[str, Array], pruned: Mapping[str, Array]) -> None:
        """Count the boxes of one run of both networks."""
        expected, found = layout.images(dense), layout.images(pruned)
        centred = _are_centred([image.boxes for image in expected.values()])
        for index, image in expected.items():
            wanted, other = (
                _without_overlaps(shown, centred=centred) if layout.anchors is not None else shown
                for shown in (image.detected, found.get(index, _NOTHING).detected)
            )
            classes = None
            if wanted.classes is not None and other.classes is not None:
                classes = (wanted.classes, other.classes)
            self._boxes += len(wanted.boxes)
            self._matched += matched_boxes(
                _corners(wanted.boxes, centred=centred),
                _corners(other.boxes, centred=centred),
                scores=wanted.scores,
                classes=classes,
            )

    @property
    def share(self) -> float | None:
        """The share of the dense boxes that were found; None where there were none."""
        return self._matched / self._boxes if self._boxes else None


def _without_overlaps(image: _Image, *, centred: bool) -> _Image:
    """Return the boxes that are left once those are gone that overlap another of their class and score less."""
    if image.scores is None or image.classes is None:
        return image
    kept = unsuppressed(_corners(image.boxes, centred=centred), image.scores, image.classes)
    return _Image(image.boxes[kept], image.scores[kept], image.classes[kept])


def _are_centred(images: Sequence[Array]) -> bool:
    """Whether boxes are centres and sizes: most of them make no sense as corners."""
    turned = [bool((box[2:] < box[:2]).any()) for boxes in images for box in boxes]
    return 2 * sum(turned) > len(turned)


def _corners(boxes: Array, *, centred: bool) -> Array:
    if not centred:
        # As in NonMaxSuppression, any two opposite corners make a box.
        return np.concatenate([np.minimum(boxes[:, :2], boxes[:, 2:]), np.maximum(boxes[:, :2], boxes[:, 2:])], axis=1)
    half = boxes[:, 2:] / 2
    return np.concatenate([boxes[:, :2] - half, boxes[:, :2] + half], axis=1)
