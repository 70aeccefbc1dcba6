"""The shortcut that a layer's output is added to: how far it has drifted is part of what the layer can make up for.

Where z = L(g y) + s, with L a change of layout, g a constant scale of each channel and s computed without the layer,
the pruned network comes closest to the dense z if g y aims at (g y)_dense + L⁻¹(s_dense - s_pruned).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_subprune.model import array_of, attribute_of
from onnx_subprune.recovery.exact.linear_layers import Linear
from onnx_subprune.subspace.clipped_regression import Limits

__all__ = ["Shortcut", "adds_behind", "find_shortcut", "is_normalised", "limits_of"]

Array = np.ndarray[Any, Any]
Readers = Mapping[str, Sequence[onnx.NodeProto]]
Constants = Mapping[str, onnx.TensorProto]

# Operators whose statistics are of each position, over the last axis unless they say otherwise.
_NORMALISATIONS = (
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "LpNormalization",
)
_MEANS = ("ReduceMean", "ReduceSumSquare", "ReduceL2")
_KEEPING = ("Identity", "Dropout")
_LARGEST = float(np.finfo(np.float32).max)
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
        found: list[tuple[int, ...] | None] = [shape]
        for node in self.layout:
            last = found[-1]
            if node.op_type != "Transpose":
                found.append(None)
            else:
                order = attribute_of(node, "perm", None) or range(len(last or ()))[::-1]
                known = last is not None and len(order) == len(last)
                found.append(tuple(last[axis] for axis in order) if known and last is not None else None)
        return found


def find_shortcut(linear: Linear, readers: Readers, reads: Counter[str], constants: Constants) -> Shortcut | None:
    """Return what the output of a layer is added to, if it is added to anything and read by nothing else."""
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
        elif node.op_type not in ("Add", *_KEEPING):
            return None
        shifted |= node.op_type == "Add"
        name = node.output[0]
    return None


def adds_behind(name: str, readers: Readers, reads: Counter[str]) -> Iterator[str]:
    """Yield the sums that a tensor becomes part of, one Add after the other, as long as nothing else reads it."""
    while reads[name] == 1 and len(readers.get(name, ())) == 1 and readers[name][0].op_type == "Add":
        name = readers[name][0].output[0]
        yield name


def _per_channel(linear: Linear, values: Array) -> Array | None:
    """Return a constant that multiplies a layer's output as a value for each channel; None where it varies besides."""
    behind = math.prod(values.shape[values.ndim - linear.behind :]) if linear.behind else 1
    if behind != 1 or linear.behind > values.ndim or values.size not in (1, linear.outputs):
        return None
    if values.size > 1 and values.shape[values.ndim - linear.behind - 1] != values.size:
        return None
    return np.broadcast_to(values.reshape(-1).astype(np.float64), (linear.outputs,))


def is_normalised(name: str, rank: int, readers: Readers, constants: Constants) -> bool:
    """Whether a normalisation over each position reads a tensor: then errors count relative to the position's size."""
    for node in readers.get(name, ()):
        if node.input[0] != name:
            continue
        if _is_over_last(node, rank) or _is_mean_of_last(node, rank, constants):
            return True
        squared = node.op_type == "Pow" or (node.op_type == "Mul" and list(node.input) == [name, name])
        if squared and any(_is_mean_of_last(other, rank, constants) for other in readers.get(node.output[0], ())):
            return True
    return False


def _is_over_last(node: onnx.NodeProto, rank: int) -> bool:
    return node.op_type in _NORMALISATIONS and int(attribute_of(node, "axis", -1)) % rank == rank - 1


def _is_mean_of_last(node: onnx.NodeProto, rank: int, constants: Constants) -> bool:
    """Whether a node takes a mean over the last axis alone."""
    if node.op_type not in _MEANS:
        return False
    axes = attribute_of(node, "axes", None)
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = array_of(constants[node.input[1]]).tolist()
    return axes is not None and [int(axis) % rank for axis in axes] == [rank - 1]


def limits_of(node: onnx.NodeProto, name: str, constants: Constants) -> Limits | None:
    """Return what a Relu or a Clip by constants limits a tensor to; None for any other reader."""
    if node.op_type == "Relu":
        return Limits(0.0, math.inf)
    if (
        node.op_type != "Clip"
        or node.input[0] != name
        or any(each and each not in constants for each in node.input[1:])
    ):
        return None
    given = [float(array_of(constants[each]).item()) if each else None for each in node.input[1:]]
    low, high = (*given, None, None)[:2]
    low = attribute_of(node, "min", -math.inf) if low is None else low
    high = attribute_of(node, "max", math.inf) if high is None else high
    limits = Limits(float(low), float(high))
    # A limit that no number reaches is none.
    bounded = limits.low > -_LARGEST or limits.high < _LARGEST
    return limits if limits.low < limits.high and bounded else None
