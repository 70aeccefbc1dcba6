"""What one layer is fitted on in one batch: rows of its inputs, and of the parts of its target."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_subprune.calibration import position_weights
from onnx_subprune.recovery.exact.im2col import Sample, geometry_of
from onnx_subprune.recovery.exact.linear_layers import Linear
from onnx_subprune.recovery.exact.shortcuts import Shortcut

__all__ = ["Rows", "Values", "rows_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs x [blocks, rows, features] and parts of the target, each [blocks, rows, outputs].

    `places` says how far into the batch each row lies, 0 to 1, so that rows can be told apart by sample. The squares
    of a row count `weights` times. `total` is the dense sum [blocks, rows, outputs] that the layer's output becomes
    part of, or that output; None where it is not known.
    """

    x: Array
    parts: tuple[Array, ...]
    places: Array
    weights: Array | None = None
    total: Array | None = None

    def chosen(self, mask: Array) -> Rows:
        """Return the rows under a mask."""
        weights = None if self.weights is None else self.weights[mask]
        total = None if self.total is None else self.total[:, mask]
        return Rows(self.x[:, mask], tuple(part[:, mask] for part in self.parts), self.places[mask], weights, total)


@dataclass(frozen=True, eq=False)
class Values:
    """Values of one batch.

    Attributes:
        x: the layer's input.
        y: its target; of layers that read the same, one target each.
        theirs, ours: the shortcut in the dense and in the pruned network.
        samples: number of samples in the batch.

    """

    x: Array
    y: Sequence[Array]
    dense_shortcut: Array | None = None
    pruned_shortcut: Array | None = None
    samples: int = 1


def rows_of(
    linears: Sequence[Linear],
    values: Values,
    shortcut: Shortcut | None,
    shape: tuple[int, ...],
    most: int,
    *,
    normalised: bool,
    rng: np.random.Generator,
    summed: bool = False,
) -> Rows | str:
    """Return what layers that read the same are fitted on, or why they cannot be.

    Args:
        linears: the layers; one where there is a shortcut.
        values: of one batch, cut down to the units that stay.
        shortcut: what the layer's output is added to, if it counts.
        shape: of the first layer's stored weight.
        most: rows for each sample.
        normalised: whether errors count relative to the size of the position.
        rng: draws positions.
        summed: whether `total` is wanted.

    """
    linear, x = linears[0], _plain(values.x)
    targets = [_plain(y) for y in values.y]
    reason = _misfit(linears, x, targets, shape)
    if reason is not None:
        return reason
    y = targets[0] if len(targets) == 1 else np.concatenate(targets, axis=1 if linear.spatial else -1)
    parts, total = _parts(linear, y, values, shortcut)
    summed &= shortcut is None or len(parts) > 1
    limit = most * values.samples
    if linear.spatial:
        geometry = geometry_of(linear, x, y, shape[2:])
        if geometry is None or geometry.outputs != math.prod(y.shape[2:]):
            return "its padding is not understood"
        sample = Sample.draw(len(x), geometry.outputs, -(-limit // max(len(x), 1)), rng)
        places = (sample.samples + sample.positions / max(geometry.outputs, 1)) / max(len(x), 1)
        rows = tuple(sample.targets(part, linear.blocks) for part in parts)
        sums = sample.targets(total, linear.blocks) if summed else None
        return Rows(geometry.rows(x, linear.blocks, sample), rows, places, total=sums)
    rows = tuple(_by_block(linear, part) for part in parts)
    count = rows[0].shape[1]
    weights = position_weights(total) if normalised and not linear.stack else None
    inputs = _by_block(linear, np.broadcast_to(x, (*y.shape[:-1], x.shape[-1])))
    sums = _by_block(linear, total) if summed else None
    whole = Rows(inputs, rows, np.arange(count) / max(count, 1), weights, sums)
    if count <= limit:
        return whole
    mask = np.zeros(count, np.bool_)
    mask[rng.choice(count, limit, replace=False)] = True
    return whole.chosen(mask)


def _parts(linear: Linear, y: Array, values: Values, shortcut: Shortcut | None) -> tuple[list[Array], Array]:
    """Return the layer's own target, after its scale, and the drift of the shortcut; and the dense sum."""
    own = _scaled(linear, y, shortcut)
    beside = [value for value in (values.dense_shortcut, values.pruned_shortcut) if value is not None]
    if shortcut is None or len(beside) < 2 or beside[0].shape != beside[1].shape:
        return [own], own
    dense, pruned = (shortcut.undone(_plain(value), y.shape) for value in beside)
    return ([own], own) if dense is None or pruned is None else ([own, dense - pruned], own + dense)


def _scaled(linear: Linear, y: Array, shortcut: Shortcut | None) -> Array:
    if shortcut is None or shortcut.scale is None:
        return y
    return np.asarray(y * shortcut.scale.astype(y.dtype).reshape(-1, *(1,) * linear.behind))


def _misfit(linears: Sequence[Linear], x: Array, targets: Sequence[Array], shape: tuple[int, ...]) -> str | None:
    """Return the fault in the shapes of an input and of targets, if there is any."""
    linear = linears[0]
    rank, channels = x.ndim, 1 if linear.spatial else -1
    if linear.spatial and rank != linear.rank:
        return f"its input has {rank} axes, its weight {linear.rank}"
    wanted = shape[linear.layout.contracted]
    if linear.node.op_type == "Conv":
        wanted *= linear.blocks
    if rank < 2 or x.shape[channels] != wanted:
        return f"its input of shape {x.shape} does not have {wanted} features"
    for layer, y in zip(linears, targets, strict=True):
        if linear.stack:
            fits = _is_stacked(linear, x, y)
        else:
            around = y.shape[:1] == x.shape[:1] if linear.spatial else y.shape[:-1] == x.shape[:-1]
            fits = y.ndim == rank and y.shape[channels] == layer.outputs and around
        if not fits:
            return f"its target of shape {y.shape} does not fit its input of shape {x.shape}"
    return None


def _plain(values: Array) -> Array:
    """Return half precision as single: sums of products would overflow."""
    return values.astype(np.float32) if values.dtype == np.float16 else values


def _is_stacked(linear: Linear, x: Array, y: Array) -> bool:
    """Whether a target is what a stack of matrices makes of an input, which may be one for all matrices."""
    place = y.ndim - 2 - len(linear.stack)
    if place < 0 or y.shape[place:-2] != linear.stack or y.shape[-1] * linear.blocks != linear.outputs:
        return False
    padded = (1,) * (y.ndim - x.ndim) + x.shape[:-1]
    return x.ndim <= y.ndim and all(size in (1, other) for size, other in zip(padded, y.shape[:-1], strict=True))


def _by_block(linear: Linear, value: Array) -> Array:
    """[..., features] -> [blocks, rows, features]: the axes of a stack are blocks, all others rows."""
    axes = len(linear.stack)
    if axes:
        first = value.ndim - 2 - axes
        value = np.moveaxis(value, range(first, first + axes), range(axes))
    return value.reshape(linear.blocks, math.prod(value.shape[axes:-1]), value.shape[-1])
