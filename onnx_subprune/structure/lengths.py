"""Products of axis lengths for given widths, all of them at once: what the terms of a latency model are made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.structure.dims import Atom, Dim
from onnx_subprune.structure.products import Product, product_of

__all__ = ["Monomials"]


class Monomials:
    """Products of the lengths of axes.

    Args:
        terms: the axes of each product; none make 1.

    """

    def __init__(self, terms: Sequence[Sequence[Dim]]) -> None:
        lengths: dict[Product, int] = {}
        rows = [[lengths.setdefault(product_of(dim), len(lengths)) for dim in axes] for axes in terms]
        most = max((len(row) for row in rows), default=0)
        self._lengths = tuple(lengths)
        # What is left of a shorter row points at a 1 behind the lengths.
        self._index = np.array([row + [len(lengths)] * (most - len(row)) for row in rows], np.intp).reshape(-1, most)

    def __len__(self) -> int:
        return len(self._index)

    def values(self, counts: Mapping[Atom, int]) -> NDArray[np.float64]:
        """The products [terms] when each Atom in `counts` keeps that many units."""
        lengths = [float(length.value(counts)) for length in self._lengths]
        return np.asarray(np.array([*lengths, 1.0])[self._index].prod(axis=1))
