"""Graphs as exporters wrote them: with every layer cut in two at its full rank they compute what they did."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from onnx_subprune import subspace
from onnx_subprune.model import constant_values, open_session, run
from onnx_subprune.network.analysis import analyse
from onnx_subprune.network.rewrite import factorised
from onnx_subprune.network.verify import relative_error
from onnx_subprune.structure import Layer, layers_of

SKELETONS = Path(__file__).resolve().parent / "skeletons"
ORACLE = 1e-4
NAMES = (
    "bert_ts17", "convnext_dynamo18", "detr_ts17", "efficientnet_b0_ts17", "gpt2_dynamo18", "llama_dynamo18",
    "swin_ts17", "t5_ts17", "wav2vec2_ts17",
)  # fmt: skip


def whole(layer: Layer) -> subspace.Factors:
    """Return the factors at full rank; what was seen of inputs or outputs does not matter to them."""
    size = (layer.features if layer.narrow else layer.outputs) + 1
    x = np.random.default_rng(0).standard_normal((size, 2 * size))
    x[-1] = 1.0
    zero = np.zeros(layer.outputs)
    matrix = layer.matrix(constant_values)
    spectrum = subspace.input_spectrum(matrix, x @ x.T) if layer.narrow else subspace.output_spectrum(x @ x.T, zero)
    return subspace.factors(matrix, spectrum, layer.full)


@pytest.mark.parametrize("name", NAMES)
def test_at_full_rank_nothing_changes(name: str, entries: dict[str, Any], zoo_library: ModuleType) -> None:
    entry = entries[name]
    model = zoo_library.refill(zoo_library.read_skeleton(SKELETONS / f"{name}.onnx.xz"))
    analysis = analyse(model, entry.shapes(0))
    layers, _ = layers_of(analysis.structure)
    assert len(layers) > 3
    cut = factorised(analysis, {layer.name: whole for layer in layers})
    assert sum(node.name.endswith("_first") for node in cut.graph.node) == len(layers)
    for which in (0, 1):
        expected, found = (run(open_session(each, threads=1), entry.feeds(which, seed=1)) for each in (model, cut))
        for output, value in expected.items():
            assert relative_error(found[output], value) < ORACLE, output
