"""What a linear node multiplies its weight by, at sampled positions: rows of patches [blocks, rows, features].

For a Conv the features of an output position are its im2col patch, taps x channels, with zeros where the kernel stands
on the padding; for a ConvTranspose the inputs that reach the position through each tap, zeros where none does. For Gemm
and MatMul they are the last axis. A least-squares fit on such rows is exact for the layer as it is, borders and strides
included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from onnx_subprune.model import attribute_of
from onnx_subprune.recovery.exact.linear_layers import Linear

__all__ = ["Geometry", "Sample", "geometry_of"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class Sample:
    """Chosen output positions of a batch: rows (sample, position), position row-major over the map."""

    samples: Array
    positions: Array

    @classmethod
    def draw(cls, samples: int, positions: int, most: int, rng: np.random.Generator) -> Sample:
        """Choose `most` positions of each sample, all where there are no more."""
        if positions <= most:
            chosen = np.tile(np.arange(positions), samples)
            return cls(np.repeat(np.arange(samples), positions), chosen)
        drawn = rng.random((samples, positions)).argpartition(most, axis=1)[:, :most]
        return cls(np.repeat(np.arange(samples), most), np.sort(drawn, axis=1).ravel())

    def targets(self, y: Array, blocks: int) -> Array:
        """Return the rows of a map [samples, channels, ...]: [blocks, rows, channels per block]."""
        flat = y.reshape(*y.shape[:2], -1)
        return _blocked(flat[self.samples, :, self.positions], blocks)


@dataclass(frozen=True, eq=False)
class Geometry:
    """Which input position stands at each tap of each output: one table [outputs, taps] an axis, -1 for none.

    A kernel of three taps over three positions, padded by one on both sides:

    >>> geometry = Geometry((np.array([[-1, 0, 1], [0, 1, 2], [1, 2, -1]]),), size=(3,))
    >>> every = Sample.draw(samples=1, positions=geometry.outputs, most=3, rng=np.random.default_rng(0))
    >>> geometry.rows(np.array([[[10, 20, 30]]]), blocks=1, sample=every)
    array([[[ 0, 10, 20],
            [10, 20, 30],
            [20, 30,  0]]])
    """

    tables: tuple[Array, ...]
    size: tuple[int, ...]

    @property
    def outputs(self) -> int:
        """Number of output positions."""
        return math.prod(len(table) for table in self.tables)

    def rows(self, x: Array, blocks: int, sample: Sample) -> Array:
        """Return the patches of a map [samples, channels, ...]: [blocks, rows, taps x channels per block]."""
        taps = self._taps(sample.positions)
        flat = x.reshape(*x.shape[:2], -1)
        if taps.size <= len(x) * flat.shape[2]:
            # No position is read twice on average: a copy of the map by position would be more work.
            rows = flat[sample.samples[:, None], :, taps]
            rows[taps < 0] = 0
        else:
            padded = np.zeros((len(x), flat.shape[2] + 1, flat.shape[1]), x.dtype)
            padded[:, :-1] = flat.transpose(0, 2, 1)
            # Taps of -1 read the last position, which is zero.
            rows = padded[sample.samples[:, None], taps]
        split = rows.reshape(*rows.shape[:2], blocks, -1)
        return split.transpose(2, 0, 1, 3).reshape(blocks, len(rows), -1)

    def _taps(self, positions: Array) -> Array:
        """Return the flat input position at each tap of the given outputs: [rows, taps]."""
        places = np.unravel_index(positions, [len(table) for table in self.tables])
        index = np.zeros((len(positions), 1), np.intp)
        valid = np.ones((len(positions), 1), np.bool_)
        for table, place, size in zip(self.tables, places, self.size, strict=True):
            axis = table[place]
            index = (index[:, :, None] * size + axis[:, None, :]).reshape(len(positions), -1)
            valid = (valid[:, :, None] & (axis >= 0)[:, None, :]).reshape(len(positions), -1)
        return np.where(valid, index, -1)


def geometry_of(linear: Linear, x: Array, y: Array, kernel: tuple[int, ...]) -> Geometry | None:
    """Return the geometry of a Conv or ConvTranspose between two maps; None where its padding is not understood."""
    node, rank = linear.node, x.ndim - 2
    strides = attribute_of(node, "strides", [1] * rank)
    dilations = attribute_of(node, "dilations", [1] * rank)
    transposed = node.op_type == "ConvTranspose"
    tables = []
    for axis in range(rank):
        sizes = (x.shape[2 + axis], y.shape[2 + axis])
        start = _start(linear, axis, sizes, int(strides[axis]), (kernel[axis] - 1) * int(dilations[axis]) + 1)
        if start is None:
            return None
        taps = np.arange(kernel[axis]) * int(dilations[axis])
        outputs = np.arange(sizes[1])[:, None]
        if transposed:
            shifted = outputs + start - taps
            place = np.where(shifted % int(strides[axis]) == 0, shifted // int(strides[axis]), -1)
        else:
            place = outputs * int(strides[axis]) - start + taps
        tables.append(np.where((place >= 0) & (place < sizes[0]), place, -1))
    return Geometry(tuple(tables), tuple(x.shape[2:]))


def _start(linear: Linear, axis: int, sizes: tuple[int, int], stride: int, extent: int) -> int | None:
    """Return the padding before the first entry of an axis."""
    automatic = attribute_of(linear.node, "auto_pad", b"NOTSET").decode()
    transposed = linear.node.op_type == "ConvTranspose"
    if automatic == "VALID":
        return 0
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        if transposed:
            return None
        total = max((sizes[1] - 1) * stride + extent - sizes[0], 0)
        return total // 2 if automatic == "SAME_UPPER" else total - total // 2
    if transposed and attribute_of(linear.node, "output_shape", None) is not None:
        return None
    pads = attribute_of(linear.node, "pads", None)
    return 0 if pads is None else int(pads[axis])


def _blocked(rows: Array, blocks: int) -> Array:
    """[rows, channels] -> [blocks, rows, channels per block]."""
    return rows.reshape(len(rows), blocks, -1).transpose(1, 0, 2)
