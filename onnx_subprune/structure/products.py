"""Sums of products of axis lengths, such as MACs and parameters, made ready to be evaluated many times.

A budget asks thousands of times what a network costs. So the Dims are resolved once and equal products are added up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.structure.dims import Atom, Dim

__all__ = ["Product", "Products", "product_of"]

_Sum: TypeAlias = tuple["Product", ...]


@dataclass(frozen=True)
class Product:
    """So many times the units of some Atoms times sums of products (the parts of a Concat)."""

    times: int
    atoms: tuple[Atom, ...]
    sums: tuple[_Sum, ...]

    def value(self, counts: Mapping[Atom, int]) -> int:
        """The number when each Atom in `counts` keeps that many units."""
        result = self.times
        for atom in self.atoms:
            result *= counts.get(atom, atom.size)
        for parts in self.sums:
            result *= sum([part.value(counts) for part in parts])
        return result


class Products:
    """Terms, each the product of the lengths of some axes; each belongs to an owner that may go away."""

    def __init__(self, terms: Iterable[tuple[Hashable, Sequence[Dim]]]) -> None:
        """Take pairs of an owner and axes."""
        same = Counter((owner, *_product(axes)) for owner, axes in terms)
        lengths: dict[Atom | _Sum, int] = {}
        rows = [[lengths.setdefault(f, len(lengths)) for f in _factors(a, sums)] for _, a, sums in same]
        most = max((len(row) for row in rows), default=0)
        self._lengths = tuple(lengths)
        # What is left of a shorter row points at a 1 behind the lengths.
        self._index = np.array([row + [len(lengths)] * (most - len(row)) for row in rows], np.intp).reshape(
            len(rows), most
        )
        self._times = np.array(list(same.values()), np.int64)
        self._owners = [owner for owner, _, _ in same]
        self._alive: dict[frozenset[Hashable], NDArray[np.int64]] = {}

    def value(self, counts: Mapping[Atom, int], live: Collection[Hashable] | None = None) -> int:
        """The sum when each Atom in `counts` keeps that many units; only over the owners that live, if given."""
        lengths = np.array([*(_length(factor, counts) for factor in self._lengths), 1], np.int64)
        times = self._times if live is None else self._alive_times(frozenset(live))
        return int(lengths[self._index].prod(axis=1) @ times)

    def _alive_times(self, live: frozenset[Hashable]) -> NDArray[np.int64]:
        if live not in self._alive:
            self._alive[live] = self._times * np.array([owner in live for owner in self._owners], np.int64)
        return self._alive[live]


def _factors(atoms: tuple[Atom, ...], sums: tuple[_Sum, ...]) -> list[Atom | _Sum]:
    return [*atoms, *sums]


def _length(factor: Atom | _Sum, counts: Mapping[Atom, int]) -> int:
    if isinstance(factor, Atom):
        return counts.get(factor, factor.size)
    return sum(part.value(counts) for part in factor)


def product_of(dim: Dim) -> Product:
    """The length of an axis as a function of the units of its Atoms; equal for equal axes."""
    return Product(1, *_product([dim]))


def _product(axes: Iterable[Dim]) -> tuple[tuple[Atom, ...], tuple[_Sum, ...]]:
    factors = [factor for dim in axes for factor in dim.resolve().factors]
    atoms = tuple(factor for factor in factors if isinstance(factor, Atom))
    concats = (factor for factor in factors if not isinstance(factor, Atom))
    return atoms, tuple(tuple(Product(1, *_product([part])) for part in one.parts) for one in concats)
