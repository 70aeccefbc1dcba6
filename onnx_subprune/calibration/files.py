"""Arrays in files, read no further than needed: .npy mapped, .npz members mapped, streamed or loaded.

numpy.load reads a whole .npz member for its first row. Here a member that is stored uncompressed is mapped where it
lies in the archive, and of a compressed one only the chosen rows are kept while it streams past. The CRC of a member is
checked in every case, once for a mapped one.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import onnx

from onnx_subprune.calibration.layout import Array
from onnx_subprune.errors import DataError
from onnx_subprune.model import check_regular

__all__ = ["Member", "open_npy", "open_npz", "read_tensor"]

_LOCAL_HEADER = struct.Struct("<26xHH")
# Below this a compressed member is simply loaded.
_SMALL_BYTES = 1 << 26
_SKIP_BYTES = 1 << 18


@dataclass(frozen=True)
class Member:
    """One array of an .npz archive, known by its header only."""

    path: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool
    data: int
    stored: bool

    def load(self, rows: Array | None = None) -> Array:
        """Return the array, or its `rows` in their order; mapped where possible."""
        with _reading(self.path):
            if self.stored and self.shape and self._bytes():
                _check_once(self.path, self.name, self.path.stat().st_size, self.path.stat().st_mtime_ns)
                mapped = self._memory_map()
                return mapped if rows is None else mapped[rows]
            if rows is None or self.fortran or self._bytes() < _SMALL_BYTES:
                array = self._loaded()
                return array if rows is None else array[rows]
            return self._streamed(rows)

    def _bytes(self) -> int:
        return int(np.prod(self.shape)) * self.dtype.itemsize

    def _memory_map(self) -> Array:
        with zipfile.ZipFile(self.path) as archive, open(self.path, "rb") as file:
            start = archive.getinfo(f"{self.name}.npy").header_offset
            file.seek(start)
            extra = sum(_LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size)))
        offset = start + _LOCAL_HEADER.size + extra + self.data
        return np.memmap(self.path, self.dtype, "r", offset, self.shape, "F" if self.fortran else "C")

    def _loaded(self) -> Array:
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.name}.npy") as file:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
            _check_rest(file)
            return array

    def _streamed(self, rows: Array) -> Array:
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        order = np.argsort(rows, kind="stable")
        size = self._bytes() // self.shape[0]
        with zipfile.ZipFile(self.path) as archive, archive.open(f"{self.name}.npy") as file:
            file.read(self.data)
            at = 0
            for place in order:
                _skip(file, (int(rows[place]) - at) * size)
                result[place] = np.frombuffer(file.read(size), self.dtype).reshape(self.shape[1:])
                at = int(rows[place]) + 1
            _check_rest(file)
        return result


def open_npz(path: Path) -> dict[str, Member]:
    """Read the headers of all arrays of an .npz archive.

    Raises:
        DataError: the file is missing, cannot be read or is damaged, or an array holds Python objects.

    """
    with _reading(path), zipfile.ZipFile(path) as archive:
        infos = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        return {info.filename[:-4]: _member(path, archive, info) for info in infos}


def open_npy(path: Path) -> Array:
    """Map an .npy file.

    Raises:
        DataError: the file is missing, cannot be read or is damaged, or it holds Python objects.

    """
    with _reading(path):
        # An empty array cannot be mapped, nor need it be.
        try:
            array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:
            array = np.load(path, allow_pickle=False)
        return array


def read_tensor(path: Path) -> tuple[str, Array]:
    """Read one TensorProto of an ONNX test data set: its name and values.

    Raises:
        DataError: the file is missing, cannot be read or holds something else.

    """
    with _reading(path):
        tensor = onnx.TensorProto()
        tensor.ParseFromString(path.read_bytes())
        return tensor.name, onnx.numpy_helper.to_array(tensor)


def _member(path: Path, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Member:
    with archive.open(info) as file:
        shape, fortran, dtype = _header(file)
        data = file.tell()
    if dtype.hasobject:
        raise DataError(
            f"plain arrays expected in '{path}', found: array '{info.filename[:-4]}' holds Python objects; save it "
            "again, samples of several sizes one by one in a folder of .npz files"
        )
    stored = info.compress_type == zipfile.ZIP_STORED and not info.flag_bits & 1
    return Member(path, info.filename[:-4], shape, dtype, fortran, data, stored)


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"npy format {version[0]}.{version[1]} is not supported")


def _skip(file: IO[bytes], count: int) -> None:
    # A forward seek in an archive would hold up to 16 MB at once.
    while count > 0:
        read = len(file.read(min(count, _SKIP_BYTES)))
        if not read:
            raise ValueError("an array cut short")
        count -= read


@lru_cache(maxsize=1 << 16)
def _check_once(path: Path, name: str, size: int, changed: int) -> None:  # noqa: ARG001 - a file that changed is another
    """Read a member through, because what is mapped passes by the archive's own check of its CRC."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as file:
        _check_rest(file)


def _check_rest(file: IO[bytes]) -> None:
    # The CRC is compared at the end of a member, which reading the array alone may not reach.
    while file.read(_SKIP_BYTES):
        pass


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what goes wrong with a file into one DataError."""
    try:
        check_regular(path)
        yield
    except DataError:
        raise
    except FileNotFoundError as error:
        raise DataError(f"a data file expected at '{path}', found none; check the path") from error
    except OSError as error:
        raise DataError(
            f"'{path}' expected to be readable, found: {error.strerror or error}; check the file"
        ) from error
    except Exception as error:
        # zipfile, zlib, numpy and protobuf each have their own exceptions for a damaged file.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"plain arrays expected in '{path}', found: {reason}; save it again") from error
