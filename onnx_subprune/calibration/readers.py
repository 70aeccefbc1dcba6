"""Calibration and evaluation data in, from whatever the user holds: `open_data`.

| source                                    | read as                                                       |
|-------------------------------------------|---------------------------------------------------------------|
| `.npz`, `.npy`, a dict of arrays           | arrays: samples on the first axis, `labels` optional          |
| a dict of lists, or of arrays of objects  | a stream, where the samples differ in size                    |
| a folder of `.npy` / `.npz`               | a stream: a file holds one sample or a batch; `labels.npy`    |
| a folder with `test_data_set_*`           | a stream: an ONNX test data set is one batch                  |
| `file.py:function`                        | a stream: the dicts that the function yields                  |
| an object with `get_next()`               | a stream: onnxruntime's CalibrationDataReader, by duck type   |
| a callable or an iterable                 | a stream: the dicts that it yields                            |

Samples of one size run together; those of other sizes run with others of theirs. An array for an input of shape [] or
[1] beside samples holds one value for every run, or one for each sample: samples of one value run together.
Inputs of language models that follow from the token ids may be left out (see `filling`).
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np

from onnx_subprune.calibration.datasets import ArrayDataset, Column, Dataset
from onnx_subprune.calibration.files import Member, open_npy, open_npz
from onnx_subprune.calibration.layout import Array, Layout, check_array, check_names, layout_of
from onnx_subprune.calibration.per_run import data_layout, per_run_values
from onnx_subprune.calibration.ragged import Samples, as_samples, row_items
from onnx_subprune.calibration.stream_datasets import StreamDataset
from onnx_subprune.calibration.streams import UNNAMED, Items, from_folder, from_iterable, from_reader, from_script
from onnx_subprune.calibration.token_inputs import FilledDataset, given_specs, is_fillable
from onnx_subprune.errors import DataError, OptionError
from onnx_subprune.model import InputSpec

__all__ = ["open_arrays", "open_data"]

T = TypeVar("T")
_LABELS = "labels"
_KINDS = "an .npz or .npy file, a folder of them, a folder with test_data_set_*, or file.py:function"


def open_data(source: Any, specs: Sequence[InputSpec], *, samples: int | None = None, seed: int = 0) -> Dataset:
    """Open calibration or evaluation data for a model with inputs `specs`.

    Args:
        source: see the table of this module; paths may be strings.
        specs: the inputs of the model (`onnx_subprune.model.input_specs`).
        samples: how many to use; None for all. Arrays give the first of a seeded permutation, streams the first ones.
        seed: of that permutation.

    Raises:
        DataError: the source is missing or unreadable, or does not fit the model.
        OptionError: `samples` is below 1.

    """
    if samples is not None and samples < 1:
        raise OptionError(f"samples expected to be at least 1, found {samples}; leave it out to use all")
    specs = tuple(specs)
    layout_of(specs)
    if isinstance(source, Mapping):
        return open_arrays(source, specs, samples=samples, seed=seed)
    if isinstance(source, str | os.PathLike):
        return _from_path(os.fspath(source), specs, samples, seed)
    return _stream(_items_of(source), specs, _described(source), samples)


def open_arrays(
    arrays: Mapping[str, Any],
    specs: Sequence[InputSpec],
    *,
    samples: int | None = None,
    seed: int = 0,
    source: str = "dict",
) -> Dataset:
    """Return a data set of arrays by input name, samples first; see `open_data`."""
    kinds = {spec.name: spec.dtype.kind for spec in specs}
    columns = {name: as_samples(array, name, source, text=kinds.get(name) == "O") for name, array in arrays.items()}
    named = _by_input(columns, specs)
    given = given_specs(specs, named)
    whole = {name: column for name, column in named.items() if not isinstance(column, list)}
    dataset = _of_arrays(whole, given, samples, seed, source) if len(whole) == len(named) else None
    dataset = dataset or _of_rows(named, given, samples, seed, source)
    return _completed(dataset, specs, given)


def _of_arrays(
    arrays: Mapping[str, Array], specs: Sequence[InputSpec], samples: int | None, seed: int, source: str
) -> Dataset | None:
    """Return a data set of arrays; None where what holds for a run differs between samples."""
    layout = data_layout(specs, {name: array.shape for name, array in arrays.items()})
    named, labels = _arrays_by_name(arrays, layout, source)
    total = _common_length({spec.name: named[spec.name].shape for spec in layout.sampled}, source)
    values = _values(named, layout, total, source)
    if values is None:
        return None
    rows = _sampled_rows(total, samples, seed)
    columns = {spec.name: Column(named[spec.name], rows) for spec in layout.sampled}
    chosen = _labels_of_rows(labels, rows, total, source)
    return ArrayDataset(columns, layout, source, _numbers(rows, total), chosen, values=values)


def _values(named: Mapping[str, Array], layout: Layout, total: int, source: str) -> dict[str, Array] | None:
    """Return the values of inputs that hold one for every run; None where they differ between samples."""
    values = {}
    for spec in layout.specs:
        if spec.name in layout.per_run:
            values[spec.name] = per_run_values(spec, named[spec.name], total, source)
            if values[spec.name].shape != spec.shape:
                return None
    return values


def _of_rows(
    columns: Mapping[str, Samples], specs: Sequence[InputSpec], samples: int | None, seed: int, source: str
) -> Dataset:
    """Return a data set of samples that are read one by one: of several sizes, or with values per run that differ."""
    layout = data_layout(specs, {name: _sample_shape(column) for name, column in columns.items()}, stacked=False)
    named, labels = _arrays_by_name(columns, layout, source)
    total = _common_length({spec.name: _shape(named[spec.name]) for spec in layout.sampled}, source)
    rows = _sampled_rows(total, samples, seed)
    numbers = _numbers(rows, total)
    chosen = _labels_of_rows(None if labels is None else np.asarray(labels), rows, total, source)
    return StreamDataset(row_items(named, layout.per_run, numbers), layout, source, labels=chosen, numbers=numbers)


def _from_path(text: str, specs: tuple[InputSpec, ...], samples: int | None, seed: int) -> Dataset:
    path = Path(text)
    script, colon, function = text.rpartition(":")
    if colon and script.endswith(".py"):
        return _stream(from_script(Path(script), function), specs, text, samples)
    if not path.exists():
        raise DataError(f"data expected at '{text}', found nothing there; give {_KINDS}")
    if path.is_dir():
        items, labels = from_folder(path, specs, _sole_input(specs))
        return _stream(items, specs, text, samples, labels)
    if path.suffix == ".npz":
        return _of_npz(path, specs, samples, seed)
    if path.suffix == ".npy":
        return open_arrays({UNNAMED: open_npy(path)}, specs, samples=samples, seed=seed, source=text)
    raise DataError(f"data expected as {_KINDS}, found '{text}'; convert it to one of these")


def _stream(
    items: Items, specs: tuple[InputSpec, ...], source: str, samples: int | None, labels: Array | None = None
) -> Dataset:
    """Return a data set over a stream; its first item tells which inputs it holds, and how."""
    shapes = _first_shapes(items) if any(is_fillable(spec) or spec.shape in ((), (1,)) for spec in specs) else {}
    given = given_specs(specs, shapes)
    layout = data_layout(given, shapes, stacked=False)
    return _completed(StreamDataset(items, layout, source, samples, labels), specs, given)


def _first_shapes(items: Items) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of the first item by name."""
    # What is wrong with the source is said when it is read.
    try:
        first = next(iter(items()), None)
        return {name: np.shape(value) for name, value in first.items()} if isinstance(first, Mapping) else {}
    except Exception:
        return {}


def _completed(dataset: Dataset, specs: Sequence[InputSpec], given: Sequence[InputSpec]) -> Dataset:
    return dataset if len(given) == len(specs) else FilledDataset(dataset, specs, given)


def _items_of(source: Any) -> Items:
    if hasattr(source, "get_next"):
        return from_reader(source)
    if callable(source):
        return cast("Items", source)
    if isinstance(source, Iterable) and not isinstance(source, np.ndarray):
        return from_iterable(source)
    raise DataError(
        f"a path, a dict of arrays, a CalibrationDataReader, a callable or an iterable of dicts expected, "
        f"found {type(source).__name__}; wrap it in one of these"
    )


def _described(source: Any) -> str:
    return str(getattr(source, "__name__", None) or type(source).__name__)


def _of_npz(path: Path, specs: tuple[InputSpec, ...], samples: int | None, seed: int) -> Dataset:
    members = _by_input(open_npz(path), specs)
    given = given_specs(specs, members)
    layout = data_layout(given, {name: member.shape for name, member in members.items()})
    dataset = _from_npz(path, members, layout, samples, seed)
    if dataset is None:
        loaded = {name: member.load() for name, member in members.items()}
        return open_arrays(loaded, specs, samples=samples, seed=seed, source=str(path))
    return _completed(dataset, specs, given)


def _from_npz(
    path: Path, members: Mapping[str, Member], layout: Layout, samples: int | None, seed: int
) -> ArrayDataset | None:
    """Return a data set of the members of an archive; None where what holds for a run differs between samples."""
    source = str(path)
    named, labels = _arrays_by_name(members, layout, source)
    for spec in layout.sampled:
        # Before the rows are read: a large array of the wrong shape should fail at once.
        check_array(spec, layout.stacked(spec), named[spec.name].shape, named[spec.name].dtype, source)
    total = _common_length({spec.name: named[spec.name].shape for spec in layout.sampled}, source)
    values = _values({name: named[name].load() for name in layout.per_run}, layout, total, source)
    if values is None:
        return None
    rows = _sampled_rows(total, samples, seed)
    columns = {spec.name: _column(named[spec.name], rows) for spec in layout.sampled}
    chosen = _labels_of_rows(None if labels is None else labels.load(), rows, total, source)
    return ArrayDataset(columns, layout, source, _numbers(rows, total), chosen, values=values)


def _column(member: Member, rows: Array | None) -> Column:
    # What is mapped is read batch by batch; what is compressed is read once, the chosen rows only.
    return Column(member.load(), rows) if member.stored else Column(member.load(rows))


def _by_input(arrays: Mapping[str, T], specs: Sequence[InputSpec]) -> dict[str, T]:
    """Arrays under their names; one that has none is for the only input that cannot be filled in."""
    sole = _sole_input(specs)
    if sole is not None and set(arrays) - {_LABELS} == {UNNAMED}:
        return {sole if name == UNNAMED else name: array for name, array in arrays.items()}
    return dict(arrays)


def _sole_input(specs: Sequence[InputSpec]) -> str | None:
    """Return the only input, or the only one that cannot be filled in; None where there are several."""
    needed = [spec.name for spec in specs if len(specs) == 1 or not is_fillable(spec)]
    return needed[0] if len(needed) == 1 else None


def _arrays_by_name(arrays: Mapping[str, T], layout: Layout, source: str) -> tuple[dict[str, T], T | None]:
    """Arrays by input name, and the labels."""
    named = dict(arrays)
    inputs = {spec.name for spec in layout.specs}
    labels = None if _LABELS in inputs else named.pop(_LABELS, None)
    check_names(named, layout.specs, source)
    return named, labels


def _common_length(shapes: Mapping[str, tuple[int, ...]], source: str) -> int:
    lengths = {name: shape[0] if shape else 0 for name, shape in shapes.items()}
    if len(set(lengths.values())) > 1:
        listing = ", ".join(f"'{name}' {length}" for name, length in lengths.items())
        raise DataError(
            f"{source}: the same number of samples expected in every array, found {listing}; make the first axes equal"
        )
    return next(iter(lengths.values()))


def _shape(column: Samples) -> tuple[int, ...]:
    return (len(column),) if isinstance(column, list) else column.shape


def _sample_shape(column: Samples) -> tuple[int, ...]:
    return column[0].shape if isinstance(column, list) else column.shape[1:]


def _sampled_rows(total: int, samples: int | None, seed: int) -> Array | None:
    if samples is None or samples >= total:
        return None
    return np.random.default_rng(seed).permutation(total)[:samples]


def _numbers(rows: Array | None, total: int) -> Array:
    return np.arange(total) if rows is None else rows


def _labels_of_rows(labels: Array | None, rows: Array | None, total: int, source: str) -> Array | None:
    if labels is None:
        return None
    if labels.shape[:1] != (total,):
        raise DataError(
            f"{source}: a label for each of {total} samples expected, found labels of shape {labels.shape}; "
            "give as many labels as samples"
        )
    return labels if rows is None else labels[rows]
