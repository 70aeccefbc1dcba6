"""How samples lie in a model's inputs, and whether given arrays fit them.

Three layouts cover the models there are: the first axis of every input is the batch and may have any size; it is the
batch with one size fixed in the model; or the inputs do not share a batch axis there (a scalar, a recurrent state, a
sequence whose batch is another axis by name), and then one sample is one whole set of inputs. Beside inputs whose batch
may have any size, one of shape [] or [1] (a switch, a ratio, a time step) holds a value for a whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

__all__ = ["Array", "Feeds", "Layout", "check_names", "conform", "layout_of", "names_batch"]

Array = NDArray[Any]
Feeds = dict[str, Array]
Shape = tuple[int | str | None, ...]


@dataclass(frozen=True)
class Layout:
    """The inputs of a model and what one sample of them is.

    Attributes:
        specs: the inputs, in the model's order.
        batch: the batch size fixed in the model, or None if any will do.
        whole: True if the inputs share no batch axis: a sample is a whole set of inputs.
        per_run: names of the inputs that hold one value for a run, whatever its number of samples.

    """

    specs: tuple[InputSpec, ...]
    batch: int | None = None
    whole: bool = False
    per_run: frozenset[str] = frozenset()

    @property
    def sampled(self) -> tuple[InputSpec, ...]:
        """The inputs that hold samples."""
        return tuple(spec for spec in self.specs if spec.name not in self.per_run)

    def stacked(self, spec: InputSpec) -> Shape:
        """Shape of an array that holds many samples of `spec`, samples first."""
        return (None, *spec.shape) if self.whole else (None, *spec.shape[1:])

    def fed(self, spec: InputSpec) -> Shape:
        """Shape of an array that is fed to `spec` after regrouping into batches."""
        return spec.shape if self.whole or spec.name in self.per_run else (None, *spec.shape[1:])

    def samples_in(self, feeds: Mapping[str, Array]) -> int:
        """Return how many samples a batch holds: its first axis, or one where the inputs share no batch axis."""
        return 1 if self.whole else len(feeds[self.sampled[0].name])

    def rows_of(self, feeds: Mapping[str, Array], rows: Array | slice) -> Feeds:
        """Return some samples of a batch whose first axis counts them."""
        return {name: array if name in self.per_run else array[rows] for name, array in feeds.items()}


def layout_of(specs: Sequence[InputSpec]) -> Layout:
    """Read the layout off the shapes of the inputs.

    Raises:
        DataError: the model has no inputs to feed.

    """
    specs = tuple(specs)
    if not specs:
        raise DataError("a model with at least one input expected, found none; such a model cannot be calibrated")
    if not all(spec.shape for spec in specs):
        return Layout(specs, whole=True)
    first = {spec.shape[0] for spec in specs}
    elsewhere = {dim for spec in specs for dim in spec.shape[1:] if isinstance(dim, str)}
    if all(not isinstance(dim, int) for dim in first):
        return Layout(specs, whole=bool(first & elsewhere) or (names_batch(elsewhere) and not names_batch(first)))
    if len(first) == 1:
        (size,) = first
        return Layout(specs, batch=size if isinstance(size, int) else None)
    return Layout(specs, whole=True)


def names_batch(dims: Iterable[int | str | None]) -> bool:
    """Whether one of the sizes of axes bears a name that exporters give to the batch."""
    return any(isinstance(dim, str) and ("batch" in dim.lower() or dim in ("N", "B")) for dim in dims)


def check_names(given: Iterable[str], specs: Sequence[InputSpec], source: str) -> None:
    """Raise DataError unless the names are those of the inputs, no more and no fewer."""
    names, wanted = set(given), [spec.name for spec in specs]
    listing = ", ".join(f"'{name}'" for name in wanted)
    if missing := [name for name in wanted if name not in names]:
        others = ", ".join(f"'{name}'" for name in sorted(names - set(wanted))) or "nothing else"
        raise DataError(f"{source}: input '{missing[0]}' expected, found {others}; name the arrays {listing}")
    if unknown := sorted(names - set(wanted)):
        raise DataError(
            f"{source}: the inputs of the model ({listing}) expected, found '{unknown[0]}' too; "
            "remove or rename that array"
        )


def conform(
    feeds: Mapping[str, Any], layout: Layout, shape_of: Callable[[InputSpec], Shape], source: str, first: int = 0
) -> Feeds:
    """Return `feeds` as contiguous arrays of the model's dtypes, in the model's order.

    Args:
        feeds: array-likes by input name.
        layout: of the model.
        shape_of: the shape expected of an array (`Layout.stacked` or `Layout.fed`).
        source: what the arrays came from, for messages.
        first: number of the first sample in `feeds`, for messages.

    Raises:
        DataError: names, ranks, shapes or dtypes do not fit, or a value is NaN or infinite.

    """
    check_names(feeds, layout.specs, source)
    result: Feeds = {}
    for spec in layout.specs:
        array = np.asarray(feeds[spec.name])
        check_array(spec, shape_of(spec), array.shape, array.dtype, source)
        result[spec.name] = converted(array, spec.dtype)
        check_finite(spec, result[spec.name], source, first, rows=not layout.whole and spec.name not in layout.per_run)
    return result


def check_array(spec: InputSpec, expected: Shape, shape: tuple[int, ...], dtype: np.dtype[Any], source: str) -> None:
    """Raise DataError unless an array of this shape and dtype can be fed to `spec`."""
    if len(shape) != len(expected) or any(
        isinstance(want, int) and want != got for want, got in zip(expected, shape, strict=False)
    ):
        raise DataError(
            f"{source}: input '{spec.name}' expected of shape {_text(expected)}, found {_text(shape)}; "
            "reshape the data or the model's input"
        )
    if not castable(dtype, spec.dtype):
        raise DataError(
            f"{source}: input '{spec.name}' expected of dtype {spec.dtype}, found {dtype}; {_advice(dtype, spec)}"
        )


def castable(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """Whether values of one type mean the same in another: float to float, integer to a wider integer, text.

    >>> castable(np.dtype("f8"), np.dtype("f4")), castable(np.dtype("i8"), np.dtype("i4"))
    (True, False)

    """
    if given == wanted or (given.kind in "US" and wanted.kind == "O"):
        return True
    if given.kind == "f" and _is_float(wanted):
        return True
    return given.kind in "iub" and wanted.kind in "iu" and np.can_cast(given, wanted, "safe")


def converted(array: Array, dtype: np.dtype[Any]) -> Array:
    """`array` contiguous and of `dtype`; a float out of range becomes infinite, for `check_finite` to find."""
    with np.errstate(over="ignore"):
        # ascontiguousarray would turn a scalar into a vector.
        return np.asarray(array, dtype=dtype, order="C")


def check_finite(spec: InputSpec, array: Array, source: str, first: int | Array, *, rows: bool = True) -> None:
    """Raise DataError if `array` holds NaN or infinity, naming the sample.

    Args:
        spec: the input.
        array: what would be fed to it.
        source: what it came from.
        first: number of the first sample, or the numbers of all of them.
        rows: whether the first axis counts samples; otherwise the whole array is one sample.

    """
    if not _is_float(array.dtype) or not array.size or np.isfinite(array).all():
        return
    bad = np.argwhere(~np.isfinite(array))[0]
    row = int(bad[0]) if rows and len(bad) else 0
    number = int(first[row]) if isinstance(first, np.ndarray) else first + row
    raise DataError(
        f"{source}: finite values expected for input '{spec.name}', found {array[tuple(bad)]} in sample {number}; "
        f"remove that sample, or mend the values (they are fed as {spec.dtype})"
    )


def _is_float(dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or dtype.name.startswith(("bfloat", "float"))


def _advice(given: np.dtype[Any], spec: InputSpec) -> str:
    if given.kind in "iub" and _is_float(spec.dtype):
        return "scale and normalise it as for inference, then store floats"
    return f"convert it with .astype('{spec.dtype}') where that loses nothing"


def _text(shape: Iterable[int | str | None]) -> str:
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in shape) + "]"
