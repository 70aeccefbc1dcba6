"""Layers that no calibration sample reaches: a selection that chose nothing says nothing about the units behind it."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from onnx_subprune import DataError, Options, Target, prune

TEXT = """<ir_version: 8, opset_import: ["" : 17]> g (float[N,12,6] x) => (float[N,12,5] y, float[K,5] z) {
    [t1] a = MatMul(x, w1) b = Relu(a) [t2] f = MatMul(b, w2) g = Relu(f) [head] y = MatMul(g, v3)
    [score] s = MatMul(g, u) over = Greater(s, bound) s1 = Squeeze(over, last)
    n = NonZero(s1) nt = Transpose(n) rows = GatherND(g, nt)
    [h1] p = MatMul(rows, v1) r = Relu(p) [h2] z = MatMul(r, v2)
}"""
SHAPES = {"w1": (6, 24), "w2": (24, 16), "v3": (16, 5), "u": (16, 1), "v1": (16, 20), "v2": (20, 5)}
DATA = {"x": np.random.default_rng(1).standard_normal((64, 12, 6)).astype(np.float32)}


def build(bound: float) -> onnx.ModelProto:
    """Return a network whose second head sees the rows alone that score more than a bound."""
    model = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    arrays = {
        name: (rng.standard_normal(shape) / np.sqrt(shape[0])).astype(np.float32) for name, shape in SHAPES.items()
    }
    arrays |= {"bound": np.asarray(bound, np.float32), "last": np.array([2])}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(value, name) for name, value in arrays.items())
    return model


@pytest.mark.parametrize("effort", ["fast", "balanced"])
def test_what_nothing_comes_to_is_left_whole_and_named(effort: str) -> None:
    options = Options.of_effort(effort, target=Target("units", 0.5), threads=1)
    result = prune(build(1e6), DATA, options)
    whole = {group.name for group in result.plan.groups if len(group.kept) == group.size}
    assert result.plan.widths.get("t1") == 12
    assert {"t2", "h1"}.isdisjoint(result.plan.widths) or {"t2", "h1"} <= whole
    assert [line for line in result.warnings if "'h1' was left whole" in line and "'h2'" in line]
    assert [line for line in result.warnings if "'t2' was left whole" in line and "'h1'" in line]


def test_where_rows_come_all_is_pruned() -> None:
    result = prune(build(-1e6), DATA, Options.of_effort("fast", target=Target("units", 0.5), threads=1))
    assert result.plan.widths == {"t1": 12, "t2": 8, "h1": 10}
    assert not [line for line in result.warnings if "left whole" in line]


def test_nothing_anywhere_is_an_error_of_the_data() -> None:
    options = Options.of_effort("fast", target=Target("units", 0.5), threads=1, only=("h1", "t2"))
    with pytest.raises(DataError, match=r"in no calibration sample anything comes to 'h[12]'"):
        prune(build(1e6), DATA, options)
