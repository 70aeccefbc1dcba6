"""Sizes of dynamic axes where nobody gives data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from onnx_subprune.errors import OptionError
from onnx_subprune.model import InputSpec
from onnx_subprune.model.made_inputs import made_shapes

__all__ = ["assumed", "batched"]

Shapes = dict[str, tuple[int, ...]]


def assumed(specs: Iterable[InputSpec], given: Mapping[str, Sequence[int]], counted: Shapes | None = None) -> list[str]:
    """Return a warning for each input with a dynamic axis past the first, whose size is only a guess."""
    guessed = {
        spec.name: ",".join(str(dim) if isinstance(dim, int) else "N" for dim in spec.shape)
        for spec in specs
        if spec.name not in given and any(not isinstance(dim, int) for dim in spec.shape[1:])
    }
    return [
        f"input '{name}' has dynamic axes, and {_guess(dims, (counted or {}).get(name))}; "
        f"give --input-shapes {name}:{dims} with sizes for N"
        for name, dims in guessed.items()
    ]


def _guess(dims: str, shape: Sequence[int] | None) -> str:
    """Return in words what the open axes count as."""
    if shape is None or all(size == 1 for dim, size in zip(dims.split(","), shape, strict=True) if dim == "N"):
        return "each counts as 1"
    return f"it counts as {','.join(map(str, shape))}"


def batched(specs: Sequence[InputSpec], given: Mapping[str, Sequence[int]], batch: int | None) -> Shapes:
    """Return the shapes of all inputs with `batch` samples; None leaves the batch axis as it is given.

    Raises:
        OptionError: the model has a fixed batch axis, or the shapes do not fit it.

    """
    shapes = made_shapes(specs, given)
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
