"""Features that are contracted: how their axis is laid out for statistics, and which unit each belongs to.

The axis is blocks x outer x features x inner, row-major. Blocks are the groups of a grouped Conv. Inner and outer
entries (the spatial positions of a flattened map, channels first or channels last) are further positions of the
features, for no group has a say in them; where there are blocks, outer is 1. Entries that are set apart (the two
directions of a recurrent layer) are features of their own. The blocks may also be axes of their own (the experts of a
batched matrix product); they are moved before the axis of the features.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from onnx_subprune.structure.axes import ONE, Atom, Dim, Keeps, keep_mask, unit_index
from onnx_subprune.structure.groups import Structure
from onnx_subprune.structure.normalisations import Normalisation
from onnx_subprune.structure.position_weights import normalised_sum
from onnx_subprune.structure.records import Consumer, Contraction

__all__ = ["Features", "features_of", "normalised_features", "sides_of"]


@dataclass(frozen=True, eq=False)
class Features:
    """An axis that is contracted, as [blocks, outer, features, inner].

    Attributes:
        source: name of the tensor.
        axis: its axis.
        dim: of the axis; where the blocks lie on axes of their own, the product of these and the axis.
        blocks: parts that are contracted apart.
        outer: positions before the features.
        inner: positions behind them.
        stack: the axes of the blocks, where they have some of their own.
        relative: a tensor to whose size at their position errors in what reads the features are relative; None where
            they count as they are.

    """

    source: str
    axis: int
    dim: Dim
    blocks: int
    outer: int
    inner: int
    stack: tuple[int, ...] = ()
    relative: str | None = None

    @property
    def count(self) -> int:
        """Number of features of a block."""
        return self.dim.size // (self.blocks * self.outer * self.inner)

    def units(self, atom: Atom) -> np.ndarray:
        """Return the unit of `atom` that each feature belongs to: int64 [blocks, features], -1 for none.

        Args:
            atom: an index set of units, which may have no part in this axis.

        """
        return self._outer(unit_index(self.dim, atom))

    def kept(self, keeps: Keeps) -> np.ndarray:
        """Return which features stay: bool [blocks, features].

        Args:
            keeps: for each Atom that loses units, bool [size].

        """
        return self._outer(keep_mask(self.dim, keeps))

    def _outer(self, entries: np.ndarray) -> np.ndarray:
        return entries.reshape(self.blocks, self.outer, self.count, self.inner)[:, 0, :, 0]


def features_of(structure: Structure, consumer: Consumer) -> Features:
    """Return the layout of what a consumer reads: factors at either end that belong to no group are positions.

    Args:
        structure: of the graph.
        consumer: one of its consumers.

    """
    outer, inner = _positions(structure, consumer.features, consumer.blocks)
    blocks = consumer.blocks.size
    relative = normalised_sum(structure, consumer) if outer * inner == 1 else None
    return Features(consumer.source, consumer.axis, consumer.features, blocks, outer, inner, consumer.stack, relative)


def sides_of(structure: Structure, contraction: Contraction) -> tuple[Features, Features]:
    """Return the layouts of the two activations of a contraction; they are the same but for where they lie.

    Args:
        structure: of the graph.
        contraction: one of its contractions.

    """
    outer, inner = _positions(structure, contraction.features, contraction.blocks)
    blocks, dim = contraction.blocks.size, contraction.features
    first, second = (Features(name, axis, dim, blocks, outer, inner) for name, axis in contraction.sides)
    return first, second


def normalised_features(structure: Structure, normalisation: Normalisation) -> Features:
    """Return the layout of what a normalisation gives, before pruning.

    Args:
        structure: of the graph.
        normalisation: one of its normalisations.

    """
    outer, inner = _positions(structure, normalisation.dim, ONE)
    return Features(normalisation.tensor, normalisation.axis, normalisation.dim, 1, outer, inner)


def _positions(structure: Structure, dim: Dim, blocks: Dim) -> tuple[int, int]:
    """Return the entries of the factors before, and of those behind, all that belongs to a group."""
    grouped = {group.atom for group in structure.groups}
    factors = deque(dim.resolve().factors[len(blocks.resolve().factors) :])
    outer = inner = 1

    def positions(end: int) -> bool:
        factor = factors[end] if len(factors) > 1 else None
        return isinstance(factor, Atom) and factor not in grouped and not factor.apart

    while positions(-1):
        inner *= factors.pop().size
    while not blocks.factors and positions(0):
        outer *= factors.popleft().size
    return outer, inner
