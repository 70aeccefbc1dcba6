"""Losses of the network when a group loses units: curves of loss, scaled by errors measured at the output.

The loss at a group's consumers has the right shape, but the part of it that reaches the output differs from group to
group. It is measured by running the network with that group alone pruned, at one or two widths.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from onnx_subprune.budget.curves import Curve
from onnx_subprune.budget.ladder import losses_of
from onnx_subprune.errors import InternalError

__all__ = ["fit_sensitivity"]

_LEAST = 1e-9


def fit_sensitivity(curves: Sequence[Curve], measured: Mapping[str, Sequence[tuple[int, float]]]) -> list[Curve]:
    """Return the curves with losses that are errors at the output.

    Through the measured points of a group goes a curve that never rises as units are added: between two of them a
    power of the loss (a straight line in log-log), outside of them in proportion to the loss. A group without points
    is scaled like the median of the others. Where a measured error rises with the width, the points are pooled: the
    geometric mean of errors and of losses.

    Args:
        curves: one per group, with losses.
        measured: per group (units kept, error at the output with only this group pruned to so many), any order.
            Points at which the curve loses nothing tell nothing and are passed over.

    Raises:
        InternalError: a curve has no losses, or a point is out of range.

    """
    points = {c.group: _points(c, measured.get(c.group, ())) for c in curves}
    scales = [float(np.exp(np.mean(error - loss))) for loss, error in points.values() if len(loss)]
    usual = float(np.median(scales)) if scales else 1.0
    return [replace(c, loss=_scaled(losses_of(c), *points[c.group], usual)) for c in curves]


def _points(curve: Curve, measured: Sequence[tuple[int, float]]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The logarithms of loss and error, both rising."""
    losses, pairs = losses_of(curve), []
    for width, error in measured:
        if not (0 <= width <= curve.size and 0.0 <= error < np.inf):
            raise InternalError(f"group {curve.group!r}: no error can be {error} at {width} units; please report this")
        if losses[width] > 0.0:
            pairs.append((np.log(losses[width]), np.log(max(error, _LEAST * losses[width]))))
    blocks = list[tuple[float, float, int]]()
    for loss, error in sorted(pairs):
        blocks.append((float(loss), float(error), 1))
        while len(blocks) > 1 and (blocks[-1][1] <= blocks[-2][1] or blocks[-1][0] <= blocks[-2][0]):
            blocks[-2:] = [_pooled(*blocks[-2:])]
    points = np.array([block[:2] for block in blocks], dtype=np.float64).reshape(-1, 2)
    return points[:, 0], points[:, 1]


def _pooled(a: tuple[float, float, int], b: tuple[float, float, int]) -> tuple[float, float, int]:
    count = a[2] + b[2]
    return (a[0] * a[2] + b[0] * b[2]) / count, (a[1] * a[2] + b[1] * b[2]) / count, count


def _scaled(
    losses: NDArray[np.float64], at: NDArray[np.float64], errors: NDArray[np.float64], usual: float
) -> NDArray[np.float64]:
    if not len(at):
        return losses * usual
    some = losses > 0.0
    logs = np.log(losses[some])
    # Beyond the ends the slope is one: the error stays in proportion to the loss.
    beyond = np.maximum(logs - at[-1], 0.0) + np.minimum(logs - at[0], 0.0)
    result = np.zeros_like(losses)
    result[some] = np.exp(np.interp(logs, at, errors) + beyond)
    return np.minimum.accumulate(result)
