"""Boxes of all anchors: those that overlap a better one of their class are left out before any are matched."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnx_subprune.calibration import open_data
from onnx_subprune.evaluate.anchor_boxes import AnchorBoxes
from onnx_subprune.evaluate.class_agreement import ClassAgreement
from onnx_subprune.evaluate.detections import DetectionLayout, MatchedBoxes
from onnx_subprune.model import Runtime, input_specs

ANCHORS = AnchorBoxes(axis=2, objectness=True, classes=(5, 7))
# Centre, size, score of any object, scores of two classes: two anchors for one object, one beside it, one weak.
ROWS = np.array(
    [
        [20, 20, 8, 8, 0.9, 1.0, 0.1],
        [21, 20, 8, 8, 0.8, 1.0, 0.1],
        [20, 20, 8, 8, 0.7, 0.1, 1.0],
        [60, 60, 4, 4, 0.6, 1.0, 0.1],
        [90, 90, 4, 4, 0.9, 0.2, 0.2],
    ],
    np.float32,
)


def share(dense: NDArray[Any], pruned: NDArray[Any]) -> float | None:
    layout = DetectionLayout.found_in({"y": dense}, {"y": ANCHORS})
    assert layout is not None
    assert layout.outputs == {"y"}
    matched = MatchedBoxes()
    matched.add(layout, {"y": dense[None]}, {"y": pruned[None]})
    return matched.share


def test_one_anchor_of_each_object_counts() -> None:
    assert share(ROWS, ROWS) == 1.0
    fewer = ROWS.copy()
    fewer[1, 4] = 0.0
    assert share(ROWS, fewer) == 1.0, "the object is still there"
    fewer[3, 4] = 0.3 * 0.6
    assert share(ROWS, fewer) == pytest.approx(2 / 3)
    assert share(ROWS[3:], ROWS[:3]) == 0.0


def test_classes_suppress_their_own_boxes_alone() -> None:
    assert share(ROWS[:3], ROWS[:1]) == 0.5
    assert share(ROWS[:3], ROWS[[1, 2]]) == 1.0


def test_an_object_that_scores_too_little_by_either_score_is_none() -> None:
    assert share(ROWS[4:], ROWS) is None


def test_several_such_outputs_are_not_taken_for_boxes() -> None:
    outputs = {"y": ROWS[None], "z": ROWS[None]}
    assert DetectionLayout.found_in(outputs, {"y": ANCHORS, "z": ANCHORS}) is None
    assert DetectionLayout.found_in({"z": ROWS[None]}, {"y": ANCHORS}) is None


def test_boxes_of_anchors_are_no_classes() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,6,8] x) => (float[N,7,8] y)
        <float[1,2,8] grid = {0,1,2,3,4,5,6,7,0,1,2,3,4,5,6,7}, float[6,6] w = {
            1,0,0,0,0,0, 0,1,0,0,0,0, 0,0,1,0,0,0, 0,0,0,1,0,0, 0,0,0,0,1,0, 0,0,0,0,0,1}> {
            t = Transpose<perm = [0,2,1]>(x) m = MatMul(t, w) h = Transpose<perm = [0,2,1]>(m)
            parts = Constant<value_ints = [2,2,2]>() a, b, c = Split<axis = 1>(h, parts)
            mid = Add(a, grid) size = Exp(b) p = Sigmoid(c) o = ReduceMax<axes = [1]>(p)
            y = Concat<axis = 1>(mid, size, p, o)
        }"""
    )
    data = open_data({"x": np.random.default_rng(0).random((4, 6, 8)).astype(np.float32)}, input_specs(model))
    assert ClassAgreement(model, data, Runtime(threads=1))(model) is None
