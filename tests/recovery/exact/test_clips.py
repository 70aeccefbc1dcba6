"""Which layers are fitted behind a clip, and that the network is nearer to the dense one for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.model import input_specs, open_session, run
from onnx_subprune.recovery.exact import Networks, Settings, clip_rows, paired_run, refit
from onnx_subprune.recovery.exact.clip_rows import ClipRows
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import find_linears
from onnx_subprune.recovery.exact.rows import Rows
from onnx_subprune.subspace.clipped_regression import Limits

RNG = np.random.default_rng(8)
INF = np.inf
READERS = {
    "y = Relu(a)": Limits(0, INF),
    "y = Clip(a, zero, six)": Limits(0, 6),
    "y = Clip(a, zero)": Limits(0, INF),
    'y = Clip(a, "", six)': Limits(-INF, 6),
    "y = Clip(a, six, zero)": None,
    "y = Clip(a, low)": None,
    "y = Clip(a)": None,
    "y = Sigmoid(a)": None,
    "b = Relu(a) c = Relu(a) y = Add(b, c)": Limits(0, INF),
    "b = Relu(a) c = Clip(a, zero, six) y = Add(b, c)": None,
    "b = Relu(a) y = Add(b, a)": None,
    "b = Add(a, x) y = Relu(b)": Limits(0, INF),
    "b = Add(x, a) c = Relu(b) y = Add(c, b)": None,
    # The sum holds a constant that neither the layer nor the shortcut does.
    "b = Add(a, six) c = Add(b, x) y = Relu(c)": None,
}


@pytest.mark.parametrize("text", READERS)
def test_limits_are_those_of_all_readers(net: Any, text: str) -> None:
    known = {name: np.float32(value) for name, value in (("zero", 0), ("six", 6)) if name in text}
    inputs = "float[N,4] x, float low" if "low" in text else "float[N,4] x"
    model = net(f"g ({inputs}) => (float[a,b] y) {{ a = Gemm(x, w, v) {text} }}", w=(4, 4), v=(4,), **known)
    (linear,), _ = find_linears(model)
    around = Surroundings(model, model)
    assert around.limits(linear, around.shortcut(linear)) == READERS[text]


@pytest.mark.parametrize(
    "text",
    [
        "c = Conv <pads=[1,1,1,1]> (h, w, v) y = Relu(c)",
        "c = Conv <pads=[1,1,1,1]> (h, w, v) s = Add(c, h) y = Relu(s)",
        "t = Transpose <perm=[0,2,3,1]> (h) m = MatMul(t, w) c = Add(m, v) y = Relu(c)",
    ],
    ids=["conv", "residual", "matmul"],
)
def test_behind_a_relu_the_network_is_nearer_to_the_dense_one(net: Any, monkeypatch: Any, text: str) -> None:
    """Half of what the layer reads is gone."""
    weights = {"w": (8, 8) if "MatMul" in text else (8, 8, 3, 3), "v": (8,)}
    whole, half = np.ones((8, 1, 1), np.float32), (np.arange(8) < 4).astype(np.float32)[:, None, None]
    dense, pruned = (
        net(f"g (float[N,8,6,6] x) => (float[a,b,c,d] y) {{ h = Mul(x, mask) {text} }}", mask=mask, **weights)
        for mask in (whole, half)
    )
    x, new = (RNG.standard_normal((count, 8, 6, 6)).astype(np.float32) for count in (400, 200))
    data = open_data({"x": x}, input_specs(dense))
    networks = Networks(dense, pruned, lambda _, value: value)
    found = refit(networks, data, Settings(threads=1))
    monkeypatch.setattr(paired_run, "fit_behind_clip", lambda found, *_, **__: found)
    plain = refit(networks, data, Settings(threads=1))
    expected, better, good = (run(open_session(model), {"x": new})["y"] for model in (dense, found.model, plain.model))
    assert np.square(better - expected).sum() < 0.99 * np.square(good - expected).sum()


def test_rows_to_fit_behind_a_clip_come_from_everywhere_and_fit_into_memory(monkeypatch: Any) -> None:
    def kept(rows: int, features: int = 4) -> np.ndarray:
        found = ClipRows(Settings(), features, 10 * 64)
        for number in range(10):
            x = np.tile(np.arange(rows, dtype=np.float32)[None, :, None], (1, 1, features)) + 1000 * number
            found.add(number % 5 == 4, Rows(x, (x,), np.zeros(rows), total=x), 64)
        return np.concatenate([one.x[0, :, 0] for one in found.joined()]) if found.enough else np.zeros(0)

    many = kept(2000)
    assert 0.8 * 40 * 64 < len(many) < 1.2 * 40 * 64
    assert len(np.unique(many % 4)) == 4
    assert len(np.unique(many // 1000)) >= 10
    # Of few rows none is left out.
    assert len(kept(100)) == 1000
    assert len(kept(2, features=400)) == 0
    monkeypatch.setattr(clip_rows, "_CLIPPED_BYTES", 1000 * 3 * 16)
    assert 800 < len(kept(2000)) < 1200
    monkeypatch.setattr(clip_rows, "_CLIPPED_BYTES", 10)
    assert len(kept(2000)) == 0
