"""What exact recovery makes worse at the outputs is not kept, and a sweep that does not help is not either."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.evaluate.output_error import OutputDistance
from onnx_subprune.model import Runtime, array_of, input_specs
from onnx_subprune.recovery import stages
from onnx_subprune.recovery.exact import Networks, Refit, paired_run, refit
from onnx_subprune.recovery.stages import settings
from onnx_subprune.subspace.residual_ridge import Refined

NET = """g (float[N,3,6,6] x) => (float[a,b] y) {
    [c1] h = Conv <pads=[1,1,1,1]> (x, w1)
    [r] r = Relu(h)
    [c2] k = Conv <pads=[1,1,1,1]> (r, w2)
    [q] q = Relu(k)
    [p] p = GlobalAveragePool(q)
    [f] f = Flatten(p)
    [g] y = Gemm(f, w3)
}"""
WEIGHTS = {"w1": (8, 3, 3, 3), "w2": (6, 8, 3, 3), "w3": (6, 4)}
KEPT = {"c1": range(5)}


def _noisy(model: onnx.ModelProto, strength: float) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.name == "w3":
            values = array_of(tensor)
            noise = strength * np.random.default_rng(0).standard_normal(values.shape)
            tensor.CopyFrom(onnx.numpy_helper.from_array((values + noise).astype(values.dtype), tensor.name))
    return copy


def _spoilt(monkeypatch: pytest.MonkeyPatch, strengths: Sequence[float]) -> list[int]:
    """Let fits, one sweep after the other, be off by so much; returns the list of what was fitted."""
    calls: list[int] = []

    def fit(networks: Networks, *given: Any) -> Refit:
        found = refit(networks, *given)
        calls.append(len(calls))
        return Refit(_noisy(found.model, strengths[len(calls) - 1]), found.layers, found.left)

    monkeypatch.setattr(stages, "refit", fit)
    return calls


def _same(one: onnx.ModelProto, other: onnx.ModelProto) -> bool:
    return one.graph.SerializeToString() == other.graph.SerializeToString()


def test_exact_recovery_that_is_worse_is_not_kept(net, pruned, monkeypatch):
    model = net(NET, **WEIGHTS)
    by_channel = pruned(model, KEPT, recovery="channel")
    _spoilt(monkeypatch, [1.0])
    found = pruned(model, KEPT)
    assert _same(found.model, by_channel.model)
    assert found.errors == by_channel.errors
    (line,) = (text for text in found.warnings if "by channel was kept" in text)
    assert "use more samples" in line


def test_exact_recovery_that_is_better_is_kept(net, pruned, distance):
    model = net(NET, **WEIGHTS)
    found, by_channel = (pruned(model, KEPT, recovery=how) for how in ("exact", "channel"))
    assert distance(model, found.model) < distance(model, by_channel.model)
    assert not [text for text in found.warnings if "kept" in text]


def test_too_few_samples_to_check_it_are_told_of(net, pruned, draw):
    model = net(NET, **WEIGHTS)
    found = pruned(model, KEPT, draw(model, 4))
    assert [text for text in found.warnings if "could not be checked" in text]


@pytest.mark.parametrize(("strengths", "kept"), [((0.02, 0.0, 0.4, 0.0), 2), ((0.0, 0.3), 1)])
def test_sweeps_go_on_as_long_as_they_help(net, pruned, monkeypatch, strengths, kept):
    model = net(NET, **WEIGHTS)
    calls = _spoilt(monkeypatch, strengths)
    found = pruned(model, KEPT, sweeps=4)
    assert len(calls) == kept + 1
    _spoilt(monkeypatch, strengths)
    assert _same(found.model, pruned(model, KEPT, sweeps=kept).model)


def test_the_distance_is_of_the_samples_held_out(net, draw):
    model = net("g (float[N,4] x) => (float[a,b] y) { [m] y = MatMul(x, w) }", w=np.eye(4, dtype=np.float32))
    double = net("g (float[N,4] x) => (float[a,b] y) { [m] y = MatMul(x, w) }", w=2 * np.eye(4, dtype=np.float32))
    values = np.ones((20, 4), np.float32)
    half = net(
        "g (float[N,4] x) => (float[a,b] y) { [c] c = Min(x, one)\n[m] y = MatMul(c, w) }",
        w=np.eye(4, dtype=np.float32), one=np.float32(1),
    )  # fmt: skip
    values[9::10] = 3
    distance = OutputDistance(model, open_data({"x": values}, input_specs(model)), Runtime(threads=1, batch_size=1), 64)
    assert distance.holds_out
    assert distance(model) == 0
    assert distance(double) == pytest.approx(1)
    # Of the samples held out the second and the fourth are threes.
    assert distance(half) == pytest.approx(2 * 4 / (2 + 2 * 9))
    assert distance(half, 1) == 0
    few = OutputDistance(model, open_data({"x": values[:4]}, input_specs(model)), Runtime(threads=1), 64)
    assert not few.holds_out
    assert few(double) == pytest.approx(1)


@pytest.mark.parametrize(
    ("limit", "reason"),
    [
        ("features", "it reads 45 features at once, more than the 40 allowed"),
        ("bytes", "more than memory is given for"),
    ],
)
def test_a_layer_that_is_too_large_keeps_its_recovery_by_channel_and_the_report_says_so(
    net, pruned, monkeypatch, tmp_path, limit, reason
):
    model = net(NET, **WEIGHTS)
    if limit == "features":
        monkeypatch.setattr(stages, "settings", lambda options: replace(settings(options), max_features=40))
    else:
        monkeypatch.setattr(paired_run, "_MOST_BYTES", 8 * 45 * (6 * 45 + 8 * 6) - 1)
    found = pruned(model, KEPT)
    assert reason in found.fit.left["c2"]
    assert {layer.name for layer in found.fit.layers} == {"c1", "g"}
    assert [text for text in found.warnings if text.startswith("'c2' keeps its recovery by channel") and reason in text]
    page = tmp_path / "report.html"
    found.report(page)
    assert reason in page.read_text(encoding="utf-8")


def test_weights_that_their_type_cannot_hold_are_not_said_to_be_fitted(net, monkeypatch, draw):
    weight = np.full((4, 4), 6e4, np.float16)
    model = net("g (float16[N,4] x) => (float16[a,b] y) { [m] y = MatMul(x, w) }", w=weight)
    monkeypatch.setattr(
        paired_run, "refine", lambda fitted, *_, **__: [Refined(2 * fitted.weight, fitted.bias, 1e-3, (1.0,), 0.5, 0.1)]
    )
    data = open_data({"x": 1e-3 * np.ones((20, 4), np.float16)}, input_specs(model))
    found = refit(Networks(model, model, lambda _, value: value), data)
    assert found.layers == ()
    assert found.left == {"m": "its type cannot hold the weights that were found"}


def test_consumers_that_cannot_be_fitted_are_told_of(net, pruned):
    """A constant that multiplies from the left, and the states that a recurrent layer reads back."""
    model = net(
        """g (float[N,3,5] x) => (float[a,b,c,d] y) {
            [m] h = Conv(x, w1)
            [r] r = Relu(h)
            [k] k = MatMul(w3, r)
            [t] t = Transpose <perm=[1,0,2]> (k)
            [l] y, e, f = LSTM <hidden_size=4> (t, w2, r2)
        }""",
        w1=(8, 3, 1), w2=(1, 16, 5), r2=(1, 16, 4), w3=(6, 8),
    )  # fmt: skip
    found = pruned(model, {"m": range(5)})
    assert "'k' keeps its recovery by channel: its weight is the first operand of the product" in found.warnings
    assert (
        found.fit.left["l (recurrence)"]
        == "it reads its own states, which every fit changes; to those of the dense network it is fitted by channel"
    )
