"""Multiply-accumulates of Einsum: a product for every combination of its labels."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import onnx

__all__ = ["EinsumCost"]

_Shape = tuple[int, ...]
_ELLIPSIS = "..."


class EinsumCost:
    """Einsum; with one operand it only moves and adds."""

    @staticmethod
    def names(node: onnx.NodeProto) -> tuple[str, ...]:
        """Return the tensors whose shapes are needed."""
        return tuple(node.input) if len(node.input) > 1 else ()

    @staticmethod
    def macs(node: onnx.NodeProto, known: Mapping[str, _Shape]) -> int:
        """Return the product of the sizes of all labels; sizes of 1 that are broadcast count as the size they become.

        >>> node = onnx.helper.make_node("Einsum", ["a", "b"], ["y"], equation="...ij,...jk->...ik")
        >>> EinsumCost.macs(node, {"a": (2, 3, 4), "b": (4, 5)})
        120

        """
        if len(node.input) < 2:
            return 0
        text = next(attribute.s.decode() for attribute in node.attribute if attribute.name == "equation")
        terms = text.replace(" ", "").partition("->")[0].split(",")
        sizes: dict[str | int, int] = {}
        for term, name in zip(terms, node.input, strict=False):
            for label, size in _labelled(term, known[name]):
                sizes[label] = max(size, sizes.get(label, 0))
        return math.prod(sizes.values())


def _labelled(term: str, shape: _Shape) -> Iterator[tuple[str | int, int]]:
    """Yield every label with its size; axes under an ellipsis are counted from its last."""
    before, dots, after = term.partition(_ELLIPSIS)
    hidden = len(shape) - len(before) - len(after) if dots else 0
    yield from zip(before, shape, strict=False)
    yield from ((place - hidden, shape[len(before) + place]) for place in range(hidden))
    yield from zip(after, shape[len(before) + hidden :], strict=False)
