"""From measured times of a network at several widths to a cost for any widths.

A network's time is taken for a constant and a sum of terms, each a product of axis lengths (multiply-accumulates of a
product, entries that another operator writes) with a coefficient of at least zero: it does not fall when a width grows.
Terms of one *family* are the same kind of work. Those of a family that also agree in their sizes that cannot be
pruned (positions, taps of a kernel) are a *class* with one coefficient. Few networks are measured, so a first fit has
one coefficient for each family, and the second keeps those of the classes near it, as near as predicts networks best
that were left out of the fit.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from onnx_subprune.budget.curves import Curve
from onnx_subprune.budget.ladder import rungs

__all__ = ["Fit", "fit_times", "sampled_widths"]

Array = NDArray[np.float64]

_STRENGTHS = (1e-1, 1e-2, 1e-3, 1e-4)
_LEAST = 1e-3
_TINY = 1e-300
_UNIFORM = (0.75, 0.5, 0.25, 0.0)
_MIXTURES = 6
_KNOTS = 4
_JITTER = 0.15


@dataclass(frozen=True, eq=False)
class Fit:
    """Time as a share of the dense network's: `constant` plus the terms times their `coefficients` [terms].

    `error` is how far predictions of networks were off that were left out of the fit: root mean square, relative.
    """

    constant: float
    coefficients: Array
    error: float


def fit_times(values: Array, families: Sequence[Hashable], classes: Sequence[Hashable], ratios: Array) -> Fit:
    """Fit times to terms.

    Args:
        values: [networks, terms] of each network that was measured, the dense one first.
        families: [terms] kinds of work.
        classes: [terms] finer than these.
        ratios: [networks] measured time by that of the dense network.

    """
    fits = [_Classes(values, families, classes, ratios, strength) for strength in _STRENGTHS]
    best = min(fits, key=lambda fit: fit.error)
    fitted = best.fitted(np.arange(len(ratios)))
    coefficients = fitted[1:] / np.maximum(best.dense, _TINY)
    return Fit(float(fitted[0]), coefficients[_numbered(classes)], best.error)


class _Classes:
    """A fit with a coefficient for each class that is held near to that of its family, with a given strength."""

    def __init__(
        self,
        values: Array,
        families: Sequence[Hashable],
        classes: Sequence[Hashable],
        ratios: Array,
        strength: float,
    ) -> None:
        coarse, fine = _sums(values, _numbered(families)), _sums(values, _numbered(classes))
        self._ratios, self._strength = ratios, strength
        self._coarse, self._fine = _relative(coarse), _relative(fine)
        # Of each class the family, and its share of that in the dense network; the constant is its own.
        family_of = dict(zip(_numbered(classes).tolist(), _numbered(families).tolist(), strict=True))
        self._family = np.array([0, *(1 + family_of[kind] for kind in range(fine.shape[1]))], np.intp)
        self._share = np.array([1.0, *(fine[0] / np.maximum(coarse[0][self._family[1:] - 1], _TINY))])
        self.dense = fine[0]

    def fitted(self, rows: NDArray[np.intp]) -> Array:
        """The coefficients [1 + classes] by which some networks take what they do."""
        ratios = self._ratios[rows]
        first = _solved(self._coarse[rows], ratios, np.zeros(self._coarse.shape[1]), 0.0)
        return _solved(self._fine[rows], ratios, first[self._family] * self._share, self._strength)

    @cached_property
    def error(self) -> float:
        """Root mean square of the relative errors at networks that were left out, each in turn; the dense one stays."""
        rows = np.arange(len(self._ratios))
        errors = [self._fine[i] @ self.fitted(np.delete(rows, i)) / self._ratios[i] - 1.0 for i in rows[1:]]
        return float(np.sqrt(np.mean(np.square(errors)))) if errors else 0.0


def _numbered(names: Sequence[Hashable]) -> NDArray[np.intp]:
    numbers: dict[Hashable, int] = {}
    return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.intp)


def _sums(values: Array, numbers: NDArray[np.intp]) -> Array:
    """The sums [networks, numbers] of the terms with the same number."""
    columns = len(np.unique(numbers))
    return np.array([np.bincount(numbers, weights=row, minlength=columns) for row in values])


def _relative(sums: Array) -> Array:
    """A column of ones, and the sums as shares of the dense network's."""
    return np.hstack([np.ones((len(sums), 1)), sums / np.maximum(sums[0], _TINY)])


def _solved(terms: Array, ratios: Array, near: Array, strength: float) -> Array:
    """Coefficients of at least zero whose relative errors are least, held near to given ones, each to its own size."""
    size = near + 0.02 / len(near)
    weight = math.sqrt(strength) / size if near.any() else np.full(len(near), _LEAST)
    rows = np.vstack([terms / ratios[:, None], np.diag(weight)])
    coefficients, _ = nnls(rows, np.concatenate([np.ones(len(ratios)), weight * near]))
    return np.asarray(coefficients)


def sampled_widths(curves: Sequence[Curve], seed: int = 0) -> list[dict[str, int]]:
    """Widths to measure a network at, to learn what its time is made of.

    A few shares that are the same everywhere, down to the smallest widths; mixtures in which every group has a share of
    its own; and mixtures in which the share changes slowly along the graph, which tell early layers from late ones.

    Args:
        curves: one per group.
        seed: of the mixtures.

    """
    generator = np.random.default_rng(seed)
    groups = len(curves)
    uniform = [np.full(groups, share) for share in _UNIFORM]
    mixed = list(_stratified(generator, groups).T)
    knots = np.linspace(0, max(groups - 1, 1), _KNOTS)
    smooth = [
        np.interp(np.arange(groups), knots, levels) + generator.uniform(-_JITTER, _JITTER, groups)
        for levels in _stratified(generator, _KNOTS).T
    ]
    return [
        {
            curve.group: _nearest(rungs(curve, 1), float(share) * curve.size)
            for curve, share in zip(curves, shares, strict=True)
        }
        for shares in (*uniform, *mixed, *smooth)
    ]


def _stratified(generator: np.random.Generator, rows: int) -> Array:
    """Shares [rows, mixtures] between 0.1 and 1: every row has one from each of as many equal intervals."""
    steps = np.array([generator.permutation(_MIXTURES) for _ in range(rows)])
    return np.asarray(0.1 + 0.9 * (steps + generator.random(steps.shape)) / _MIXTURES)


def _nearest(widths: NDArray[np.intp], wanted: float) -> int:
    return int(widths[np.argmin(np.abs(widths - wanted))])
