from __future__ import annotations

import io
import logging
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.errors import DataError, OptionError
from onnx_subprune.model import InputSpec

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)
IMAGE = (InputSpec("x", ("N", 3, 2), F32),)
TOKENS = (InputSpec("ids", ("batch", "length"), I64), InputSpec("mask", ("batch", "length"), I64))
FIXED = (InputSpec("x", (4, 2), F32),)
RECURRENT = (
    InputSpec("x", ("batch", 5), F32),
    InputSpec("state", (2, "batch", 3), F32),
    InputSpec("rate", (), I64),
)


def images(count: int) -> np.ndarray:
    return np.arange(count * 6, dtype=np.float32).reshape(count, 3, 2)


def gathered(data: Any, batch_size: int = 4, name: str = "x") -> np.ndarray:
    return np.concatenate([batch[name] for batch in data.batches(batch_size)])


def test_a_dict_is_cut_into_batches_in_order_again_and_again():
    data = open_data({"x": images(10), "labels": np.arange(10)}, IMAGE)
    assert data.samples == 10
    np.testing.assert_array_equal(data.labels, np.arange(10))
    for _ in range(2):
        batches = list(data.batches(4))
        assert [len(batch["x"]) for batch in batches] == [4, 4, 2]
        np.testing.assert_array_equal(np.concatenate([batch["x"] for batch in batches]), images(10))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_npz_gives_the_first_of_a_seeded_permutation(tmp_path: Path, save: Any):
    save(tmp_path / "d.npz", x=images(20), labels=np.arange(20))
    small = open_data(tmp_path / "d.npz", IMAGE, samples=5, seed=3)
    large = open_data(str(tmp_path / "d.npz"), IMAGE, samples=9, seed=3)
    other = open_data(tmp_path / "d.npz", IMAGE, samples=9, seed=4)
    assert (small.samples, large.samples) == (5, 9)
    np.testing.assert_array_equal(gathered(small), images(20)[small.labels])
    np.testing.assert_array_equal(gathered(large), images(20)[large.labels])
    np.testing.assert_array_equal(small.labels, large.labels[:5])
    assert not np.array_equal(large.labels, other.labels)
    np.testing.assert_array_equal(gathered(open_data(tmp_path / "d.npz", IMAGE, samples=50)), images(20))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("limit", [0, 1 << 26])
def test_npz_members_however_they_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str, save: Any, limit: int
):
    monkeypatch.setattr("onnx_subprune.calibration.files._SMALL_BYTES", limit)
    save(tmp_path / "d.npz", mask=np.ones((9, 7), np.int64), ids=np.asarray(np.arange(63).reshape(9, 7), order=order))
    data = open_data(tmp_path / "d.npz", TOKENS, samples=6, seed=1)
    rows = np.random.default_rng(1).permutation(9)[:6]
    np.testing.assert_array_equal(gathered(data, name="ids"), np.arange(63).reshape(9, 7)[rows])


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_large_npz_is_not_read_into_memory_for_a_few_samples(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Any
):
    monkeypatch.setattr("onnx_subprune.calibration.files._SMALL_BYTES", 1 << 16)
    save(tmp_path / "d.npz", x=np.zeros((200, 3, 2, 5000), np.float32))
    spec = (InputSpec("x", ("N", 3, 2, 5000), F32),)
    tracemalloc.start()
    assert gathered(open_data(tmp_path / "d.npz", spec, samples=4)).shape == (4, 3, 2, 5000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_000_000  # of 24 MB


def test_an_npy_file_and_an_unnamed_member_feed_the_only_input(tmp_path: Path):
    np.save(tmp_path / "d.npy", images(3))
    np.savez(tmp_path / "d.npz", images(3))
    for name in ("d.npy", "d.npz"):
        np.testing.assert_array_equal(gathered(open_data(tmp_path / name, IMAGE)), images(3))


def test_values_are_converted_where_that_is_safe():
    data = open_data({"x": images(2).astype(np.float64)}, IMAGE)
    assert next(data.batches(2))["x"].dtype == F32
    tokens = {"ids": np.ones((2, 3), np.int32), "mask": np.ones((2, 3), bool)}
    assert {array.dtype for array in next(open_data(tokens, TOKENS).batches(2)).values()} == {I64}


def test_batches_are_contiguous():
    transposed = images(4).transpose(0, 2, 1).copy().transpose(0, 2, 1)
    batch = next(open_data({"x": transposed}, IMAGE).batches(4))["x"]
    assert batch.flags.c_contiguous
    np.testing.assert_array_equal(batch, images(4))


@pytest.mark.parametrize(
    ("arrays", "specs", "message"),
    [
        ({"y": images(2)}, IMAGE, "input 'x' expected, found 'y'"),
        ({"x": images(2), "y": images(2)}, IMAGE, r"inputs of the model \('x'\) expected, found 'y' too"),
        ({}, IMAGE, "input 'x' expected, found nothing else"),
        ({"x": np.zeros((2, 3))}, IMAGE, r"'x' expected of shape \[\?, 3, 2\], found \[2, 3\]"),
        ({"x": np.zeros((2, 2, 3))}, IMAGE, r"'x' expected of shape \[\?, 3, 2\], found \[2, 2, 3\]"),
        ({"x": images(2).astype(np.uint8)}, IMAGE, "dtype float32, found uint8; scale and normalise"),
        ({"ids": np.ones((2, 3)), "mask": np.ones((2, 3), I64)}, TOKENS, r"dtype int64, found float64; convert"),
        ({"ids": np.ones((2, 3), I64), "mask": np.ones((3, 3), I64)}, TOKENS, "found 'ids' 2, 'mask' 3"),
        ({"x": images(0)}, IMAGE, "at least one sample expected, found none"),
        ({"x": images(3), "labels": np.arange(2)}, IMAGE, r"a label for each of 3 samples expected, found .* \(2,\)"),
        ({"x": np.zeros((3, 2))}, FIXED, "at least 4 samples expected, the batch size fixed in the model, found 3"),
        ({"x": np.float32(3)}, IMAGE, "expected"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(arrays: Any, specs: Any, message: str, tmp_path: Path):
    with pytest.raises(DataError, match=message) as caught:
        open_data(arrays, specs)
    assert "\n" not in str(caught.value)
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=message):
        open_data(tmp_path / "d.npz", specs)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_found_in_its_sample(bad: float):
    x = images(12)
    x[7, 1, 0] = bad
    with pytest.raises(DataError, match=f"input 'x', found {bad} in sample 7"):
        list(open_data({"x": x}, IMAGE).batches(5))
    rows = np.random.default_rng(0).permutation(12)[:11]
    assert 7 in rows
    with pytest.raises(DataError, match="in sample 7"):
        list(open_data({"x": x}, IMAGE, samples=11).batches(5))


def test_a_float_that_overflows_the_models_dtype_is_refused():
    spec = (InputSpec("x", ("N", 2), np.dtype(np.float16)),)
    with pytest.raises(DataError, match=r"found inf in sample 1; .* \(they are fed as float16\)"):
        list(open_data({"x": np.array([[1, 2], [1e6, 3]])}, spec).batches(2))


def test_a_fixed_batch_is_kept_to(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        data = open_data({"x": np.zeros((10, 2))}, FIXED)
    assert data.samples == 8
    assert [len(batch["x"]) for batch in data.batches(1)] == [4, 4]
    assert "2 samples dropped, the model's batch size is fixed at 4" in caplog.text


def test_inputs_without_a_common_batch_axis_are_fed_whole():
    arrays = {
        "x": np.zeros((3, 2, 5)),
        "state": np.zeros((3, 2, 2, 3)),
        "rate": np.array([8000, 16000, 44100]),
    }
    data = open_data(arrays, RECURRENT)
    batches = list(data.batches(8))
    assert [batch["rate"].shape for batch in batches] == [()] * 3
    assert [int(batch["rate"]) for batch in batches] == [8000, 16000, 44100]
    assert batches[0]["state"].shape == (2, 2, 3)
    assert [data.samples_in(batch) for batch in batches] == [1, 1, 1]


def test_paths_that_cannot_be_read_are_refused(tmp_path: Path):
    with pytest.raises(DataError, match="found nothing there"):
        open_data(tmp_path / "none.npz", IMAGE)
    (tmp_path / "d.npz").write_bytes(b"PK not a zip")
    with pytest.raises(DataError, match="plain arrays expected in"):
        open_data(tmp_path / "d.npz", IMAGE)
    (tmp_path / "d.npy").write_bytes(b"")
    with pytest.raises(DataError, match="plain arrays expected in"):
        open_data(tmp_path / "d.npy", IMAGE)
    np.savez(tmp_path / "o.npz", x=np.array([{}, {}]))
    with pytest.raises(DataError, match="array 'x' holds Python objects"):
        open_data(tmp_path / "o.npz", IMAGE)
    (tmp_path / "d.csv").touch()
    with pytest.raises(DataError, match=r"found '.*d\.csv'; convert it"):
        open_data(tmp_path / "d.csv", IMAGE)


@pytest.mark.parametrize("samples", [0, -1])
def test_samples_below_one_are_refused(samples: int):
    with pytest.raises(OptionError, match=f"at least 1, found {samples}"):
        open_data({"x": images(2)}, IMAGE, samples=samples)


def test_a_model_without_inputs_is_refused():
    with pytest.raises(DataError, match="at least one input expected"):
        open_data({"x": images(2)}, ())


def test_a_compressed_member_cut_short_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("onnx_subprune.calibration.files._SMALL_BYTES", 0)
    whole = io.BytesIO()
    np.save(whole, images(50))
    with zipfile.ZipFile(tmp_path / "d.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.npy", whole.getvalue()[:300])
    with pytest.raises(DataError, match="plain arrays expected in"):
        open_data(tmp_path / "d.npz", IMAGE, samples=40)


def test_files_that_may_not_be_read_are_refused(tmp_path: Path):
    (tmp_path / "d.npz").mkdir()
    np.save(tmp_path / "d.npz" / "gone.npy", images(2))
    data = open_data(tmp_path / "d.npz", IMAGE)
    (tmp_path / "d.npz" / "gone.npy").unlink()
    with pytest.raises(DataError, match=r"a data file expected at '.*gone\.npy', found none"):
        list(data.batches(1))
    (tmp_path / "d.npz" / "gone.npy").mkdir()
    with pytest.raises(DataError, match=r"'.*gone\.npy' expected to be readable, found: Is a directory"):
        list(data.batches(1))
