"""External data: weights in a file beside the model.

The place of every weight is written in the model, that is, by whoever made the file: nothing outside the model's folder
is opened, and nothing is read before every place has been checked.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, BinaryIO, Protocol

import onnx

from onnx_subprune.errors import ModelError
from onnx_subprune.model.protos import assign, is_external, tensor_bytes, tensors
from onnx_subprune.model.stored import SMALLEST_PLACED, Place, place, raw_bytes

__all__ = ["files_of", "load_external_data", "write_external_data"]

_SMALLEST_EXTERNAL = 1024  # bytes; shape constants stay in the model, where shape inference finds them
_PAGE = 4096  # runtimes map large weights into memory page by page
_LINE = 64
_LONGEST_SHOWN = 40  # characters of a place in a message


class _Sink(Protocol):
    """What bytes can be written to, and knows how many were."""

    def write(self, data: bytes | memoryview, /) -> object:
        """Take more bytes."""

    def tell(self) -> int:
        """Return the number of bytes so far."""


SMALLEST_LEFT = 1 << 28
"""Bytes of external data from which on the weights may stay in their files."""


def load_external_data(model: onnx.ModelProto, folder: Path, *, resident: bool = True) -> None:
    """Bring all external data of `model`, whose file lies in `folder`, into the model.

    With `resident` False, larger weights of a large model are placed instead (see `stored`). Raises ModelError if a
    place is outside the folder, a file is missing, or it holds less than the model says.
    """
    # The initializers of the main graph come first.
    stored = enumerate(tensors(model))
    external = [(index < len(model.graph.initializer), tensor) for index, tensor in stored if is_external(tensor)]
    places = [_place(tensor, folder) for _, tensor in external]
    stays = not resident and sum(where.length for where in places) >= SMALLEST_LEFT
    for file in dict.fromkeys(where.file for where in places):
        with file.open("rb") as stream:
            for (main, tensor), where in zip(external, places, strict=True):
                if where.file != file:
                    continue
                if stays and main and where.length >= SMALLEST_PLACED:
                    place(tensor, where)
                else:
                    _load(tensor, where, stream)


def files_of(model: onnx.ModelProto, folder: Path) -> set[Path]:
    """Return the files that `model`, whose file lies in `folder`, keeps weights in."""
    entries = (entry for tensor in tensors(model) if is_external(tensor) for entry in tensor.external_data)
    resolved = (_resolved(folder / entry.value) for entry in entries if entry.key == "location")
    return {file for file in resolved if file is not None}


def _resolved(file: Path) -> Path | None:
    """The file behind all links; None where no file can have that name: NUL, too long, links in a circle."""
    try:
        file.stat()
    except FileNotFoundError:
        pass
    except (OSError, ValueError):
        return None
    try:
        return file.resolve()
    except (OSError, ValueError, RuntimeError):
        return None


def _load(tensor: onnx.TensorProto, where: Place, stream: BinaryIO) -> None:
    stream.seek(where.offset)
    tensor.raw_data = stream.read(where.length)
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _place(tensor: onnx.TensorProto, folder: Path) -> Place:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    file = _checked_file(tensor.name, entries.get("location", ""), folder)
    expected = tensor_bytes(tensor)
    try:
        offset, length = int(entries.get("offset", 0)), int(entries.get("length", expected))
    except ValueError as error:
        raise ModelError(f"external data of tensor '{tensor.name}' must have whole-number offset and length") from error
    size = file.stat().st_size
    if length != expected or offset < 0 or offset + length > size:
        raise ModelError(
            f"external data of tensor '{tensor.name}' must be {expected} bytes, found {length} at offset {offset} of "
            f"{size} in '{file.name}': the file is cut off or not this model's"
        )
    return Place(file.resolve(), offset, length)


def _checked_file(name: str, location: str, folder: Path) -> Path:
    file = folder / location
    if _resolved(file) is None:
        shown = location if len(location) <= _LONGEST_SHOWN else location[:_LONGEST_SHOWN] + "..."
        raise ModelError(
            f"external data of tensor '{name}' must lie in a file that can be opened, found {shown!a}, "
            "which no file can be named or which is a circle of links: give the file a plain name"
        )
    if not location or not _is_inside(location, file, folder):
        raise ModelError(
            f"external data of tensor '{name}' must lie in the model's folder, found '{location}': "
            "move it there and name it without a path"
        )
    if not file.is_file():
        raise ModelError(f"external data file '{location}' of tensor '{name}' is missing: put it beside the model")
    return file


def _is_inside(location: str, file: Path, folder: Path) -> bool:
    rooted = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).drive)
    parts = PurePosixPath(location).parts + PureWindowsPath(location).parts
    # resolve() follows links, so a link out of the folder counts as outside.
    return not rooted and ".." not in parts and file.resolve().is_relative_to(folder.resolve())


def write_external_data(model: onnx.ModelProto, data: _Sink, location: str) -> onnx.ModelProto:
    """Write the larger weights of `model` to `data`; return a copy that looks for them in the file `location`."""
    light = onnx.ModelProto()
    _copy_fields(model, light, without=("graph",))
    _copy_fields(model.graph, light.graph, without=("initializer",))
    for tensor in tensors(light):
        if _is_large(tensor):
            weights = onnx.TensorProto()
            weights.CopyFrom(tensor)
            tensor.Clear()
            _move(weights, tensor, data, location)
    # Last and one by one, so that the weights never stand in memory a second time.
    for tensor in model.graph.initializer:
        target = light.graph.initializer.add()
        if _is_large(tensor):
            _move(tensor, target, data, location)
        else:
            target.CopyFrom(tensor)
    return light


def _copy_fields(source: Any, target: Any, without: Sequence[str]) -> None:
    for field, value in source.ListFields():
        if field.name not in without:
            assign(target, field.name, value)


def _is_large(tensor: onnx.TensorProto) -> bool:
    return tensor.data_type != onnx.TensorProto.STRING and tensor_bytes(tensor) >= _SMALLEST_EXTERNAL


def _move(tensor: onnx.TensorProto, target: onnx.TensorProto, data: _Sink, location: str) -> None:
    raw = raw_bytes(tensor)
    step = _PAGE if len(raw) >= _PAGE else _LINE
    data.write(bytes(-data.tell() % step))
    for name in ("name", "doc_string", "data_type"):
        if tensor.HasField(name):
            setattr(target, name, getattr(tensor, name))
    target.dims.extend(tensor.dims)
    target.metadata_props.extend(tensor.metadata_props)
    target.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", data.tell()), ("length", len(raw))):
        target.external_data.add(key=key, value=str(value))
    data.write(raw)
