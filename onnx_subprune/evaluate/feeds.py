"""Inputs to run models on where there are no real ones, and whether models take the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import onnx
from numpy.typing import NDArray

from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.model import InputSpec, Runtime, input_specs, is_failed_run, run, runtime_reason
from onnx_subprune.model.made_inputs import BETTER_INPUTS, made_inputs, plausible_shapes

__all__ = ["check_same_inputs", "made_up", "random_feeds", "sizes_that_run"]

Array = NDArray[Any]
Shape = tuple[int, ...]


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


def sizes_that_run(
    model: onnx.ModelProto, given: Mapping[str, Sequence[int]] | None = None, runtime: Runtime | None = None
) -> dict[str, Shape]:
    """Return the first plausible shapes of all inputs with which a model runs; the last if it runs with none.

    Args:
        model: whose inputs may have open axes.
        given: shapes by input name, which stay.
        runtime: where it runs.

    Raises:
        OptionError: a shape does not fit its input, or an input holds no numbers.
        ModelError: ONNX Runtime refuses the model.

    """
    specs = input_specs(model)
    candidates = list(plausible_shapes(specs, given))
    if len(candidates) == 1:
        return candidates[0]
    session = (runtime or Runtime()).session(model, optimise=False)
    for shapes in candidates:
        try:
            run(session, random_feeds(specs, shapes))
        except (DataError, ModelError):
            continue
        return shapes
    return candidates[-1]


@contextmanager
def made_up(*, made: bool = True) -> Iterator[None]:
    """Say of inputs that are made up, where a network refuses them, how to give better ones.

    Args:
        made: whether they are; the errors of real inputs stay as they are.

    """
    try:
        yield
    except (DataError, ModelError) as error:
        if not made or not is_failed_run(error):
            raise
        reason = runtime_reason(error)
        raise ModelError(f"the model refuses the inputs made up for it: {reason}; {BETTER_INPUTS}") from error


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
