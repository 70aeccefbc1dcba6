"""Sizes of dynamic axes where nobody gives data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onnx_subprune.errors import OptionError
from onnx_subprune.model import InputSpec, concrete_shapes

__all__ = ["assumed", "batched"]

Shapes = dict[str, tuple[int, ...]]


def assumed(specs: Iterable[InputSpec], given: Mapping[str, Sequence[int]]) -> list[str]:
    """Return a warning for each input with a dynamic axis past the first, whose size of 1 is only a guess."""
    guessed = {
        spec.name: ",".join(str(dim) if isinstance(dim, int) else "N" for dim in spec.shape)
        for spec in specs
        if spec.name not in given and any(not isinstance(dim, int) for dim in spec.shape[1:])
    }
    return [
        f"input '{name}' has dynamic axes, and each counts as 1; give --input-shapes {name}:{dims} with sizes for N"
        for name, dims in guessed.items()
    ]


def batched(specs: Sequence[InputSpec], given: Mapping[str, Sequence[int]], batch: int | None) -> Shapes:
    """Return the shapes of all inputs with `batch` samples; None leaves the batch axis as it is given.

    Raises:
        OptionError: the model has a fixed batch axis, or the shapes do not fit it.

    """
    shapes = concrete_shapes(specs, given)
    if batch is None:
        return shapes
    if batch < 1:
        raise OptionError(f"expected a batch of 1 or more, found {batch}; give a positive number")
    dynamic = [spec.name for spec in specs if spec.shape and not isinstance(spec.shape[0], int)]
    fixed = [spec for spec in specs if spec.shape and spec.shape[0] not in (batch, None) and spec.name not in dynamic]
    if fixed:
        raise OptionError(
            f"expected a dynamic first axis to run batches of {batch}, found {fixed[0].shape[0]} in input "
            f"'{fixed[0].name}'; leave --batch out or export the model with a dynamic batch"
        )
    return {name: (batch, *shape[1:]) if name in dynamic else shape for name, shape in shapes.items()}
