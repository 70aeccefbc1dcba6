"""Inputs that hold one value for a whole run, beside others that hold samples: a switch, a ratio, a time step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from onnx_subprune.calibration.datasets import Dataset
from onnx_subprune.calibration.layout import Array, Feeds, check_array, check_finite, converted, layout_of
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

__all__ = ["PerRunDataset", "per_run_specs", "per_run_value"]


def per_run_specs(specs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]]) -> tuple[InputSpec, ...]:
    """Return the inputs of shape [] or [1] beside inputs whose first axis is an open batch.

    None where arrays of these shapes hold whole sets of inputs instead: one axis more than the inputs have.

    Args:
        specs: the inputs of the model that the data holds.
        shapes: of the arrays, by name.

    """
    single = tuple(spec for spec in specs if spec.shape in ((), (1,)))
    sampled = [spec for spec in specs if spec not in single]
    if not single or not sampled or any(spec.name not in shapes for spec in specs):
        return ()
    layout = layout_of(sampled)
    if layout.whole or layout.batch is not None:
        return ()
    return single if all(len(shapes[spec.name]) == len(spec.shape) for spec in sampled) else ()


def per_run_value(spec: InputSpec, array: Array, source: str) -> Array:
    """Return the value of an input for every run, from one value or from equal ones for all samples.

    Args:
        spec: of the input, [] or [1].
        array: one value, or one for each sample.
        source: of the array, for messages.

    Raises:
        DataError: the values differ, or do not suit the input.

    """
    values = array.reshape(-1)
    if not values.size or (values != values[0]).any():
        raise DataError(
            f"{source}: one value for all samples expected for input '{spec.name}', found {len(np.unique(values))}; "
            "give a file for each value"
        )
    value = values[0].reshape(spec.shape)
    check_array(spec, spec.shape, value.shape, value.dtype, source)
    result = converted(value, spec.dtype)
    check_finite(spec, result, source, 0, rows=False)
    return result


class PerRunDataset(Dataset):
    """A data set of the inputs that hold samples, with the others added to every batch.

    Args:
        inner: the samples.
        specs: all inputs that the data holds, in the model's order.
        values: of the others, by name.

    """

    def __init__(self, inner: Dataset, specs: Sequence[InputSpec], values: Mapping[str, Array]) -> None:
        self._inner, self._specs, self._values = inner, tuple(specs), dict(values)
        self._layout = inner._layout
        self.source, self.samples, self.labels = inner.source, inner.samples, inner.labels

    def batches(self, batch_size: int) -> Iterator[Feeds]:
        """See `Dataset.batches`."""
        for feeds in self._inner.batches(batch_size):
            yield self._joined(feeds)

    def samples_in(self, feeds: Mapping[str, Array]) -> int:
        """See `Dataset.samples_in`."""
        return self._inner.samples_in(self._sampled(feeds))

    def rows_of(self, feeds: Mapping[str, Array], rows: Array) -> Feeds:
        """See `Dataset.rows_of`."""
        return self._joined(self._inner.rows_of(self._sampled(feeds), rows))

    def _sampled(self, feeds: Mapping[str, Array]) -> Feeds:
        return {name: array for name, array in feeds.items() if name not in self._values}

    def _joined(self, feeds: Mapping[str, Array]) -> Feeds:
        merged = {**feeds, **self._values}
        return {spec.name: merged[spec.name] for spec in self._specs}
