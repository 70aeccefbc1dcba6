"""Tensors of all batches between two segments: in memory up to a limit, past it in files of a temporary folder."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from onnx_subprune.errors import OutputError
from onnx_subprune.model import TemporaryFolder

__all__ = ["DEFAULT_MAX_BYTES", "Store"]

Array = np.ndarray[Any, Any]

DEFAULT_MAX_BYTES = 1 << 26


class Store:
    """Arrays by tensor name and batch; what passes the limit is written to files and mapped when it is read.

    Args:
        max_bytes: of arrays in memory.

    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._limit = max_bytes
        self._held = 0
        self._count = 0
        self._arrays: dict[str, dict[int, Array | Path]] = {}
        self._kinds: dict[str, tuple[np.dtype[Any], tuple[int | None, ...]]] = {}
        self._folder: TemporaryFolder | None = None
        self.spilled = 0

    def __contains__(self, name: str) -> bool:
        """Whether the tensor is there, of the batches seen so far."""
        return name in self._arrays

    def names(self) -> Iterable[str]:
        """Return the names of all tensors."""
        return tuple(self._arrays)

    def put(self, name: str, batch: int, array: Array) -> None:
        """Keep the value of a tensor for one batch; the first one given stays.

        Raises:
            OutputError: the temporary folder has no room.

        """
        entries = self._arrays.setdefault(name, {})
        if batch in entries:
            return
        before = self._kinds.get(name, (array.dtype, array.shape))[1]
        sizes = (size if size == other else None for size, other in zip(array.shape, before, strict=True))
        self._kinds[name] = (array.dtype, tuple(sizes))
        # What has no entries cannot be mapped, and text not be written.
        if self._held + array.nbytes > self._limit and array.size and array.dtype != object:
            entries[batch] = self._written(array)
        else:
            self._held += array.nbytes
            entries[batch] = array

    def get(self, name: str, batch: int) -> Array:
        """Return the value of a tensor for one batch."""
        entry = self._arrays[name][batch]
        return np.asarray(np.load(entry, mmap_mode="r")) if isinstance(entry, Path) else entry

    def kind(self, name: str) -> tuple[np.dtype[Any], tuple[int | None, ...]]:
        """Return the type of a tensor and its sizes, None for those that differ between batches."""
        return self._kinds[name]

    def drop(self, name: str) -> None:
        """Forget a tensor."""
        del self._kinds[name]
        for entry in self._arrays.pop(name).values():
            if isinstance(entry, Path):
                entry.unlink()
            else:
                self._held -= entry.nbytes

    def close(self) -> None:
        """Remove the files."""
        self._arrays.clear()
        if self._folder is not None:
            self._folder.close()

    def _written(self, array: Array) -> Path:
        try:
            if self._folder is None:
                self._folder = TemporaryFolder()
            self._count += 1
            self.spilled += array.nbytes
            path = self._folder.path / f"{self._count}.npy"
            np.save(path, array)
        except OSError as error:
            raise OutputError(
                f"expected room for activations in the temporary folder '{tempfile.gettempdir()}', found none "
                f"({error.strerror or error}); name another with TMPDIR, or use fewer samples"
            ) from error
        return path
