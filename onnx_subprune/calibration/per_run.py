"""Inputs that hold one value for a whole run, beside others that hold samples: a switch, a ratio, a time step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from onnx_subprune.calibration.layout import Array, Layout, check_array, check_finite, converted, layout_of, names_batch
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

__all__ = ["data_layout", "per_run_values"]


def data_layout(specs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]], *, stacked: bool = True) -> Layout:
    """Return how samples lie in the inputs, those of shape [] or [1] beside an open batch held to be per run.

    Not where the arrays hold whole sets of inputs instead. An array of all samples then has one axis more than its
    input. Where samples come one by one, the first axis of an input may be anything, as the steps of a sequence: it
    counts samples if its name says so, or if the first sample lacks it.

    Args:
        specs: the inputs of the model that the data holds.
        shapes: of the arrays by name.
        stacked: whether these hold all samples; otherwise they are those of the first sample.

    Raises:
        DataError: the model has no inputs to feed.

    """
    plain = layout_of(specs)
    per_run = frozenset(spec.name for spec in specs if spec.shape in ((), (1,)))
    sampled = tuple(spec for spec in specs if spec.name not in per_run)
    if not per_run or not sampled:
        return plain
    layout = layout_of(sampled)
    if layout.whole or layout.batch is not None or not _counts_samples(sampled, shapes, stacked=stacked):
        return plain
    return replace(layout, specs=plain.specs, per_run=per_run)


def _counts_samples(specs: Sequence[InputSpec], shapes: Mapping[str, tuple[int, ...]], *, stacked: bool) -> bool:
    """Whether the first axis of the inputs counts samples, as far as the shapes of arrays tell."""
    axes = [len(shapes[spec.name]) - len(spec.shape) for spec in specs if spec.name in shapes]
    if len(axes) < len(specs):
        return False
    if stacked:
        return not any(axes)
    return set(axes) == {-1} or (not any(axes) and all(names_batch(spec.shape[:1]) for spec in specs))


def per_run_values(spec: InputSpec, array: Array, samples: int, source: str) -> Array:
    """Return the values of an input that holds one for a run: [] or [1] for all samples alike, else a row for each.

    Args:
        spec: of the input, [] or [1].
        array: one value, or one for each sample.
        samples: how many there are.
        source: of the array, for messages.

    Returns:
        An array of the input's own shape, or one with `samples` rows of that shape where the values differ.

    Raises:
        DataError: the number of values is neither one nor that of the samples, or they do not suit the input.

    """
    if array.size not in (1, samples):
        raise DataError(
            f"{source}: one value for input '{spec.name}' expected, or one for each of {samples} samples, found "
            f"{array.size}; give as many values as samples"
        )
    values = array.reshape(-1, *spec.shape)
    check_array(spec, (None, *spec.shape), values.shape, values.dtype, source)
    result = converted(values, spec.dtype)
    check_finite(spec, result, source, 0)
    return result if (result != result[:1]).any() else result[0]
