from __future__ import annotations

import heapq

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.budget import Curve, cheapest_cutoff, uniform, variance
from onnx_subprune.errors import TargetError

SETTINGS = settings(max_examples=150, deadline=None, derandomize=True)


@st.composite
def curves(draw: st.DrawFn) -> list[Curve]:
    made = []
    for i in range(draw(st.integers(1, 4))):
        gains = draw(st.lists(st.integers(0, 9), min_size=1, max_size=9))
        total = sum(gains)
        share = np.concatenate([[0.0], np.cumsum(gains) / total]) if total else np.array([0.0, *[1.0] * len(gains)])
        share[-1] = 1.0
        minimum = draw(st.integers(1, len(gains)))
        made.append(Curve(f"g{i}", len(gains), np.arange(len(gains)), share, minimum, draw(st.sampled_from([1, 1, 2]))))
    return made


def linear(weights: list[int]) -> object:
    return lambda counts: float(sum(w * c for w, c in zip(weights, counts.values(), strict=False)))


WEIGHTS = st.lists(st.integers(0, 7), min_size=4, max_size=4)


@SETTINGS
@given(curves(), st.floats(1e-6, 1.0), st.floats(1e-6, 1.0), st.integers(1, 4))
def test_widths_are_allowed_and_grow_with_the_request(made: list[Curve], a: float, b: float, round_to: int) -> None:
    for allocate in (uniform, variance):
        less, more = (allocate(made, share, round_to) for share in sorted((a, b)))
        for c in made:
            assert c.minimum <= less[c.group] <= more[c.group] <= c.size
            allowed = less[c.group] % round_to == 0 and less[c.group] % c.round_to == 0
            assert allowed or less[c.group] == c.size


@SETTINGS
@given(curves(), st.floats(1e-6, 1.0))
def test_variance_is_reached_and_no_smaller_width_reaches_it(made: list[Curve], cutoff: float) -> None:
    counts = variance(made, cutoff)
    for c in made:
        kept = counts[c.group]
        assert c.share[kept] >= cutoff - 1e-12
        narrower = kept - c.round_to
        assert narrower < c.minimum or cutoff == 1.0 or kept == c.size or c.share[narrower] < cutoff


def naive(made: list[Curve], weights: list[int], target: float) -> dict[str, int] | None:
    """Cut-offs tried one by one, then the steps one by one."""
    cost = linear(weights)
    least = {c.group: min(w for w in range(c.minimum, c.size + 1) if w % c.round_to == 0 or w == c.size) for c in made}
    best = (0.0, least) if cost(least) <= target else None  # type: ignore[operator]
    for cutoff in sorted({1.0, *(float(s) for c in made for s in c.share[1:] if s > 0)}):
        counts = variance(made, cutoff)
        if cost(counts) <= target:  # type: ignore[operator]
            best = (cutoff, counts)
    if best is None or best[0] == 1.0:
        return best[1] if best else None
    counts, closed = dict(best[1]), set()
    while True:
        heap: list[tuple[float, int, int]] = []
        for i, c in enumerate(made):
            now = counts[c.group]
            wider = [w for w in range(now, c.size + 1) if c.share[w] > c.share[now] + 1e-12]
            allowed = [w for w in wider if w % c.round_to == 0 or w == c.size]
            if i not in closed and allowed:
                heapq.heappush(heap, (-float(c.share[allowed[0]] - c.share[now]), i, allowed[0]))
        if not heap:
            return counts
        _, i, width = heap[0]
        if cost({**counts, made[i].group: width}) <= target:  # type: ignore[operator]
            counts[made[i].group] = width
        else:
            closed.add(i)


@SETTINGS
@given(curves(), WEIGHTS, st.integers(0, 150))
def test_bisection_finds_what_trying_everything_finds(made: list[Curve], weights: list[int], target: int) -> None:
    expected = naive(made, weights, float(target))
    if expected is None:
        with pytest.raises(TargetError) as caught:
            cheapest_cutoff(made, linear(weights), float(target))  # type: ignore[arg-type]
        assert caught.value.nearest > target
        return
    found = cheapest_cutoff(made, linear(weights), float(target))  # type: ignore[arg-type]
    assert found.counts == expected
    assert found.cost <= target
