"""Which outputs hold the boxes of all anchors: heads of the usual exports, and what only looks like one."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from onnx_subprune.calibration import open_data
from onnx_subprune.evaluate.anchor_boxes import AnchorBoxes, anchor_boxes
from onnx_subprune.evaluate.fidelity import fidelity
from onnx_subprune.model import input_specs, open_session, run

# Weights of Convs from 3 channels, by the number of their outputs, and what the heads below read beside them.
SHAPES = {f"w{n}": (n, 3, 1, 1) for n in (1, 3, 4, 7, 9, 16)}
SHAPES |= {"grid": (1, 2, 16), "cells": (1, 1, 4, 4, 2), "rows": (1, 16, 2), "bias": (1, 4, 1), "linear": (16, 7)}
SHAPES |= {"anchors": (1, 2, 1, 1, 2), "points": (16, 4)}
NUMBERS = "two = Constant<value = float {2}>() eight = Constant<value = float {8}>()"


def build(text: str, sizes: str = "N,A,C") -> onnx.ModelProto:
    """Return a network that makes y of images x."""
    shapes = "s4 = Constant<value_ints = [0,4,16]>() s7 = Constant<value_ints = [0,7,16]>()"
    head = f'<ir_version: 8, opset_import: ["" : 17]> g (float[N,3,4,4] x) => (float[{sizes}] y)'
    model = onnx.parser.parse_model(f"{head} {{ {NUMBERS} {shapes} {text} }}")
    rng = np.random.default_rng(0)
    read = {name for node in model.graph.node for name in node.input}
    for name in sorted(read & SHAPES.keys()):
        values = rng.standard_normal(SHAPES[name]).astype(np.float32)
        # Far from the borders, so that centres are larger than sizes.
        values = 8 + abs(values) if name in ("grid", "cells") else values
        model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


SIDES = "e = Exp(d) l, r = Split<axis = 1>(e) low = Sub(grid, l) high = Add(grid, r) size = Sub(high, low)"
BOX = f"{SIDES} sum = Add(low, high) mid = Div(sum, two) b = Concat<axis = 1>(mid, size) box = Mul(b, eight)"
# Without anchors: sides and classes of one layer, decoded around the points of a grid.
V8 = f"""h = Conv(x, w7) f = Reshape(h, s7) parts = Constant<value_ints = [4,3]>() d, c = Split<axis = 1>(f, parts)
    {BOX} p = Sigmoid(c)"""
# Three numbers of each of two anchors and cells: centres and sizes bounded by a Sigmoid.
V5 = """h = Conv(x, w16) five = Constant<value_ints = [0,2,8,4,4]>() f = Reshape(h, five)
    t = Transpose<perm = [0,1,3,4,2]>(f) s = Sigmoid(t) parts = Constant<value_ints = [2,2,4]>()
    xy, wh, conf = Split<axis = -1>(s, parts) xy2 = Mul(xy, two) xyg = Add(xy2, cells) xys = Mul(xyg, eight)
    wh2 = Mul(wh, two) whp = Pow(wh2, two) sides = Abs(anchors) whs = Mul(whp, sides)
    level = Concat<axis = -1>(xys, whs, conf)
    flat = Constant<value_ints = [0,32,8]>() z = Reshape(level, flat)"""
# A score of any object beside the classes, and the boxes decoded once all levels are joined.
YOLOX = """reg = Conv(x, w4) obj = Conv(x, w1) cls = Conv(x, w3) o = Sigmoid(obj) c = Sigmoid(cls)
    level = Concat<axis = 1>(reg, o, c) s8 = Constant<value_ints = [0,8,16]>() f = Reshape(level, s8)
    t = Transpose<perm = [0,2,1]>(f) n0 = Constant<value_ints = [0]>() n2 = Constant<value_ints = [2]>()
    n4 = Constant<value_ints = [4]>() end = Constant<value_ints = [9223372036854775807]>()
    xy = Slice(t, n0, n2, n2) wh = Slice(t, n2, n4, n2) scores = Slice(t, n4, end, n2)
    xyg = Add(xy, rows) xys = Mul(xyg, eight) whe = Exp(wh) whs = Mul(whe, eight)"""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{V8} y = Concat<axis = 1>(box, p)", AnchorBoxes(1, False, (4, 7))),
        (f"{V8} z = Concat<axis = 1>(box, p) y = Transpose<perm = [0,2,1]>(z)", AnchorBoxes(2, False, (4, 7))),
        (f"{V8} z = Concat<axis = 1>(box, p) k = Abs(f) y = Concat<axis = -2>(z, k)", AnchorBoxes(1, False, (4, 7))),
        (f"{V5} y = Concat<axis = 1>(z, z)", AnchorBoxes(2, True, (5, 8))),
        (f"{V5} y = Transpose<perm = [0,2,1]>(z)", AnchorBoxes(1, True, (5, 8))),
        (f"{YOLOX} y = Concat<axis = -1>(xys, whs, scores)", AnchorBoxes(2, True, (5, 8))),
    ],
)
def test_heads_of_detectors(text: str, expected: AnchorBoxes) -> None:
    assert anchor_boxes(build(text)) == {"y": expected}


def test_a_constant_score_of_any_object_counts_as_one() -> None:
    ones = """n = Shape(f) zero = Constant<value_ints = [0]>() images = Gather(n, zero)
        one = Constant<value_ints = [1, 16]>() wide = Concat<axis = 0>(images, one)
        o = ConstantOfShape<value = float[1] {1}>(wide)"""
    model = build(f"{V8} {ones} y = Concat<axis = 1>(box, o, p)", "N,8,16")
    assert anchor_boxes(model) == {"y": AnchorBoxes(1, True, (5, 8))}


def test_boxes_that_a_decoder_refines() -> None:
    """Points move by what a layer gives, and a Sigmoid keeps them within the image."""
    text = """flat = Constant<value_ints = [0,3,16]>() f = Reshape(x, flat) h = MatMul(f, linear)
        parts = Constant<value_ints = [4,3]>() d, c = Split<axis = 2>(h, parts) e = MatMul(f, points)
        moved = Add(d, e) box = Sigmoid(moved) p = Sigmoid(c) y = Concat<axis = 2>(box, p)"""
    assert anchor_boxes(build(text)) == {"y": AnchorBoxes(2, False, (4, 7))}


@pytest.mark.parametrize(
    "text",
    [
        "h = Conv(x, w7) y = Reshape(h, s7)",
        "h = Conv(x, w7) f = Reshape(h, s7) y = Sigmoid(f)",
        # Numbers that nothing decodes, also with a bias of their own, and such as are bounded like the classes.
        "a = Conv(x, w4) b = Reshape(a, s4) h = Conv(x, w7) f = Reshape(h, s7) p = Sigmoid(f) "
        "y = Concat<axis = 1>(b, p)",
        "a = Conv(x, w4) r = Reshape(a, s4) b = Add(r, bias) h = Conv(x, w7) f = Reshape(h, s7) p = Sigmoid(f) "
        "y = Concat<axis = 1>(b, p)",
        "a = Conv(x, w4) r = Reshape(a, s4) b = Sigmoid(r) h = Conv(x, w7) f = Reshape(h, s7) p = Sigmoid(f) "
        "y = Concat<axis = 1>(b, p)",
        # Boxes without scores, and scores in front of the boxes.
        f"{V8} q = Abs(c) y = Concat<axis = 1>(box, q)",
        f"{V8} y = Concat<axis = 1>(p, box)",
        # Levels that are not alike.
        f"{V8} z = Concat<axis = 1>(box, p) y = Concat<axis = 2>(z, f)",
    ],
)
def test_what_is_not_understood_is_no_boxes(text: str) -> None:
    assert anchor_boxes(build(text)) == {}


@pytest.mark.parametrize(("axis", "objectness"), [(1, False), (2, False), (1, True), (2, True)])
def test_scores_are_those_of_classes_times_that_of_any_object(axis: int, objectness: bool) -> None:
    rows = np.arange(48, dtype=np.float32).reshape(2, 3, 8)
    layout = AnchorBoxes(axis, objectness, (4 + objectness, 7))
    boxes, scores = layout.parts(rows if axis == 2 else rows.transpose(0, 2, 1))
    np.testing.assert_array_equal(boxes, rows[..., :4])
    expected = rows[..., 5:7] * rows[..., 4:5] if objectness else rows[..., 4:7]
    np.testing.assert_array_equal(scores, expected)


def images() -> NDArray[np.float32]:
    return np.random.default_rng(1).standard_normal((6, 3, 4, 4)).astype(np.float32)


@pytest.mark.parametrize("text", [f"{V8} y = Concat<axis = 1>(box, p)", f"{V5} y = Identity(z)"])
def test_fidelity_tells_the_share_of_boxes_that_stay(text: str) -> None:
    dense, other = build(text), build(text)
    data = open_data({"x": images()}, input_specs(dense))
    same = fidelity(dense, other, data, threads=1).outputs["y"]
    assert (same.boxes, same.agreement, same.texts) == (1.0, None, None)
    weight = next(tensor for tensor in other.graph.initializer if tensor.name.startswith("w"))
    values = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(0.1 * values, weight.name))
    worse = fidelity(dense, other, data, threads=1).outputs["y"]
    assert worse.boxes is not None
    assert worse.boxes < 0.9


def test_sizes_of_boxes_are_as_the_network_gives_them() -> None:
    """The text above makes boxes as the layout says: centres that differ by the grid, and scores within 0 and 1."""
    model = build(f"{V8} y = Concat<axis = 1>(box, p)")
    value = run(open_session(model), {"x": images()})["y"]
    boxes, scores = anchor_boxes(model)["y"].parts(value)
    assert boxes.shape == (6, 16, 4)
    assert scores.min() >= 0.0
    assert scores.max() <= 1.0
