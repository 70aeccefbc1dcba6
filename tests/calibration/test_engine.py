from __future__ import annotations

import logging
import resource
from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import Dataset, Gram, Tap, accumulate, calibrate, open_data, thin_taps
from onnx_subprune.calibration.grouping import PlacedBatch
from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.model import fingerprint, input_specs, open_session, run

GENERATOR = np.random.default_rng(0)
CONVS = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[N,3,8,8] x) => (float[N,10] y)
<float[8,3,3,3] w1, float[8,4,3,3] w2, float[10,512] w3>
{
    c1 = Conv<pads=[1,1,1,1]>(x, w1)
    h1 = Relu(c1)
    c2 = Conv<pads=[1,1,1,1], group=2>(h1, w2)
    h2 = Relu(c2)
    flat = Flatten<axis=1>(h2)
    y = Gemm<transB=1>(flat, w3)
}
"""
TAPS = (Tap("x", 1), Tap("h1", 1, blocks=2), Tap("flat", 1, inner=64), Tap("h2", -3))


def convs() -> onnx.ModelProto:
    model = onnx.parser.parse_model(CONVS)
    generator = np.random.default_rng(1)
    for name, shape in {"w1": (8, 3, 3, 3), "w2": (8, 4, 3, 3), "w3": (10, 512)}.items():
        weight = 0.2 * generator.standard_normal(shape)
        model.graph.initializer.append(onnx.numpy_helper.from_array(weight.astype(np.float32), name))
    return model


def inputs(count: int) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(2).standard_normal((count, 3, 8, 8)).astype(np.float32)}


def expected(model: onnx.ModelProto, feeds: dict[str, np.ndarray], taps: Any = TAPS) -> dict[str, Gram]:
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    for name in ("h1", "h2", "flat"):
        exposed.graph.output.add().name = name
    values = feeds | run(open_session(exposed), feeds)
    return {tap.key: accumulate(values[tap.tensor], tap) for tap in taps}


def check(found: dict[str, Gram], wanted: dict[str, Gram]) -> None:
    assert found.keys() == wanted.keys()
    for key, gram in wanted.items():
        assert found[key].count == gram.count
        scale = np.abs(gram.matrix).max()
        np.testing.assert_allclose(found[key].matrix, gram.matrix, rtol=1e-5, atol=1e-6 * scale)


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_one_pass_gives_the_moments_of_every_tap(batch_size: int):
    model, feeds = convs(), inputs(20)
    statistics = calibrate(model, (*TAPS, TAPS[0]), open_data(feeds, input_specs(model)), batch_size=batch_size)
    assert statistics.samples == 20
    assert statistics.fingerprint == fingerprint(model)
    check(statistics.grams, expected(model, feeds))


class Counting(Dataset):
    """Another data set, with the sizes of its batches noted."""

    def __init__(self, data: Dataset) -> None:
        self.data, self.sizes = data, []
        self.source, self.samples, self.labels, self._layout = data.source, data.samples, data.labels, data._layout

    def placed(self, batch_size: int) -> Iterator[PlacedBatch]:
        for batch in self.data.placed(batch_size):
            self.sizes.append(len(batch.places))
            yield batch


def test_the_memory_limit_makes_batches_smaller_then_passes_more():
    model, feeds = convs(), inputs(6)
    sample = 4 * 3 * 512  # h1, h2 and flat in bytes
    for limit, sizes in {
        sample * 6: [1, 6],
        sample * 3: [1, 3, 3],
        sample: [1] + [1] * 6,
        # One sample may take four times the limit before it is run once more.
        sample // 4: [1] + [1] * 6,
        sample // 4 - 1: [1] + [1] * 12,
        1: [1] + [1] * 18,
    }.items():
        data = Counting(open_data(feeds, input_specs(model)))
        statistics = calibrate(model, TAPS, data, max_bytes=limit)
        assert data.sizes == sizes
        assert statistics.samples == 6
        check(statistics.grams, expected(model, feeds))


def test_samples_larger_than_the_first_run_in_smaller_batches(monkeypatch: pytest.MonkeyPatch):
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, T, 4] x) => (float[N, T, 4] y) { y = Relu(x) }'
    )
    lengths = [2, 2, 2, 2, 4, 4, 4, 4, 16]
    ran: list[tuple[int, ...]] = []

    def noted(session: Any, feeds: Any, names: Any = None) -> Any:
        ran.append(feeds["x"].shape[:2])
        return run(session, feeds, names)

    monkeypatch.setattr("onnx_subprune.calibration.engine.run", noted)
    data = open_data([{"x": np.ones((length, 4), np.float32)} for length in lengths], input_specs(model))
    statistics = calibrate(model, [Tap("y", -1)], data, max_bytes=4 * 4 * 2 * 4)
    assert ran[1:] == [(4, 2), (2, 4), (2, 4), (1, 16)]
    assert statistics.grams[Tap("y", -1).key].count == sum(lengths)


def test_progress_counts_samples_over_all_passes():
    model = convs()
    seen: list[tuple[int, int | None]] = []
    data = open_data(inputs(5), input_specs(model))
    calibrate(model, TAPS, data, batch_size=2, progress=lambda *numbers: seen.append(numbers))
    assert seen == [(2, 5), (4, 5), (5, 5)]
    seen.clear()
    calibrate(model, TAPS, data, max_bytes=1, progress=lambda *numbers: seen.append(numbers))
    assert seen[-1] == (15, 15)
    seen.clear()
    calibrate(model, TAPS, open_data([inputs(3)], input_specs(model)), progress=lambda *numbers: seen.append(numbers))
    assert seen == [(3, None)]


def test_parts_merge_to_the_whole():
    model, feeds = convs(), inputs(12)
    parts = [{"x": feeds["x"][:5]}, {"x": feeds["x"][5:]}]
    one, other = (calibrate(model, TAPS, open_data(part, input_specs(model))) for part in parts)
    merged = one.merge(other)
    assert merged.samples == 12
    check(merged.grams, expected(model, feeds))


def test_the_same_data_gives_the_same_bytes():
    model = convs()
    grams = [calibrate(model, TAPS, open_data(inputs(9), input_specs(model)), batch_size=4).grams for _ in range(2)]
    assert all(np.array_equal(grams[0][key].matrix, grams[1][key].matrix) for key in grams[0])


def test_taps_on_inputs_alone_need_no_run_of_the_model():
    model, feeds = convs(), inputs(4)
    statistics = calibrate(model, [Tap("x", 1)], open_data(feeds, input_specs(model)))
    check(statistics.grams, expected(model, feeds, [Tap("x", 1)]))


def test_outputs_can_be_taps():
    model, feeds = convs(), inputs(4)
    statistics = calibrate(model, [Tap("y", 1)], open_data(feeds, input_specs(model)))
    check(statistics.grams, {"y@1/1/1": accumulate(run(open_session(model), feeds)["y"], Tap("y", 1))})


def test_half_precision_activations_are_summed_in_single():
    model = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float16[N,4] x) => (float16[N,4] y)
    {
        h = Relu(x)
        y = Neg(h)
    }""")
    x = (100 * np.random.default_rng(3).standard_normal((64, 4))).astype(np.float16)
    statistics = calibrate(model, [Tap("h", 1)], open_data({"x": x}, input_specs(model)))
    check(statistics.grams, {"h@1/1/1": accumulate(np.maximum(x, 0), Tap("h", 1))})
    assert statistics.grams["h@1/1/1"].matrix.max() > np.finfo(np.float16).max


BAD = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[N,4] x) => (float[N,4] y)
{
    h = Log(x)
    y = Neg(h)
}
"""


@pytest.mark.parametrize("value", [0.0, -1.0])
def test_an_activation_that_is_not_finite_is_named(value: float):
    model = onnx.parser.parse_model(BAD)
    x = np.ones((40, 4), dtype=np.float32)
    x[35, 2] = value
    with pytest.raises(DataError, match=r"tensor 'h': finite values .* in feature 2"):
        calibrate(model, [Tap("h", 1)], open_data({"x": x}, input_specs(model)))


def test_taps_that_cannot_be_taken_are_refused():
    model = convs()
    data = open_data(inputs(2), input_specs(model))
    with pytest.raises(ModelError, match="tensor 'nowhere' expected among"):
        calibrate(model, [Tap("nowhere", 1)], data)
    with pytest.raises(DataError, match="tensor 'h1': an axis 4 expected, found rank 4"):
        calibrate(model, [Tap("h1", 4)], data)
    with pytest.raises(OptionError, match="found 0 taps"):
        calibrate(model, [], data)
    with pytest.raises(OptionError, match="batch size 0"):
        calibrate(model, TAPS, data, batch_size=0)


def test_bfloat16_is_calibrated_in_float32():
    model = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N,4] x) => (float[N,4] y)
    {
        h = Cast<to=16>(x)
        y = Cast<to=1>(h)
    }""")
    x = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    statistics = calibrate(model, [Tap("h", 1)], open_data({"x": x}, input_specs(model)))
    (gram,) = statistics.grams.values()
    np.testing.assert_allclose(gram.matrix[0][:4, :4], x.T @ x, rtol=1e-5)


def test_thin_taps_are_warned_of_once(caplog: pytest.LogCaptureFixture):
    model = convs()
    with caplog.at_level(logging.INFO):
        statistics = calibrate(model, [Tap("y", 1), Tap("x", 1)], open_data(inputs(4), input_specs(model)))
    (warning,) = caplog.records
    assert "1 of 2 taps have too few rows" in warning.getMessage()
    assert thin_taps(statistics) == [
        "'y@1/1/1' was measured on 4 rows for 10 features, where at least 160 are advised; use more samples"
    ]


def test_a_stream_that_changes_between_passes_is_refused():
    model = convs()
    lengths = iter([1, 2, 3, 3])
    data = open_data(lambda: [inputs(next(lengths))], input_specs(model))
    with pytest.raises(DataError, match="equal passes expected, found "):
        calibrate(model, TAPS[1:], data, max_bytes=1)


def test_memory_does_not_grow_with_the_samples():
    model = convs()

    def stream(count: int) -> Iterator[dict[str, np.ndarray]]:
        batch = np.random.default_rng(4).standard_normal((64, 3, 8, 8)).astype(np.float32)
        for _ in range(count):
            yield {"x": batch}

    peaks = []
    for count in (4, 8, 200):
        calibrate(model, TAPS, open_data(lambda count=count: stream(count), input_specs(model)), batch_size=64)
        peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    # 200 batches of taps would be 80 MB.
    assert peaks[2] - peaks[1] < 16_000


def test_inputs_that_change_the_width_of_a_tap_are_refused():
    model = onnx.parser.parse_model("""
    <ir_version: 10, opset_import: ["" : 20]>
    g (float[N,C] x) => (float[N,C] y)
    {
        y = Neg(x)
    }""")
    data = open_data([{"x": np.ones((2, 3))}, {"x": np.ones((2, 4))}], input_specs(model))
    with pytest.raises(DataError, match="tensor 'y': 3 features expected as in the first batch, found 4"):
        calibrate(model, [Tap("y", 1)], data)
