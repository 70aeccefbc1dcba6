"""The shortcut that a layer's output is added to: how far it has drifted is part of what the layer can make up for.

Where z = L(g y) + s, with L a change of layout, g a constant scale of each channel and s computed without the layer,
the pruned network comes closest to the dense z if g y aims at (g y)_dense + L⁻¹(s_dense - s_pruned).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_subprune.model import array_of, attribute_of
from onnx_subprune.recovery.exact.linear_layers import Linear
from onnx_subprune.structure.position_weights import KEEPING

__all__ = ["Shortcut", "find_shortcut"]

Array = np.ndarray[Any, Any]
Readers = Mapping[str, Sequence[onnx.NodeProto]]
Constants = Mapping[str, onnx.TensorProto]

_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze")


@dataclass(frozen=True, eq=False)
class Shortcut:
    """What a layer's output meets.

    Attributes:
        name: of the tensor it is added to.
        total: of the sum.
        layout: changes of layout between the layer and the sum, in order.
        scale: [channels], what the output is multiplied by right behind the layer; None for nothing.
        shifted: whether a constant is added on the way, which the sum holds beside the two.

    """

    name: str
    total: str
    layout: tuple[onnx.NodeProto, ...]
    scale: Array | None = None
    shifted: bool = False

    def undone(self, value: Array, shape: tuple[int, ...]) -> Array | None:
        """Return `value`, laid out as at the Add, as the layer's output of shape `shape`; None where that cannot be."""
        if value.size != math.prod(shape):
            # It is broadcast, and then it is no shortcut.
            return None
        shapes = self._shapes(shape)
        for index in reversed(range(len(self.layout))):
            node, before = self.layout[index], shapes[index]
            if node.op_type != "Transpose":
                if before is None:
                    return None
                value = value.reshape(before)
            else:
                order = attribute_of(node, "perm", None) or range(value.ndim)[::-1]
                if len(order) != value.ndim:
                    return None
                value = value.transpose(np.argsort(order))
        return value if value.shape == shape else None

    def _shapes(self, shape: tuple[int, ...]) -> list[tuple[int, ...] | None]:
        """Return the shape before each change of layout, None for those that a Reshape with computed sizes makes."""
        shapes: list[tuple[int, ...] | None] = [shape]
        for node in self.layout:
            last = shapes[-1]
            if node.op_type != "Transpose":
                shapes.append(None)
            else:
                order = attribute_of(node, "perm", None) or range(len(last or ()))[::-1]
                known = last is not None and len(order) == len(last)
                shapes.append(tuple(last[axis] for axis in order) if known and last is not None else None)
        return shapes


def find_shortcut(linear: Linear, readers: Readers, reads: Counter[str], constants: Constants) -> Shortcut | None:
    """Return what the output of a layer is added to, if it is added to anything and read by nothing else."""
    if linear.stack:
        # Constants on the way would not be one for each channel.
        return None
    name, scale, shifted = linear.output, None, False
    layout: list[onnx.NodeProto] = []
    while reads[name] == 1 and len(readers.get(name, ())) == 1:
        node = readers[name][0]
        other = "" if len(node.input) < 2 else node.input[1 - list(node.input).index(name)]
        if node.op_type == "Add" and other not in constants:
            return Shortcut(other, node.output[0], tuple(layout), scale, shifted)
        if node.op_type == "Mul" and name == linear.output and other in constants:
            scale = _per_channel(linear, array_of(constants[other]))
            if scale is None:
                return None
        elif node.op_type in (*_RESHAPING, "Transpose") and node.input[0] == name:
            layout.append(node)
        elif node.op_type not in ("Add", *KEEPING):
            return None
        shifted |= node.op_type == "Add"
        name = node.output[0]
    return None


def _per_channel(linear: Linear, values: Array) -> Array | None:
    """Return a constant factor of a layer's output, a value for each channel; None where it varies along other axes."""
    behind = math.prod(values.shape[values.ndim - linear.behind :]) if linear.behind else 1
    if behind != 1 or linear.behind > values.ndim or values.size not in (1, linear.outputs):
        return None
    if values.size > 1 and values.shape[values.ndim - linear.behind - 1] != values.size:
        return None
    return np.broadcast_to(values.reshape(-1).astype(np.float64), (linear.outputs,))
