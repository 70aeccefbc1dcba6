from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.demo import load_demo
from onnx_subprune.errors import DataError, OptionError
from onnx_subprune.evaluate import Pace, bench, random_feeds
from onnx_subprune.model import InputSpec, input_specs, load_model

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


def test_every_model_is_opened_anew_for_every_sitting(monkeypatch: pytest.MonkeyPatch):
    opened: list[int] = []

    def turn(session: Any, feeds: Any, bound: Any) -> Callable[[], object]:
        opened.append(len(session.get_inputs()))
        return lambda: None

    monkeypatch.setattr(MODULE, "runner", turn)
    found = bench([chain(1), chain(1)], FEEDS, runs=50)
    assert len(opened) == 2 * 6
    assert [(one.runs, one.sittings) for one in found] == [(50, 6), (50, 6)]


def test_ratios_are_paired_within_a_round_and_the_median_of_all_sittings(monkeypatch: pytest.MonkeyPatch):
    # The machine slows down tenfold in two of three rounds; the second model takes twice as long but for one sitting.
    slow = np.array([[1.0, 2.0], [10.0, 20.0], [10.0, 20.0]])
    odd = np.array([[1.0, 5.0]])
    monkeypatch.setattr(MODULE, "fixed", lambda turns, runs, warmup, tell: turns(False) and [slow, odd, slow])
    first, second = bench([chain(1), chain(1)], FEEDS, runs=3, warmup=0)
    assert (first.median_ms, first.throughput) == (10_000, 0.4)
    assert second.ratio_to_first == 2
    assert second.p90_ms == 20_000
    assert (second.runs, second.sittings, second.ratio_interval) == (7, 3, None)


def test_the_interval_is_that_of_the_sittings(monkeypatch: pytest.MonkeyPatch):
    sittings = [np.array([[1.0, ratio]] * 4) for ratio in (0.5, 0.4, 0.55, 0.6, 0.45, 0.52)]
    monkeypatch.setattr(MODULE, "paced", lambda turns, pace, warmup, tell: turns(False) and sittings)
    first, second = bench([chain(1), chain(1)], FEEDS, runs=None)
    assert (first.ratio_to_first, first.ratio_interval) == (1.0, (1.0, 1.0))
    assert (second.ratio_to_first, second.ratio_interval) == (0.51, (0.4, 0.6))


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


def test_few_sittings_give_no_interval():
    assert bench([chain(1)], FEEDS, runs=47, warmup=0)[0].ratio_interval is None
    assert bench([chain(1)], FEEDS, runs=48, warmup=0)[0].ratio_interval == (1.0, 1.0)


def test_it_goes_on_at_a_pace():
    found = bench([chain(1), chain(1)], FEEDS, runs=None, pace=Pace(most_seconds=1e-6), threads=1)
    assert [(one.runs, one.sittings) for one in found] == [(2, 1), (2, 1)]


@pytest.mark.parametrize("bound", [True, False, None])
def test_outputs_in_buffers_or_not(bound: bool | None):
    found = bench([chain(1), chain(1)], FEEDS, runs=6, warmup=1, bound=bound)
    assert all(one.providers == ("CPUExecutionProvider",) and one.runs == 6 for one in found)


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


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
def test_a_model_against_itself_is_as_fast(threads: int):
    demo = load_demo()
    model, feeds = load_model(demo.model_path), {name: array[:1] for name, array in demo.test.items()}
    found = bench([model, model], feeds, runs=None, threads=threads)[1]
    assert found.ratio_to_first == pytest.approx(1, abs=0.03)


@pytest.mark.parametrize(("runs", "pace"), [(20, None), (None, Pace(precision=1e-9, most_seconds=1.5, seconds=0.05))])
def test_progress_is_told_up_to_the_end(runs, pace):
    told = []
    model = onnx.parser.parse_model("""
        <ir_version: 8, opset_import: ["" : 17]>
        one (float[N, 2] x) => (float[N, 2] y) { y = Relu(x) }
    """)
    feeds = {"x": np.zeros((1, 2), np.float32)}
    bench([model, model], feeds, runs=runs, pace=pace, threads=1, progress=lambda *step: told.append(step))
    total = runs or 2
    assert told[0] == (0, total)
    assert told[-1] == (total, total)
    assert [done for done, _ in told] == sorted(done for done, _ in told)
