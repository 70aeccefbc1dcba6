"""What one layer is fitted on in one batch: rows of its inputs, and of the parts of its target."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_subprune.model import attribute_of
from onnx_subprune.refit.drift import Shortcut, find_shortcut, is_normalised
from onnx_subprune.refit.linear import Linear
from onnx_subprune.refit.patches import Geometry, Sample, geometry_of

__all__ = ["Rows", "Surroundings", "Values", "rows_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs x [blocks, rows, features] and parts of the target, each [blocks, rows, outputs], rows by sample.

    The squares of a row count `weights` times.
    """

    x: Array
    parts: tuple[Array, ...]
    weights: Array | None = None

    def chosen(self, mask: Array) -> Rows:
        """Return the rows under a mask."""
        weights = None if self.weights is None else self.weights[mask]
        return Rows(self.x[:, mask], tuple(part[:, mask] for part in self.parts), weights)


class Surroundings:
    """Who reads what in a pruned network."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in set(node.input):
                self._readers.setdefault(name, []).append(node)
        self._reads = Counter(name for node in model.graph.node for name in node.input)
        self._reads.update(value.name for value in model.graph.output)
        self._constants = {tensor.name for tensor in model.graph.initializer}

    def shortcut(self, linear: Linear) -> Shortcut | None:
        """Return what the output of a layer is added to."""
        return find_shortcut(linear, self._readers, self._reads, self._constants)

    def normalised(self, linear: Linear, shortcut: Shortcut | None) -> bool:
        """Whether a normalisation reads the output of a layer, or the sum that it ends up in."""
        return is_normalised(linear.output if shortcut is None else shortcut.total, self._readers)


@dataclass(frozen=True, eq=False)
class Values:
    """Values of one batch: the layer's input, its target, and the shortcut in the dense and in the pruned network."""

    x: Array
    y: Array
    theirs: Array | None = None
    ours: Array | None = None


def rows_of(
    linear: Linear,
    values: Values,
    shortcut: Shortcut | None,
    shape: tuple[int, ...],
    most: int,
    *,
    normalised: bool,
    rng: np.random.Generator,
) -> Rows | str:
    """Return what a layer is fitted on, or why it cannot be.

    Args:
        linear: the layer.
        values: of one batch, cut down to the units that stay.
        shortcut: what the layer's output is added to, if it counts.
        shape: of the stored weight.
        most: rows for each sample.
        normalised: whether errors count relative to the size of the position.
        rng: draws positions.

    """
    parts = [values.y]
    total = values.y
    if shortcut is not None and values.theirs is not None and values.ours is not None:
        drift = None
        if values.theirs.shape == values.ours.shape:
            drift = shortcut.undone(values.theirs - values.ours, values.y.shape)
        if drift is not None:
            parts.append(drift)
            total = values.y + shortcut.undone(values.theirs, values.y.shape)
    if linear.spatial:
        geometry = geometry_of(linear, values.x, values.y, shape[2:])
        if geometry is None or geometry.outputs != math.prod(values.y.shape[2:]):
            return "its padding is not understood"
        return _patches(linear, geometry, Sample.draw(len(values.x), geometry.outputs, most, rng), values.x, parts)
    if values.y.shape[:-1] != values.x.shape[:-1] or values.x.shape[-1] != shape[_input_axis(linear)]:
        return f"its input {values.x.shape} does not fit its target {values.y.shape}"
    weights = _inverse_square(total) if normalised else None
    rows = Rows(_flat(values.x), tuple(map(_flat, parts)), weights)
    if rows.x.shape[1] <= most * len(values.x):
        return rows
    mask = np.zeros(rows.x.shape[1], np.bool_)
    mask[rng.choice(len(mask), most * len(values.x), replace=False)] = True
    return rows.chosen(mask)


def _patches(linear: Linear, geometry: Geometry, sample: Sample, x: Array, parts: list[Array]) -> Rows:
    x = geometry.rows(x, linear.blocks, sample)
    return Rows(x, tuple(sample.targets(part, linear.blocks) for part in parts))


def _flat(value: Array) -> Array:
    return value.reshape(1, -1, value.shape[-1])


def _inverse_square(total: Array) -> Array:
    """Return one over the mean square of each position, as a normalisation divides by it: [positions]."""
    squares = np.square(total, dtype=np.float32).reshape(-1, total.shape[-1]).mean(axis=1)
    return np.asarray(1.0 / np.maximum(squares, 1e-6 * squares.mean()))


def _input_axis(linear: Linear) -> int:
    return 1 if linear.node.op_type == "Gemm" and attribute_of(linear.node, "transB", 0) else 0
