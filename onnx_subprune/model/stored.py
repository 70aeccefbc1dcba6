"""Weights that stay in files, so that a model of many gigabytes is never copied into memory.

A *placed* tensor is an initializer whose message says in which file its values lie, and which this process placed
there: `load_model(path, resident=False)` for the user's external data, `Scratch` for what passes make. Its values are
mapped anew each time they are asked for, so that the pages they take belong to the file and are given back with the
array. A message that comes from elsewhere cannot be mistaken for one: it lacks the mark of this process.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from numpy.typing import NDArray
from onnx_graphsurgeon.ir.tensor import LazyValues

from onnx_subprune.errors import ModelError, OutputError
from onnx_subprune.model.protos import dense, is_external, tensor_bytes
from onnx_subprune.model.temporary import TemporaryFolder

__all__ = [
    "SMALLEST_PLACED",
    "Scratch",
    "StoredValues",
    "constant_values",
    "has_placed",
    "is_placed",
    "place",
    "place_of",
    "raw_bytes",
    "rooted",
    "values_of",
    "with_placed_as_inputs",
]

SMALLEST_PLACED = 1 << 16
"""Bytes below which values are kept in memory: constants of shapes, biases, normalisation."""

# A key of the standard, because readers warn of any other.
_MARK = "checksum"
_PROCESS = uuid.uuid4().hex


@dataclass(frozen=True)
class Place:
    """Where values lie: `length` bytes from `offset` of a file."""

    file: Path
    offset: int
    length: int


def place(tensor: onnx.TensorProto, where: Place) -> None:
    """Make `tensor` a placed one; its values must lie at `where`, in their own type, little-endian."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    entries = {"location": where.file, "offset": where.offset, "length": where.length, _MARK: _state(where.file)}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def _state(file: Path) -> str:
    status = file.stat()
    return f"{_PROCESS}/{status.st_dev}/{status.st_ino}/{status.st_size}/{status.st_mtime_ns}"


def is_placed(tensor: onnx.TensorProto) -> bool:
    """Whether this process placed the tensor."""
    return is_external(tensor) and _entries(tensor).get(_MARK, "").startswith(_PROCESS)


def has_placed(model: onnx.ModelProto) -> bool:
    """Whether a weight stays in a file.

    Args:
        model: as `load_model` gave it, or made from such a one.

    """
    return any(is_placed(tensor) for tensor in model.graph.initializer)


def place_of(tensor: onnx.TensorProto) -> Place:
    """Return where the values of a placed tensor lie; ModelError if the file is gone or not what it was."""
    entries = _entries(tensor)
    file = Path(entries["location"])
    try:
        same = _state(file) == entries[_MARK]
    except OSError:
        same = False
    if not same:
        raise ModelError(
            f"the values of tensor '{tensor.name}' were expected in '{file}', which has been changed or removed since: "
            "load the model again, and keep a pruned one's Result until it is saved"
        )
    return Place(file, int(entries["offset"]), int(entries["length"]))


def _entries(tensor: onnx.TensorProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}


def _mapped_bytes(tensor: onnx.TensorProto) -> NDArray[Any]:
    """The bytes of a placed tensor, read-only."""
    where = place_of(tensor)
    return np.asarray(np.memmap(where.file, np.uint8, "r", where.offset, (where.length,)))


def raw_bytes(tensor: onnx.TensorProto) -> bytes | memoryview:
    """Return a tensor's values as raw data, however they are stored; strings with their lengths.

    Raises ModelError if they are in an external file that is not loaded.
    """
    if is_placed(tensor):
        return _mapped_bytes(tensor).data
    if is_external(tensor):
        raise ModelError(f"tensor '{tensor.name}' is in an external file that is not loaded: use load_model(path)")
    if tensor.data_type == onnx.TensorProto.STRING:
        return b"".join(len(text).to_bytes(8, "little") + text for text in tensor.string_data)
    if tensor.HasField("raw_data") or tensor.data_type == onnx.TensorProto.UNDEFINED:
        return bytes(tensor.raw_data)
    return bytes(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor)).raw_data)


class StoredValues(LazyValues):
    """Values of a tensor message, decoded at first use in their own type (GraphSurgeon's class warns or widens)."""

    def __init__(self, tensor: onnx.TensorProto | onnx.SparseTensorProto) -> None:
        self.tensor = tensor
        stored = tensor.values if isinstance(tensor, onnx.SparseTensorProto) else tensor
        self.shape = tuple(tensor.dims)
        self.dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(stored.data_type))
        self.nbytes = int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def placed(self) -> onnx.TensorProto | None:
        """The message, if it is one whose values stay in a file."""
        return self.tensor if isinstance(self.tensor, onnx.TensorProto) and is_placed(self.tensor) else None

    @property
    def in_file(self) -> bool:
        """Whether the values stay in a file."""
        return self.placed is not None

    def load(self) -> NDArray[Any]:
        """Return the values: an array of their own, or a read-only map of the file they stay in."""
        if isinstance(self.tensor, onnx.SparseTensorProto):
            return dense(self.tensor)
        if not self.in_file:
            # A copy, because the decoded array may be a read-only view of the message.
            return np.array(onnx.numpy_helper.to_array(self.tensor))
        mapped = _mapped_bytes(self.tensor)
        if mapped.nbytes == self.nbytes:
            return np.asarray(mapped.view(self.dtype).reshape(self.shape))
        packed = onnx.TensorProto(data_type=self.tensor.data_type, dims=self.tensor.dims, raw_data=mapped.tobytes())
        return np.asarray(onnx.numpy_helper.to_array(packed))


def values_of(values: NDArray[Any] | LazyValues) -> NDArray[Any]:
    """Return the array of a constant's values.

    Args:
        values: as GraphSurgeon holds them: an array, or a message that is decoded now and not kept.

    """
    return np.asarray(values.load() if isinstance(values, LazyValues) else values)


def constant_values(constant: gs.Constant) -> NDArray[Any]:
    """Return a constant's values.

    Args:
        constant: keeps the array, unless its values stay in a file: of those a map is made anew each time.

    """
    stored = constant._values
    return np.asarray(stored.load() if isinstance(stored, StoredValues) and stored.in_file else constant.values)


class Scratch:
    """Weights that passes make, one to a file of a temporary folder, until this object is gone."""

    def __init__(self) -> None:
        self._count = 0

    @cached_property
    def _folder(self) -> TemporaryFolder:
        return TemporaryFolder()

    def keep(self, values: NDArray[Any]) -> NDArray[Any] | StoredValues:
        """Return what a constant is to hold: small values as they are, large ones moved to a file.

        Args:
            values: of a constant.

        Raises:
            OutputError: there is no room for them.

        """
        if values.nbytes < SMALLEST_PLACED or values.dtype == object:
            return values
        return StoredValues(self.put(values))

    def put(self, values: NDArray[Any], name: str = "") -> onnx.TensorProto:
        """Write values to a file and return the placed tensor.

        Args:
            values: of any type but text; those of less than a byte stay in the message.
            name: of the tensor.

        Raises:
            OutputError: there is no room for them.

        """
        tensor = onnx.TensorProto(name=name, data_type=onnx.helper.np_dtype_to_tensor_dtype(values.dtype))
        tensor.dims.extend(values.shape)
        if tensor_bytes(tensor) != values.nbytes:
            # Types below a byte are packed in a message and not in an array.
            return onnx.numpy_helper.from_array(values, name)
        self._count += 1
        try:
            file = self._folder.path / f"{self._count}.bin"
            with file.open("xb") as stream:
                np.ascontiguousarray(values).tofile(stream)
        except OSError as error:
            raise OutputError(
                f"expected room for the weights of a large model in the temporary folder '{tempfile.gettempdir()}', "
                f"found none ({error.strerror or error}); name another with TMPDIR"
            ) from error
        place(tensor, Place(file, 0, values.nbytes))
        return tensor

    @contextlib.contextmanager
    def passing(self) -> Iterator[None]:
        """Remove at the end of the block the arrays that were put here inside it."""
        before = self._count
        try:
            yield
        finally:
            if self._count > before:
                for number in range(before + 1, self._count + 1):
                    (self._folder.path / f"{number}.bin").unlink(missing_ok=True)


def rooted(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose placed tensors say where they lie as seen from the root folder, as ONNX Runtime wants it."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if is_placed(tensor):
            where = place_of(tensor)
            del tensor.external_data[:]
            relative = os.path.relpath(where.file, "/")
            for key, value in (("location", relative), ("offset", where.offset), ("length", where.length)):
                tensor.external_data.add(key=key, value=str(value))
    return copy


def with_placed_as_inputs(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy in which placed tensors are graph inputs of their type, for checks that cannot read files.

    Args:
        model: left as it is.

    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.initializer[:]
    inputs = {value.name for value in model.graph.input}
    for tensor in model.graph.initializer:
        if not is_placed(tensor):
            copy.graph.initializer.add().CopyFrom(tensor)
        elif tensor.name not in inputs:
            copy.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
    return copy
