"""Agreement of classes, maps, text and boxes against brute force."""

from __future__ import annotations

from itertools import groupby

import numpy as np
import pytest

from onnx_subprune.evaluate.agreement import class_axis, collapsed, matched_boxes, mean_iou
from onnx_subprune.evaluate.detections import DetectionLayout, MatchedBoxes


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((4, 10), 1),
        ((4, 1), None),
        ((4, 7, 10), 2),
        ((1, 21, 32, 48), 1),
        ((1, 150, 64, 48), 1),
        ((1, 64, 48, 21), 3),
        ((2, 3, 32, 32), None),
        ((2, 32, 32, 3), None),
        ((2, 32, 32, 1), None),
        ((2,), None),
        ((1, 2, 3, 4, 5), None),
    ],
)
def test_the_axis_of_classes(shape: tuple[int, ...], axis: int | None) -> None:
    assert class_axis(shape) == axis


@pytest.mark.parametrize("seed", range(5))
def test_mean_iou_is_its_definition(seed: int) -> None:
    dense, pruned = np.random.default_rng(seed).integers(0, 6, (2, 3, 4, 5))
    shares = []
    for label in set(dense.ravel().tolist()) | set(pruned.ravel().tolist()):
        a, b = dense == label, pruned == label
        shares.append((a & b).sum() / (a | b).sum())
    assert mean_iou(dense, pruned) == pytest.approx(np.mean(shares))


@pytest.mark.parametrize("seed", range(5))
def test_collapsed_is_a_group_for_each_run(seed: int) -> None:
    steps = np.random.default_rng(seed).integers(0, 3, 30)
    assert collapsed(steps, 0) == tuple(label for label, _ in groupby(steps.tolist()) if label)
    assert collapsed([], 0) == ()


def overlap(a: list[float], b: list[float]) -> float:
    width, height = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize("seed", range(8))
def test_boxes_match_greedily_one_to_one(seed: int) -> None:
    rng = np.random.default_rng(seed)
    low = rng.uniform(0, 4, (9, 2))
    dense = np.concatenate([low, low + rng.uniform(1, 4, (9, 2))], axis=1)
    pruned = np.concatenate([dense, dense[:3]])[rng.permutation(12)] + rng.normal(0, 0.3, (12, 4))
    scores, classes = rng.random(9), (rng.integers(0, 2, 9), rng.integers(0, 2, 12))
    free, count = set(range(12)), 0
    for index in sorted(range(9), key=lambda box: -scores[box]):
        found = [
            (overlap(dense[index].tolist(), pruned[other].tolist()), -other)
            for other in free
            if classes[0][index] == classes[1][other]
        ]
        if found and max(found)[0] >= 0.5:
            free.remove(-max(found)[1])
            count += 1
    assert matched_boxes(dense, pruned, scores=scores, classes=classes) == count


BOXES = np.array([[[0, 0, 2, 2], [4, 4, 8, 8], [1, 1, 2, 2]]], np.float32)


def share(dense: dict[str, np.ndarray], pruned: dict[str, np.ndarray]) -> float | None:
    layout = DetectionLayout.found_in(dense)
    assert layout is not None
    matched = MatchedBoxes()
    matched.add(layout, dense, pruned)
    return matched.share


def test_boxes_beside_scores_and_labels() -> None:
    scores = np.array([[0.9, 0.5, 0.1]], np.float32)
    dense = {"boxes": BOXES, "scores": scores, "labels": np.array([[1, 2, 3]])}
    assert share(dense, dense) == 1.0
    assert share(dense, {**dense, "labels": np.array([[1, 3, 3]])}) == 0.5
    fewer = {"boxes": BOXES[:, :1], "scores": scores[:, :1], "labels": np.array([[1]])}
    assert share(dense, fewer) == 0.5
    assert share(dense, {"boxes": BOXES[:, :0], "scores": scores[:, :0], "labels": np.zeros((1, 0))}) == 0.0


def test_a_box_that_scores_too_little_is_none_in_either_network() -> None:
    """The boxes of anchors are always there; a network finds those that it would show."""
    labels = np.array([[1, 2, 3]])
    strong, weak = ({"boxes": BOXES, "scores": np.full((1, 3), score), "labels": labels} for score in (0.9, 0.2))
    assert share(strong, strong) == 1.0
    assert share(strong, weak) == 0.0
    assert share(weak, strong) is None
    mixed = {**strong, "scores": np.array([[0.9, 0.2, 0.25]])}
    assert share(strong, mixed) == pytest.approx(2 / 3)
    assert share(mixed, strong) == 1.0


@pytest.mark.parametrize("transposed", [False, True])
def test_scores_of_every_class_name_the_class(transposed: bool) -> None:
    scores = np.array([[[0.9, 0.0], [0.0, 0.8], [0.1, 0.1]]], np.float32)
    turned = scores[..., ::-1]
    both = [value.transpose(0, 2, 1) if transposed else value for value in (scores, turned)]
    dense, other = ({"boxes": BOXES, "scores": value} for value in both)
    assert share(dense, dense) == 1.0
    assert share(dense, other) == 0.0


def test_a_few_boxes_with_corners_the_other_way_round_are_boxes_all_the_same() -> None:
    flipped = BOXES.copy()
    flipped[0, 1] = [8, 8, 4, 4]
    scores = np.ones((1, 3), np.float32)
    assert share({"boxes": flipped, "scores": scores}, {"boxes": BOXES, "scores": scores}) == 1.0


def test_packed_boxes_and_centres() -> None:
    rows = np.array([[[4, 4, 2, 2, 0.9, 1], [9, 9, 2, 2, 0.8, 0]]], np.float32)
    moved = rows + np.array([0.3, 0, 0, 0, 0, 0], np.float32)
    assert share({"output0": rows}, {"output0": moved}) == 1.0
    assert DetectionLayout.found_in({"output": rows + 0.5}) is None, "classes are whole numbers"
    assert DetectionLayout.found_in({"output": rows[0]}) is None, "rows of classes"
