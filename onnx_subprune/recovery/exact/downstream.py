"""What reads a layer's output: sums it becomes part of, normalisations, and clips."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from onnx_subprune.model import array_of, attribute_of
from onnx_subprune.structure.position_weights import Reader
from onnx_subprune.subspace.clipped_regression import Limits

__all__ = ["adds_behind", "limits_of", "reader_of"]

Readers = Mapping[str, Sequence[onnx.NodeProto]]
Constants = Mapping[str, onnx.TensorProto]

# What reduces over axes, and says over which.
_REDUCING = "Reduce"
_LARGEST = float(np.finfo(np.float32).max)


def adds_behind(name: str, readers: Readers, reads: Counter[str]) -> Iterator[str]:
    """Yield the sums that a tensor becomes part of, one Add after the other, as long as nothing else reads it."""
    while reads[name] == 1 and len(readers.get(name, ())) == 1 and readers[name][0].op_type == "Add":
        name = readers[name][0].output[0]
        yield name


def reader_of(node: onnx.NodeProto, constants: Constants) -> Reader:
    """Return a node as `is_normalised` looks at it."""
    axes = attribute_of(node, "axes", None)
    if axes is None and node.op_type.startswith(_REDUCING) and len(node.input) > 1 and node.input[1] in constants:
        axes = np.ravel(array_of(constants[node.input[1]])).tolist()
    axis = attribute_of(node, "axis", -1)
    given = None if axes is None else [int(value) for value in axes]
    return Reader(node.op_type, list(node.input), node.output[0], int(axis), given)


def limits_of(node: onnx.NodeProto, name: str, constants: Constants) -> Limits | None:
    """Return what a Relu or a Clip by constants limits a tensor to; None for any other reader."""
    if node.op_type == "Relu":
        return Limits(0.0, math.inf)
    inputs = node.input[1:]
    if node.op_type != "Clip" or node.input[0] != name or any(limit and limit not in constants for limit in inputs):
        return None
    given = [float(array_of(constants[limit]).item()) if limit else None for limit in inputs]
    low, high = (*given, None, None)[:2]
    low = attribute_of(node, "min", -math.inf) if low is None else low
    high = attribute_of(node, "max", math.inf) if high is None else high
    limits = Limits(float(low), float(high))
    # A limit that no number reaches is none.
    bounded = limits.low > -_LARGEST or limits.high < _LARGEST
    return limits if limits.low < limits.high and bounded else None
