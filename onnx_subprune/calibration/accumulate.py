"""Second moments of one tapped tensor, accumulated batch by batch at the speed of BLAS.

The tensor is seen as [pre, blocks, features, inner, post]; everything but `blocks` and `features` is a position. Runs
of positions are gathered to X [features, positions] (or used as they lie, where features are the last axis) and
multiplied in float32, each run short enough for its rounding errors to stay near 1e-6; the runs are summed in float64.

A feature that is nearly constant, of mean m and standard deviation s with m >> s, would lose its covariance to
cancellation. Such a tensor is shifted by a fixed vector c close to its mean, chosen on the first run, and the moments
about the origin are put back in float64 at the end: with S the sum of the shifted columns and n their number,
X Xᵀ = (X-c)(X-c)ᵀ + c tᵀ + t cᵀ, where t = S + n c / 2.

Where errors count relative to the size of another tensor, each position counts one over its mean square there, and n is
the sum of these weights.

Few positions of many features are multiplied in float64, straight into one triangle of the sums: to add up products of
all pairs takes longer there than to work them out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import blas

from onnx_subprune.calibration.taps import Tap
from onnx_subprune.errors import DataError

__all__ = ["Accumulator", "position_weights"]

Array = NDArray[Any]

# Long enough for BLAS at any width, short enough for float32 sums and for a modest scratch copy.
_RUN_ENTRIES = 1 << 22
_RUN_POSITIONS = 1 << 16
# Mean² / variance past which the covariance is taken about a shifted origin.
_SHIFT_RATIO = 16.0
_SHIFT_POSITIONS = 4096
_ROWS_AT_ONCE = 1024
# Fewer positions than so many, of at least so many features.
_FEW_POSITIONS, _MANY_FEATURES = 512, 1024
# No position counts more than one whose mean square is so small a share of the batch's median.
_SMALLEST_SQUARE = 1e-2


class Accumulator:
    """Affine second moments of a tap, as sums: `add` batches, then read `count` and `finish()`."""

    def __init__(self, tap: Tap) -> None:
        self.tap = tap
        self.count = 0
        self._weight = 0.0
        self._moments: list[NDArray[np.float64]] = []
        self._shifts: list[Array | None] = []

    def add(self, x: Array, relative: Array | None = None) -> None:
        """Add the positions of `x`, a tensor of any rank that holds the features on the axis of the tap.

        Args:
            x: the tensor.
            relative: where the tap names one, the tensor to whose size errors are relative.

        Raises:
            DataError: the axis does not fit the tap, or a value is NaN, infinite or too large to square.

        """
        # What is not finite is reported by `_check`, once, for all operations on the way.
        with np.errstate(invalid="ignore", over="ignore"):
            view = _view(x, self.tap)
            self._add(view, None if relative is None else self._weights(relative, view.shape[0]))

    def _weights(self, relative: Array, positions: int) -> Array:
        """Return one over the mean square of each position, as a normalisation divides by it: [positions]."""
        weights = position_weights(relative)
        if len(weights) != positions:
            raise DataError(
                f"tensor '{self.tap.relative}': {positions} positions expected as in '{self.tap.tensor}', found "
                f"{len(weights)}; please report this"
            )
        return weights

    def _add(self, view: Array, weights: Array | None) -> None:
        if not self._moments:
            features = view.shape[2]
            self._moments = [np.zeros((features + 1, features + 1)) for _ in range(view.shape[1])]
            self._shifts = [_choose_shift(view[:, block]) for block in range(view.shape[1])]
        if view.shape[2] + 1 != self._moments[0].shape[0]:
            raise DataError(
                f"tensor '{self.tap.tensor}': {self._moments[0].shape[0] - 1} features expected as in the first batch, "
                f"found {view.shape[2]}; feed inputs whose shapes leave this axis alone"
            )
        for block, moments in enumerate(self._moments):
            _add_block(moments, view[:, block], self._shifts[block], weights)
            self._check(moments)
        positions = view.size // (view.shape[1] * view.shape[2])
        self.count += positions
        self._weight += positions if weights is None else float(weights.sum())

    def finish(self) -> NDArray[np.float64]:
        """Return the moments [blocks, features + 1, features + 1] about the origin; the accumulator is then spent."""
        for moments, shift in zip(self._moments, self._shifts, strict=True):
            _mirror(moments)
            if shift is not None:
                _unshift(moments, shift.astype(np.float64), self._weight)
            moments[:-1, -1] = moments[-1, :-1]
            moments[-1, -1] = self._weight
        return self._moments[0][None] if len(self._moments) == 1 else np.stack(self._moments)

    def _check(self, moments: NDArray[np.float64]) -> None:
        # A NaN or an infinity in a feature always reaches its own diagonal entry.
        if not np.isfinite(moments.diagonal()).all():
            feature = int(np.flatnonzero(~np.isfinite(moments.diagonal()))[0])
            raise DataError(
                f"tensor '{self.tap.tensor}': finite values below 1e19 expected, found NaN, inf or larger in feature "
                f"{feature}; check the calibration inputs, or run the model in float32"
            )


def position_weights(relative: Array) -> Array:
    """Return one over the mean square of each position, as a normalisation divides by it: [positions], float64.

    Args:
        relative: features last. A position whose mean square is below a hundredth of the median counts as if it had
            that: padding with zeros must not count more than all else.

    >>> position_weights(np.array([[1.0, 1.0], [2.0, 2.0], [0.0, 0.0]]))
    array([  1.  ,   0.25, 100.  ])

    """
    rows = relative.reshape(-1, relative.shape[-1])
    squares = np.square(rows, dtype=np.float32).mean(axis=1, dtype=np.float64)
    # Positions of zeros, as padding leaves them, must not count more than all others together.
    usual = float(np.median(squares)) if squares.size else 1.0
    usual = usual or float(squares.mean()) or 1.0
    return np.asarray(1.0 / np.maximum(squares, _SMALLEST_SQUARE * usual))


def _view(x: Array, tap: Tap) -> Array:
    """`x` as [pre, blocks, features, inner, post] without a copy where it is contiguous."""
    if not -x.ndim <= tap.axis < x.ndim:
        raise DataError(
            f"tensor '{tap.tensor}': an axis {tap.axis} expected, found rank {x.ndim}; tap another axis or tensor"
        )
    axis = tap.axis % x.ndim
    if tap.stack:
        # The blocks move before the features, and the two axes count as one.
        last = axis - len(tap.stack)
        x = np.moveaxis(x, tap.stack, range(last, axis))
        x, axis = x.reshape(*x.shape[:last], -1, *x.shape[axis + 1 :]), last
    size, entries = x.shape[axis], tap.blocks * tap.inner * tap.outer
    if size % entries or not size:
        raise DataError(
            f"tensor '{tap.tensor}': axis {tap.axis} expected to hold a multiple of {entries} entries "
            f"(blocks x outer x inner), found {size}; tap another axis or tensor"
        )
    pre, post = (int(np.prod(shape)) for shape in (x.shape[:axis], x.shape[axis + 1 :]))
    # Either there is one block, and its runs are further positions before the axis, or there is one run.
    return x.reshape(pre * tap.outer, tap.blocks, size // entries, tap.inner, post)


def _add_block(moments: NDArray[np.float64], x: Array, shift: Array | None, weights: Array | None = None) -> None:
    """Add one block [pre, features, inner, post]: products in the leading square, sums in the last row.

    Each of the `pre` positions counts by its weight, if there are any; then inner and post are 1.
    """
    start = 0
    for run in _runs(x):
        if weights is not None:
            _add_weighted(moments, _converted(run[:, :, 0, 0], shift), weights[start : start + len(run)])
            start += len(run)
        elif run.shape[2:] == (1, 1):
            rows = _converted(run[:, :, 0, 0], shift)
            if len(rows) < _FEW_POSITIONS and rows.shape[1] >= _MANY_FEATURES:
                _add_few(moments, rows)
                continue
            moments[:-1, :-1] += rows.T @ rows
            moments[-1, :-1] += rows.sum(axis=0, dtype=np.float64)
        else:
            columns = _gathered(run, shift)
            moments[:-1, :-1] += columns @ columns.T
            moments[-1, :-1] += columns.sum(axis=1)


def _add_few(moments: NDArray[np.float64], rows: Array) -> None:
    """Add products and sums of rows [positions, features] to the lower triangle alone."""
    affine = np.ones((len(rows), rows.shape[1] + 1))
    # What float32 cannot square is refused at any width.
    affine[:, :-1] = np.where(np.isfinite(np.square(rows)), rows, np.inf)
    blas.dsyrk(1.0, affine.T, beta=1.0, c=moments.T, lower=0, overwrite_c=1)


def _mirror(moments: NDArray[np.float64]) -> None:
    """Copy the lower triangle to the upper one, which lacks what `_add_few` added."""
    for start in range(0, len(moments) - 1, _ROWS_AT_ONCE):
        rows = slice(start, min(start + _ROWS_AT_ONCE, len(moments) - 1))
        block = moments[rows, rows]
        block[:] = np.tril(block) + np.tril(block, -1).T
        moments[rows, rows.stop :] = moments[rows.stop :, rows].T


def _add_weighted(moments: NDArray[np.float64], rows: Array, weights: Array) -> None:
    roots = np.sqrt(weights)
    scaled = rows * roots[:, None].astype(rows.dtype)
    moments[:-1, :-1] += scaled.T @ scaled
    moments[-1, :-1] += roots @ scaled


def _runs(x: Array, positions: int = _RUN_POSITIONS) -> Iterator[Array]:
    """Cut [pre, features, inner, post] into runs of at most `positions`, fewer where there are many features."""
    pre, features, inner, post = x.shape
    limit = max(1, min(positions, _RUN_ENTRIES // features) // inner)
    wide, long = min(post, limit), max(1, limit // max(post, 1))
    for start in range(0, pre, long):
        for column in range(0, post, wide):
            yield x[start : start + long, :, :, column : column + wide]


def _working(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float64 if dtype == np.float64 else np.float32)


def _converted(rows: Array, shift: Array | None) -> Array:
    work = rows.astype(_working(rows.dtype), copy=False)
    return work if shift is None else work - shift


def _gathered(run: Array, shift: Array | None) -> Array:
    """[pre, features, inner, post] -> contiguous [features, positions], shifted."""
    ordered = run.transpose(1, 0, 2, 3)
    copy = np.empty(ordered.shape, _working(run.dtype))
    if shift is None:
        np.copyto(copy, ordered)
    else:
        np.subtract(ordered, shift[:, None, None, None], out=copy, dtype=copy.dtype)
    return copy.reshape(len(copy), -1)


def _choose_shift(x: Array) -> Array | None:
    """The mean of the first positions of `x` if some feature hardly varies about it, else None."""
    run = next(_runs(x, _SHIFT_POSITIONS), None)
    if run is None:
        return None
    mean = run.mean(axis=(0, 2, 3), dtype=np.float64)
    variance = run.var(axis=(0, 2, 3), dtype=np.float64)
    needed = bool(np.any(mean * mean > _SHIFT_RATIO * variance))
    return mean.astype(_working(x.dtype)) if needed else None


def _unshift(moments: NDArray[np.float64], shift: NDArray[np.float64], count: float) -> None:
    sums = moments[-1, :-1]
    half = sums + 0.5 * count * shift
    square = moments[:-1, :-1]
    for start in range(0, len(shift), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        square[rows] += np.outer(shift[rows], half) + np.outer(half[rows], shift)
    sums += count * shift
