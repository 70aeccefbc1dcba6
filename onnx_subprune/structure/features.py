"""Features of a consumer: how the axis that it contracts is laid out for statistics, and which unit each belongs to.

The axis is blocks x features x inner, row-major. Blocks are the groups of a grouped Conv; inner entries (the spatial
positions of a flattened map) are further positions of one feature, for no unit ends inside them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from onnx_subprune.structure.context import Consumer
from onnx_subprune.structure.dims import Atom, Keeps, keep_mask, unit_index
from onnx_subprune.structure.groups import Structure

__all__ = ["Features", "features_of"]


@dataclass(frozen=True, eq=False)
class Features:
    """The contracted axis of a consumer as [blocks, features, inner]."""

    consumer: Consumer
    blocks: int
    inner: int

    @property
    def count(self) -> int:
        """Number of features of a block."""
        return self.consumer.features.size // (self.blocks * self.inner)

    def units(self, atom: Atom) -> np.ndarray:
        """Return the unit of `atom` that each feature belongs to, -1 for none: int64 [blocks, features]."""
        return self._outer(unit_index(self.consumer.features, atom))

    def kept(self, keeps: Keeps) -> np.ndarray:
        """Return which features stay: bool [blocks, features]."""
        return self._outer(keep_mask(self.consumer.features, keeps))

    def _outer(self, entries: np.ndarray) -> np.ndarray:
        return entries.reshape(self.blocks, self.count, self.inner)[:, :, 0]


def features_of(structure: Structure, consumer: Consumer) -> Features:
    """Return the layout of a consumer's features: trailing factors that belong to no group are inner."""
    grouped = {group.atom for group in structure.groups}
    factors = list(consumer.features.resolve().factors)
    fixed = len(consumer.blocks.resolve().factors)
    inner: list[int] = []
    while len(factors) > fixed + 1 and isinstance(factors[-1], Atom) and factors[-1] not in grouped:
        inner.append(factors.pop().size)
    return Features(consumer, consumer.blocks.size, math.prod(inner))
