"""Which targets are shared out by measured losses."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from onnx_subprune.options import Target
from onnx_subprune.planning.study import Study


@pytest.mark.parametrize(
    ("target", "allocation", "expected"),
    [
        ("macs=0.5", "measured", True),
        ("params=0.5", "measured", True),
        ("drop=0.01", "measured", True),
        ("macs=0.5", "loss", False),
        ("macs=1", "measured", False),
        ("units=0.5", "measured", False),
        ("variance=0.9", "measured", False),
    ],
)
def test_losses_are_measured_where_a_target_is_shared_out_by_them(
    study_with: Callable[..., Study], target: str, allocation: str, expected: bool
) -> None:
    assert study_with(target=Target.parse(target), allocation=allocation).measures_losses is expected
