"""Products of axis lengths, and their sums such as MACs and parameters, made ready to be evaluated many times.

A budget asks thousands of times what a network costs. So the Dims are resolved once, and equal ones are evaluated once.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.structure.axes.terms import Atom, Dim

__all__ = ["Monomials", "Products"]

_T = TypeVar("_T")

# No memory holds a longer axis; a broken file may declare one.
_LONGEST = 1 << 48


class Monomials:
    """Products of the lengths of axes.

    Args:
        terms: the axes of each product; none make 1.

    """

    def __init__(self, terms: Sequence[Sequence[Dim]]) -> None:
        program = _Program()
        rows = [[program.place(_length_of(dim)) for dim in axes] for axes in terms]
        self._program = program.closed()
        self._index = _padded(rows, _ONE)
        self._rows = rows
        self._base: tuple[Mapping[Atom, int], list[int], int] | None = None

    def __len__(self) -> int:
        return len(self._index)

    def values(self, counts: Mapping[Atom, int]) -> NDArray[np.int64]:
        """Return the products, int64 [terms], when each Atom in `counts` keeps that many units.

        Args:
            counts: units that stay, by Atom; those that are not there are whole.

        """
        return np.asarray(self._program.run(counts)[self._index].prod(axis=1))

    def sum_beside(self, counts: Mapping[Atom, int], atom: Atom, count: int) -> int:
        """Return the sum of all products with another number of units of one Atom.

        Args:
            counts: units of the Atoms; remembered by identity from one call to the next.
            atom: that is changed.
            count: its units.

        """
        if self._base is None or self._base[0] is not counts:
            values = self._program.run(counts)
            self._base = counts, values.tolist(), int(values[self._index].prod(axis=1).sum())
        _, before, total = self._base
        after = self._program.changed(before, atom, count)
        touched = {term for place in after for term in self._terms_at.get(place, ())}
        for term in touched:
            row = self._rows[term]
            total += math.prod(after.get(place, before[place]) for place in row) - math.prod(before[p] for p in row)
        return total

    @cached_property
    def _terms_at(self) -> dict[int, list[int]]:
        """The products that a place is a factor of."""
        return _inverted(enumerate(self._rows))


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

    def beside(self, counts: Mapping[Atom, int], atom: Atom, count: int) -> int:
        """Return the sum when one Atom keeps another number of units; only terms that it has a part in are worked out.

        Args:
            counts: units of Atoms; remembered by identity, so that a mapping is not changed between two calls.
            atom: that is changed.
            count: its units.

        >>> from onnx_subprune.structure.axes.terms import fresh
        >>> rows, columns = fresh(4), fresh(3)
        >>> products = Products([("weight", (rows, columns)), ("bias", (rows,))])
        >>> products.beside({}, rows.factors[0], 2)
        8

        """
        return self._monomials.sum_beside(counts, atom, count)


@dataclass(frozen=True)
class _Length:
    """The length of an axis: the units of some Atoms times sums of lengths (the parts of a Concat)."""

    atoms: tuple[Atom, ...]
    sums: tuple[tuple[_Length, ...], ...]


def _length_of(dim: Dim) -> _Length:
    """Return the length of an axis; equal for equal axes."""
    factors = dim.resolve().factors
    atoms = tuple(factor for factor in factors if isinstance(factor, Atom))
    concats = (factor for factor in factors if not isinstance(factor, Atom))
    return _Length(atoms, tuple(tuple(_length_of(part) for part in concat.parts) for concat in concats))


_ZERO, _ONE = 0, 1
"""Places of the numbers 0 and 1, which fill rows up."""


class _Program:
    """Lengths as a few steps over one array of numbers; each step takes the products or the sums of many at once.

    A step reads places that the steps before it have filled. The first places hold 0, 1 and the units of the Atoms.
    """

    def __init__(self) -> None:
        self._atoms: dict[Atom, int] = {}
        self._known: dict[_Length | tuple[_Length, ...], tuple[int, int]] = {}
        self._rows: dict[tuple[int, bool], list[tuple[int, list[int]]]] = {}
        self._size = 2

    def place(self, length: _Length) -> int:
        """Return where the value of a length will stand."""
        return self._product(length)[0]

    def _product(self, length: _Length) -> tuple[int, int]:
        """Return the place and the depth of a length: 0 for an Atom, and one more than all that it is made of."""
        if length not in self._known:
            parts = [self._atom(atom) for atom in length.atoms] + [self._sum(parts) for parts in length.sums]
            self._known[length] = parts[0] if len(parts) == 1 else self._row(parts, sums=False)
        return self._known[length]

    def _sum(self, lengths: tuple[_Length, ...]) -> tuple[int, int]:
        if lengths not in self._known:
            self._known[lengths] = self._row([self._product(length) for length in lengths], sums=True)
        return self._known[lengths]

    def _atom(self, atom: Atom) -> tuple[int, int]:
        if atom not in self._atoms:
            self._atoms[atom] = self._new()
        return self._atoms[atom], 0

    def _row(self, parts: Sequence[tuple[int, int]], *, sums: bool) -> tuple[int, int]:
        depth = 1 + max((depth for _, depth in parts), default=0)
        place = self._new()
        self._rows.setdefault((depth, sums), []).append((place, [part for part, _ in parts]))
        return place, depth

    def _new(self) -> int:
        self._size += 1
        return self._size - 1

    def closed(self) -> _Program:
        """Return the program, ready to run."""
        self._whole = np.ones(self._size)
        self._whole[_ZERO] = 0
        for atom, place in self._atoms.items():
            self._whole[place] = min(atom.size, _LONGEST)
        self._steps = [
            (np.array([place for place, _ in rows]), _padded([row for _, row in rows], _ZERO if sums else _ONE), sums)
            for (_, sums), rows in sorted(self._rows.items())
        ]
        return self

    def run(self, counts: Mapping[Atom, int]) -> NDArray[np.int64]:
        """Return the values of all places when each Atom in `counts` keeps that many units."""
        values = self._whole.copy()  # of float64: whole numbers to 2**53, and no product overflows
        for atom, count in counts.items():
            place = self._atoms.get(atom)
            if place is not None:
                values[place] = count
        for places, index, sums in self._steps:
            gathered = values[index]
            reached = gathered.sum(axis=1) if sums else gathered.prod(axis=1)
            values[places] = np.minimum(reached, _LONGEST)
        return values.astype(np.int64)

    def changed(self, values: Sequence[int], atom: Atom, count: int) -> dict[int, int]:
        """Return the places whose values change, and to what, when an Atom keeps another number of units."""
        if atom not in self._atoms:
            return {}
        changed = {self._atoms[atom]: count}
        waiting = list(self._readers.get(self._atoms[atom], ()))
        heapq.heapify(waiting)
        while waiting:
            # In the order of the steps, so that all that a row reads is known.
            _, sums, place = heapq.heappop(waiting)
            if place not in changed:
                parts = (changed.get(part, values[part]) for part in self._parts[place])
                changed[place] = min(sum(parts) if sums else math.prod(parts), _LONGEST)
                for reader in self._readers.get(place, ()):
                    heapq.heappush(waiting, reader)
        return changed

    @cached_property
    def _parts(self) -> dict[int, list[int]]:
        return {place: parts for rows in self._rows.values() for place, parts in rows}

    @cached_property
    def _readers(self) -> dict[int, list[tuple[int, bool, int]]]:
        """The steps that read a place: their depth, whether they are sums, and the places that they fill."""
        steps = [((depth, sums, place), parts) for (depth, sums), rows in self._rows.items() for place, parts in rows]
        return _inverted(steps)


def _inverted(rows: Iterable[tuple[_T, Sequence[int]]]) -> dict[int, list[_T]]:
    """Return for every place the rows that it is in, by their names."""
    names: dict[int, list[_T]] = {}
    for name, places in rows:
        for place in dict.fromkeys(places):
            names.setdefault(place, []).append(name)
    return names


def _padded(rows: Sequence[Sequence[int]], fill: int) -> NDArray[np.intp]:
    """Return rows of places as one array, the shorter ones filled up."""
    most = max((len(row) for row in rows), default=0)
    return np.array([[*row, *[fill] * (most - len(row))] for row in rows], np.intp).reshape(len(rows), most)
