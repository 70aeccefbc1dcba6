"""Rows of samples that are held out are never fitted on, wherever a layer has its batch."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.calibration import HELD, open_data
from onnx_subprune.model import input_specs
from onnx_subprune.recovery.exact import Networks, Settings, paired_run, refit
from onnx_subprune.subspace.residual_ridge import refine

ROWS = {
    "the first axis": "[m] y = MatMul(x, w)",
    "the second axis": "[t] t = Transpose <perm=[1,0,2]> (x)\n[m] u = MatMul(t, w)\n"
    "[e] y = Transpose <perm=[1,0,2]> (u)",
    "the last of an axis of both": "[t] t = Transpose <perm=[1,0,2]> (x)\n[f] f = Reshape(t, flat)\n"
    "[m] u = MatMul(f, w)\n[s] s = Shape(t)\n[h] h = Reshape(u, s)\n[e] y = Transpose <perm=[1,0,2]> (h)",
}
# Numbers of samples, and the batch that the model declares: free, fixed, of one.
BATCHES = [(40, "N"), (40, 4), (20, 1)]


@pytest.mark.parametrize(("count", "batch"), BATCHES)
@pytest.mark.parametrize("where", ROWS)
def test_fits_do_not_see_what_is_held_out(net, monkeypatch, where, count, batch):
    weights = {"w": (4, 4), "flat": np.array([-1, 4])}
    weights = {name: value for name, value in weights.items() if name in ROWS[where]}
    model = net(f"g (float[{batch},3,4] x) => (float[a,b,c] y) {{ {ROWS[where]} }}", **weights)
    values = np.random.default_rng(0).standard_normal((count, 3, 4)).astype(np.float32)
    # A mark on each sample: how many are held out as one, and which.
    together = batch if isinstance(batch, int) else 1
    away = np.arange(count) // together % HELD == HELD - 1
    values[:, :, 0] = away[:, None]
    marks = []

    def noting(fitted, held, **more):
        marks.append([one.pivot[0, 0] + one.gram[0, 0, -1] / one.count for one in (fitted, held)])
        return refine(fitted, held, **more)

    monkeypatch.setattr(paired_run, "refine", noting)
    data = open_data({"x": values}, input_specs(model))
    refit(Networks(model, model, lambda _, value: value), data, Settings(batch_size=8, threads=1))
    assert marks == [[0.0, 1.0]]


def test_of_too_few_samples_parts_are_held_out(net, monkeypatch):
    model = net("g (float[1,10,4] x) => (float[a,b,c] y) { [m] y = MatMul(x, w) }", w=(4, 4))
    counts = []

    def noting(fitted, held, **more):
        counts.append((fitted.count, held.count))
        return refine(fitted, held, **more)

    monkeypatch.setattr(paired_run, "refine", noting)
    data = open_data({"x": np.ones((2, 10, 4), np.float32)}, input_specs(model))
    refit(Networks(model, model, lambda _, value: value), data, Settings(threads=1))
    ((fitted, held),) = counts
    assert fitted + held == 20
    assert 2 <= held <= 6
