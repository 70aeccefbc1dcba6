"""Streams of input dicts: folders of files, Python scripts, data readers and iterables.

Each function returns a callable that opens the stream anew, so that a data set can be passed over several times.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from onnx_subprune.calibration.files import open_npy, open_npz, read_tensor
from onnx_subprune.calibration.layout import Array
from onnx_subprune.errors import DataError, SubpruneError
from onnx_subprune.model import InputSpec

__all__ = ["UNNAMED", "Items", "from_folder", "from_iterable", "from_reader", "from_script"]

Items = Callable[[], Iterable[Mapping[str, Any]]]
_LABELS = "labels"
UNNAMED = "arr_0"
"""The name that numpy.savez gives an array that was given none."""


def from_iterable(source: Iterable[Mapping[str, Any]]) -> Items:
    """Return a stream over `source`; what can be read only once is kept in memory as it is read."""
    return _Kept(source) if isinstance(source, Iterator) else lambda: source


def from_reader(reader: Any) -> Items:
    """Return a stream over an onnxruntime CalibrationDataReader: `get_next()` gives a dict, or None at the end.

    `rewind()` starts each later pass where there is one; otherwise the dicts are kept in memory as they are read.
    """
    if not hasattr(reader, "rewind"):
        return _Kept(iter(reader.get_next, None))
    started = itertools.count()

    def items() -> Iterator[Mapping[str, Any]]:
        if next(started):
            reader.rewind()
        return iter(reader.get_next, None)

    return items


class _Kept:
    """A one-shot iterator, remembered item by item so that it can be read again."""

    def __init__(self, source: Iterable[Mapping[str, Any]]) -> None:
        self._rest = iter(source)
        self._seen: list[Mapping[str, Any]] = []

    def __call__(self) -> Iterator[Mapping[str, Any]]:
        for place in itertools.count():
            if place == len(self._seen):
                try:
                    self._seen.append(next(self._rest))
                except StopIteration:
                    return
            yield self._seen[place]


def from_script(path: Path, function: str) -> Items:
    """Return a stream that calls `function` of the Python file at `path` (Polygraphy's `load_data` convention).

    Raises:
        DataError: the file is missing or fails, or has no such function.

    """
    if not path.is_file():
        raise DataError(f"a Python file expected at '{path}', found none; check the path")
    with _running(path):
        module = _imported(path)
    items = getattr(module, function, None)
    if not callable(items):
        raise DataError(f"a function '{function}' expected in '{path}', found none; define it or name another")

    def guarded() -> Iterator[Mapping[str, Any]]:
        with _running(path):
            yield from items()

    return guarded


@contextmanager
def _running(path: Path) -> Iterator[None]:
    """Turn what the user's file raises, and its wish to exit, into a DataError that names the line."""
    try:
        yield
    except SubpruneError:
        raise
    except (Exception, SystemExit) as error:
        reason = "".join(f": {line}" for line in str(error).splitlines()[:1])
        raised = f"{type(error).__name__}{_line_of(path, error)}{reason}"
        raise DataError(f"'{path}' expected to give dicts of inputs, it raised {raised}; mend the script") from error


def _line_of(path: Path, error: BaseException) -> str:
    """Say where in the user's file an error came up; nothing where it never got there."""
    file = os.path.abspath(path)
    if isinstance(error, SyntaxError) and error.filename == file:
        return f" in line {error.lineno}"
    lines = [line for frame, line in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == file]
    return f" in line {lines[-1]}" if lines else ""


def _imported(path: Path) -> Any:
    """Run the file as a module; no bytecode is written beside it."""
    name = f"onnx_subprune_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickling look their module up by name.
    sys.modules[name] = module
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def from_folder(folder: Path, specs: Sequence[InputSpec], sole: str | None) -> tuple[Items, Array | None]:
    """Return a stream over the files of `folder`, sorted by name, and the labels if there are any.

    Args:
        folder: holds arrays, or ONNX test data sets.
        specs: the inputs of the model.
        sole: the only input that the data must hold, for arrays without a name; None where there are several.

    Raises:
        DataError: the folder holds no data, or files that do not suit the model.

    """
    names = [spec.name for spec in specs]
    sets = sorted((path for path in folder.glob("test_data_set_*") if path.is_dir()), key=_natural)
    if not sets and any(folder.glob("input_*.pb")):
        sets = [folder]
    if sets:
        return (lambda: (_test_data_set(path, names) for path in sets)), None
    files = sorted(path for path in folder.iterdir() if path.suffix in {".npy", ".npz"} and path.stem != _LABELS)
    if not files:
        raise DataError(
            f".npy or .npz files, or test_data_set_* folders, expected in '{folder}', found none; "
            "save the inputs as one of these"
        )
    if sole is None and any(path.suffix == ".npy" for path in files):
        raise DataError(
            f".npz files expected in '{folder}' for a model with {len(specs)} inputs, found .npy; "
            "save a dict of arrays with numpy.savez"
        )
    return (lambda: (_file(path, names, sole) for path in files)), _labels(folder, files, names)


def _natural(path: Path) -> list[int | str]:
    """Sort key under which `x_10` follows `x_9`."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.name)]


def _file(path: Path, inputs: Sequence[str], sole: str | None) -> dict[str, Array]:
    """The arrays of one file by input name, without the labels."""
    if path.suffix == ".npy" and sole is not None:
        return {sole: open_npy(path)}
    arrays = {name: member.load() for name, member in open_npz(path).items() if name != _LABELS or name in inputs}
    if sole is not None and set(arrays) == {UNNAMED}:
        return {sole: arrays[UNNAMED]}
    return arrays


def _labels(folder: Path, files: list[Path], inputs: Sequence[str]) -> Array | None:
    """Labels from `labels.npy`, else from the member `labels` that every .npz file must then hold."""
    if (folder / f"{_LABELS}.npy").exists():
        return open_npy(folder / f"{_LABELS}.npy")
    if _LABELS in inputs:
        return None
    members = {path: open_npz(path).get(_LABELS) for path in files if path.suffix == ".npz"}
    labels = [member for member in members.values() if member is not None]
    if labels and len(labels) != len(files):
        without = next(path for path in files if members.get(path) is None)
        raise DataError(
            f"labels expected in every file of '{folder}', found none in '{without.name}'; add or remove them"
        )
    return np.concatenate([np.atleast_1d(member.load()) for member in labels]) if labels else None


def _test_data_set(folder: Path, names: Sequence[str]) -> dict[str, Array]:
    """One ONNX test data set: `input_<i>.pb` by the name it holds, else the i-th input."""
    feeds: dict[str, Array] = {}
    for place, path in enumerate(sorted(folder.glob("input_*.pb"), key=_natural)):
        name, value = read_tensor(path)
        if name not in names and place < len(names):
            name = names[place]
        feeds[name] = value
    return feeds
