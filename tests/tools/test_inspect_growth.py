"""Inspecting a network takes work in proportion to its size: calls are counted, for no clock is the same twice."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType

import onnx
import pytest
from bench_inspect import chain, sums

from onnx_subprune.network.analysis import analyse


def _calls(work: Callable[[], object]) -> int:
    """Return how many Python functions some work calls."""
    count = 0

    def note(_frame: FrameType, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count


@pytest.mark.parametrize("build", [chain, sums])
def test_four_times_the_nodes_take_about_four_times_the_work(build: Callable[[int], onnx.ModelProto]) -> None:
    small, large = build(40), build(160)
    analyse(small).document()  # what is done once in a process is no growth
    growth = _calls(lambda: analyse(large).document()) / _calls(lambda: analyse(small).document())
    assert growth < 5


def test_so_does_the_question_which_branches_may_go() -> None:
    """Asked by itself: it used to be a walk over the graph for every group, sixteen times the work."""
    calls = []
    for nodes in (40, 160):
        structure = analyse(chain(nodes)).structure
        calls.append(_calls(lambda groups=structure.groups: [group.removable for group in groups]))
        assert len(structure.removable) == (nodes - 1) // 5
    assert calls[1] / calls[0] < 5


def test_the_networks_have_the_size_they_are_asked_for() -> None:
    for nodes in (6, 80, 83):
        assert len(chain(nodes).graph.node) == nodes
    assert len(sums(50).graph.initializer) == 50
    for model in (chain(11), sums(12)):
        onnx.checker.check_model(model, full_check=True)
