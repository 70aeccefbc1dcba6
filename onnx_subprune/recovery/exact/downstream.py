"""What reads a layer's output: sums it becomes part of, normalisations, and clips."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx

from onnx_subprune.model import array_of, attribute_of
from onnx_subprune.subspace.clipped_regression import Limits

__all__ = ["adds_behind", "is_normalised", "limits_of"]

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
_LARGEST = float(np.finfo(np.float32).max)


def adds_behind(name: str, readers: Readers, reads: Counter[str]) -> Iterator[str]:
    """Yield the sums that a tensor becomes part of, one Add after the other, as long as nothing else reads it."""
    while reads[name] == 1 and len(readers.get(name, ())) == 1 and readers[name][0].op_type == "Add":
        name = readers[name][0].output[0]
        yield name


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
