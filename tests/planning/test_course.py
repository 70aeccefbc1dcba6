"""The forecast beside the truth, as plain data."""

from __future__ import annotations

from onnx_subprune.planning.course import Course
from onnx_subprune.planning.forecast import Expected, Forecast
from onnx_subprune.progress import Taken


def test_without_a_forecast_there_are_no_times() -> None:
    assert Course(taken={"calibrating": Taken(1.0, 5)}).document() is None


def test_phases_of_either_side_are_listed() -> None:
    forecast = Forecast({"calibrating": Expected(2.0, 10), "trying allocations": Expected(1.0, 30)}, ("measuring",))
    course = Course(
        forecast, ("samples 512 in the place of 2048",), {"calibrating": Taken(3.0, 20), "own": Taken(4.0, 7)}
    )
    document = course.document()
    assert document is not None
    assert (document["expected_seconds"], document["taken_seconds"]) == (3.0, 7.0)
    assert (document["expected_bytes"], document["taken_bytes"]) == (30, 20)
    assert document["left_out"] == ["samples 512 in the place of 2048"]
    assert document["phases"]["own"]["expected_seconds"] is None
    assert document["phases"]["trying allocations"]["taken_seconds"] == 0.0
    assert document["phases"]["calibrating"] == {
        "expected_seconds": 2.0,
        "taken_seconds": 3.0,
        "expected_bytes": 10,
        "taken_bytes": 20,
    }
