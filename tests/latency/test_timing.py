"""Times by a clock that the test turns, with interruptions as it likes them."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.latency import Effort, Times, chain, take_turns, times, timing
from onnx_subprune.latency.layer_chains import Sizes
from onnx_subprune.model import open_session


class Machine:
    """A clock, and models that let it go on; every so many runs one is interrupted for long."""

    def __init__(self, seconds: list[float], every: int = 0) -> None:
        self.now, self.interrupted, self._runs, self._every = 0.0, 0, 0, every
        self.turns: list[Callable[[], object]] = [lambda s=s: self._run(s) for s in seconds]

    def _run(self, seconds: float) -> None:
        self._runs += 1
        self.now += seconds
        if self._every and self._runs % self._every == 0:
            self.now += 4.0
            self.interrupted += 1

    def timed(self, effort: Effort) -> Times:
        return take_turns(self.turns, effort, clock=lambda: self.now, interrupted=lambda: self.interrupted)


def test_ratios_and_times_are_those_of_the_models() -> None:
    found = Machine([2.0, 1.0, 0.5]).timed(Effort(10, 60.0))
    assert found.ratios == pytest.approx([1.0, 0.5, 0.25])
    assert found.milliseconds == pytest.approx([2000.0, 1000.0, 500.0])
    assert found.seconds.shape == (10, 3)
    assert found.interval(1) == pytest.approx((0.5, 0.5))


@pytest.mark.parametrize("every", [4, 5, 7])
def test_interrupted_runs_do_not_count(every: int) -> None:
    found = Machine([2.0, 1.0, 0.5], every).timed(Effort(10, 1.0))
    assert not found.peaceful.all()
    assert found.ratios == pytest.approx([1.0, 0.5, 0.25])
    assert found.blocks(3) == pytest.approx(np.tile([2.0, 1.0, 0.5], (3, 1)))


def test_where_every_run_is_interrupted_all_of_them_count() -> None:
    found = Machine([2.0, 1.0], 1).timed(Effort(10, 0.0))
    assert not found.peaceful.any()
    assert found.ratios == pytest.approx([1.0, 5.0 / 6.0])


def test_both_orders_take_turns() -> None:
    order: list[str] = []
    turns = [lambda: order.append("a"), lambda: order.append("b")]
    take_turns(turns, Effort(1, 0.0), clock=cycle([0.0, 1.0]).__next__, interrupted=lambda: 0)
    assert "".join(order[2:]) == "abba" * 3


def test_a_session_that_is_slow_while_it_lives_does_not_decide() -> None:
    sittings = [Machine([2.0, seconds]).timed(Effort(6, 60.0)) for seconds in (1.0, 1.5, 1.0)]
    # Many rounds of the unlucky one count no more than few.
    sittings[1] = Machine([2.0, 1.5]).timed(Effort(60, 60.0))
    assert Times.joined(sittings).ratios == pytest.approx([1.0, 0.5])
    assert len(Times.joined(sittings).seconds) == 72


def test_every_sitting_has_sessions_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = Sizes(outer=8, image=4, rows=64, repeats=1)
    models, feeds = zip(*(chain("matmul", width, sizes) for width in (8, 64)), strict=True)
    opened: list[int] = []

    def opening(model: onnx.ModelProto, *rest: Any, **more: Any) -> Any:
        opened.append(models.index(model))
        return open_session(model, *rest, **more)

    monkeypatch.setattr(timing, "open_session", opening)
    found = times(models, feeds[0], threads=1, effort=Effort(6, 0.1, sittings=3))
    assert opened == [0, 1, 1, 0, 0, 1]
    assert found.sitting is not None
    assert set(found.sitting) == {0, 1, 2}


def test_real_models_are_timed_on_one_thread_and_on_more() -> None:
    sizes = Sizes(outer=8, image=4, rows=64, repeats=1)
    models, feeds = zip(*(chain("matmul", width, sizes) for width in (8, 64)), strict=True)
    for threads in (1, None):
        found = times(models, feeds[0], threads=threads, effort=Effort(6, 0.1))
        assert found.seconds.shape[1] == 2
        assert (found.seconds > 0).all()
        assert found.ratios[0] == 1.0


def test_fewer_rounds_than_blocks_are_a_block_each() -> None:
    seconds = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    timed = Times(seconds, np.ones_like(seconds, np.bool_))
    np.testing.assert_array_equal(timed.blocks(8), seconds)
