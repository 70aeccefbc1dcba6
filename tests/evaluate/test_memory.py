from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.evaluate import peak_memory

# Taken from the module, because `evaluate` shows the functions only.
MODULE = importlib.import_module("onnx_subprune.evaluate.memory")
MEGABYTE = 1 << 20


def weighty(columns: int) -> onnx.ModelProto:
    """Return x [N, 512] times a matrix [512, columns], which is summed up at once."""
    model = onnx.parser.parse_model(
        """
    <ir_version: 8, opset_import: ["": 17]>
    g (float[N, 512] x) => (float[N, 1] y) {
        h = MatMul(x, w)
        y = ReduceMean<axes = [1]>(h)
    }"""
    )
    weight = np.random.default_rng(0).standard_normal((512, columns)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    return model


def test_weights_and_activations_count():
    one = np.ones((1, 512), np.float32)
    small, large = (peak_memory(weighty(columns), {"x": one}, threads=1) for columns in (8, 16384))
    weights = 4 * 512 * 16384
    assert small.peak < 20 * MEGABYTE
    assert small.peak + weights < large.peak < small.peak + 4 * weights
    assert 0 < large.held <= large.peak
    many = peak_memory(weighty(16384), {"x": np.repeat(one, 512, axis=0)}, threads=1)
    assert many.peak > large.peak + 0.8 * 4 * 512 * 16384


def test_what_is_wrong_is_said_as_it_would_be_here():
    with pytest.raises(DataError, match="do not fit"):
        peak_memory(weighty(8), {"x": np.ones((1, 3), np.float32)})
    with pytest.raises(OptionError, match="'gpu' is not in this onnxruntime"):
        peak_memory(weighty(8), {"x": np.ones((1, 512), np.float32)}, providers=["gpu"])


def test_a_process_that_dies_is_an_error(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MODULE, "_PROGRAM", "import sys; sys.exit('killed, perhaps')")
    with pytest.raises(ModelError, match=r"found exit code 1: killed, perhaps"):
        peak_memory(weighty(8), {"x": np.ones((1, 512), np.float32)})


def test_systems_that_do_not_tell_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(MODULE, "_PROC", tmp_path)
    with pytest.raises(OptionError, match="expected to measure memory, found none"):
        peak_memory(weighty(8), {"x": np.ones((1, 512), np.float32)})
