"""Medians, intervals, rounds and profiles against slow and plain ways to the same figures."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.errors import InternalError
from onnx_subprune.evaluate.bench import _latencies
from onnx_subprune.evaluate.comparison import _operator_rows
from onnx_subprune.evaluate.intervals import median_interval
from onnx_subprune.evaluate.rounds import _is_precise, fixed, ratios
from onnx_subprune.evaluate.runtime_profile import (
    NodeTime,
    Profile,
    _mean_of_middle_half,
    _own_time,
    _profile_of_runs,
    _shapes,
)

FEW = settings(max_examples=25, deadline=None)
TIMES = st.floats(0.001, 10.0)
CPU = "CPUExecutionProvider"


def coverage(below: int, count: int) -> float:
    """Return how often the median lies within the ranks `below` and `count` + 1 - `below`."""
    return 1 - 2 * sum(math.comb(count, k) for k in range(below)) / 2**count


@FEW
@given(st.lists(st.floats(-100, 100), min_size=1, max_size=40), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_an_interval_is_the_narrowest_with_its_confidence(values: list[float], confidence: float) -> None:
    count = len(values)
    ranks = [k for k in range(1, count // 2 + 1) if coverage(k, count) >= confidence]
    interval = median_interval(np.array(values), confidence)
    if not ranks:
        assert interval is None
        return
    ordered = sorted(values)
    assert interval == (ordered[max(ranks) - 1], ordered[-max(ranks)])
    assert interval[0] <= statistics.median(values) <= interval[1]


@FEW
@given(st.lists(st.lists(st.tuples(TIMES, TIMES, TIMES), min_size=1, max_size=6), min_size=1, max_size=8))
def test_times_are_summed_up_as_they_are_defined(sittings: list[list[tuple[float, float, float]]]) -> None:
    arrays = [np.array(sitting) for sitting in sittings]
    compared = [
        [statistics.median(row[model] / row[0] for row in sitting) for model in range(3)] for sitting in sittings
    ]
    assert ratios(arrays) == pytest.approx(np.array(compared))
    latencies = _latencies(arrays, 4, {0: (CPU,), 1: (CPU,), 2: (CPU,)})
    rows = [row for sitting in sittings for row in sitting]
    for model, latency in enumerate(latencies):
        times = [row[model] for row in rows]
        assert latency.median_ms == pytest.approx(1e3 * statistics.median(times))
        assert latency.mean_ms == pytest.approx(1e3 * statistics.fmean(times))
        assert latency.throughput == pytest.approx(4 / statistics.median(times))
        assert latency.ratio_to_first == pytest.approx(statistics.median(sitting[model] for sitting in compared))
        assert min(times) <= latency.p90_ms / 1e3 * (1 + 1e-9)
        assert latency.p90_ms / 1e3 <= max(times) * (1 + 1e-9)
        assert (latency.runs, latency.sittings) == (len(rows), len(sittings))
        assert (latency.ratio_interval is None) == (len(sittings) < 6)
    assert latencies[0].ratio_to_first == 1.0


def test_nine_runs_in_ten_are_no_longer_than_the_ninth() -> None:
    seconds = np.arange(1.0, 12.0)[:, None]
    (latency,) = _latencies([seconds], 1, {0: (CPU,)})
    assert latency.p90_ms == pytest.approx(10_000)


@pytest.mark.parametrize(("spread", "precision", "sure"), [
    (0.0, 0.01, True), (0.009, 0.01, True), (0.011, 0.01, False), (0.011, 0.02, True),
])  # fmt: skip
def test_a_ratio_is_sure_where_its_interval_is_narrow(spread: float, precision: float, sure: bool) -> None:
    shares = [0.5 * (1 + sign * spread) for sign in (-1, 1, 0, 0, 0, 0)]
    sittings = [np.array([[1.0, share]] * 3) for share in shares]
    assert _is_precise(sittings, precision) == sure
    assert not _is_precise(sittings[:5], precision), "five sittings give no interval"


@pytest.mark.parametrize("odd", [0.4, 0.6])
def test_a_ratio_is_not_sure_that_strays_to_one_side(odd: float) -> None:
    sittings = [np.array([[1.0, share]]) for share in (odd, 0.5, 0.5, 0.5, 0.5, 0.5)]
    assert not _is_precise(sittings, 0.01)
    assert _is_precise(sittings, 0.21)


def test_every_model_must_be_sure() -> None:
    sittings = [np.array([[1.0, 0.5, 0.5 + wobble]]) for wobble in (0, 0, 0, 0, 0, 0.3)]
    assert not _is_precise(sittings, 0.01)
    assert _is_precise([sitting[:, :2] for sitting in sittings], 0.01)


@FEW
@given(st.integers(1, 70), st.integers(0, 3), st.integers(1, 3))
def test_every_turn_is_taken_as_often_as_asked_for(runs: int, warmup: int, models: int) -> None:
    """And never twice in a row within a round, whatever order the rounds go in."""
    calls: list[int] = []
    opened: list[bool] = []
    told: list[tuple[int, int | None]] = []

    def turns(backwards: bool) -> list[Callable[[], object]]:
        opened.append(backwards)
        return [lambda place=place: calls.append(place) for place in range(models)]

    sittings = fixed(turns, runs, warmup, lambda done, total: told.append((done, total)))
    assert sum(len(sitting) for sitting in sittings) == runs
    assert len(sittings) == len(opened) == min(6, max(1, runs // 8))
    assert opened == [bool(number % 2) for number in range(len(opened))]
    assert max(map(len, sittings)) - min(map(len, sittings)) <= 1
    assert len(calls) == models * (runs + warmup * len(sittings))
    rounds = [calls[start : start + models] for start in range(0, len(calls), models)]
    assert all(sorted(row) == list(range(models)) for row in rounds)
    assert told[-1] == (runs, runs)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def event(start: float, duration: float, thread: int = 1, **entries: Any) -> dict[str, Any]:
    return {"ts": start, "dur": duration, "tid": thread, **entries}


def nested(generator: np.random.Generator, start: int, length: int, depth: int) -> list[tuple[dict[str, Any], int]]:
    """Return events within a span, each with the time that is its own, the one around first."""
    own, at, inside = length, start, []
    for _ in range(int(generator.integers(0, 4)) if depth else 0):
        at += int(generator.integers(0, 3))
        span = int(generator.integers(1, max(2, length // 3)))
        if at + span > start + length:
            break
        inside += nested(generator, at, span, depth - 1)
        own, at = own - span, at + span
    return [(event(start, length), own), *inside]


@FEW
@given(st.integers(0, 2**32 - 1))
def test_own_time_is_what_nobody_inside_took(seed: int) -> None:
    generator = np.random.default_rng(seed)
    pairs = [pair for number in range(3) for pair in nested(generator, 1000 * number, 60, 3)]
    # A thread beside it does not count, though it runs at the same time.
    pairs += [(event(1000 * number, 60, thread=2), 60) for number in range(3)]
    order = generator.permutation(len(pairs))
    shuffled = [pairs[index] for index in order]
    found = _own_time([entry for entry, _ in shuffled])
    # Two events of one span cannot be told apart: which of them is around the other is open.
    by_span: dict[tuple[float, float, int], list[float]] = {}
    expected: dict[tuple[float, float, int], list[float]] = {}
    for (entry, own), spent in zip(shuffled, found, strict=True):
        span = entry["ts"], entry["dur"], entry["tid"]
        by_span.setdefault(span, []).append(spent)
        expected.setdefault(span, []).append(own)
    assert {span: sorted(spent) for span, spent in by_span.items()} == {
        span: sorted(own) for span, own in expected.items()
    }


@FEW
@given(st.lists(st.floats(0, 1000), min_size=1, max_size=23))
def test_the_middle_half_has_no_quarter_at_either_end(values: list[float]) -> None:
    ordered = sorted(values)
    cut = len(values) // 4
    assert _mean_of_middle_half(np.array(values)) == pytest.approx(statistics.fmean(ordered[cut : len(ordered) - cut]))
    assert ordered[0] - 1e-9 <= _mean_of_middle_half(np.array(values)) <= ordered[-1] + 1e-9


def node_event(name: str, start: float, duration: float, operator: str = "Relu") -> dict[str, Any]:
    arguments = {"op_name": operator, "provider": CPU, "output_type_shape": [{"float": [2, 3]}]}
    return event(start, duration, cat="Node", name=f"{name}_kernel_time", args=arguments)


def run_event(start: float, duration: float) -> dict[str, Any]:
    return event(start, duration, cat="Session", name="model_run", args={})


def test_a_profile_is_per_run_in_the_order_of_the_nodes() -> None:
    events = [
        run_event(0, 100), node_event("a", 10, 50), node_event("b", 70, 20),  # warm-up
        run_event(200, 40), node_event("a", 205, 10), node_event("b", 220, 8, "Conv"),
        run_event(300, 60), node_event("a", 310, 30), node_event("b", 345, 4, "Conv"),
        event(301, 1, cat="Node", name="a_fence_before", args={}),
    ]  # fmt: skip
    profile = _profile_of_runs(events, 2, (CPU,))
    assert [(node.name, node.operator) for node in profile.nodes] == [("a", "Relu"), ("b", "Conv")]
    assert [node.seconds for node in profile.nodes] == pytest.approx([20e-6, 6e-6])
    assert profile.seconds == pytest.approx(50e-6)
    assert profile.seconds_between == pytest.approx((22 + 26) / 2 * 1e-6)
    assert profile.nodes[0].output_shapes == ((2, 3),)
    assert profile.nodes[0].input_shapes == ()
    assert profile.node_seconds == pytest.approx(26e-6)
    with pytest.raises(InternalError, match="4 runs expected in ONNX Runtime's profile, found 3"):
        _profile_of_runs(events, 4, (CPU,))


def test_a_node_that_ran_in_some_runs_only_is_spread_over_all() -> None:
    events = [run_event(100 * number, 50) for number in range(4)] + [node_event("a", 110, 20)]
    (node,) = _profile_of_runs(events, 4, (CPU,)).nodes
    # Sorted 0, 0, 0, 20: the middle half is 0, 0.
    assert node.seconds == 0.0


def test_shapes_are_those_of_every_entry_and_a_scalar_is_empty() -> None:
    assert _shapes([{"float": [1, 2]}, {"int64": []}]) == ((1, 2), ())
    assert _shapes([]) == ()


def profile_of(*nodes: tuple[str, float]) -> Profile:
    times = tuple(NodeTime(f"n{number}", operator, CPU, seconds) for number, (operator, seconds) in enumerate(nodes))
    return Profile(times, 1.0, 0.0, 3, (CPU,))


@FEW
@given(st.lists(st.lists(st.tuples(st.sampled_from("ABC"), TIMES), max_size=6), min_size=2, max_size=2))
def test_operators_of_two_models_add_up_to_all_their_nodes(sides: list[list[tuple[str, float]]]) -> None:
    rows = _operator_rows([profile_of(*side) for side in sides])
    for model, side in zip(("dense", "pruned"), sides, strict=True):
        for operator in "ABC":
            times = [seconds for name, seconds in side if name == operator]
            entries = [row[model] for row in rows if row["operator"] == operator]
            assert sum(entry["nodes"] for entry in entries) == len(times)
            assert sum(entry["ms"] for entry in entries) == pytest.approx(1e3 * sum(times))
    both = [row["dense"]["ms"] + row["pruned"]["ms"] for row in rows]
    assert both == sorted(both, reverse=True)
    assert {row["operator"] for row in rows} == {name for name, _ in itertools.chain(*sides)}
