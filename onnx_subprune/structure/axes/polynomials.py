"""Products of axis lengths, and their sums such as MACs and parameters, made ready to be evaluated many times.

A budget asks thousands of times what a network costs. So the Dims are resolved once, and equal ones are evaluated once.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.structure.axes.terms import Atom, Dim

__all__ = ["Monomials", "Products"]

# No memory holds a longer axis; a broken file may declare one.
_LONGEST = 1 << 48


class Monomials:
    """Products of the lengths of axes.

    Args:
        terms: the axes of each product; none make 1.

    """

    def __init__(self, terms: Sequence[Sequence[Dim]]) -> None:
        lengths: dict[_Length, int] = {}
        rows = [[lengths.setdefault(_length_of(dim), len(lengths)) for dim in axes] for axes in terms]
        most = max((len(row) for row in rows), default=0)
        self._lengths = tuple(lengths)
        # What is left of a shorter row points at a 1 behind the lengths.
        padded = [row + [len(lengths)] * (most - len(row)) for row in rows]
        self._index = np.array(padded, np.intp).reshape(len(rows), most)

    def __len__(self) -> int:
        return len(self._index)

    def values(self, counts: Mapping[Atom, int]) -> NDArray[np.int64]:
        """Return the products, int64 [terms], when each Atom in `counts` keeps that many units.

        Args:
            counts: units that stay, by Atom; those that are not there are whole.

        """
        lengths = np.array([*(min(length.value(counts), _LONGEST) for length in self._lengths), 1], np.int64)
        return np.asarray(lengths[self._index].prod(axis=1))


class Products:
    """A sum of terms, each the product of the lengths of some axes, and of an owner that may go away.

    Args:
        terms: pairs of an owner and axes.

    """

    def __init__(self, terms: Iterable[tuple[Hashable, Sequence[Dim]]]) -> None:
        pairs = list(terms)
        self._owners = [owner for owner, _ in pairs]
        self._monomials = Monomials([axes for _, axes in pairs])
        self._alive: dict[frozenset[Hashable], NDArray[np.bool_]] = {}

    def value(self, counts: Mapping[Atom, int], live: Collection[Hashable] | None = None) -> int:
        """Return the sum when each Atom in `counts` keeps that many units.

        Args:
            counts: units of Atoms; an Atom without an entry stays whole.
            live: the owners whose terms count; None for all.

        >>> from onnx_subprune.structure.axes.terms import fresh
        >>> rows, columns = fresh(4), fresh(3)
        >>> products = Products([("weight", (rows, columns)), ("bias", (rows,))])
        >>> products.value({}), products.value({rows.factors[0]: 2}), products.value({}, {"bias"})
        (16, 8, 4)

        """
        return int(self.values(counts, live).sum())

    def values(self, counts: Mapping[Atom, int], live: Collection[Hashable] | None = None) -> NDArray[np.int64]:
        """Return the terms, int64 [terms], when each Atom in `counts` keeps that many units.

        Args:
            counts: units of Atoms; an Atom without an entry stays whole.
            live: the owners whose terms count, the others are 0; None for all.

        """
        values = self._monomials.values(counts)
        return values if live is None else np.where(self._is_alive(frozenset(live)), values, 0)

    def _is_alive(self, live: frozenset[Hashable]) -> NDArray[np.bool_]:
        if live not in self._alive:
            self._alive[live] = np.array([owner in live for owner in self._owners], np.bool_)
        return self._alive[live]


@dataclass(frozen=True)
class _Length:
    """The length of an axis: the units of some Atoms times sums of lengths (the parts of a Concat)."""

    atoms: tuple[Atom, ...]
    sums: tuple[tuple[_Length, ...], ...]

    def value(self, counts: Mapping[Atom, int]) -> int:
        """The length when each Atom in `counts` keeps that many units."""
        result = 1
        for atom in self.atoms:
            result *= counts.get(atom, atom.size)
        for parts in self.sums:
            result *= sum(part.value(counts) for part in parts)
        return result


def _length_of(dim: Dim) -> _Length:
    """Return the length of an axis; equal for equal axes."""
    factors = dim.resolve().factors
    atoms = tuple(factor for factor in factors if isinstance(factor, Atom))
    concats = (factor for factor in factors if not isinstance(factor, Atom))
    return _Length(atoms, tuple(tuple(_length_of(part) for part in concat.parts) for concat in concats))
