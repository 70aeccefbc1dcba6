"""Figures of a pruning for notebooks, drawn with matplotlib, which is an extra of this package."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from onnx_subprune.errors import OptionError
from onnx_subprune.formatting import printable
from onnx_subprune.report.loss_panels import HEADROOM, losses_along

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot"]

_DENSE, _PRUNED, _LOSS = "#c3c9d0", "#1f5fbf", "#b3421b"
_COLUMNS, _MOST_CURVES = 4, 24


def plot(document: Mapping[str, Any], what: str = "widths") -> Figure:
    """Return a figure: `widths` before and after by group, or the loss `curves` with the chosen cut.

    Of more than 24 curves, those with the largest loss taken are drawn.

    Args:
        document: of a pruning.
        what: `widths` or `curves`.

    Raises:
        OptionError: there is no such figure, nothing to draw, or no matplotlib.

    """
    if what not in _DRAWN:
        raise OptionError(f"expected a figure among {', '.join(_DRAWN)}, found '{what}'; choose one of them")
    return _DRAWN[what](document)


def _figure(width: float, height: float) -> Figure:
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415  (an extra, and slow to import)
    except ImportError as error:
        raise OptionError(
            "expected matplotlib to draw with, found none; run: pip install 'onnx-subprune[plot]'"
        ) from error

    class SelfShowing(Figure):  # type: ignore[misc,unused-ignore] # untyped where matplotlib is not installed
        """A figure that a notebook shows without pyplot."""

        def _repr_png_(self) -> bytes:
            stream = io.BytesIO()
            self.savefig(stream, format="png", dpi=120)
            return stream.getvalue()

    return SelfShowing(figsize=(width, height), layout="constrained")


def _widths(document: Mapping[str, Any]) -> Figure:
    groups = document["groups"]
    figure = _figure(8.0, 1.0 + 0.22 * max(len(groups), 4))
    axes = figure.subplots()
    places = range(len(groups))
    axes.barh(places, [group["units"] for group in groups], color=_DENSE, label="before")
    axes.barh(places, [group["kept"] for group in groups], color=_PRUNED, height=0.5, label="after")
    axes.set_yticks(list(places), [printable(group["name"]) for group in groups], fontsize=7, parse_math=False)
    axes.invert_yaxis()
    axes.set_xlabel("units")
    macs_share = document["pruned"]["macs"] / max(document["dense"]["macs"], 1)
    axes.set_title(f"{document['target']}: {macs_share:.1%} of the MACs")
    axes.legend(loc="lower right", frameon=False)
    return figure


def _curves(document: Mapping[str, Any]) -> Figure:
    losses_at = document["losses_at"]
    curves = [_Curve(group, losses_at) for group in document["groups"] if losses_along(group["curve"], losses_at)]
    curves = sorted(curves, key=lambda curve: -curve.taken)[:_MOST_CURVES]
    if not curves:
        raise OptionError("expected a result of `prune`, which has loss curves, found one without; plot the widths")
    rows = math.ceil(len(curves) / _COLUMNS)
    figure = _figure(2.4 * _COLUMNS, 1.7 * rows + 0.4)
    grid = figure.subplots(rows, _COLUMNS, squeeze=False)
    top = max(curve.taken for curve in curves) * HEADROOM or 1.0
    for number, axes in enumerate(grid.flat):
        if number < len(curves):
            curves[number].draw(axes, top)
        else:
            axes.set_axis_off()
    figure.suptitle(f"{_MEANING[losses_at]}, by units kept", fontsize=10)
    return figure


class _Curve:
    """The losses of one group, at some of the widths it may have, and the one that was taken."""

    def __init__(self, group: Mapping[str, Any], losses_at: str | None) -> None:
        self._name, self._kept = group["name"], group["kept"]
        self._widths: list[int] = group["curve"]["kept"]
        self._losses = losses_along(group["curve"], losses_at)
        self.taken = self._losses[self._widths.index(self._kept)]

    def draw(self, axes: Axes, top: float) -> None:
        """Draw the losses up to `top`, and the chosen cut."""
        axes.plot(self._widths, self._losses, color=_LOSS)
        axes.axvline(self._kept, color=_PRUNED, linestyle="--", linewidth=1)
        axes.plot([self._kept], [self.taken], "o", color=_PRUNED, markersize=4)
        axes.set_ylim(0, top)
        axes.set_title(printable(self._name), fontsize=7, parse_math=False)
        axes.tick_params(labelsize=6)


_MEANING: dict[str | None, str] = {
    "outputs": "relative error at the outputs",
    "consumers": "error at the layers that read the group",
    None: "share of variance lost",
}
_DRAWN = {"widths": _widths, "curves": _curves}
