"""Figures of a pruning for notebooks, drawn with matplotlib, which is an extra of this package."""

from __future__ import annotations

import io
import math
from typing import TYPE_CHECKING

from onnx_subprune.errors import OptionError
from onnx_subprune.report.document_parts import groups_as_dicts

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from onnx_subprune.budget import Curve
    from onnx_subprune.pipeline import Result

__all__ = ["plot"]

_DENSE, _PRUNED, _LOSS = "#c3c9d0", "#1f5fbf", "#b3421b"
_COLUMNS, _MOST_CURVES = 4, 24


def plot(result: Result, what: str = "widths") -> Figure:
    """Return a figure: `widths` before and after by group, or the loss `curves` with the chosen cut.

    Of more than 24 curves, those with the largest loss taken are drawn.

    Raises:
        OptionError: there is no such figure, nothing to draw, or no matplotlib.

    """
    if what not in _DRAWN:
        raise OptionError(f"expected a figure among {', '.join(_DRAWN)}, found '{what}'; choose one of them")
    return _DRAWN[what](result)


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra, and slow to import)
    except ImportError as error:
        raise OptionError(
            "expected matplotlib to draw with, found none; run: pip install 'onnx-subprune[plot]'"
        ) from error

    class Shown(Figure):  # type: ignore[misc,unused-ignore] # untyped where matplotlib is not installed
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=120)
            return stream.getvalue()

    return Shown(figsize=(width, height), layout="constrained")


def _widths(result: Result) -> Figure:
    groups = groups_as_dicts(result)
    figure = _figure(8.0, 1.0 + 0.22 * max(len(groups), 4))
    axes = figure.subplots()
    places = range(len(groups))
    axes.barh(places, [group["units"] for group in groups], color=_DENSE, label="before")
    axes.barh(places, [group["kept"] for group in groups], color=_PRUNED, height=0.5, label="after")
    axes.set_yticks(list(places), [group["name"] for group in groups], fontsize=7)
    axes.invert_yaxis()
    axes.set_xlabel("units")
    axes.set_title(f"{result.plan.target}: {result.pruned.macs / max(result.dense.macs, 1):.1%} of the MACs")
    axes.legend(loc="lower right", frameon=False)
    return figure


def _curves(result: Result) -> Figure:
    kept = {group.name: len(group.kept) for group in result.plan.groups}
    chosen = sorted(result.curves, key=lambda curve: -_heights(curve)[kept[curve.group]])[:_MOST_CURVES]
    if not chosen:
        raise OptionError("expected a result of `prune`, which has loss curves, found one without; plot the widths")
    rows = math.ceil(len(chosen) / _COLUMNS)
    figure = _figure(2.4 * _COLUMNS, 1.7 * rows + 0.4)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    top = max(_heights(curve)[kept[curve.group]] for curve in chosen) * 1.6 or 1.0
    for number, axes in enumerate(grid.flat):
        if number < len(chosen):
            _draw_curve(axes, chosen[number], kept[chosen[number].group], top)
        else:
            axes.set_axis_off()
    figure.suptitle(f"{_MEANING[result.losses_at if chosen[0].loss is not None else '']}, by units kept", fontsize=10)
    return figure


def _draw_curve(axes: Axes, curve: Curve, kept: int, top: float) -> None:
    heights = _heights(curve)
    axes.plot(range(curve.size + 1), heights, color=_LOSS)
    axes.axvline(kept, color=_PRUNED, linestyle="--", linewidth=1)
    axes.plot([kept], [heights[kept]], "o", color=_PRUNED, markersize=4)
    axes.set_ylim(0, top)
    axes.set_title(curve.group, fontsize=7)
    axes.tick_params(labelsize=6)


def _heights(curve: Curve) -> list[float]:
    if curve.loss is None:
        return [1.0 - float(share) for share in curve.share]
    return [math.sqrt(float(loss)) for loss in curve.loss]


_MEANING = {
    "outputs": "relative error at the outputs",
    "consumers": "error at the layers that read the group",
    "": "share of variance lost",
}
_DRAWN = {"widths": _widths, "curves": _curves}
