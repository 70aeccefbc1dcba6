"""Rank the units of a group by all its consumers together, and draw the curve of variance they keep.

Each consumer scores the features of its whole axis; the scores of the group's features are summed per unit, turned into
shares, and averaged over the consumers (docs/mathematics.md says why). The curve is the paper's: the cumulative share
of D in G = L D Lᵀ, taken in the order of the scores, averaged over consumers likewise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.budget import joint_share
from onnx_subprune.structure import Features, Group, constant_values, unit_index
from onnx_subprune.subspace.ordering import (
    cumulative_variance,
    feature_scores,
    joint_scores,
    magnitude_scores,
    random_scores,
    rank,
)

__all__ = ["Moments", "Ranking", "Reader", "rank_group"]


class Moments:
    """Covariances of the features that one consumer reads, with their scores computed once per ordering.

    Args:
        compute: returns the covariances [blocks, d, d]; called when they are asked for, again after a `release`.

    """

    def __init__(self, compute: Callable[[], NDArray[np.float64]]) -> None:
        self._compute = compute
        self._covariance: NDArray[np.float64] | None = None
        self._scores: dict[str, NDArray[np.float64]] = {}

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The covariances [blocks, d, d], kept until `release`."""
        if self._covariance is None:
            self._covariance = self._compute()
        return self._covariance

    def release(self) -> None:
        """Give the memory of the covariances back."""
        self._covariance = None

    def scores(self, method: str) -> NDArray[np.float64]:
        """Return the scores of an ordering that looks at the covariance alone: [blocks, d]."""
        if method not in self._scores:
            self._scores[method] = np.stack([feature_scores(method, c) for c in self.covariance])
        return self._scores[method]


@dataclass(frozen=True, eq=False)
class Reader:
    """What contracts a group: its features, a call for its weight as absolute sums [blocks, d], and what it reads.

    For a product of two activations the weight is ones, and the moments are the product of those of the two sides,
    entry by entry: those of the terms of the sum, were the sides independent.
    """

    features: Features
    weight: Callable[[], NDArray[np.float64]]
    moments: Moments


@dataclass(frozen=True, eq=False)
class Ranking:
    """Units of a group, most important first, and the share of variance kept with the first k, k = 0..size."""

    order: NDArray[np.intp]
    share: NDArray[np.float64]


def rank_group(group: Group, readers: Sequence[Reader], method: str, seed: int) -> Ranking:
    """Rank the units of a group with at least one reader by one of `ordering.METHODS` (`seed` is for random)."""
    order = rank(_unit_scores(group, readers, method, seed))
    return Ranking(order, joint_share([_share(group, reader, order) for reader in readers]))


def _share(group: Group, reader: Reader, order: NDArray[np.intp]) -> NDArray[np.float64]:
    units = reader.features.units(group.atom)
    curves = [
        cumulative_variance(covariance, order, _members(units[block], group.size))
        for block, covariance in enumerate(reader.moments.covariance)
        if (units[block] >= 0).any()
    ]
    return np.asarray(np.mean(curves, axis=0))


def _unit_scores(group: Group, readers: Sequence[Reader], method: str, seed: int) -> NDArray[np.float64]:
    if method == "random":
        return random_scores(group.size, seed)
    if method == "magnitude":
        return _magnitudes(group)
    rows = []
    for reader in readers:
        scores = reader.weight() if method == "saw" else reader.moments.scores(method)
        units = reader.features.units(group.atom).ravel()
        mine = units >= 0
        rows.append(np.bincount(units[mine], weights=scores.ravel()[mine], minlength=group.size))
    return joint_scores(rows)


def _magnitudes(group: Group) -> NDArray[np.float64]:
    """Sum the L1 norms of all weights that produce a unit (onto residual streams several layers write)."""
    total = np.zeros(group.size)
    for use in group.producers:
        values = np.moveaxis(constant_values(use.constant), use.axis, 0)
        units = unit_index(use.dim, group.atom)
        mine = units >= 0
        total += np.bincount(units[mine], weights=magnitude_scores(values)[mine], minlength=group.size)
    return total


def _members(units: NDArray[np.int64], size: int) -> list[NDArray[np.intp]]:
    """Return the features of each unit."""
    order = np.argsort(units, kind="stable")
    bounds = np.searchsorted(units[order], np.arange(size + 1))
    return [order[low:high] for low, high in pairwise(bounds)]
