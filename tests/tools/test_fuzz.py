"""Damaged files end every command in one line; and the tool that tries them can tell what does not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import fuzz
import pytest
from fuzzing.cases import Cases
from fuzzing.worker import Done

REFUSED = Done(7, "a model", ("inspect",), 1, "", "error: expected a model, found none; export it\n", 1.0, 1 << 27, ())


def test_two_hundred_damaged_files_end_in_a_line(tmp_path: Path) -> None:
    outcomes, faults = fuzz.try_all(range(200), tmp_path)
    assert sum(outcomes.values()) == 200
    assert not [str(fault) for fault in faults]
    assert outcomes["exit code 1"] > 50, "most damage is found"


@pytest.mark.slow
def test_two_thousand_damaged_files_end_in_a_line(tmp_path: Path) -> None:
    outcomes, faults = fuzz.try_all(range(200, 2200), tmp_path)
    assert sum(outcomes.values()) == 2000
    assert not [str(fault) for fault in faults]


def test_a_case_is_the_same_each_time(tmp_path: Path) -> None:
    first, second = Cases(tmp_path), Cases(tmp_path)
    for number in range(5):
        assert (first(number).name, first(number).content) == (second(number).name, second(number).content)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"code": 2}, "exit code 2"),
        ({"code": 0}, "1 errors with exit code 0"),
        ({"err": "Traceback (most recent call last):\n"}, "printed 'Traceback"),
        ({"err": "error: please report this\n"}, "asks to be reported"),
        ({"err": "error: \x1b[31m\n"}, "printed control characters"),
        ({"out": "a table\n"}, "printed a result and failed"),
        ({"seconds": 100.0}, "took 100 s"),
        ({"peak": 4 << 30}, "took 4096 MiB"),
        ({"changed": ("out.onnx",)}, "changed out.onnx"),
    ],
)
def test_what_is_a_fault(change: dict[str, object], what: str) -> None:
    assert fuzz.fault_of(REFUSED) is None
    fault = fuzz.fault_of(replace(REFUSED, **change))  # type: ignore[arg-type]
    assert fault is not None
    assert what in fault
