"""Loss curves as small pictures in SVG: one panel for each group, all on one scale, with the chosen cut.

Colours are classes that the page's style fills in, so that a picture follows light and dark. The words are in the
caption and in the label for those who cannot see it; there is no text in the picture, which would shrink with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from onnx_subprune.formatting import percent

__all__ = ["HEADROOM", "Panel", "losses_along", "panels"]

WIDTH, HEIGHT = 160, 80
HEADROOM = 1.6
"""The scale ends at this multiple of the largest loss that was taken: what nobody chose may leave the picture."""


@dataclass(frozen=True)
class Panel:
    """One group's curve.

    Attributes:
        name: of the group.
        units, kept: before and after.
        loss: at the chosen cut, as written in the caption.
        top: the value at the upper edge of the picture, as written.
        path: the curve, an SVG path within `WIDTH` x `HEIGHT`.
        x, y: the chosen cut.

    """

    name: str
    units: int
    kept: int
    loss: str
    top: str
    path: str
    x: float
    y: float


def panels(groups: Sequence[Mapping[str, Any]], losses_at: str | None) -> list[Panel]:
    """Return a panel for every group that has a curve, the largest loss taken first.

    Args:
        groups: of the document.
        losses_at: where losses are errors; without any the share of variance lost is drawn.

    """
    curves = [(group, losses) for group in groups if (losses := losses_along(group["curve"], losses_at))]
    taken = [losses[group["curve"]["kept"].index(group["kept"])] for group, losses in curves]
    highest = max((max(losses) for _, losses in curves), default=0.0)
    top = min(highest, HEADROOM * max(taken, default=0.0)) or highest or 1.0
    write = percent if losses_at != "consumers" else _plain
    drawn = [
        _panel(group, losses, loss, top, (write(loss), write(top)))
        for (group, losses), loss in zip(curves, taken, strict=True)
    ]
    order = sorted(range(len(drawn)), key=lambda index: (-taken[index], index))
    return [drawn[index] for index in order]


def losses_along(curve: Mapping[str, Any] | None, losses_at: str | None) -> list[float]:
    """Return the losses at the widths of a curve, as they are drawn: roots of squared errors, or shares of variance.

    Args:
        curve: of a group of the document; None for a group without one.
        losses_at: where losses are errors, `outputs` or `consumers`; None where only variance is known.

    Returns:
        A loss for each width; nothing for a group without a curve of this kind.

    >>> losses_along({"variance": [0.0, 0.75, 1.0]}, None), losses_along({"loss": [4.0, 1.0, 0.0]}, "outputs")
    ([1.0, 0.25, 0.0], [2.0, 1.0, 0.0])

    """
    if curve is None:
        return []
    if losses_at is None:
        return [1.0 - share for share in curve["variance"]]
    return [math.sqrt(max(0.0, loss)) for loss in curve["loss"] or ()]


def _panel(
    group: Mapping[str, Any], losses: Sequence[float], taken: float, top: float, written: tuple[str, str]
) -> Panel:
    def point(kept: int, loss: float) -> tuple[float, float]:
        return round(WIDTH * kept / group["units"], 1), round(HEIGHT * (1 - loss / top), 1)

    points = [point(kept, loss) for kept, loss in zip(group["curve"]["kept"], losses, strict=True)]
    path = "M" + "L".join(f"{x:g} {y:g}" for x, y in _visible_points(points))
    x, y = point(group["kept"], taken)
    return Panel(group["name"], group["units"], group["kept"], *written, path, x, max(y, 0.0))


def _visible_points(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points within the picture, and where the curve enters it from above."""
    for index, (x, y) in enumerate(points):
        if y >= 0:
            if index == 0:
                return list(points)
            before, above = points[index - 1]
            edge = before + (x - before) * (0 - above) / (y - above)
            return [(round(edge, 1), 0.0), *points[index:]]
    return list(points[-1:])


def _plain(number: float) -> str:
    return f"{number:.3g}"
