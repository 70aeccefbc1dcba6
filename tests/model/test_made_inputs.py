"""Inputs where there are no real ones."""

from __future__ import annotations

import logging
import re

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import ModelError
from onnx_subprune.model import InputSpec, input_specs, measure_cost, node_macs, runnable_shapes
from onnx_subprune.model.made_inputs import made_inputs, made_shapes, plausible_shapes


def specs(inputs: str) -> list[InputSpec]:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => (float[N] y) {{ y = Identity(x) }}'
    return list(input_specs(onnx.parser.parse_model(text)))


def made(inputs: str, shapes: dict[str, tuple[int, ...]] | None = None) -> dict[str, list[object]]:
    declared = specs(inputs)
    return {name: value.tolist() for name, value in made_inputs(declared, made_shapes(declared, shapes)).items()}


DECODER = (
    "int64[b, t] input_ids, int64[b, total] attention_mask, int64[b, t] position_ids, int64[b, t] token_type_ids, "
    "float[b, 2, past, 4] past_key_values_0_key, bool[1] use_cache_branch"
)


def test_a_decoder_is_fed_its_tokens_and_an_empty_past() -> None:
    values = made(DECODER, {"input_ids": (2, 3)})
    assert values["attention_mask"] == [[1, 1, 1], [1, 1, 1]]
    assert values["position_ids"] == [[0, 1, 2], [0, 1, 2]]
    assert values["token_type_ids"] == [[0, 0, 0], [0, 0, 0]]
    assert np.shape(values["past_key_values_0_key"]) == (2, 2, 0)  # and 4 of nothing
    assert values["use_cache_branch"] == [False]


def test_a_mask_covers_a_past_that_is_given() -> None:
    shapes = made_shapes(specs(DECODER), {"input_ids": (2, 3), "past_key_values_0_key": (2, 2, 5, 4)})
    assert shapes["attention_mask"] == (2, 8)


def test_axes_of_one_name_agree() -> None:
    shapes = made_shapes(specs("float[n, 3, h, w] x, float[n, 1, h, w] mask, float[h] rows"), {"x": (2, 3, 8, 9)})
    assert shapes == {"x": (2, 3, 8, 9), "mask": (2, 1, 8, 9), "rows": (8,)}


def test_what_nobody_gives_counts_as_one() -> None:
    assert made_shapes(specs("float[n, 3, h, w] x, int64[n, t] ids")) == {"x": (1, 3, 1, 1), "ids": (1, 1)}


def test_lengths_count_the_axis_of_their_input() -> None:
    values = made(
        "float[n, 80, t] audio, int64[n, p] text, int64[n] text_lengths, int64[n] audio_length",
        {"audio": (2, 80, 7), "text": (2, 5)},
    )
    assert (values["text_lengths"], values["audio_length"]) == ([5, 5], [7, 7])


def test_lengths_of_attention_follow_the_past() -> None:
    names = "int32 total_sequence_length, int32 past_sequence_length, int32[b] seqlens_k"
    shapes = {"input_ids": (2, 3), "past_key_values_0_key": (2, 2, 5, 4)}
    values = made(f"{DECODER}, {names}", shapes)
    assert [values[name] for name in ("total_sequence_length", "past_sequence_length")] == [8, 5]
    assert values["seqlens_k"] == [7, 7]


@pytest.mark.parametrize("declared", ["float[3] scales", "float[1] ratio", "float temperature", "float[1] t"])
def test_factors_are_one(declared: str) -> None:
    (value,) = made(declared).values()
    assert np.all(np.asarray(value) == 1)


def test_plain_numbers_are_those_of_the_seed_whatever_else_is_fed() -> None:
    declared = specs("int64[n, t] attention_mask, float[n, 3] x")
    generator = np.random.default_rng(4)
    generator.integers(0, 2, (2, 5))
    values = made_inputs(declared, {"attention_mask": (2, 5), "x": (2, 3)}, 4)
    assert np.array_equal(values["x"], generator.standard_normal((2, 3)).astype(np.float32))


RATIO = """<ir_version: 8, opset_import: ["" : 17]>
g (float[1, 3, h, w] src, float[1] downsample_ratio) => (float[1, 4, u, v] y)
<float[2] ones = {1.0, 1.0}, float[4, 3, 1, 1] k = {1,2,3,4,5,6,7,8,9,10,11,12}> {
  scales = Concat <axis = 0> (ones, downsample_ratio, downsample_ratio)
  small = Resize (src, , scales)
  y = Conv (small, k)
}"""


def test_sizes_that_a_value_steers_are_taken_from_the_values() -> None:
    model = onnx.parser.parse_model(RATIO)
    shapes = {"src": (1, 3, 8, 8)}
    half = {"downsample_ratio": np.array([0.5], np.float32)}
    assert measure_cost(model, shapes).macs == 12 * 64
    assert measure_cost(model, shapes, half).macs == 12 * 16


WINDOWS = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 1, h, w] x) => (float y)
<int64[4] cut = {1, 1, 32, -1}, float[2, 1, 3, 3] k = {1,2,3,4,5,6,7,8,9,0,1,2,3,4,5,6,7,8}> {
  rows = Reshape (x, cut)
  y = Conv (rows, k)
}"""


def test_sizes_are_searched_where_one_is_refused() -> None:
    model = onnx.parser.parse_model(WINDOWS)
    assert runnable_shapes(model) == {"x": (1, 1, 32, 32)}
    assert runnable_shapes(model, {"x": (1, 1, 64, 16)}) == {"x": (1, 1, 64, 16)}


@pytest.mark.parametrize(("declared", "found"), [
    ("float[n, t] x", (1, 16_000)), ("float[n, 1, t] x", (1, 1, 16_000)),
    ("float[n, t, 80] x", (1, 16, 80)), ("int64[n, t] x", (1, 16)), ("float[n, 3, h, w] x", (1, 3, 224, 224)),
])  # fmt: skip
def test_waves_alone_are_tried_at_a_second(declared: str, found: tuple[int, ...]) -> None:
    *_, last = plausible_shapes(specs(declared))
    assert last == {"x": found}


@pytest.mark.parametrize(("kernel", "length"), [(16, 16), (400, 512), (600, 16_000)])
def test_a_network_that_takes_waves_is_shown_at_a_length_that_it_takes(kernel: int, length: int) -> None:
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["" : 17]>
    g (float[n, 1, t] x) => (float[n, 2, u] y) { y = Conv<strides = [320]>(x, w) }""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((2, 1, kernel), np.float32), "w"))
    assert runnable_shapes(model) == {"x": (1, 1, length)}


def test_the_reason_of_a_refusal_is_the_network_s_own() -> None:
    model = onnx.parser.parse_model(WINDOWS.replace("32, -1", "5, -1"))
    with pytest.raises(ModelError, match=r"a run failed: .*Reshape.*--input-shapes.*--data or --calib"):
        node_macs(model, runnable_shapes(model))


FIXED = """<ir_version: 8, opset_import: ["" : 17]>
g (float[n, 1, h, w] x) => (float[1, 1] y)
<int64[2] flat = {1, 1024}, float[1, 1, 1, 1] k = {2}, float[1024, 1] m> {
  c = Conv (x, k)
  rows = Reshape (c, flat)
  y = MatMul (rows, m)
}"""


def fixed(size: int) -> onnx.ModelProto:
    """Return a network whose MACs can be counted at any size, and that runs at one alone."""
    model = onnx.parser.parse_model(FIXED.replace("1024", str(size)).replace(f", float[{size}, 1] m", ""))
    weight = onnx.numpy_helper.from_array(np.ones((size, 1), np.float32), "m")
    model.graph.initializer.append(weight)
    return model


def test_sizes_are_those_that_run_also_where_macs_could_be_counted_at_others() -> None:
    assert node_macs(fixed(32 * 32), {"x": (1, 1, 1, 1)})
    assert runnable_shapes(fixed(32 * 32)) == {"x": (1, 1, 32, 32)}


def test_where_nothing_runs_the_reason_is_told(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert runnable_shapes(fixed(300)) == {"x": (1, 1, 1, 1)}
    (record,) = caplog.records
    assert re.search(r"refuses .*: Reshape: .*\{1,1,224,224\}.*--input-shapes.*--data", record.getMessage())


def test_a_model_that_does_not_open_is_counted_at_size_one(caplog: pytest.LogCaptureFixture) -> None:
    model = fixed(1)
    model.opset_import.add(domain="mine", version=1)
    model.graph.node.add(op_type="Mine", domain="mine", input=["y"], output=["z"])
    model.graph.output[0].name = "z"
    with caplog.at_level(logging.WARNING):
        assert runnable_shapes(model) == {"x": (1, 1, 1, 1)}
    assert not caplog.records
