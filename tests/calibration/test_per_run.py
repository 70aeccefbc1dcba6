"""Inputs that hold one value for a whole run, beside others that hold samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.calibration.held_out import portions
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

IDS = InputSpec("input_ids", ("batch", "t"), np.dtype(np.int64))
SWITCH = InputSpec("use_cache_branch", (1,), np.dtype(np.bool_))
SCALE = InputSpec("scale", (), np.dtype(np.float32))
X = InputSpec("x", ("n", 3), np.dtype(np.float32))
ids = np.arange(24).reshape(8, 3)


@pytest.mark.parametrize("switch", [np.zeros(8, bool), np.zeros((8, 1), bool), np.zeros(1, bool), np.array(False)])
def test_a_switch_beside_samples_holds_for_every_run(switch: np.ndarray, tmp_path: Path) -> None:
    arrays = {"input_ids": ids, "use_cache_branch": switch}
    np.savez(tmp_path / "data.npz", **arrays)
    for source in (arrays, str(tmp_path / "data.npz")):
        data = open_data(source, [IDS, SWITCH])
        assert data.samples == 8
        batches = list(data.batches(3))
        assert [data.samples_in(batch) for batch in batches] == [3, 3, 2]
        assert all(list(batch) == ["input_ids", "use_cache_branch"] for batch in batches)
        assert all(batch["use_cache_branch"].tolist() == [False] for batch in batches)


def test_a_scalar_beside_samples_holds_for_every_run() -> None:
    data = open_data({"x": np.ones((5, 3), np.float32), "scale": np.float32(2)}, [SCALE, X])
    (batch,) = data.batches(8)
    assert (batch["scale"].shape, batch["scale"].item(), batch["x"].shape) == ((), 2, (5, 3))


def test_values_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match="one value for all samples expected for input 'scale', found 2"):
        open_data({"x": np.ones((2, 3), np.float32), "scale": np.array([1, 2], np.float32)}, [SCALE, X])


def test_whole_sets_of_inputs_stay_whole_sets() -> None:
    arrays = {"x": np.ones((2, 4, 3), np.float32), "scale": np.array([1, 2], np.float32)}
    batches = list(open_data(arrays, [SCALE, X]).batches(8))
    assert [batch["scale"].item() for batch in batches] == [1, 2]


@pytest.mark.parametrize("arrays", [{"input_ids": ids, "use_cache_branch": np.zeros(8, bool)}, {"input_ids": ids}])
def test_held_out_samples_keep_the_switch(arrays: dict[str, np.ndarray]) -> None:
    parts = list(portions(open_data(arrays, [IDS, SWITCH]), 8, every=4))
    assert sum(part.samples for part in parts) == 8
    assert {part.held for part in parts} == {True, False}
    assert all(part.feeds["use_cache_branch"].tolist() == [False] for part in parts)
    assert all(len(part.feeds["input_ids"]) == part.samples for part in parts)
