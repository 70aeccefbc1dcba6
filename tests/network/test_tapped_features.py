"""One tap for each layout in which groups are read, and what few rows are warned of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx

from onnx_subprune.network.inputs import prepare, pruning_statistics
from onnx_subprune.network.tapped_features import (
    few_row_warnings,
    normalisation_grams,
    pairs_of,
    readers_of,
    tap_of,
    taps_of,
)
from onnx_subprune.options import Options

OPTIONS = Options(threads=1)


def attention() -> onnx.ModelProto:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["": 17]> g (float[2,5,6] x) => (float[2,5,3] y) {
            [q] q = MatMul(x, wq) [k] k = MatMul(x, wk) [v] v = MatMul(x, wv) kt = Transpose <perm=[0,2,1]> (k)
            s = MatMul(q, kt) p = Softmax(s) [a] a = MatMul(p, v) [o] y = MatMul(a, wo)
        }"""
    )
    for name, shape in {"wq": (6, 4), "wk": (6, 4), "wv": (6, 4), "wo": (4, 3)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    return model


def test_every_prunable_group_is_tapped_where_it_is_read(
    model: onnx.ModelProto, samples: dict[str, np.ndarray]
) -> None:
    analysis, _ = prepare(model, samples, OPTIONS)
    readers = readers_of(analysis.structure)
    assert [consumer.name for consumer in readers] == ["second", "last"]
    assert {tap_of(features).tensor for features in readers.values()} == {"b", "d"}
    assert [tap.tensor for tap in taps_of(analysis.structure)] == ["b", "d"]


def test_both_sides_of_a_product_of_activations_are_tapped() -> None:
    samples = {"x": np.random.default_rng(1).standard_normal((4, 5, 6)).astype(np.float32)}
    analysis, _ = prepare(attention(), samples, replace(OPTIONS, batch_size=2))
    (sides,) = pairs_of(analysis.structure).values()
    assert {tap_of(side) for side in sides} <= set(taps_of(analysis.structure))
    assert len({tap_of(side) for side in sides}) == 2


def test_normalisations_have_moments_where_their_axis_may_shrink() -> None:
    rng = np.random.default_rng(0)
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]> g (float[N,6] x) => (float[N,3] y) '
        "{ [a] h = MatMul(x, w) [n] n = LayerNormalization(h, s) [b] y = MatMul(n, v) }"
    )
    for name, shape in {"w": (6, 8), "s": (8,), "v": (8, 3)}.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name))
    options = replace(OPTIONS, prune_normalised=True)
    analysis, dataset = prepare(model, {"x": rng.standard_normal((16, 6)).astype(np.float32)}, options)
    grams = normalisation_grams(analysis.structure, pruning_statistics(analysis, dataset, options))
    assert [(normalisation.node.name, gram.features) for normalisation, gram in grams.items()] == [("n", 8)]


def test_fits_on_few_rows_are_warned_of(model: onnx.ModelProto, samples: dict[str, np.ndarray]) -> None:
    """40 rows are fewer than 16 for each of 8 features, and for each of 5."""
    analysis, dataset = prepare(model, samples, OPTIONS)
    statistics = pruning_statistics(analysis, dataset, OPTIONS)
    taps = taps_of(analysis.structure)
    (line, _) = few_row_warnings(statistics, [(f"'{tap.tensor}' was fitted", tap) for tap in taps])
    assert line.startswith("'b' was fitted on 40 rows for 8 features, where at least 128 are advised")
    many = {key: replace(gram, count=1000) for key, gram in statistics.grams.items()}
    assert few_row_warnings(replace(statistics, grams=many), [("it was fitted", tap) for tap in taps]) == []
