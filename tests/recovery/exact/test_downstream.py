"""What reads a layer's output: sums, normalisations and clips."""

from __future__ import annotations

from collections import Counter
from math import inf

import numpy as np
import onnx
import pytest

from onnx_subprune.recovery.exact.downstream import adds_behind, limits_of, reader_of
from onnx_subprune.structure.position_weights import Reader
from onnx_subprune.subspace.clipped_regression import Limits


def _node(text: str, opset: int = 17) -> onnx.NodeProto:
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["" : {opset}]>\ng (float[N,4] x, float[N,4] z) => (float[a,b] y) {{ {text} }}'
    )
    return model.graph.node[0]


def _constant(name: str, value: object) -> dict[str, onnx.TensorProto]:
    return {name: onnx.numpy_helper.from_array(np.asarray(value), name)}


def test_sums_are_followed_as_long_as_nothing_else_reads_them():
    first, second = _node("y = Add(x, z)"), _node("t = Add(y, z)")
    readers = {"x": [first], "y": [second]}
    assert list(adds_behind("x", readers, Counter({"x": 1, "y": 1}))) == ["y", "t"]
    assert list(adds_behind("x", readers, Counter({"x": 1, "y": 2}))) == ["y"]
    assert list(adds_behind("x", readers, Counter({"x": 2, "y": 1}))) == []
    assert list(adds_behind("x", {"x": [_node("y = Sub(x, z)")]}, Counter({"x": 1}))) == []


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("y = Relu(x)", Limits(0, inf)),
        ("y = Clip(x, low, high)", Limits(-1, 6)),
        ('y = Clip(x, "", high)', Limits(-inf, 6)),
        ("y = Clip(x, high, low)", None),
        ("y = Clip(x, z)", None),
        ("y = Clip(z, low)", None),
        ("y = Clip(x, least)", None),
        ("y = Tanh(x)", None),
    ],
)
def test_limits(text, limits):
    constants = _constant("low", np.float32(-1)) | _constant("high", np.float32(6))
    constants |= _constant("least", np.finfo(np.float32).min)
    assert limits_of(_node(text), "x", constants) == limits


def test_limits_of_old_versions_are_attributes():
    assert limits_of(_node("y = Clip <min=0.0, max=6.0> (x)", 8), "x", {}) == Limits(0, 6)


@pytest.mark.parametrize(
    ("text", "reader"),
    [
        ("y = ReduceMean <axes=[-1], keepdims=1> (x)", Reader("ReduceMean", ["x"], "y", -1, [-1])),
        ("y = ReduceMean (x, axes)", Reader("ReduceMean", ["x", "axes"], "y", -1, [2])),
        ("y = ReduceMean (x, z)", Reader("ReduceMean", ["x", "z"], "y")),
        ("y = LayerNormalization <axis=1> (x, z)", Reader("LayerNormalization", ["x", "z"], "y", 1)),
        ("y = Gather (x, axes)", Reader("Gather", ["x", "axes"], "y")),
    ],
)
def test_a_node_as_structure_looks_at_it(text, reader):
    assert reader_of(_node(text), _constant("axes", np.array([2]))) == reader
