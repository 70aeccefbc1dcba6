"""The shortcut that a layer's output is added to: how far it has drifted is part of what the layer can make up for.

Where z = L(y) + s, with L a change of layout and s computed without the layer, the pruned network comes closest to the
dense z if y aims at y_dense + L⁻¹(s_dense - s_pruned).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_subprune.model import attribute_of
from onnx_subprune.refit.linear import Linear

__all__ = ["Shortcut", "find_shortcut", "is_normalised"]

Array = np.ndarray[Any, Any]

# What reads a tensor to scale each of its positions by a statistic of that position.
_STATISTICS = (
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "LpNormalization",
    "ReduceMean",
    "ReduceSumSquare",
    "ReduceL2",
    "Pow",
)
_RESHAPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout")


@dataclass(frozen=True)
class Shortcut:
    """The tensor `name` that a layer's output meets, the sum `total`, and the changes of layout between, in order."""

    name: str
    total: str
    layout: tuple[onnx.NodeProto, ...]

    def undone(self, value: Array, shape: tuple[int, ...]) -> Array | None:
        """Return `value`, laid out as at the Add, as the layer's output of shape `shape`; None where that cannot be."""
        for node in reversed(self.layout):
            if node.op_type == "Transpose":
                order = attribute_of(node, "perm", None) or range(value.ndim)[::-1]
                value = value.transpose(np.argsort(order))
        kinds = {node.op_type == "Transpose" for node in self.layout if node.op_type not in ("Identity", "Dropout")}
        if value.size != np.prod(shape, dtype=np.int64) or len(kinds) > 1 or (True in kinds and value.shape != shape):
            # Between Transposes and Reshapes the shapes on the way would be needed; what is broadcast is no shortcut.
            return None
        return value.reshape(shape)


def find_shortcut(
    linear: Linear, readers: Mapping[str, list[onnx.NodeProto]], reads: Counter[str], constants: Collection[str]
) -> Shortcut | None:
    """Return what the output of a layer is added to, if it is added to anything and read by nothing else."""
    name = linear.output
    layout: list[onnx.NodeProto] = []
    while reads[name] == 1 and len(readers.get(name, ())) == 1:
        node = readers[name][0]
        if node.op_type == "Add":
            other = node.input[1 - list(node.input).index(name)]
            if other not in constants:
                return Shortcut(other, node.output[0], tuple(layout))
        elif node.op_type in (*_RESHAPING, "Transpose") and node.input[0] == name:
            layout.append(node)
        else:
            return None
        name = node.output[0]
    return None


def is_normalised(name: str, readers: Mapping[str, list[onnx.NodeProto]]) -> bool:
    """Whether a normalisation over each position reads a tensor: then errors count relative to the position's size."""
    return any(node.op_type in _STATISTICS and node.input[0] == name for node in readers.get(name, ()))
