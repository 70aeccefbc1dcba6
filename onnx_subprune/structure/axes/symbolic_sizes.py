"""What a model says of sizes known at run time only, and what it leaves in doubt.

Axes that it declares under one name have the same size whenever it runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes.terms import Dim

__all__ = ["Doubt", "Symbols"]

# Exporters write these for a size about which nothing is known.
_ANY_SIZE = {"", "?", "*", "-1", "none", "unknown", "unk", "dynamic"}


@dataclass(frozen=True)
class Doubt:
    """Axes `dim` that are in step if the run-time size `unit` is 1; where that stays open, they freeze."""

    unit: Dim
    dim: Dim
    reason: str


class Symbols:
    """The axis that each declared name stands for, by name and nominal size."""

    def __init__(self) -> None:
        self._axes: dict[tuple[str, int], Dim] = {}

    def claim(self, symbol: object, dim: Dim) -> Dim:
        """Return the axis that a symbol stands for, which is `dim` where it was not met before.

        Args:
            symbol: the declared name of a size; anything that names none leaves `dim` as it is.
            dim: the axis at hand.

        """
        return self._axes.setdefault((str(symbol), dim.size), dim) if _names_a_size(symbol) else dim

    def find(self, tensor: gs.Tensor, axis: int, size: int) -> Dim | None:
        """Return the axis whose symbol a tensor is declared to have; None where there is none.

        Args:
            tensor: of the graph, with the shape that the model declares.
            axis: its position in the shape.
            size: the nominal size there.

        """
        declared = tensor.shape or ()
        return self._axes.get((str(declared[axis]), size)) if axis < len(declared) else None


def _names_a_size(symbol: object) -> bool:
    """Whether a declared size is a name that means the same size everywhere, and not a mark for any size."""
    return isinstance(symbol, str) and symbol.strip().lower() not in _ANY_SIZE
