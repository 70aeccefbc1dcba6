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

    Args:
        weight: [blocks, o, f], the present one.
        bias: [blocks, o], the present one.
        parts: how many parts a target has: the layer's own output, and what it has to make up for.
        pivot: [blocks, f], a value near the mean of x, so that sums of x - pivot lose no digits; zero without.

    Attributes:
        count: number of rows.
        gram: [blocks, f + 1, f + 1] float64 of z = [x - pivot; 1].
        cross: [parts, blocks, o, f + 1] of each part of the error with z.
        square: [blocks, o], sums of squares of the whole target.
        missed: [blocks, o], sums of squares of the whole error.

    """

    def __init__(self, weight: Matrix, bias: Matrix, parts: int, pivot: Array | None = None) -> None:
        blocks, outputs, features = weight.shape
        self.weight, self.bias = weight, bias
        self.pivot = np.zeros((blocks, features)) if pivot is None else pivot.astype(np.float64)
        self.single = features > _SMALL
        self.count = 0
        self._gram, self._halved = np.zeros((blocks, features + 1, features + 1)), False
        self.cross = np.zeros((parts, blocks, outputs, features + 1))
        self.square = np.zeros((blocks, outputs))
        self.missed = np.zeros((blocks, outputs))

    @property
    def gram(self) -> Matrix:
        """The sums of products of z with itself."""
        if self._halved:
            for start in range(0, self._gram.shape[1] - 1, _PANEL):
                stop = min(start + _PANEL, self._gram.shape[1] - 1)
                self._gram[:, start:stop, :start] = self._gram[:, :start, start:stop].transpose(0, 2, 1)
            self._halved = False
        return self._gram

    @property
    def finite(self) -> bool:
        """Whether no NaN and no infinity was among the rows."""
        return bool(np.isfinite(self._gram[:, -1]).all() and np.isfinite(self.missed).all())

    def add(self, x: Array, parts: Sequence[Array], weights: Array | None = None) -> None:
        """Add rows x [blocks, rows, f] and the parts of their targets, each [blocks, rows, o].

        The squares of a row count `weights` [rows] times, once where there are none.
        """
        # What is not finite is told of by `finite`.
        with np.errstate(invalid="ignore", over="ignore"):
            self._add(x, parts, weights)

    def _add(self, x: Array, parts: Sequence[Array], weights: Array | None) -> None:
        kind = np.dtype(np.float32 if self.single else np.float64)
        z = (x - self.pivot[:, None, :].astype(x.dtype)).astype(kind, copy=False)
        targets = [part.astype(kind, copy=False) for part in parts]
        level = self.bias + np.einsum("bof,bf->bo", self.weight, self.pivot)
        present = z @ self.weight.transpose(0, 2, 1).astype(kind) + level[:, None, :].astype(kind)
        errors = [targets[0] - present, *targets[1:]]
        ones = np.ones(x.shape[1], kind)
        if weights is not None:
            ones = np.sqrt(weights).astype(kind)
            z, targets, errors = z * ones[:, None], [_each(p, ones) for p in targets], [_each(e, ones) for e in errors]
        self._add_products(z, errors, ones)
        self.square += np.square(total_of(targets)).sum(axis=1, dtype=np.float64)
        self.missed += np.square(total_of(errors)).sum(axis=1, dtype=np.float64)
        self.count += x.shape[1]

    def _add_products(self, z: Array, errors: Sequence[Array], ones: Array) -> None:
        f, gram, turned = z.shape[2], self._gram, z.transpose(0, 2, 1)
        sums = np.einsum("brf,r->bf", z, ones, dtype=np.float64)

        def panel(start: int) -> None:
            stop = min(start + _PANEL, f)
            gram[:, :stop, start:stop] += turned[:, :stop] @ z[:, :, start:stop]

        if f <= _PANEL:
            gram[:, :f, :f] += turned @ z
        else:
            # The wider panels first: they are the longer ones.
            shared(panel, range(0, f, _PANEL)[::-1])
            self._halved = True
        gram[:, f, :f] += sums
        gram[:, :f, f] += sums
        gram[:, f, f] += float(np.vdot(ones, ones))
        for cross, error in zip(self.cross, errors, strict=True):
            cross[:, :, :f] += error.transpose(0, 2, 1) @ z
            cross[:, :, f] += np.einsum("bro,r->bo", error, ones, dtype=np.float64)


def _each(values: Array, ones: Array) -> Array:
    return values * ones[:, None]


def total_of(parts: Sequence[Array]) -> Array:
    """Return the sum of the parts of a target or of an error."""
    return parts[0] if len(parts) == 1 else sum(parts[1:], start=parts[0])
