"""The sampler says in which package the time was spent."""

from __future__ import annotations

import sys
from collections.abc import Callable
from time import perf_counter
from types import FunctionType

import pytest
from accuracy.sampler import Sampler, package_of


def busy(seconds: float) -> None:
    end = perf_counter() + seconds
    while perf_counter() < end:
        sum(range(100))


def within(module: str, inner: Callable[[float], None]) -> Callable[[float], None]:
    """A function that looks as if it were of another module, and calls `inner`."""
    code = compile("def call(seconds): inner(seconds)", module, "exec").co_consts[0]
    return FunctionType(code, {"__name__": module, "inner": inner})


def test_time_is_told_by_package() -> None:
    with Sampler(0.001) as sampler:
        within("onnx_subprune.budget.allocate", busy)(0.3)
        within("onnx_subprune.calibration.engine", within("onnx_subprune.model.session", busy))(0.1)
        busy(0.1)
    packages = sampler.packages()
    assert next(iter(packages)) == "budget"
    assert set(packages) == {"budget", "runs of the network", "elsewhere"}
    assert sum(packages.values()) == pytest.approx(sampler.seconds)
    assert sampler.seconds >= 0.5


def test_frames_of_no_package_are_elsewhere() -> None:
    assert package_of(sys._getframe()) == package_of(None) == "elsewhere"
