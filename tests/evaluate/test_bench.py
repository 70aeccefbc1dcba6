from __future__ import annotations

import gc
import importlib
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import DataError, OptionError
from onnx_subprune.evaluate import Latency, Pace, bench, random_feeds
from onnx_subprune.model import InputSpec, input_specs

# The package's name `bench` is the function.
MODULE = importlib.import_module("onnx_subprune.evaluate.bench")
FEEDS = {"x": np.ones((4, 64, 64), np.float32)}


def chain(length: int, signature: str = "float[N,64,64] x") -> onnx.ModelProto:
    body = "\n".join(f"h{n + 1} = MatMul(h{n}, h{n})" for n in range(length))
    return onnx.parser.parse_model(f"""
    <ir_version: 10, opset_import: ["" : 20]>
    g ({signature}) => (float[N,64,64] y)
    {{
        h0 = Tanh(x)
        {body}
        y = Tanh(h{length})
    }}""")


def test_more_work_takes_longer_and_the_figures_hang_together():
    short, long = bench([chain(1), chain(40)], FEEDS, runs=15, warmup=2, threads=1)
    assert short.ratio_to_first == 1
    assert long.ratio_to_first > 2
    for latency in (short, long):
        assert 0 < latency.median_ms <= latency.p90_ms
        assert latency.mean_ms > 0
        assert latency.throughput == pytest.approx(4 / latency.median_ms * 1e3)


def test_models_take_turns_and_the_order_alternates(monkeypatch: pytest.MonkeyPatch):
    clock = iter(range(1000))
    order: list[int] = []
    monkeypatch.setattr(MODULE, "perf_counter", lambda: float(next(clock)))
    turns = iter([lambda number=number: order.append(number) for number in (3, 4, 5)])
    monkeypatch.setattr(MODULE, "runner", lambda session, feeds, bound: next(turns))
    bench([chain(1), chain(2), chain(3)], FEEDS, runs=3, warmup=1)
    assert order == [3, 4, 5] * 2 + [5, 4, 3] + [3, 4, 5]


def test_ratios_are_paired_within_a_round(monkeypatch: pytest.MonkeyPatch):
    # The machine slows down tenfold in two of three rounds; the second model always takes twice as long.
    rounds = iter([[1.0, 2.0], [10.0, 20.0], [10.0, 20.0]])
    monkeypatch.setattr(MODULE, "_round", lambda turns, backwards: next(rounds))
    first, second = bench([chain(1), chain(1)], FEEDS, runs=3, warmup=0)
    assert (first.median_ms, first.mean_ms, first.throughput) == (10_000, 7_000, 0.4)
    assert second.ratio_to_first == 2
    assert second.p90_ms == 20_000


@pytest.mark.parametrize(
    ("signature", "message"),
    [
        ("float[N,64,64] z", "found nothing where that has 'x' float32"),
        ("float16[N,64,64] x", "found 'x' float16"),
        ("float[N,32,32] x", r"found 'x' float32 \['N', 32, 32\]"),
        ("float[N,64] x", "found 'x' float32"),
        ("float[N,64,64] x, float[N] more", "found 'more' float32 .* where that has nothing"),
    ],
)
def test_models_with_different_inputs_are_refused(signature: str, message: str):
    with pytest.raises(OptionError, match=f"model 2 expected to take the inputs of the first, {message}"):
        bench([chain(1), chain(1, signature)], FEEDS)


def paced(takes: Callable[[int], list[float]], monkeypatch: pytest.MonkeyPatch, **limits: Any) -> list[Latency]:
    """Latencies of rounds that take what `takes` says of their numbers, at a pace with these limits."""
    numbers = itertools.count()
    monkeypatch.setattr(MODULE, "_round", lambda turns, backwards: takes(next(numbers)))
    count = len(takes(0))
    return bench([chain(1)] * count, FEEDS, runs=None, warmup=0, pace=Pace(**limits))


def test_calm_models_stop_as_soon_as_they_may(monkeypatch: pytest.MonkeyPatch):
    calm = lambda number: [0.1, 0.05]  # noqa: E731
    assert paced(calm, monkeypatch, rounds=30, seconds=1.0)[1].runs == 30
    assert paced(calm, monkeypatch, rounds=10, seconds=2.9)[1].runs == 20
    assert paced(calm, monkeypatch, rounds=7, seconds=0.0)[1].runs == 8  # both orders alike


def test_rounds_go_on_until_the_ratio_is_sure(monkeypatch: pytest.MonkeyPatch):
    noise = np.random.default_rng(0).lognormal(0, 0.1, 100_000)
    found = paced(lambda number: [1e-3, 2e-3 * noise[number]], monkeypatch, precision=0.01, seconds=0.0)[1]
    low, high = found.ratio_interval or (0, 0)
    assert low <= found.ratio_to_first <= high
    assert max(found.ratio_to_first - low, high - found.ratio_to_first) <= 0.01 * found.ratio_to_first
    # The half width of such an interval is about 1.96 * 1.25 * sigma / sqrt(n).
    assert 300 < found.runs < 1200


def test_noise_that_models_share_costs_no_rounds(monkeypatch: pytest.MonkeyPatch):
    noise = np.random.default_rng(0).lognormal(0, 0.5, 1000)
    found = paced(lambda number: [noise[number], 2 * noise[number]], monkeypatch, rounds=30, most_seconds=1e9)[1]
    assert (found.runs, found.ratio_to_first, found.ratio_interval) == (30, 2.0, (2.0, 2.0))


def test_the_limit_of_time_ends_it_but_an_interval_there_is(monkeypatch: pytest.MonkeyPatch):
    wild = lambda number: [1.0, float(1 + number % 7)]  # noqa: E731
    assert paced(wild, monkeypatch, most_seconds=0.5)[1].runs == 6
    found = paced(wild, monkeypatch, most_seconds=100.0)[1]
    assert 20 <= found.runs <= 22
    assert found.ratio_interval is not None


def test_a_model_alone_is_held_to_its_own_time(monkeypatch: pytest.MonkeyPatch):
    noise = np.random.default_rng(0).lognormal(0, 0.1, 100_000)
    (found,) = paced(lambda number: [1e-3 * noise[number]], monkeypatch, precision=0.01, seconds=0.0)
    assert 300 < found.runs < 1200
    assert found.ratio_interval == (1.0, 1.0)


@pytest.mark.parametrize("limits", [{"precision": 0}, {"rounds": 0}, {"seconds": -1}, {"most_seconds": 0}])
def test_a_pace_that_is_none_is_refused(limits: dict[str, Any]):
    with pytest.raises(OptionError, match="above 0"):
        Pace(**limits)


def test_few_rounds_give_no_interval():
    assert bench([chain(1)], FEEDS, runs=5, warmup=0)[0].ratio_interval is None
    assert bench([chain(1)], FEEDS, runs=6, warmup=0)[0].ratio_interval == (1.0, 1.0)


@pytest.mark.parametrize("bound", [True, False, None])
def test_outputs_in_buffers_or_not(bound: bool | None):
    found = bench([chain(1), chain(1)], FEEDS, runs=6, warmup=1, bound=bound)
    assert all(one.providers == ("CPUExecutionProvider",) and one.runs == 6 for one in found)


def test_garbage_is_collected_again_afterwards():
    assert gc.isenabled()
    bench([chain(1)], FEEDS, runs=1, warmup=0)
    assert gc.isenabled()


def test_symbols_may_differ():
    assert len(bench([chain(1), chain(1, "float[batch,64,s] x")], FEEDS, runs=1, warmup=0)) == 2


@pytest.mark.parametrize(
    "options", [{"models": []}, {"runs": 0}, {"warmup": -1}, {"feeds": {}}, {"feeds": FEEDS | {"z": FEEDS["x"]}}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]):
    arguments: dict[str, Any] = {"models": [chain(1)], "feeds": FEEDS} | options
    with pytest.raises(OptionError, match="expected"):
        bench(**arguments)


def test_feeds_that_do_not_fit_are_refused():
    with pytest.raises(DataError, match="the inputs do not fit"):
        bench([chain(1)], {"x": np.ones((4, 3), np.float32)}, runs=1, warmup=0)


def test_random_feeds_suit_the_inputs_and_repeat():
    model = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float16[N,2] x, int64[N,s] ids, bool[N] flag, float scale) => (float16[N,2] y)
    {
        y = Neg(x)
    }""")
    specs = input_specs(model)
    shapes = {"x": (300, 2), "ids": (3, 50), "flag": (40,), "scale": ()}
    feeds = random_feeds(specs, shapes, seed=1)
    assert {name: (array.shape, array.dtype) for name, array in feeds.items()} == {
        spec.name: (shapes[spec.name], spec.dtype) for spec in specs
    }
    assert set(np.unique(feeds["ids"])) == {0, 1} == set(np.unique(feeds["flag"]).astype(int))
    assert np.std(feeds["x"].astype(np.float32)) == pytest.approx(1, abs=0.1)
    again, other = random_feeds(specs, shapes, seed=1), random_feeds(specs, shapes, seed=2)
    assert all(np.array_equal(feeds[name], again[name]) for name in feeds)
    assert not np.array_equal(feeds["x"], other["x"])


def test_inputs_that_random_values_do_not_suit_are_refused():
    text = InputSpec("t", (1,), np.dtype(object))
    with pytest.raises(OptionError, match="input 't' expected to hold numbers, found object"):
        random_feeds([text], {"t": (1,)})
    with pytest.raises(OptionError, match="a shape for input 't' expected"):
        random_feeds([text], {})
