"""Activations between segments: the same arrays come back, from memory or from files that are gone at the end."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from onnx_subprune.errors import OutputError
from onnx_subprune.recovery.exact.activation_store import Store


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder that temporary files go to."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def array(seed: int, *shape: int) -> np.ndarray:
    values: np.ndarray = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return values


@pytest.mark.parametrize("limit", [0, 100, 1 << 20])
def test_arrays_come_back_wherever_they_lie(limit: int, temporary: Path) -> None:
    store = Store(limit)
    for batch in range(3):
        store.put("x", batch, array(batch, 4, 5))
        store.put("y", batch, array(10 + batch, 2))
    for batch in range(3):
        np.testing.assert_array_equal(store.get("x", batch), array(batch, 4, 5))
        np.testing.assert_array_equal(store.get("y", batch), array(10 + batch, 2))
    assert set(store.names()) == {"x", "y"}
    assert "x" in store
    assert "z" not in store
    assert (store.spilled > 0) == (limit < 1 << 20)
    store.close()
    assert not list(temporary.iterdir()), "no file is left"


def test_the_first_value_of_a_batch_stays() -> None:
    store = Store()
    store.put("x", 0, array(1, 3))
    store.put("x", 0, array(2, 3))
    np.testing.assert_array_equal(store.get("x", 0), array(1, 3))


def test_sizes_that_differ_between_batches_are_open() -> None:
    store = Store()
    store.put("x", 0, array(1, 4, 7))
    store.put("x", 1, array(1, 2, 7))
    assert store.kind("x") == (np.dtype(np.float32), (None, 7))


def test_what_is_dropped_makes_room_and_its_file_goes(temporary: Path) -> None:
    store = Store(array(0, 4, 5).nbytes)
    store.put("x", 0, array(0, 4, 5))
    store.put("y", 0, array(1, 4, 5))
    assert len(list(temporary.rglob("*.npy"))) == 1
    store.drop("y")
    assert not list(temporary.rglob("*.npy"))
    store.drop("x")
    spilled = store.spilled
    store.put("z", 0, array(2, 4, 5))
    assert store.spilled == spilled, "there is memory again"
    store.close()


def test_arrays_without_entries_and_text_stay_in_memory() -> None:
    store = Store(0)
    store.put("nothing", 0, np.zeros((0, 3), np.float32))
    store.put("text", 0, np.array(["a", "b"], dtype=object))
    assert store.spilled == 0
    assert store.get("nothing", 0).shape == (0, 3)
    assert store.get("text", 0).tolist() == ["a", "b"]


def test_no_space_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    store = Store(0)
    with pytest.raises(OutputError, match=r"No space left.*name another with TMPDIR"):
        store.put("x", 0, array(0, 3))
    store.close()
