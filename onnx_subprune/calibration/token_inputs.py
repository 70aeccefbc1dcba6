"""Inputs of language models that data need not hold: what a runtime feeds where there is nothing to say.

A sequence that stands alone and is not padded leaves no choice for these inputs; `n` and `t` are the sizes of the token
ids, [n, t].

| input                 | shape             | value                                                       |
|-----------------------|-------------------|-------------------------------------------------------------|
| `attention_mask`      | [n, t]            | ones                                                        |
| `position_ids`        | [n, t], [1, t], [t] | 0 .. t - 1                                                |
| `token_type_ids`      | [n, t]            | zeros                                                       |
| `past_key_values.*`   | of the model      | empty: n on the batch axis, 0 on the other dynamic axis     |
| `use_cache_branch`    | of the model      | false                                                       |
| `cache_position`      | [t]               | 0 .. t - 1                                                  |
| `seqlens_k`, `past_sequence_length`, `total_seq_len` and their like | [n], [1], [] | t - 1, 0, t        |
"""

from __future__ import annotations

import logging
import re
from collections.abc import Collection, Iterator, Mapping, Sequence

import numpy as np

from onnx_subprune.calibration.datasets import Dataset
from onnx_subprune.calibration.grouping import PlacedBatch
from onnx_subprune.calibration.layout import Array, Feeds
from onnx_subprune.errors import DataError, ModelError
from onnx_subprune.model import InputSpec
from onnx_subprune.model.made_inputs import counted_length, counts_lengths, is_past, known_value

__all__ = ["FilledDataset", "fill", "given_specs", "is_fillable", "token_input"]

_logger = logging.getLogger(__name__)

_TOKENS = "input_ids"
_NAMES = frozenset({"attention_mask", "cache_position", "position_ids", "token_type_ids", "use_cache_branch"})
_COUNTED = re.compile(r"seqlens_k|(past|total)_(seq|sequence)_(len|length)s?")
_Sizes = Mapping[str, int]


def is_fillable(spec: InputSpec) -> bool:
    """Whether the input has a name whose value is known where only token ids are given."""
    return spec.name in _NAMES or is_past(spec.name) or _is_count(spec)


def _is_count(spec: InputSpec) -> bool:
    return _COUNTED.fullmatch(spec.name) is not None and counts_lengths(spec)


def token_input(specs: Sequence[InputSpec]) -> InputSpec:
    """Return the input that takes token ids [n, t]: `input_ids`, or the only one that is not filled in.

    Args:
        specs: the inputs of the model.

    Raises:
        ModelError: there is none.

    """
    rest = [spec for spec in specs if not is_fillable(spec)]
    named = [spec for spec in rest if spec.name == _TOKENS] or (rest if len(rest) == 1 else [])
    if named and named[0].dtype.kind in "iu" and len(named[0].shape) == 2:
        return named[0]
    inputs = ", ".join(f"'{spec.name}' {spec.dtype} {list(spec.shape)}" for spec in specs) or "no inputs"
    raise ModelError(f"an integer input '{_TOKENS}' [batch, sequence] expected, found {inputs}; use another metric")


def given_specs(specs: Sequence[InputSpec], names: Collection[str]) -> tuple[InputSpec, ...]:
    """Return the inputs that data with arrays of these `names` must hold: all, or all but those that are filled in."""
    if _TOKENS not in names or not any(spec.name == _TOKENS for spec in specs):
        return tuple(specs)
    return tuple(spec for spec in specs if spec.name in names or not is_fillable(spec))


def fill(specs: Sequence[InputSpec], feeds: Mapping[str, Array]) -> Feeds:
    """Return `feeds` with the inputs that are missing, in the model's order.

    Raises:
        DataError: an input has a shape for which the value cannot be guessed.

    """
    ids = np.asarray(feeds[_TOKENS])
    sizes = {
        dim: size
        for spec in specs
        if spec.name in feeds
        for dim, size in zip(spec.shape, feeds[spec.name].shape, strict=True)
        if isinstance(dim, str)
    }
    return {spec.name: feeds[spec.name] if spec.name in feeds else _filled(spec, ids, sizes) for spec in specs}


class FilledDataset(Dataset):
    """A data set that lacks inputs of the model, with these filled in batch by batch."""

    def __init__(self, inner: Dataset, specs: Sequence[InputSpec], given: Sequence[InputSpec]) -> None:
        self._inner, self._specs, self._given = inner, tuple(specs), tuple(given)
        self._layout = inner._layout
        self.source, self.samples, self.labels = inner.source, inner.samples, inner.labels
        names = {spec.name for spec in given}
        missing = [spec.name for spec in specs if spec.name not in names]
        # Padded ids would need a mask of their own: whoever gave none should know.
        level = logging.WARNING if "attention_mask" in missing else logging.INFO
        _logger.log(
            level, "%s: not in the data and filled in for whole sequences: %s", self.source, _input_list(missing)
        )

    def placed(self, batch_size: int) -> Iterator[PlacedBatch]:
        """See `Dataset.placed`."""
        for feeds, places in self._inner.placed(batch_size):
            yield PlacedBatch(fill(self._specs, feeds), places)

    def numbers_of(self, places: Array) -> Array:
        """See `Dataset.numbers_of`."""
        return self._inner.numbers_of(places)

    def samples_in(self, feeds: Mapping[str, Array]) -> int:
        """See `Dataset.samples_in`."""
        return self._inner.samples_in({spec.name: feeds[spec.name] for spec in self._given})

    def rows_of(self, feeds: Mapping[str, Array], rows: Array) -> Feeds:
        """See `Dataset.rows_of`."""
        given = self._inner.rows_of({spec.name: feeds[spec.name] for spec in self._given}, rows)
        return fill(self._specs, given)


def _filled(spec: InputSpec, ids: Array, sizes: _Sizes) -> Array:
    value = _value(spec, ids, sizes)
    if value is None or not _shape_fits(value.shape, spec):
        shape = ", ".join("?" if dim is None else str(dim) for dim in spec.shape)
        raise DataError(
            f"input '{spec.name}' of shape [{shape}] cannot be guessed for token ids {list(ids.shape)}; "
            "give it in the data"
        )
    return np.ascontiguousarray(value.astype(spec.dtype)).reshape(value.shape)


def _shape_fits(shape: tuple[int, ...], spec: InputSpec) -> bool:
    pairs = zip(shape, spec.shape, strict=False)
    return len(shape) == len(spec.shape) and all(size == dim or not isinstance(dim, int) for size, dim in pairs)


def _value(spec: InputSpec, ids: Array, sizes: _Sizes) -> Array | None:
    if is_past(spec.name):
        return _empty(spec, ids, sizes)
    shape = ids.shape
    if spec.name == "use_cache_branch":
        shape = tuple(dim if isinstance(dim, int) else 1 for dim in spec.shape)
    elif _is_count(spec):
        shape = tuple(dim if isinstance(dim, int) else len(ids) for dim in spec.shape)
        tokens = InputSpec(_TOKENS, (None, None), ids.dtype)
        return np.full(shape, counted_length(spec, (tokens,), {_TOKENS: ids.shape}))
    elif spec.name == "cache_position":
        shape = ids.shape[-1:]
    elif spec.name == "position_ids":
        # A row of its own for each sequence, unless the model has one row for all.
        rows = () if len(spec.shape) == 1 else (1 if spec.shape[:1] == (1,) else len(ids),)
        shape = (*rows, ids.shape[-1])
    return known_value(spec, shape)


def _empty(spec: InputSpec, ids: Array, sizes: _Sizes) -> Array | None:
    """No past: 0 entries on the one dynamic axis that is not the batch."""
    unknown = -1
    shape = [dim if isinstance(dim, int) else sizes.get(dim or "", unknown) for dim in spec.shape]
    if shape.count(unknown) == 2 and shape[0] == unknown:
        shape[0] = len(ids)
    return np.zeros([max(size, 0) for size in shape]) if shape.count(unknown) == 1 else None


def _input_list(names: Sequence[str]) -> str:
    past = [name for name in names if is_past(name)]
    rest = [name for name in names if name not in past]
    return ", ".join([*rest, *([f"{past[0]} and {len(past) - 1} like it" if past[1:] else past[0]] if past else [])])
