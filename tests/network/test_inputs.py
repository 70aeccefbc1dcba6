"""Where a run starts: sizes of inputs, what the result is verified on, and statistics that belong to the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.errors import OptionError
from onnx_subprune.model import input_specs
from onnx_subprune.network.inputs import check_pruning_statistics, feeds_of, prepare, probe, pruning_statistics
from onnx_subprune.options import Options

OPTIONS = Options(threads=1, batch_size=8)


def test_sizes_come_from_the_options_then_the_data_then_the_statistics(
    model: onnx.ModelProto, samples: dict[str, np.ndarray]
) -> None:
    analysis, dataset = prepare(model, samples, OPTIONS)
    assert analysis.input_shapes == {"x": (1, 6)}
    assert dataset is not None
    statistics = pruning_statistics(analysis, dataset, OPTIONS)
    saved = replace(statistics, input_shapes={"x": (3, 6)})
    analysis, nothing = prepare(model, None, OPTIONS, saved)
    assert (analysis.input_shapes, nothing) == ({"x": (3, 6)}, None)
    named = replace(OPTIONS, input_shapes=(("x", (5, 6)),))
    for given in (samples, None):
        assert prepare(model, given, named, saved)[0].input_shapes == {"x": (5, 6)}


def test_a_dataset_that_is_open_is_taken_as_it_is(model: onnx.ModelProto, samples: dict[str, np.ndarray]) -> None:
    dataset = open_data(samples, input_specs(model), samples=10)
    assert prepare(model, dataset, replace(OPTIONS, samples=3))[1] is dataset
    opened = prepare(model, samples, replace(OPTIONS, samples=3))[1]
    assert opened is not None
    assert opened.samples == 3


def test_the_result_is_verified_on_samples_or_on_random_numbers(
    model: onnx.ModelProto, samples: dict[str, np.ndarray]
) -> None:
    analysis, dataset = prepare(model, samples, OPTIONS)
    assert np.array_equal(probe(analysis, dataset, OPTIONS)["x"], samples["x"][:4])
    assert len(probe(analysis, dataset, replace(OPTIONS, batch_size=2))["x"]) == 2
    first, again = (probe(analysis, None, OPTIONS)["x"] for _ in range(2))
    other = probe(analysis, None, replace(OPTIONS, seed=1))["x"]
    assert first.shape == (1, 6)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_statistics_belong_to_the_model_and_are_complete(
    model: onnx.ModelProto, samples: dict[str, np.ndarray]
) -> None:
    analysis, dataset = prepare(model, samples, OPTIONS)
    statistics = pruning_statistics(analysis, dataset, OPTIONS)
    assert (statistics.fingerprint, statistics.samples) == (analysis.fingerprint, 40)
    check_pruning_statistics(statistics, analysis, "")
    with pytest.raises(OptionError, match="found those of another"):
        check_pruning_statistics(replace(statistics, fingerprint="0" * 64), analysis, "")
    key = next(iter(statistics.grams))
    rest = {name: gram for name, gram in statistics.grams.items() if name != key}
    with pytest.raises(OptionError, match="found none in those given; do this instead"):
        check_pruning_statistics(replace(statistics, grams=rest), analysis, "do this instead")


@pytest.mark.parametrize(
    ("samples_used", "recovery", "seen"), [(32, "exact", 32), (31, "exact", 25), (31, "channel", 31)]
)
def test_samples_held_out_have_no_part_in_statistics_of_few_rows(
    model: onnx.ModelProto, samples: dict[str, np.ndarray], samples_used: int, recovery: str, seen: int
) -> None:
    # The widest layer reads 8 features, and 4 rows of each are enough.
    options = replace(OPTIONS, recovery=recovery, samples=samples_used)
    analysis, dataset = prepare(model, samples, options)
    statistics = pruning_statistics(analysis, dataset, options)
    assert statistics.samples == seen
    assert {gram.count for gram in statistics.grams.values()} == {seen}


def test_without_data_or_groups_there_are_no_statistics(model: onnx.ModelProto, samples: dict[str, np.ndarray]) -> None:
    analysis, _ = prepare(model, samples, OPTIONS)
    with pytest.raises(OptionError, match="found neither; give --calib or --statistics"):
        pruning_statistics(analysis, None, OPTIONS)
    frozen = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,6] x) => (float[N,6] y) { y = Relu(x) }'
    )
    analysis, dataset = prepare(frozen, samples, OPTIONS)
    with pytest.raises(OptionError, match="at least one prunable group, found none"):
        pruning_statistics(analysis, dataset, OPTIONS)


def test_inputs_to_time_with_are_those_of_the_first_sample_where_the_shapes_are(
    model: onnx.ModelProto, samples: dict[str, np.ndarray]
) -> None:
    analysis, _ = prepare(model, samples, OPTIONS)
    np.testing.assert_array_equal(feeds_of(analysis, {"x": (1, 6)}, 0)["x"], samples["x"][:1])
    assert feeds_of(analysis, {"x": (3, 6)}, 0)["x"].shape == (3, 6)


def test_the_option_that_would_free_a_group_is_named(samples: dict[str, np.ndarray]) -> None:
    normalised = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[N,6] x) => (float[N,3] y) {
            a = Gemm(x, w1)
            b = LayerNormalization(a, scale)
            y = Gemm(b, w2)
        }"""
    )
    for name, shape in {"w1": (6, 8), "scale": (8,), "w2": (8, 3)}.items():
        normalised.graph.initializer.append(onnx.numpy_helper.from_array(np.ones(shape, np.float32), name))
    analysis, dataset = prepare(normalised, samples, OPTIONS)
    with pytest.raises(OptionError, match=r"found none; --prune-normalised lets 1 shrink; `onnx-subprune inspect`"):
        pruning_statistics(analysis, dataset, OPTIONS)


def test_weights_that_callers_may_replace_are_named_where_nothing_else_is_left(
    model: onnx.ModelProto, samples: dict[str, np.ndarray]
) -> None:
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(weight.name, weight.data_type, weight.dims)
        for weight in model.graph.initializer
    )
    analysis, dataset = prepare(model, samples, OPTIONS)
    with pytest.raises(OptionError, match=r"4 weights are inputs with defaults .*--strip-initializer-inputs"):
        pruning_statistics(analysis, dataset, OPTIONS)
    stripped = replace(OPTIONS, strip_initializer_inputs=True)
    analysis, dataset = prepare(model, samples, stripped)
    assert pruning_statistics(analysis, dataset, stripped).grams
