"""Features that are contracted: how their axis is laid out for statistics, and which unit each belongs to.

The axis is blocks x features x inner, row-major. Blocks are the groups of a grouped Conv; inner entries (the spatial
positions of a flattened map) are further positions of one feature, for no unit ends inside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnx_subprune.structure.context import Consumer, Contraction
from onnx_subprune.structure.dims import ONE, Atom, Dim, Keeps, keep_mask, unit_index
from onnx_subprune.structure.groups import Structure

__all__ = ["Features", "features_of", "sides_of"]


@dataclass(frozen=True, eq=False)
class Features:
    """The axis `axis` of the tensor `source`, with the Dim `dim`, as [blocks, features, inner]."""

    source: str
    axis: int
    dim: Dim
    blocks: int
    inner: int

    @property
    def count(self) -> int:
        """Number of features of a block."""
        return self.dim.size // (self.blocks * self.inner)

    def units(self, atom: Atom) -> np.ndarray:
        """Return the unit of `atom` that each feature belongs to, -1 for none: int64 [blocks, features]."""
        return self._outer(unit_index(self.dim, atom))

    def kept(self, keeps: Keeps) -> np.ndarray:
        """Return which features stay: bool [blocks, features]."""
        return self._outer(keep_mask(self.dim, keeps))

    def _outer(self, entries: np.ndarray) -> np.ndarray:
        return entries.reshape(self.blocks, self.count, self.inner)[:, :, 0]


def features_of(structure: Structure, consumer: Consumer) -> Features:
    """Return the layout of what a consumer reads: trailing factors that belong to no group are inner."""
    inner = _inner(structure, consumer.features, consumer.blocks)
    return Features(consumer.source, consumer.axis, consumer.features, consumer.blocks.size, inner)


def sides_of(structure: Structure, contraction: Contraction) -> tuple[Features, Features]:
    """Return the layouts of the two activations of a contraction; they are the same but for where they lie."""
    inner = _inner(structure, contraction.features, ONE)
    first, second = (Features(name, axis, contraction.features, 1, inner) for name, axis in contraction.sides)
    return first, second


def _inner(structure: Structure, dim: Dim, blocks: Dim) -> int:
    grouped = {group.atom for group in structure.groups}
    factors = list(dim.resolve().factors)
    fixed = len(blocks.resolve().factors)
    inner: list[int] = []
    while len(factors) > fixed + 1 and isinstance(factors[-1], Atom) and factors[-1] not in grouped:
        inner.append(factors.pop().size)
    return math.prod(inner)
