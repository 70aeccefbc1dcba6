"""Loss curves as small pictures: which are drawn, on which scale, and what of a curve is within its picture."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from onnx_subprune.report.loss_panels import HEIGHT, WIDTH, losses_along, panels


def group(name: str, loss: list[float] | None, kept: int, variance: list[float] | None = None) -> dict[str, Any]:
    """Return a group of four units with squared losses at 0, 2 and 4 of them."""
    curve = {"kept": [0, 2, 4], "loss": loss, "variance": variance or [0.0, 0.75, 1.0]}
    return {"name": name, "units": 4, "kept": kept, "curve": curve}


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"(-?[\d.]+) (-?[\d.]+)", path)]


def test_losses_are_roots_of_squared_errors_or_shares_of_variance() -> None:
    curve = group("a", [4.0, -1e-9, 0.0], 2)["curve"]
    assert losses_along(curve, "outputs") == [2.0, 0.0, 0.0]
    assert losses_along(curve, None) == [1.0, 0.25, 0.0]
    assert losses_along(None, "outputs") == []
    assert losses_along(group("a", None, 2)["curve"], "consumers") == []


def test_the_largest_loss_taken_comes_first_and_groups_without_a_curve_are_left_out() -> None:
    groups = [group("small", [1.0, 0.01, 0.0], 2), group("large", [1.0, 0.25, 0.0], 2)]
    drawn = panels([*groups, {"name": "none", "units": 4, "kept": 2, "curve": None}], "outputs")
    assert [panel.name for panel in drawn] == ["large", "small"]
    assert [panel.loss for panel in drawn] == ["50%", "10%"]
    assert len({panel.top for panel in drawn}) == 1
    assert panels([], "outputs") == []


def test_a_curve_enters_from_above_where_it_leaves_the_scale() -> None:
    # The scale ends at 1.6 times the loss taken, 0.8; the curve falls from 2.0 at no unit to 0.5 at two of four.
    (panel,) = panels([group("a", [4.0, 0.25, 0.0], 2)], "consumers")
    (x, y), *others = points(panel.path)
    assert y == 0.0
    assert x == pytest.approx(WIDTH / 2 * (2.0 - 0.8) / (2.0 - 0.5), abs=0.1)
    assert others == [(WIDTH / 2, pytest.approx(HEIGHT * (1 - 0.5 / 0.8), abs=0.1)), (WIDTH, HEIGHT)]
    assert (panel.x, panel.y) == others[0]
    assert (panel.loss, panel.top) == ("0.5", "0.8")


def test_where_nothing_is_lost_the_whole_curve_is_the_scale() -> None:
    (panel,) = panels([group("a", [0.04, 0.01, 0.0], 4)], "consumers")
    assert panel.top == "0.2"
    assert points(panel.path)[0] == (0.0, 0.0)
    assert panel.y == HEIGHT
    (flat,) = panels([group("b", [0.0, 0.0, 0.0], 4)], "outputs")
    assert all(math.isfinite(y) for _, y in points(flat.path))
