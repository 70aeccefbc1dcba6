"""Write Einsum as Transpose, Reshape, MatMul and Mul: the spelling that the rules of structure/ know.

The labels of a product of two tensors fall into four kinds: B in both and in the output, M in the left and the output,
N in the right and the output, K in both only. With no K it is a Mul; otherwise

    left [B, M, K] x right [B, K, N] -> [B, M, N]

is a MatMul, where several K are merged to one axis, several M stay axes that the right side is broadcast over, and
several N are merged where the right side is a constant and else treated as M are. A label that one tensor has alone,
and the output has not, is summed before. ONNX Runtime does the same inside its Einsum, at the same cost.

Left as they are: equations with a diagonal or with more than two tensors, tensors of unknown rank under an ellipsis,
sizes that broadcast, two constants, and element types other than floats.
"""

from __future__ import annotations

import math
import string
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.model import constant_values
from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import drop_nodes, fresh_name, place_of, read_values

__all__ = ["ExpandEinsum"]

_AXES_ARE_AN_INPUT = 13
_MOST_OPERANDS = 2


class ExpandEinsum(Pass):
    """Rewrite the Einsum nodes of the graph, not those in bodies.

    Args:
        overridable: initializers that are graph inputs too (`overridable_initializers`); they are not constant.

    """

    def __init__(self, overridable: Collection[str] = ()) -> None:
        self._overridable = frozenset(overridable)

    def run(self, graph: gs.Graph) -> bool:
        """Expand what can be, node by node."""
        expanded = []
        for node in [node for node in graph.nodes if node.op == "Einsum" and not node.domain]:
            equation = _parse(node)
            if equation is not None:
                _Expansion(graph, node, self._overridable).write(equation)
                expanded.append(node)
        drop_nodes(graph, expanded)
        return bool(expanded)


@dataclass(frozen=True)
class _Equation:
    """Labels of the operands and of the output, a character each; the ellipsis is spelt out."""

    operands: tuple[str, ...]
    output: str


def _parse(node: gs.Node) -> _Equation | None:
    """Return the equation of a node, or None where it stays an Einsum."""
    text = str(node.attrs["equation"]).replace(" ", "")
    operands, arrow, output = text.partition("->")
    terms = operands.split(",")
    if len(terms) > _MOST_OPERANDS or len(terms) != len(node.inputs) or not _are_floats(node.inputs):
        return None
    if not arrow:
        once = sorted(label for label in set(operands) - set(",.") if operands.count(label) == 1)
        output = ("..." if "..." in operands else "") + "".join(once)
    dots = _ellipsis(terms, node.inputs)
    if dots is None:
        return None
    equation = _Equation(tuple(term.replace("...", dots) for term in terms), output.replace("...", dots))
    return equation if _is_plain(equation, node.inputs) else None


def _ellipsis(terms: Sequence[str], tensors: Sequence[gs.Tensor]) -> str | None:
    """Return labels for the axes that an ellipsis stands for; None where it is not as long in every term that has it.

    Axes of ellipses of different lengths broadcast.
    """
    pairs = [(term, tensor) for term, tensor in zip(terms, tensors, strict=True) if "..." in term]
    if not pairs:
        return ""
    counts = {None if tensor.shape is None else len(tensor.shape) - len(term) + 3 for term, tensor in pairs}
    count = counts.pop() if len(counts) == 1 else None
    free = [label for label in string.ascii_letters if all(label not in term for term in terms)]
    return None if count is None or count > len(free) else "".join(free[:count])


def _are_floats(tensors: Sequence[gs.Tensor]) -> bool:
    known = [tensor.dtype is None or np.dtype(tensor.dtype).kind == "f" for tensor in tensors]
    return all(known) and not all(isinstance(tensor, gs.Constant) for tensor in tensors)


def _is_plain(equation: _Equation, tensors: Sequence[gs.Tensor]) -> bool:
    """Whether no label stands twice in a term, and no label has two sizes."""
    if any(len(set(term)) < len(term) for term in (*equation.operands, equation.output)):
        return False
    sizes: dict[str, set[int | str | None]] = {}
    for term, tensor in zip(equation.operands, tensors, strict=True):
        if tensor.shape is not None and len(tensor.shape) != len(term):
            return False
        for label, size in zip(term, tensor.shape or (), strict=False):
            sizes.setdefault(label, set()).add(size)
    # An axis of one entry may broadcast against one whose size is known at run time only.
    return all(len(seen) == 1 or 1 not in seen for seen in sizes.values()) and all(
        len({size for size in seen if isinstance(size, int)}) <= 1 for seen in sizes.values()
    )


@dataclass(frozen=True)
class _Value:
    """A tensor on its way, and the label of each axis; "1" is an axis of one entry."""

    tensor: gs.Tensor
    labels: str

    @property
    def sizes(self) -> dict[str, int]:
        """How long each axis of a constant is."""
        assert isinstance(self.tensor, gs.Constant)
        return dict(zip(self.labels, self.tensor.shape, strict=True))


class _Expansion:
    """The nodes that take the place of one Einsum."""

    def __init__(self, graph: gs.Graph, node: gs.Node, overridable: Collection[str]) -> None:
        self._graph = graph
        self._node = node
        self._overridable = overridable
        self._made: list[gs.Node] = []

    def write(self, equation: _Equation) -> None:
        """Insert the nodes before the Einsum, and let the last of them write its output."""
        values = [_Value(tensor, term) for tensor, term in zip(self._node.inputs, equation.operands, strict=True)]
        others = [set(equation.output).union(*(v.labels for v in values if v is not value)) for value in values]
        values = [self._summed(value, needed) for value, needed in zip(values, others, strict=True)]
        result = values[0] if len(values) == 1 else self._product(values[0], values[1], equation.output)
        result = self._transposed(result, equation.output)
        if not self._made:
            self._add("Identity", result.tensor)
        self._finish()

    def _finish(self) -> None:
        output = self._node.outputs[0]
        self._node.outputs.clear()
        self._made[-1].outputs = [output]
        place = place_of(self._graph, self._node)
        self._graph.nodes[place:place] = self._made

    def _product(self, left: _Value, right: _Value, output: str) -> _Value:
        if self._is_constant(left.tensor):
            left, right = right, left
        both = [label for label in left.labels if label in right.labels]
        if all(label in output for label in both):
            return self._elementwise(left, right, output)
        batch = "".join(label for label in output if label in both)
        kinds = {
            "M": "".join(label for label in output if label in left.labels and label not in both),
            "N": "".join(label for label in output if label in right.labels and label not in both),
            "K": "".join(label for label in both if label not in output),
        }
        return self._matrices(left, right, batch, kinds)

    def _elementwise(self, left: _Value, right: _Value, output: str) -> _Value:
        sides = [self._aligned(value, output) for value in (left, right)]
        return _Value(self._add("Mul", *sides), output)

    def _aligned(self, value: _Value, output: str) -> gs.Tensor:
        """Return a value with the axes of the output, of one entry where it has not the label."""
        ordered = self._transposed(value, "".join(label for label in output if label in value.labels))
        missing = [axis for axis, label in enumerate(output) if label not in value.labels]
        return self._unsqueezed(ordered.tensor, missing)

    def _matrices(self, left: _Value, right: _Value, batch: str, kinds: dict[str, str]) -> _Value:
        rows, columns, inner = kinds["M"], kinds["N"], kinds["K"]
        if self._is_constant(right.tensor):
            return self._by_constant(left, right, batch, kinds)
        # All rows and columns but the last count as batch axes, in which the other side has one entry.
        a = self._merged(self._transposed(left, batch + rows + inner), len(inner))
        b = self._merged(self._transposed(right, batch + columns + inner), len(inner))
        first = len(batch)
        apart, more = max(0, len(rows) - 1), max(0, len(columns) - 1)
        x = self._unsqueezed(a, [*range(first + apart, first + apart + more), *([first + apart + more] * (not rows))])
        y = self._unsqueezed(b, [*range(first, first + apart), *([first + apart + more] * (not columns))])
        rank = first + apart + more + 2
        turned = self._add("Transpose", y, perm=[*range(rank - 2), rank - 1, rank - 2])
        labels = batch + rows[:-1] + columns[:-1] + (rows[-1:] or "1") + (columns[-1:] or "1")
        return self._squeezed(_Value(self._add("MatMul", x, turned), labels))

    def _by_constant(self, left: _Value, right: _Value, batch: str, kinds: dict[str, str]) -> _Value:
        rows, columns, inner = kinds["M"], kinds["N"], kinds["K"]
        x = self._merged(self._transposed(left, batch + rows + inner), len(inner))
        x = x if rows else self._unsqueezed(x, [len(batch)])
        sizes = right.sizes
        # Rows are axes of the left side alone: a stack of matrices has one entry in all but the last of them.
        apart = [1] * (len(rows) - 1) if batch else []
        merged = [math.prod(sizes[label] for label in part) for part in (inner, columns)]
        shape = [*(sizes[label] for label in batch), *apart, *merged]
        product = self._add("MatMul", x, self._rearranged(right, batch + inner + columns, shape))
        rows = rows or "1"
        if len(columns) > 1:
            target = [0] * len(batch + rows) + [sizes[label] for label in columns]
            product = self._add("Reshape", product, self._integers(target))
        return self._squeezed(_Value(product, batch + rows + (columns or "1")))

    def _summed(self, value: _Value, needed: Collection[str]) -> _Value:
        """Sum over the labels that nothing else has."""
        axes = [axis for axis, label in enumerate(value.labels) if label not in needed]
        if not axes:
            return value
        kept = "".join(label for label in value.labels if label in needed)
        return _Value(self._with_axes("ReduceSum", value.tensor, axes, keepdims=0), kept)

    def _transposed(self, value: _Value, labels: str) -> _Value:
        if value.labels == labels:
            return value
        if self._is_constant(value.tensor):
            sizes = value.sizes
            return _Value(self._rearranged(value, labels, [sizes[label] for label in labels]), labels)
        perm = [value.labels.index(label) for label in labels]
        return _Value(self._add("Transpose", value.tensor, perm=perm), labels)

    def _merged(self, value: _Value, last: int) -> gs.Tensor:
        """Merge the last axes to one."""
        if last == 1:
            return value.tensor
        return self._add("Reshape", value.tensor, self._integers([0] * (len(value.labels) - last) + [-1]))

    def _unsqueezed(self, tensor: gs.Tensor, axes: Sequence[int]) -> gs.Tensor:
        return self._with_axes("Unsqueeze", tensor, axes) if axes else tensor

    def _squeezed(self, value: _Value) -> _Value:
        axes = [axis for axis, label in enumerate(value.labels) if label == "1"]
        if not axes:
            return value
        return _Value(self._with_axes("Squeeze", value.tensor, axes), value.labels.replace("1", ""))

    def _rearranged(self, value: _Value, labels: str, shape: Sequence[int]) -> gs.Constant:
        """Return a constant with its axes in another order and merged to `shape`."""
        assert isinstance(value.tensor, gs.Constant)
        values = constant_values(value.tensor)
        perm = [value.labels.index(label) for label in labels]
        if perm == sorted(perm) and list(shape) == list(value.tensor.shape):
            return value.tensor
        spelt = "".join(map(str, perm)) + "x" + "x".join(map(str, shape))
        name = f"{value.tensor.name}_einsum_{spelt}"
        known = self._graph.tensors().get(name)
        if isinstance(known, gs.Constant):
            return known
        return gs.Constant(name, np.ascontiguousarray(np.transpose(values, perm).reshape(shape)))

    def _with_axes(self, op: str, tensor: gs.Tensor, axes: Sequence[int], **attributes: int) -> gs.Tensor:
        if self._graph.opset < _AXES_ARE_AN_INPUT:
            return self._add(op, tensor, axes=list(axes), **attributes)
        return self._add(op, tensor, self._integers(axes), **attributes)

    def _integers(self, values: Sequence[int]) -> gs.Constant:
        return gs.Constant(self._fresh("shape"), np.array(values, np.int64))

    def _add(self, op: str, *inputs: gs.Tensor, **attributes: Any) -> gs.Tensor:
        name = self._fresh(op.lower())
        output = gs.Variable(name, dtype=self._node.outputs[0].dtype)
        node = gs.Node(op, name=name, attrs=attributes, inputs=list(inputs), outputs=[output])
        self._made.append(node)
        return output

    def _fresh(self, what: str) -> str:
        return fresh_name(self._graph, f"{self._node.name}_{what}")

    def _is_constant(self, tensor: gs.Tensor) -> bool:
        return tensor.name not in self._overridable and read_values(tensor) is not None
