"""Multiply-accumulates of an Einsum: its operands are multiplied two at a time, the first two first.

A label that one operand has alone, and the output has not, is summed before. If the two then share a label that
nothing after them needs, they are a product of matrices: as many MACs as there are combinations of all their labels.
Otherwise they are multiplied entry by entry, which counts nothing, as it does in a Mul.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import onnx

from onnx_subprune.errors import ModelError

__all__ = ["EinsumCost"]

_Shape = tuple[int, ...]
_Labels = tuple[str, ...]
_DOTS = "..."


class EinsumCost:
    """Einsum of any number of operands, with or without an ellipsis."""

    @staticmethod
    def names(node: onnx.NodeProto) -> tuple[str, ...]:
        """Return the tensors whose shapes are needed."""
        return tuple(node.input)

    @staticmethod
    def macs(node: onnx.NodeProto, known: Mapping[str, _Shape]) -> int:
        """Return the MACs."""
        equation = next((attribute.s.decode() for attribute in node.attribute if attribute.name == "equation"), "")
        return equation_macs(equation, [known[name] for name in node.input])


def equation_macs(equation: str, shapes: Sequence[_Shape]) -> int:
    """Return the MACs of an equation.

    Args:
        equation: as Einsum has it; without an arrow the output has the labels that stand once.
        shapes: of the operands.

    Raises:
        ModelError: the equation does not suit these shapes.

    >>> equation_macs("bik,bkj->bij", [(2, 3, 5), (2, 5, 7)]), equation_macs("ij,ij->ij", [(3, 4), (3, 4)])
    (210, 0)

    """
    text = equation.replace(" ", "")
    left_side, arrow, right_side = text.partition("->")
    operands = left_side.split(",")
    terms = [_labels(term, len(shape)) for term, shape in zip(operands, shapes, strict=False)]
    if len(operands) != len(shapes) or any(map(_is_unlike, terms, shapes)):
        raise ModelError(
            f"an Einsum expected a label for each axis of {len(shapes)} operands, found '{equation}' for shapes "
            f"{', '.join(str(list(shape)) for shape in shapes)}; export the model again"
        )
    output = set(right_side if arrow else (label for label in left_side if left_side.count(label) == 1))
    output |= {label for term in terms for label in term if not label.isalpha()}
    sizes: dict[str, int] = {}
    for term, shape in zip(terms, shapes, strict=True):
        for label, size in zip(term, shape, strict=True):
            # An axis of one entry broadcasts against a longer one.
            sizes[label] = max(size, sizes.get(label, 0))
    total, so_far = 0, set(terms[0])
    for place, term in enumerate(terms[1:], start=2):
        needed = output.union(*terms[place:])
        left, right = so_far & (needed | set(term)), set(term) & (needed | so_far)
        if (left & right) - needed:
            total += math.prod(sizes[label] for label in left | right)
        so_far = (left | right) & needed
    return total


def _is_unlike(term: _Labels, shape: _Shape) -> bool:
    return len(term) != len(shape)


def _labels(term: str, rank: int) -> _Labels:
    """Return a label for every axis of an operand; those under an ellipsis are numbered from their end."""
    before, dots, after = term.partition(_DOTS)
    if not dots:
        return tuple(term)
    hidden = rank - len(before) - len(after)
    return (*before, *(str(number) for number in range(hidden, 0, -1)), *after)
