"""How many samples a fit runs: as many as give its rows, spread over all of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration import open_data, portions
from onnx_subprune.model import input_specs
from onnx_subprune.recovery.exact import Networks, Settings, paired_run, refit, sample_size
from onnx_subprune.recovery.exact.linear_layers import find_linears
from onnx_subprune.recovery.exact.sample_size import rows_wanted, samples_needed, spread

RNG = np.random.default_rng(3)
MAP = """g (float[N,3,8,8] x) => (float[a,b] y) {
    [c] c = Conv <pads=[1,1,1,1]> (x, w1)
    [p] p = GlobalAveragePool(c)
    [f] f = Flatten(p)
    [g] y = Gemm(f, w2)
}"""
WEIGHTS = {"w1": (6, 3, 3, 3), "w2": (6, 40)}


def _counted(model: Any, shape: tuple[int, ...], samples: int, **settings: Any) -> int | None:
    layers, _ = find_linears(model)
    data = open_data({"x": np.zeros((samples, *shape), np.float32)}, input_specs(model))
    networks = Networks(model, model, lambda _, value: value)
    return samples_needed(networks, [(one.output, one) for one in layers], data, Settings(threads=1, **settings))


@pytest.mark.parametrize(
    ("samples", "rows", "expected"),
    [
        (1024, 128, None),
        # 64 rows of 27 features count as 64: 8,192 rows at 48 positions a sample are fewer than 1,024 samples.
        (4000, 128, 1024),
        # The Conv asks for 64 * 1,000 rows at 48 positions each; the Gemm has one a sample, and few features.
        (4000, 1000, 1334),
        (1334, 1000, None),
    ],
)
def test_as_many_samples_as_give_the_rows(net, samples, rows, expected):
    assert _counted(net(MAP, **WEIGHTS), (3, 8, 8), samples, rows=rows) == expected


@pytest.mark.parametrize(("features", "plain", "clipped"), [(100, 12_800, 9600), (9, 8192, 6144)])
def test_a_fit_behind_a_clip_leaves_the_plain_one_fewer_rows(features, plain, clipped):
    assert rows_wanted(features, Settings(rows=128)) == plain
    assert rows_wanted(features, Settings(rows=128), clipped=True) == clipped
    assert rows_wanted(features, Settings(rows=1), clipped=True) == max(features, 64)


def test_a_wide_classifier_gets_the_rows_that_are_advised(net):
    """16 rows for each of 100 features, beside a fifth that is held out."""
    assert _counted(net(MAP, w1=(100, 3, 3, 3), w2=(100, 4)), (3, 8, 8), 4000) == 2000


def test_without_a_map_all_samples_are_needed(net):
    model = net("g (float[N,4] x) => (float[a,b] y) { [g] y = Gemm(x, w) }", w=(4, 6))
    assert _counted(model, (4,), 4000) is None


def test_the_dense_network_is_probed_once_for_all_pruned_ones(net, monkeypatch):
    model = net(MAP, **WEIGHTS)
    layers = [(layer.output, layer) for layer in find_linears(model)[0]]
    data = open_data({"x": np.zeros((4000, 3, 8, 8), np.float32)}, input_specs(model))
    opened: list[Any] = []
    genuine = sample_size.open_session
    monkeypatch.setattr(
        sample_size, "open_session", lambda *given, **more: opened.append(given) or genuine(*given, **more)
    )
    shapes: dict[str, tuple[int, ...]] = {}
    networks = Networks(model, model, lambda _, value: value, sample_shapes=shapes)
    results = [samples_needed(networks, layers, data, Settings(threads=1, rows=1000)) for _ in range(3)]
    assert results == [1334] * 3
    assert len(opened) == 1
    assert shapes["c"] == (1, 6, 8, 8)


def test_they_come_from_all_over_the_data_and_some_are_held_out(net):
    model = net("g (float[N,1] x) => (float[a,b] y) { [g] y = Gemm(x, w) }", w=(1, 2))
    data = open_data({"x": np.arange(1000, dtype=np.float32)[:, None]}, input_specs(model))
    found = list(spread(portions(data, 10), 300, 1000))
    by_kind = [np.concatenate([one.feeds["x"][:, 0] for one in found if one.held == held]) for held in (False, True)]
    assert [len(numbers) for numbers in by_kind] == [240, 60]
    for numbers in by_kind:
        assert numbers[0] < 10
        assert numbers[-1] > 840
    whole = list(portions(data, 10))
    assert len(list(spread(whole, None, 1000))) == len(list(spread(whole, 1000, 1000))) == len(whole)
    assert len(list(spread(whole, 300, None))) == len(whole)


def test_a_fit_runs_no_more_samples_than_it_needs(net, monkeypatch):
    model = net(MAP, **WEIGHTS)
    damaged = net(MAP, **WEIGHTS)
    monkeypatch.setattr("onnx_subprune.recovery.exact.sample_size._LEAST", 20)
    runs: list[int] = []
    real = paired_run.rows_of

    def noting(linears: Any, values: Any, *given: Any, **more: Any) -> Any:
        runs.append(values.samples)
        return real(linears, values, *given, **more)

    monkeypatch.setattr(paired_run, "rows_of", noting)
    data = open_data({"x": RNG.standard_normal((200, 3, 8, 8)).astype(np.float32)}, input_specs(model))
    refit(Networks(model, damaged, lambda _, value: value), data, Settings(threads=1, batch_size=10, rows=30))
    # 16 rows for each of 6 features, beside those held out: 120 samples and the rest of a run, for each of two layers.
    assert sum(runs) == 2 * 130
