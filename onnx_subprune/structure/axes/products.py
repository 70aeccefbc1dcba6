"""Sums of products of axis lengths, such as MACs and parameters."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.structure.axes.polynomials import Monomials
from onnx_subprune.structure.axes.unification import Atom, Dim

__all__ = ["Products"]


class Products:
    """Terms, each the product of the lengths of some axes; each belongs to an owner that may go away."""

    def __init__(self, terms: Iterable[tuple[Hashable, Sequence[Dim]]]) -> None:
        """Take pairs of an owner and axes."""
        pairs = list(terms)
        self._owners = [owner for owner, _ in pairs]
        self._monomials = Monomials([axes for _, axes in pairs])
        self._alive: dict[frozenset[Hashable], NDArray[np.bool_]] = {}

    def value(self, counts: Mapping[Atom, int], live: Collection[Hashable] | None = None) -> int:
        """The sum when each Atom in `counts` keeps that many units; only over the owners that live, if given."""
        values = self._monomials.values(counts)
        return int(values.sum() if live is None else values[self._of(frozenset(live))].sum())

    def _of(self, live: frozenset[Hashable]) -> NDArray[np.bool_]:
        if live not in self._alive:
            self._alive[live] = np.array([owner in live for owner in self._owners], np.bool_)
        return self._alive[live]
