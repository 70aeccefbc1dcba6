from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.budget import Curve
from onnx_subprune.errors import InternalError


def test_a_curve_keeps_its_own_read_only_copies() -> None:
    share = np.array([0.0, 0.5, 1.0])
    curve = Curve("g", 2, np.array([1, 0]), share)
    share[1] = 0.9
    assert curve.share[1] == 0.5
    with pytest.raises(ValueError, match="read-only"):
        curve.order[0] = 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0, "order": [], "share": [0.0]}, "minimum"),
        ({"minimum": -1}, "minimum"),
        ({"minimum": 3}, "minimum"),
        ({"round_to": 0}, "minimum"),
        ({"order": [0, 0]}, "order of 2"),
        ({"order": [0]}, "order of 2"),
        ({"share": [0.0, 1.0]}, "3 shares"),
        ({"share": [0.1, 0.5, 1.0]}, "3 shares"),
        ({"share": [0.0, 0.5, 0.9]}, "3 shares"),
        ({"share": [0.0, 1.1, 1.0]}, "never fall"),
        ({"share": [0.0, np.nan, 1.0]}, "never fall"),
        ({"loss": [1.0, 0.0]}, "3 finite losses"),
        ({"loss": [2.0, 1.0, 0.5]}, "3 finite losses"),
        ({"loss": [np.inf, 1.0, 0.0]}, "3 finite losses"),
        ({"loss": [2.0, np.nan, 0.0]}, "3 finite losses"),
        ({"loss": [1.0, 2.0, 0.0]}, "never rise"),
    ],
)
def test_a_curve_that_contradicts_itself_is_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InternalError, match=rf"'g': .*{message}"):
        Curve(**{"group": "g", "size": 2, "order": [0, 1], "share": [0.0, 0.5, 1.0], **options})  # type: ignore[arg-type]


def test_the_loss_of_a_curve_may_be_missing_and_is_read_only() -> None:
    assert Curve("g", 2, np.arange(2), np.array([0.0, 0.5, 1.0])).loss is None
    curve = Curve("g", 2, np.arange(2), np.array([0.0, 0.5, 1.0]), loss=np.array([3.0, 1.0, 0.0]))
    assert curve.loss is not None
    with pytest.raises(ValueError, match="read-only"):
        curve.loss[0] = 0.0
