"""Sums over rows that a layer is corrected by: products of its inputs with themselves and with its error."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.threads import shared

__all__ = ["Pairs", "total_of"]

Matrix = NDArray[np.float64]
Array = NDArray[Any]

# Up to so many features sums are taken in double precision; beyond, ridges below single precision mean nothing.
_SMALL = 256
# Wider Gram matrices are summed in panels of so many columns, down to the diagonal, on as many threads as there are.
_PANEL = 256


class Pairs:
    """Sums of products of inputs x with themselves and with the parts of a layer's error, over rows.

    A weight may have several readers whose biases are apart: then the rows of each have an intercept of their own.

    Args:
        weight: [blocks, o, f], the present one.
        bias: the present one, [blocks, o]; of several readers [readers, blocks, o].
        parts: how many parts a target has: the layer's own output, and what it has to make up for.
        pivot: [blocks, f] or [readers, blocks, f], a value near the mean of x, so that sums of x - pivot lose no
            digits; zero without.

    Attributes:
        count: number of rows.
        gram: [blocks, f + readers, f + readers] float64 of z = [x - pivot; 1 for the reader of the row, 0 for others].
        cross: [parts, blocks, o, f + readers] of each part of the error with z.
        square: [blocks, o], sums of squares of the whole target.
        missed: [blocks, o], sums of squares of the whole error.

    """

    def __init__(self, weight: Matrix, bias: Matrix, parts: int, pivot: Array | None = None) -> None:
        blocks, outputs, features = weight.shape
        self.weight, self.bias = weight, bias
        self.readers = 1 if bias.ndim == 2 else len(bias)
        shape = (*bias.shape[:-1], features)
        self.pivot = np.zeros(shape) if pivot is None else pivot.astype(np.float64)
        self.single = features > _SMALL
        self.count = 0
        size = features + self.readers
        self._gram, self._halved = np.zeros((blocks, size, size)), False
        self.cross = np.zeros((parts, blocks, outputs, size))
        self.square = np.zeros((blocks, outputs))
        self.missed = np.zeros((blocks, outputs))
        self._turned: dict[np.dtype[Any], Array] = {}

    @property
    def features(self) -> int:
        """Number of features of each block."""
        return int(self.weight.shape[2])

    @property
    def pivots(self) -> Matrix:
        """The pivots, [readers, blocks, f]."""
        return self.pivot if self.pivot.ndim == 3 else self.pivot[None]

    @property
    def biases(self) -> Matrix:
        """The present biases, [readers, blocks, o]."""
        return self.bias if self.bias.ndim == 3 else self.bias[None]

    @property
    def gram(self) -> Matrix:
        """The sums of products of z with itself."""
        if self._halved:
            size = self._gram.shape[2]
            for start in range(0, size, _PANEL):
                stop = min(start + _PANEL, size)
                self._gram[:, start:stop, :start] = self._gram[:, :start, start:stop].transpose(0, 2, 1)
            self._halved = False
        return self._gram

    @property
    def finite(self) -> bool:
        """Whether no NaN and no infinity was among the rows."""
        return bool(np.isfinite(self._gram[:, :, self.features :]).all() and np.isfinite(self.missed).all())

    def add(self, x: Array, parts: Sequence[Array], weights: Array | None = None, reader: int = 0) -> None:
        """Add rows of one reader.

        Args:
            x: [blocks, rows, f].
            parts: of the targets, each [blocks, rows, o].
            weights: [rows], how often the squares of a row count; once where None.
            reader: which of the biases is that of the rows.

        """
        # What is not finite is told of by `finite`.
        with np.errstate(invalid="ignore", over="ignore"):
            self._add(x, parts, weights, reader)

    def _add(self, x: Array, parts: Sequence[Array], weights: Array | None, reader: int) -> None:
        kind, f = np.dtype(np.float32 if self.single else np.float64), self.features
        z = np.empty((*x.shape[:2], f + self.readers), kind)
        np.subtract(x, self.pivots[reader][:, None, :].astype(kind), out=z[:, :, :f])
        z[:, :, f:] = 0.0
        z[:, :, f + reader] = 1.0
        rest = np.concatenate(parts, axis=2, dtype=kind)
        if weights is not None:
            roots = np.sqrt(weights).astype(kind)[:, None]
            for values in (z, rest):
                np.multiply(values, roots, out=values)
        self.square += self._sums_of_squares(rest)
        # From here on it is the error: many rows are not copied for a name.
        rest[:, :, : self.weight.shape[1]] -= z @ self._present(kind)
        self._add_products(z, rest)
        self.missed += self._sums_of_squares(rest)
        self.count += x.shape[1]

    def _present(self, kind: np.dtype[Any]) -> Array:
        """Return the present weight, and what the layer gives at each reader's pivot: [blocks, f + readers, o]."""
        if kind not in self._turned:
            levels = self.biases + np.einsum("bof,rbf->rbo", self.weight, self.pivots)
            turned = np.concatenate([self.weight.transpose(0, 2, 1), levels.transpose(1, 0, 2)], axis=1)
            self._turned[kind] = turned.astype(kind)
        return self._turned[kind]

    def _sums_of_squares(self, parts: Array) -> Matrix:
        """Return the sums of squares of parts added up, [blocks, o]; the parts stand side by side."""
        total = total_of(np.split(parts, len(self.cross), axis=2))
        return np.asarray(np.square(total).sum(axis=1, dtype=np.float64))

    def _add_products(self, z: Array, errors: Array) -> None:
        """Add the products of rows z, which end in their intercepts, with themselves and with errors side by side."""
        size, gram, turned = z.shape[2], self._gram, z.transpose(0, 2, 1)

        def panel(start: int) -> None:
            columns = slice(start, start + _PANEL)
            gram[:, :start, columns] += turned[:, :start] @ z[:, :, columns]
            # A product of rows with themselves takes NumPy half of the work.
            gram[:, columns, columns] += turned[:, columns] @ z[:, :, columns]

        if self.features <= _PANEL:
            gram += turned @ z
        else:
            # The wider panels first: they are the longer ones.
            shared(panel, range(0, size, _PANEL)[::-1])
            self._halved = True
        products = errors.transpose(0, 2, 1) @ z
        self.cross += products.reshape(len(products), len(self.cross), -1, size).transpose(1, 0, 2, 3)


def total_of(parts: Sequence[Array]) -> Array:
    """Return the sum of the parts of a target or of an error.

    >>> total_of([np.array([1.0, 2.0]), np.array([0.5, 0.5])]).tolist()
    [1.5, 2.5]
    """
    return parts[0] if len(parts) == 1 else sum(parts[1:], start=parts[0])
