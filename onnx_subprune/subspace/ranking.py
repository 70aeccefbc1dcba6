"""Rank the units of a group by all its consumers together, and draw the curve of variance they keep.

Each consumer scores the features of its whole axis; the scores of the group's features are summed per unit, turned into
shares, and averaged over the consumers (docs/mathematics.md says why). The curve is the paper's: the cumulative share
of D in G = L D Lᵀ, taken in the order of the scores, averaged over consumers likewise. The selection `obs` has no such
scores: it orders the units by a sweep (`obs`). The loss at the consumers is worked out for every order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_subprune.errors import DataError
from onnx_subprune.structure import Features, Group, unit_index
from onnx_subprune.subspace.obs import Term, loss_of_order, obs_sweep
from onnx_subprune.subspace.ordering import (
    cumulative_variance,
    feature_scores,
    joint_scores,
    joint_share,
    magnitude_scores,
    random_scores,
    rank,
    saw_scores,
    wanda_scores,
)

__all__ = ["Moments", "Ranking", "Reader", "rank_group"]

Values: TypeAlias = Callable[[gs.Constant], NDArray[Any]]


class Moments:
    """Covariances of the features that one consumer reads, with their scores computed once per ordering.

    Args:
        compute: returns the covariances [blocks, d, d], in an array of their own; called when they are asked for, again
            after a `release`.
        rank: of each covariance, at most, such as the number of samples; None where no more is known.

    """

    def __init__(self, compute: Callable[[], NDArray[np.float64]], rank: int | None = None) -> None:
        self.rank = rank
        self._compute = compute
        self._covariance: NDArray[np.float64] | None = None
        self._scores: dict[str, NDArray[np.float64]] = {}

    @property
    def covariance(self) -> NDArray[np.float64]:
        """The covariances [blocks, d, d], kept until `release`."""
        if self._covariance is None:
            self._covariance = self._compute()
        return self._covariance

    def spend(self) -> NDArray[np.float64]:
        """Return the covariances [blocks, d, d] and forget them: the caller may overwrite them."""
        covariance = self.covariance
        self.release()
        return covariance

    def release(self) -> None:
        """Give the memory of the covariances back."""
        self._covariance = None

    def scores(self, method: str) -> NDArray[np.float64]:
        """Return the scores of an ordering that looks at the covariance alone: [blocks, d].

        Args:
            method: "zca" or "conditional-variance".

        """
        if method not in self._scores:
            self._scores[method] = np.stack([feature_scores(method, c) for c in self.covariance])
        return self._scores[method]


@dataclass(frozen=True, eq=False)
class Reader:
    """What contracts a group.

    Attributes:
        features: the layout of what it reads.
        weight: returns its weight [blocks, rows, d]; outputs, taps of a kernel and positions are all rows.
        moments: the covariances it is fitted with.
        squares: returns the second moments of the features, [blocks, d].
        positions: how often a sample has it applied, so that squared errors count per sample.
        corrected: whether its weight can make up for units that go. The product of two activations has none: its
            weight is ones, and the moments are the product of those of the two sides, entry by entry, those of the
            terms of the sum, were the sides independent.

    """

    features: Features
    weight: Callable[[], NDArray[np.float64]]
    moments: Moments
    squares: Callable[[], NDArray[np.float64]]
    positions: float = 1.0
    corrected: bool = True


@dataclass(frozen=True, eq=False)
class Ranking:
    """Units of a group, most important first, and what the first k of them keep, k = 0..size.

    Attributes:
        order: [size] unit indices.
        share: [size + 1] of the variance; for obs, of the squares of the consumers' outputs.
        loss: [size + 1] squared error per sample at the consumers, the best affine recovery assumed.

    """

    order: NDArray[np.intp]
    share: NDArray[np.float64]
    loss: NDArray[np.float64]


def rank_group(group: Group, readers: Sequence[Reader], method: str, seed: int, values: Values) -> Ranking:
    """Rank the units of a group with at least one reader.

    Args:
        group: whose units are ranked.
        readers: all that read the group.
        method: one of `ordering.METHODS`.
        seed: of the random ordering.
        values: gives the values of a constant; the weights that produce a group may lie in files.

    """
    sums = [_unit_sums(group, reader) for reader in readers if not reader.corrected]
    if method == "obs":
        order, loss = obs_sweep(_terms(group, readers), group.size, uncorrected=sums)
        return Ranking(order, _share_of_loss(loss), loss)
    order = rank(_unit_scores(group, readers, method, seed, values))
    share = joint_share([_share(group, reader, order) for reader in readers])
    return Ranking(order, share, loss_of_order(_terms(group, readers), order, uncorrected=sums))


def _terms(group: Group, readers: Sequence[Reader]) -> Iterator[Term]:
    """Yield what the corrected readers add to the loss; those that read the same are one, with their rows together."""
    together: dict[tuple[int, bytes], list[Reader]] = {}
    for reader in readers:
        if reader.corrected:
            key = id(reader.moments), reader.features.units(group.atom).tobytes()
            together.setdefault(key, []).append(reader)
    for alike in together.values():
        units = alike[0].features.units(group.atom)
        weights = [np.sqrt(reader.positions) * reader.weight() for reader in alike]
        weight = weights[0] if len(weights) == 1 else np.concatenate(weights, axis=1)
        del weights
        if not np.isfinite(weight).all():
            raise DataError(f"expected finite weights behind '{group.name}', found NaN or infinity; check the model")
        for block, covariance in enumerate(alike[0].moments.spend()):
            if (units[block] >= 0).any():
                yield Term(covariance, weight[block], units[block], spare=True, rank=alike[0].moments.rank)


def _unit_sums(group: Group, reader: Reader) -> NDArray[np.float64]:
    """Return the second moments [size, size] of what the units of a group add to a sum, per sample."""
    units, total = reader.features.units(group.atom), np.zeros((group.size, group.size))
    for block, moments in enumerate(reader.moments.covariance):
        mine = np.flatnonzero(units[block] >= 0)
        places = units[block][mine]
        np.add.at(total, (places[:, None], places[None, :]), moments[np.ix_(mine, mine)])
    return reader.positions * total


def _share_of_loss(loss: NDArray[np.float64]) -> NDArray[np.float64]:
    share = 1.0 - loss / loss[0] if loss[0] > 0 else np.ones(len(loss))
    share[0], share[-1] = 0.0, 1.0
    return share


def _share(group: Group, reader: Reader, order: NDArray[np.intp]) -> NDArray[np.float64]:
    units = reader.features.units(group.atom)
    curves = [
        cumulative_variance(covariance, order, _members(units[block], group.size))
        for block, covariance in enumerate(reader.moments.covariance)
        if (units[block] >= 0).any()
    ]
    return np.asarray(np.mean(curves, axis=0))


def _unit_scores(
    group: Group, readers: Sequence[Reader], method: str, seed: int, values: Values
) -> NDArray[np.float64]:
    if method == "random":
        return random_scores(group.size, seed)
    if method == "magnitude":
        return _magnitudes(group, values)
    rows = []
    for reader in readers:
        scores = _feature_scores(reader, method)
        units = reader.features.units(group.atom).ravel()
        mine = units >= 0
        rows.append(np.bincount(units[mine], weights=scores.ravel()[mine], minlength=group.size))
    return joint_scores(rows)


def _feature_scores(reader: Reader, method: str) -> NDArray[np.float64]:
    if method == "saw":
        return np.stack([saw_scores(weight) for weight in reader.weight()])
    if method == "wanda":
        return np.stack([wanda_scores(*block) for block in zip(reader.weight(), reader.squares(), strict=True)])
    return reader.moments.scores(method)


def _magnitudes(group: Group, values: Values) -> NDArray[np.float64]:
    """Sum the L1 norms of all weights that produce a unit (onto residual streams several layers write)."""
    total = np.zeros(group.size)
    for use in group.producers:
        weight = np.moveaxis(values(use.constant), use.axis, 0)
        units = unit_index(use.dim, group.atom)
        mine = units >= 0
        total += np.bincount(units[mine], weights=magnitude_scores(weight)[mine], minlength=group.size)
    return total


def _members(units: NDArray[np.int64], size: int) -> list[NDArray[np.intp]]:
    """Return the features of each unit."""
    order = np.argsort(units, kind="stable")
    bounds = np.searchsorted(units[order], np.arange(size + 1))
    return [order[low:high] for low, high in pairwise(bounds)]
