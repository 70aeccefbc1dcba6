"""Inputs that hold one value for a whole run, beside others that hold samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.calibration.held_out import portions
from onnx_subprune.calibration.per_run import data_layout, per_run_values
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


def test_values_are_one_or_as_many_as_samples() -> None:
    with pytest.raises(DataError, match="one value for input 'scale' expected, or one for each of 3 samples, found 2"):
        open_data({"x": np.ones((3, 3), np.float32), "scale": np.array([1, 2], np.float32)}, [SCALE, X])
    with pytest.raises(DataError, match="found nan in sample 1"):
        per_run_values(SCALE, np.array([1, np.nan]), 2, "d")
    assert per_run_values(SWITCH, np.array([False, True]), 2, "d").tolist() == [[False], [True]]


def test_what_holds_for_a_run_is_told_from_samples() -> None:
    layout = data_layout([X, SCALE], {"x": (4, 3), "scale": ()})
    assert (layout.per_run, layout.sampled, layout.whole) == ({"scale"}, (X,), False)
    # Whole sets of inputs have one axis more; a fixed batch, or nothing beside, leaves no samples to tell apart.
    assert data_layout([X, SCALE], {"x": (2, 4, 3), "scale": (2,)}).whole
    assert data_layout([SCALE], {"scale": (2,)}).whole
    assert not data_layout([InputSpec("x", (1, 3), np.dtype(np.float32)), SWITCH], {"x": (1, 3)}).per_run


@pytest.mark.parametrize(
    ("first_axis", "shape", "samples"),
    [("n", (3,), True), ("n", (4, 3), False), ("batch", (4, 3), True), (None, (4, 3), False), ("time", (3,), True)],
)
def test_the_first_axis_of_a_set_may_be_anything(first_axis: str | None, shape: tuple[int, ...], samples: bool) -> None:
    specs = [InputSpec("x", (first_axis, 3), np.dtype(np.float32)), SCALE]
    assert data_layout(specs, {"x": shape, "scale": ()}, stacked=False).whole is not samples


def test_folders_and_scripts_give_values_per_run(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for number in range(4):
        values = {"x": np.full(3, number, np.float32), "scale": np.float32(number % 2)}
        np.savez(tmp_path / "folder" / f"{number}.npz", **values)
    (tmp_path / "load.py").write_text(
        "import numpy as np\n"
        "def load_data():\n"
        "    return [{'x': np.full(3, n, np.float32), 'scale': np.array([n % 2], np.float32)} for n in range(4)]\n"
    )
    for source in (tmp_path / "folder", f"{tmp_path / 'load.py'}:load_data"):
        found = [
            (float(feeds["scale"]), feeds["x"][:, 0].tolist()) for feeds in open_data(source, [SCALE, X]).batches(8)
        ]
        assert found == [(0, [0, 2]), (1, [1, 3])]


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
