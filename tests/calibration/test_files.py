"""Arrays in files are read no further than needed, and what is damaged is refused in one line."""

from __future__ import annotations

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

from onnx_subprune.calibration.files import open_npy, open_npz, read_tensor
from onnx_subprune.errors import DataError

VALUES = np.arange(24, dtype=np.float32).reshape(4, 3, 2)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_members_are_known_by_their_header_and_read_whole_or_by_rows(tmp_path: Path, save: object, order: str) -> None:
    assert callable(save)
    save(tmp_path / "a.npz", x=np.asarray(VALUES, order=order), n=np.float64(2.5), empty=np.zeros((0, 3)))
    members = open_npz(tmp_path / "a.npz")
    assert {name: member.shape for name, member in members.items()} == {"x": (4, 3, 2), "n": (), "empty": (0, 3)}
    np.testing.assert_array_equal(members["x"].load(), VALUES)
    np.testing.assert_array_equal(members["x"].load(np.array([3, 0])), VALUES[[3, 0]])
    assert members["n"].load() == 2.5
    assert members["empty"].load().shape == (0, 3)


def test_rows_of_a_large_compressed_member_stream_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnx_subprune.calibration.files._SMALL_BYTES", 1)
    np.savez_compressed(tmp_path / "a.npz", x=VALUES)
    rows = np.array([2, 0, 3])
    np.testing.assert_array_equal(open_npz(tmp_path / "a.npz")["x"].load(rows), VALUES[rows])


def test_an_npy_file_is_mapped_unless_it_is_empty(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", VALUES)
    np.save(tmp_path / "none.npy", np.zeros((0, 2)))
    assert isinstance(open_npy(tmp_path / "x.npy"), np.memmap)
    assert open_npy(tmp_path / "none.npy").shape == (0, 2)


def test_a_tensor_of_a_test_data_set_has_a_name(tmp_path: Path) -> None:
    (tmp_path / "input_0.pb").write_bytes(numpy_helper.from_array(VALUES, "x").SerializeToString())
    name, values = read_tensor(tmp_path / "input_0.pb")
    assert name == "x"
    np.testing.assert_array_equal(values, VALUES)


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([{}], object))
    (tmp_path / "text.npz").write_text("no archive")
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(DataError, match="array 'x' holds Python objects; save it again"):
        open_npz(tmp_path / "objects.npz")
    with pytest.raises(DataError, match=r"plain arrays expected in '.*text.npz', found: File is not a zip file"):
        open_npz(tmp_path / "text.npz")
    with pytest.raises(DataError, match=r"plain arrays expected in '.*text.npy'"):
        open_npy(tmp_path / "text.npy")
    with pytest.raises(DataError, match=r"a data file expected at '.*gone.npy', found none"):
        open_npy(tmp_path / "gone.npy")
    with pytest.raises(DataError, match="expected to be readable"):
        open_npy(tmp_path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("rows", [None, np.array([0])])
@pytest.mark.parametrize("small", [0, 1 << 26])
def test_a_member_that_does_not_fit_its_crc_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Callable[..., None], rows: np.ndarray | None, small: int
) -> None:
    monkeypatch.setattr("onnx_subprune.calibration.files._SMALL_BYTES", small)
    path = tmp_path / "a.npz"
    save(path, x=VALUES)
    whole = open_npz(path)["x"]
    assert np.array_equal(whole.load(), VALUES)
    with zipfile.ZipFile(path) as archive:
        crc = struct.pack("<I", archive.getinfo("x.npy").CRC)
    content = path.read_bytes()
    assert content.count(crc) == 2  # before the member, and in the table at the end
    path.write_bytes(content.replace(crc, bytes([crc[0] ^ 1]) + crc[1:]))
    with pytest.raises(DataError, match=r"plain arrays expected in '.*a.npz', found: Bad CRC-32"):
        open_npz(path)["x"].load(rows)


def test_a_mapped_member_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "a.npz", x=VALUES)
    read: list[object] = []
    monkeypatch.setattr("onnx_subprune.calibration.files._check_rest", read.append)
    for _ in range(3):
        open_npz(tmp_path / "a.npz")["x"].load()
    assert len(read) == 1


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    for name, opened in (("a.npz", open_npz), ("a.npy", open_npy), ("input_0.pb", read_tensor)):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError, match="expected to be readable, found: not a regular file"):
            opened(tmp_path / name)
