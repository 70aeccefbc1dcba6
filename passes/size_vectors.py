"""Edits of vectors of sizes that a graph computes, such as the target of a Reshape.

ONNX Runtime's fusions and its static Reshapes know a vector that is put together by a Concat of single sizes, so an
edit is made where an entry comes from: in the part of the Concat, in the number that a size is multiplied by. Only
where an entry comes from elsewhere is it written over with a Where. The old vector stays for those who read it as it
was; readers that want the same of the same vector share the new tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.wiring import fresh_name, place_of, read_values

__all__ = ["Edit", "SizeVectors"]

# A number to write, or what a number that is computed has to be multiplied by.
Edit: TypeAlias = int | Fraction

# They hand a single size on, in another rank.
_HANDED_ON = ("Unsqueeze", "Squeeze", "Reshape", "Identity")


class SizeVectors:
    """Makes edited copies of vectors of sizes.

    Args:
        graph: where they are computed.
        integers: known ones by name, an entry each (`Context.extents`).

    """

    def __init__(self, graph: gs.Graph, integers: Mapping[str, np.ndarray]) -> None:
        self._graph = graph
        self._integers = integers
        self._made: dict[Any, gs.Tensor] = {}

    def edited(self, tensor: gs.Tensor, edits: Mapping[int, Edit]) -> gs.Tensor:
        """Return a vector that is `tensor` but for the entries in `edits`, by their places."""
        key = (tensor.name, tuple(sorted(edits.items())))
        if key not in self._made:
            self._made[key] = self._edited(tensor, edits)
        return self._made[key]

    def _edited(self, tensor: gs.Tensor, edits: Mapping[int, Edit]) -> gs.Tensor:
        shape = self._integers[tensor.name].shape
        numbers = {place: edit for place, edit in edits.items() if not isinstance(edit, Fraction)}
        if len(numbers) == math.prod(shape):
            return self._constant(tensor, shape, numbers)
        lengths = self._lengths(tensor)
        if lengths is not None:
            return self._rewritten_concat(tensor, lengths, edits)
        single = edits.get(0) if math.prod(shape) == 1 else None
        scaled = self._scaled(tensor, single) if isinstance(single, Fraction) else None
        return self._overwritten(tensor, shape, edits) if scaled is None else scaled

    def _lengths(self, tensor: gs.Tensor) -> list[int] | None:
        """Return how many entries each part has of a vector that a Concat makes; None where it is made otherwise."""
        maker = _maker(tensor)
        if maker is None or maker.op != "Concat" or self._integers[tensor.name].ndim != 1:
            return None
        if not all(isinstance(part, gs.Constant) or part.name in self._integers for part in maker.inputs):
            return None
        return [
            int(part.values.size if isinstance(part, gs.Constant) else self._integers[part.name].size)
            for part in maker.inputs
        ]

    def _rewritten_concat(self, tensor: gs.Tensor, lengths: Sequence[int], edits: Mapping[int, Edit]) -> gs.Variable:
        """Make the Concat once more, of the parts as they have to be."""
        concat, parts = tensor.inputs[0], list[gs.Tensor]()
        for part, start, length in zip(concat.inputs, np.cumsum([0, *lengths]), lengths, strict=False):
            within = {at - int(start): edit for at, edit in edits.items() if start <= at < start + length}
            if within:
                parts.append(
                    self._rewritten(part, within) if isinstance(part, gs.Constant) else self.edited(part, within)
                )
            else:
                parts.append(part)
        return self._computed(tensor, "Concat", parts, concat, {"axis": 0})

    def _rewritten(self, constant: gs.Constant, edits: Mapping[int, Edit]) -> gs.Constant:
        """Write numbers over entries of a constant, or multiply them."""
        values = [int(value) for value in constant.values.ravel()]
        for place, edit in edits.items():
            values[place] = int(edit * values[place]) if isinstance(edit, Fraction) else edit
        return self._constant(constant, constant.shape, dict(enumerate(values)))

    def _scaled(self, tensor: gs.Tensor, ratio: Fraction) -> gs.Variable | None:
        """Return a single size times `ratio`, by another number in the Mul that makes it; None where there is none."""
        maker = _maker(tensor)
        if maker is None or maker.domain or tensor.name not in self._integers or self._integers[tensor.name].size != 1:
            return None
        if maker.op in _HANDED_ON and isinstance(maker.inputs[0], gs.Variable):
            within = self._scaled(maker.inputs[0], ratio)
            if within is None:
                return None
            return self._computed(tensor, maker.op, [within, *maker.inputs[1:]], maker, dict(maker.attrs))
        if maker.op != "Mul":
            return None
        for factor, other in (maker.inputs, maker.inputs[::-1]):
            number = read_values(factor)
            if isinstance(factor, gs.Constant) and number is not None and (int(number.item()) * ratio).denominator == 1:
                changed = self._rewritten(factor, {0: ratio})
                return self._computed(tensor, "Mul", [changed, other], maker)
        return None

    def _overwritten(self, tensor: gs.Tensor, shape: tuple[int, ...], edits: Mapping[int, Edit]) -> gs.Tensor:
        """Replace entries whatever they come from: Where(is fixed, fixed value, computed value times a ratio)."""
        dtype = np.int64 if tensor.dtype is None else tensor.dtype
        fixed, chosen = np.zeros(shape, dtype), np.zeros(shape, bool)
        times, over = np.ones(shape, dtype), np.ones(shape, dtype)
        for place, value in edits.items():
            if isinstance(value, Fraction):
                times.ravel()[place], over.ravel()[place] = value.numerator, value.denominator
            else:
                fixed.ravel()[place], chosen.ravel()[place] = value, True
        if (times != 1).any():
            tensor = self._computed(tensor, "Mul", [tensor, times], _maker(tensor))
        if (over != 1).any():
            tensor = self._computed(tensor, "Div", [tensor, over], _maker(tensor))
        if not chosen.any():
            return tensor
        return self._computed(tensor, "Where", [chosen, fixed, tensor], _maker(tensor))

    def _constant(self, like: gs.Tensor, shape: Sequence[int], values: Mapping[int, int]) -> gs.Constant:
        """Return all entries of a vector, in the order of their places."""
        dtype = np.int64 if like.dtype is None else like.dtype
        array = np.array([values[place] for place in range(len(values))], dtype).reshape(shape)
        return gs.Constant(fresh_name(self._graph, f"{like.name}_pruned"), array)

    def _computed(
        self,
        like: gs.Tensor,
        op: str,
        inputs: Sequence[gs.Tensor | np.ndarray],
        behind: gs.Node | None,
        attributes: Mapping[str, Any] | None = None,
    ) -> gs.Variable:
        """Insert a node behind another, or in front of all; the shape and type of what it gives are those of `like`."""
        name = fresh_name(self._graph, f"{like.name}_pruned")
        output = gs.Variable(name, dtype=like.dtype, shape=like.shape)
        operands = [
            gs.Constant(fresh_name(self._graph, f"{name}_{i}"), operand) if isinstance(operand, np.ndarray) else operand
            for i, operand in enumerate(inputs)
        ]
        attrs = dict(attributes or {})
        node = gs.Node(op, name=f"{name}_{op.lower()}", attrs=attrs, inputs=operands, outputs=[output])
        self._graph.nodes.insert(0 if behind is None else place_of(self._graph, behind) + 1, node)
        return output


def _maker(tensor: gs.Tensor) -> gs.Node | None:
    return tensor.inputs[0] if tensor.inputs else None
