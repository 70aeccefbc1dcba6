"""Token ids as windows: from arrays or lists of windows, or one long stream that is cut.

Files hold integers: `.npy` and `.json` the ids alone, `.npz` also other inputs of the model, a row per window. Whatever
else `open_data` reads (a folder, a script) is read as it reads it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onnx_subprune.calibration.datasets import Dataset
from onnx_subprune.calibration.files import open_npy, open_npz
from onnx_subprune.calibration.layout import Array
from onnx_subprune.calibration.ragged import Samples, as_samples
from onnx_subprune.calibration.readers import open_arrays, open_data
from onnx_subprune.calibration.streams import UNNAMED
from onnx_subprune.calibration.token_inputs import token_input
from onnx_subprune.errors import DataError, OptionError
from onnx_subprune.model import InputSpec

__all__ = ["open_tokens"]


def open_tokens(
    source: Any,
    specs: Sequence[InputSpec],
    *,
    window: int | None = None,
    samples: int | None = None,
    seed: int = 0,
) -> Dataset:
    """Open token ids for a language model with inputs `specs`; inputs that follow from the ids may be left out.

    Args:
        source: a file, an array (or lists) of ids [windows, tokens] or [tokens], a dict of arrays, or what `open_data`
            takes.
        specs: the inputs of the model (`onnx_subprune.model.input_specs`).
        window: length of the windows that a stream of ids [tokens] is cut into; the rest is not used.
        samples: how many windows to use, the first of a seeded permutation; None for all.
        seed: of that permutation.

    Raises:
        ModelError: the model takes no token ids.
        DataError: the ids are not integers, negative, too few, or do not fit the model.
        OptionError: a stream without `window`, or a window of less than 2 tokens.

    """
    if window is not None and window < 2:
        raise OptionError(f"a window of at least 2 tokens expected, found {window}; the first has nothing before it")
    ids = token_input(specs)
    arrays, name = _arrays(source)
    if arrays is None:
        return open_data(source, specs, samples=samples, seed=seed)
    if set(arrays) == {UNNAMED}:
        arrays = {ids.name: arrays[UNNAMED]}
    if ids.name in arrays:
        arrays = {**arrays, ids.name: _windows(arrays[ids.name], ids, window, name)}
    return open_arrays(arrays, specs, samples=samples, seed=seed, source=name)


def _arrays(source: Any) -> tuple[dict[str, Samples] | None, str]:
    """Return the arrays by name and what they came from; None for what `open_data` is to read."""
    if isinstance(source, Mapping):
        return {name: as_samples(value, name, "dict") for name, value in source.items()}, "dict"
    if isinstance(source, np.ndarray | list) and not _holds_dicts(source):
        return {UNNAMED: as_samples(source, "ids", type(source).__name__)}, type(source).__name__
    path = Path(source) if isinstance(source, str | os.PathLike) else None
    if path is None or not path.is_file() or path.suffix not in _FILES:
        return None, ""
    return _FILES[path.suffix](path), str(path)


def _holds_dicts(source: Any) -> bool:
    return len(source) > 0 and isinstance(source[0], Mapping)


def _from_npz(path: Path) -> dict[str, Samples]:
    return {name: member.load() for name, member in open_npz(path).items()}


def _from_npy(path: Path) -> dict[str, Samples]:
    return {UNNAMED: open_npy(path)}


def _from_json(path: Path) -> dict[str, Samples]:
    try:
        windows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"'{path}' expected to hold lists of token ids as JSON, found: {error}; save it again"
        ) from error
    return {UNNAMED: as_samples(windows, "ids", str(path))}


_FILES = {".npz": _from_npz, ".npy": _from_npy, ".json": _from_json}


def _windows(column: Samples, ids: InputSpec, window: int | None, source: str) -> Samples:
    """Return the ids as [windows, tokens], or a list of windows of several lengths, in the model's integer type."""
    if not isinstance(column, list):
        return _equal_windows(column, ids, window, source)
    if window is not None:
        raise OptionError(
            f"{source}: one stream of token ids to cut expected with a window of {window}, found windows of several "
            "lengths; leave the window out"
        )
    return [_equal_windows(np.atleast_2d(sample), ids, None, source) for sample in column]


def _equal_windows(array: Array, ids: InputSpec, window: int | None, source: str) -> Array:
    if array.dtype.kind not in "iu":
        raise DataError(
            f"{source}: integer token ids expected for input '{ids.name}', found {array.dtype}; store the ids as "
            "integers"
        )
    if array.ndim == 1:
        array = _cut_windows(array, window, source)
    elif array.ndim == 2 and window not in (None, array.shape[1]):
        raise OptionError(
            f"{source}: one stream of token ids to cut expected with a window of {window}, found windows of "
            f"{array.shape[1]}; leave the window out"
        )
    limit = np.iinfo(ids.dtype).max
    if array.size and (array.min() < 0 or array.max() > limit):
        wrong = array.min() if array.min() < 0 else array.max()
        raise DataError(f"{source}: token ids from 0 to {limit} expected, found {wrong}; mend the ids")
    return array.astype(ids.dtype)


def _cut_windows(stream: Array, window: int | None, source: str) -> Array:
    if window is None:
        raise OptionError(
            f"{source}: a window expected for one stream of {len(stream)} token ids, found none; give --window, for "
            "example 1024"
        )
    count = len(stream) // window
    if not count:
        raise DataError(f"{source}: at least {window} token ids expected, one window, found {len(stream)}; give more")
    return stream[: count * window].reshape(count, window)
