"""Maps whose output is not in the graph: inside a fused attention, and the gates of recurrent layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.model import array_of, input_specs
from onnx_subprune.recovery.exact import Networks, Refit, Settings, refit
from onnx_subprune.recovery.exact.linear_layers import RECURRENCE

KEPT, SIZE = 5, 8
RNG = np.random.default_rng(4)


def _net(text: str, **weights: Any) -> onnx.ModelProto:
    rng = np.random.default_rng(1)
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>\n{text}')
    for name, spec in weights.items():
        values = spec if isinstance(spec, np.ndarray) else rng.standard_normal(spec) / np.sqrt(spec[-1])
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values, np.float32), name))
    return model


def _mixtures(*shape: int) -> np.ndarray:
    first = RNG.standard_normal((KEPT, *shape)) / 2
    mix = RNG.standard_normal((SIZE - KEPT, KEPT)) / 2
    return np.concatenate([first, np.tensordot(mix, first, axes=1)]).astype(np.float32)


def _damaged(model: onnx.ModelProto, *names: str) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    rng = np.random.default_rng(2)
    for tensor in copy.graph.initializer:
        if tensor.name in names:
            values = array_of(tensor) + 0.3 * rng.standard_normal(tuple(tensor.dims))
            tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return copy


def _refit(dense: onnx.ModelProto, damaged: onnx.ModelProto, data: Any, **settings: Any) -> Refit:
    opened = open_data(data, input_specs(dense))
    return refit(
        Networks(dense, damaged, lambda _, value: value), opened, Settings(threads=1, batch_size=8, **settings)
    )


ATTENTION = """g (float[4,6,3] x) => (float[a,b,c] y) {
    [m1] h = MatMul(x, w1)
    [at] o = com.microsoft.Attention <num_heads=2> (h, w, b)
    [m2] y = MatMul(o, wo)
}"""


@pytest.mark.parametrize("one_pass", [False, True])
def test_the_projections_of_an_attention(pruned, distance, one_pass):
    model = _net(ATTENTION, w1=np.ascontiguousarray(_mixtures(3).T), w=(SIZE, 12), wo=(4, 3), b=(12,))
    kept = {"m1": range(KEPT)}
    assert distance(model, pruned(model, kept, recovery="none").model) > 3e-2
    found = pruned(model, kept, one_pass=one_pass)
    assert distance(model, found.model) < 1e-5
    assert "at" in {layer.name for layer in found.fit.layers}
    assert not [text for text in found.warnings if "keeps" in text]


def test_an_attention_that_loses_heads_too(pruned, distance):
    """The rows of queries, keys and values that go with a head are no target any more."""
    w1, packed, wo = _mixtures(3).T, RNG.standard_normal((SIZE, 12)) / 3, RNG.standard_normal((4, 3)) / 2
    # The second head is the first once more.
    packed = packed.reshape(SIZE, 3, 2, 2)
    packed[:, :, 1] = packed[:, :, 0]
    model = _net(ATTENTION, w1=np.ascontiguousarray(w1), w=packed.reshape(SIZE, 12), wo=wo, b=np.zeros(12))
    kept = {"m1": range(KEPT), "at": (0,)}
    assert distance(model, pruned(model, kept, recovery="none").model) > 3e-2
    found = pruned(model, kept)
    assert distance(model, found.model) < 1e-4
    assert {"at", "m2"} <= {layer.name for layer in found.fit.layers}


@pytest.mark.parametrize("sequential", [True, False])
def test_a_damaged_projection_is_repaired(draw, distance, sequential):
    model = _net(ATTENTION.replace("4,6,3", "N,6,3"), w1=(3, SIZE), w=(SIZE, 12), wo=(4, 3), b=(12,))
    found = _refit(model, _damaged(model, "w1", "w", "b"), draw(model, 60), sequential=sequential)
    assert not found.left
    assert distance(model, found.model, draw(model, 4, 3)) < 1e-4


RECURRENT = """g (float[5,4,3] x) => (float[a,b,c,d] y) {
    [m1] h = MatMul(x, w1)
    [l] y = LAYER (h, w, rBIAS)
}"""
LAYERS = {
    "LSTM <hidden_size=4>": (1, 4),
    'LSTM <hidden_size=4, direction="bidirectional">': (2, 4),
    "GRU <hidden_size=4>": (1, 3),
    "GRU <hidden_size=4, linear_before_reset=1>": (1, 3),
    "RNN <hidden_size=4>": (1, 1),
}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("bias", ["", ", b"])
def test_the_gates_of_a_recurrent_layer(pruned, distance, layer, bias):
    """What the input gives to the gates is a linear map; the states that it reads back are named as the rest."""
    directions, gates = LAYERS[layer]
    rows = 4 * gates
    model = _net(
        RECURRENT.replace("LAYER", layer).replace("BIAS", bias),
        w1=np.ascontiguousarray(_mixtures(3).T), w=(directions, rows, SIZE), r=(directions, rows, 4),
        **({"b": (directions, 2 * rows)} if bias else {}),
    )  # fmt: skip
    kept = {"m1": range(KEPT)}
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((5, 4, 3)).astype(np.float32)} for _ in range(20)]
    assert distance(model, pruned(model, kept, data, recovery="none").model) > 3e-2
    found = pruned(model, kept, data)
    assert distance(model, found.model) < 1e-5
    assert "l" in {layer.name for layer in found.fit.layers}


@pytest.mark.parametrize("sequential", [True, False])
def test_a_damaged_input_of_gates_is_repaired(distance, sequential):
    model = _net(
        RECURRENT.replace("LAYER", "LSTM <hidden_size=4>").replace("BIAS", ", b"),
        w1=(3, SIZE), w=(1, 16, SIZE), r=(1, 16, 4), b=(1, 32),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((5, 4, 3)).astype(np.float32)} for _ in range(20)]
    damaged = _damaged(model, "w1", "w")
    found = _refit(model, damaged, data, sequential=sequential)
    assert set(found.left) == {"l (recurrence)"}
    assert distance(model, damaged) > 0.1
    assert distance(model, found.model) < 1e-4
    half = next(array_of(tensor) for tensor in found.model.graph.initializer if tensor.name == "b")[:, 16:]
    before = next(array_of(tensor) for tensor in model.graph.initializer if tensor.name == "b")[:, 16:]
    np.testing.assert_array_equal(half, before)


def test_states_that_lose_units_keep_their_recovery_by_channel_for_a_reason(pruned):
    model = _net(
        """g (float[5,4,3] x) => (float[a,b,c] y) {
            [l] h = LSTM <hidden_size=4> (x, w, r)
            [s] s = Squeeze(h, axes)
            [m] y = MatMul(s, w2)
        }""",
        w=(1, 16, 3), r=(1, 16, 4), w2=(4, 2),
    )  # fmt: skip
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array([1]), "axes"))
    rng = np.random.default_rng(0)
    data = [{"x": rng.standard_normal((5, 4, 3)).astype(np.float32)} for _ in range(20)]
    found = pruned(model, {"l": range(3)}, data)
    reason = f"'l (recurrence)' keeps its recovery by channel: {RECURRENCE}"
    assert reason in found.warnings
    assert {"l", "m"} <= {layer.name for layer in found.fit.layers}


def test_samples_of_an_attention_that_reads_the_input(distance):
    """Of many samples only as many are run as the fit needs; what is read is an input of the network."""
    model = _net(
        "g (float[N,6,8] x) => (float[a,b,c] y) { [at] y = com.microsoft.Attention <num_heads=2> (x, w, b) }",
        w=(SIZE, 12), b=(12,),
    )  # fmt: skip
    rng = np.random.default_rng(0)
    data = {"x": rng.standard_normal((1300, 6, SIZE)).astype(np.float32)}
    found = _refit(model, _damaged(model, "w"), data)
    assert distance(model, found.model, {"x": rng.standard_normal((4, 6, SIZE)).astype(np.float32)}) < 1e-4
