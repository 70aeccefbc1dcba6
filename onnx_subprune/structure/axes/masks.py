"""The rest of an axis once units are gone: the only thing that shrinking any tensor needs.

Removing units from Atoms gives each Dim a keep mask: the product is the outer AND of its factors' masks, the
concatenation is the concatenation of its parts' masks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np

from onnx_subprune.structure.axes.terms import Atom, Dim

__all__ = ["Keeps", "keep_mask", "unit_index"]

Keeps: TypeAlias = Mapping[Atom, np.ndarray]
"""For Atoms that lose units which of them stay, bool [size]."""


def keep_mask(dim: Dim, keeps: Keeps) -> np.ndarray:
    """Return which entries of `dim` stay.

    Args:
        dim: an axis.
        keeps: for Atoms that lose units, bool [size]; an Atom without an entry stays whole.

    Returns:
        bool [dim.size].

    >>> from onnx_subprune.structure.axes.terms import fresh, product
    >>> heads, channels = fresh(2), fresh(3)
    >>> keep_mask(product(heads, channels), {heads.factors[0]: np.array([False, True])}).astype(int)
    array([0, 0, 0, 1, 1, 1])
    >>> keep_mask(product(channels, heads), {heads.factors[0]: np.array([False, True])}).astype(int)
    array([0, 1, 0, 1, 0, 1])

    """
    mask = np.ones(1, dtype=bool)
    for factor in dim.resolve().factors:
        if isinstance(factor, Atom):
            kept = keeps.get(factor)
            part = np.ones(factor.size, dtype=bool) if kept is None else kept
        else:
            part = np.concatenate([keep_mask(p, keeps) for p in factor.parts])
        mask = np.logical_and.outer(mask, part).ravel()
    return mask


def unit_index(dim: Dim, atom: Atom) -> np.ndarray:
    """Return for every entry of an axis the unit it belongs to.

    Args:
        dim: an axis.
        atom: whose units are asked for.

    Returns:
        int64 [dim.size]: the unit of `atom`, or -1 for an entry that belongs to none.

    >>> from onnx_subprune.structure.axes.terms import concat, fresh, product
    >>> heads, others = fresh(2), fresh(1 + 2)
    >>> unit_index(concat(product(heads, fresh(2)), others), heads.factors[0])
    array([ 0,  0,  1,  1, -1, -1, -1])

    """
    index = np.full(1, -1, dtype=np.int64)
    for factor in dim.resolve().factors:
        if isinstance(factor, Atom):
            part = np.arange(factor.size) if factor is atom else np.full(factor.size, -1)
        else:
            part = np.concatenate([unit_index(p, atom) for p in factor.parts])
        index = np.maximum.outer(index, part).ravel()
    return index
