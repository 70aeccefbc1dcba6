"""A network's latency as a function of its widths: a sum of terms whose coefficients are fitted to measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_subprune import budget
from onnx_subprune.latency.families import WORK, family_of
from onnx_subprune.structure import Atom, Dim, Monomials, Structure

__all__ = ["LatencyModel"]

_REST = "entries"


@dataclass(frozen=True, eq=False)
class _Term:
    """A product of axis lengths that the time of a node grows with, of a kind of work."""

    node: int
    family: str
    axes: tuple[Dim, ...]


class LatencyModel:
    """Predicts what a network takes at given widths, as a share of the dense network's time.

    Args:
        structure: of the network.
        widths: units per group of the networks that were measured; groups that are not named are whole.
        ratios: [networks] time of each by that of the dense network.

    """

    def __init__(self, structure: Structure, widths: Sequence[Mapping[str, int]], ratios: Sequence[float]) -> None:
        self._structure = structure
        self._atoms = {group.name: group.atom for group in structure.prunable}
        prunable = set(self._atoms.values())
        # What no width changes is part of the constant.
        self._terms = [term for term in _terms(structure) if any(prunable & set(dim.atoms()) for dim in term.axes)]
        self._monomials = Monomials([term.axes for term in self._terms])
        families = [term.family for term in self._terms]
        classes = [(term.family, _fixed(term.axes, prunable)) for term in self._terms]
        values = np.array([self._values(measured) for measured in ({}, *widths)])
        fit = budget.fit_times(values, families, classes, np.array([1.0, *ratios]))
        self._constant, self._coefficients, self.error = fit.constant, fit.coefficients, fit.error
        self._dead: dict[frozenset[int], NDArray[np.float64]] = {}

    def __call__(self, widths: Mapping[str, int]) -> float:
        """Return the predicted ratio; a group of no units is gone with its branch."""
        values = self._values(widths)
        gone = [name for name, count in widths.items() if not count]
        if gone:
            values = values * self._alive(self._structure.removal(gone).live)
        return self._constant + float(values @ self._coefficients)

    def _values(self, widths: Mapping[str, int]) -> NDArray[np.float64]:
        values = self._monomials.values({self._atoms[name]: count for name, count in widths.items()})
        return values.astype(np.float64)

    def _alive(self, live: frozenset[int]) -> NDArray[np.float64]:
        if live not in self._dead:
            self._dead[live] = np.array([float(term.node in live) for term in self._terms])
        return self._dead[live]


def _terms(structure: Structure) -> Iterator[_Term]:
    """Yield multiply-accumulates of products and the entries that other nodes write, where their axes are known."""
    products = {id(term.node) for term in structure.records.mac_terms}
    for term in structure.records.mac_terms:
        yield _Term(id(term.node), family_of(term.node) or WORK, term.factors)
    for node in structure.graph.nodes:
        if id(node) not in products:
            yield from (_Term(id(node), _REST, axes) for axes in _written(structure, node))


def _written(structure: Structure, node: gs.Node) -> Iterator[tuple[Dim, ...]]:
    for tensor in node.outputs:
        if tensor.name in structure.records.axes:
            yield structure.records.axes[tensor.name]


def _fixed(axes: Sequence[Dim], prunable: set[Atom]) -> int:
    """Return the product of the lengths that cannot be pruned."""
    return int(np.prod([1.0, *(dim.size for dim in axes if not prunable & set(dim.atoms()))]))
