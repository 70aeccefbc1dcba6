"""Products of axis lengths for given widths, all of them at once, made ready to be evaluated many times.

A budget asks thousands of times what a network costs. So the Dims are resolved once, and equal ones are evaluated once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.structure.axes.unification import Atom, Dim

__all__ = ["Monomials"]


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
        """The products [terms] when each Atom in `counts` keeps that many units."""
        lengths = np.array([*(length.value(counts) for length in self._lengths), 1], np.int64)
        return np.asarray(lengths[self._index].prod(axis=1))


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
    return _Length(atoms, tuple(tuple(_length_of(part) for part in one.parts) for one in concats))
