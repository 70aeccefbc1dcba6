"""Inputs to time models on where there are no real ones, and whether models take the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import onnx
from numpy.typing import NDArray

from onnx_subprune.errors import OptionError
from onnx_subprune.model import InputSpec, input_specs
from onnx_subprune.model.made_inputs import made_inputs

__all__ = ["check_same_inputs", "random_feeds"]

Array = NDArray[Any]


def random_feeds(specs: Sequence[InputSpec], shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, Array]:
    """Return inputs of the given shapes: standard normal floats, integers 0 and 1; masks and their like by name.

    Args:
        specs: of the model's inputs.
        shapes: by input.
        seed: of the values.

    Raises:
        OptionError: an input has no shape, or a dtype that random values do not suit.

    """
    return made_inputs(specs, shapes, seed)


def check_same_inputs(models: Sequence[onnx.ModelProto], feeds: Mapping[str, Array]) -> None:
    """Raise OptionError unless all models take the same inputs and `feeds` holds exactly those."""
    reference = {spec.name: spec for spec in input_specs(models[0])}
    for number, model in enumerate(models[1:], start=2):
        other = {spec.name: spec for spec in input_specs(model)}
        if different := [name for name in reference | other if not _compatible(reference.get(name), other.get(name))]:
            name = different[0]
            raise OptionError(
                f"model {number} expected to take the inputs of the first, found {_words(other.get(name))} where that "
                f"has {_words(reference.get(name))}; compare models with equal inputs"
            )
    if odd := sorted(reference.keys() ^ feeds.keys()):
        raise OptionError(f"feeds for {sorted(reference)} expected, '{odd[0]}' is missing or unknown; name every input")


def _compatible(reference: InputSpec | None, other: InputSpec | None) -> bool:
    """Return whether two inputs have the same dtype and rank and no axis of two fixed sizes; symbols may differ."""
    if reference is None or other is None or (reference.dtype, len(reference.shape)) != (other.dtype, len(other.shape)):
        return False
    pairs = zip(reference.shape, other.shape, strict=True)
    return all(a == b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def _words(spec: InputSpec | None) -> str:
    return "nothing" if spec is None else f"'{spec.name}' {spec.dtype} {list(spec.shape)}"
