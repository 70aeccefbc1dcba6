"""Decoders as they are exported: with a cache of keys and values, with tied embeddings."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from onnx_subprune import Options, Target, analyse, prune
from onnx_subprune.model import open_session, run
from onnx_subprune.pipeline import Result

ZOO = Path(__file__).resolve().parents[1] / "zoo"
sys.path.insert(0, str(ZOO.parents[1] / "tools"))
try:
    from zoo.skeleton import read_skeleton, refill
finally:
    sys.path.pop(0)

RNG = np.random.default_rng(0)
HALF = Options(target=Target("units", 0.5))
VOCABULARY = 96

TIED = """
<ir_version: 9, opset_import: ["" : 18]>
decoder (int64[N, T] input_ids) => (float[N, T, 40] logits) {
    x = Gather(embedding, input_ids)
    h = MatMul(x, up)
    r = Relu(h)
    y = MatMul(r, down)
    z = Add(x, y)
    head = Transpose<perm = [1, 0]>(embedding)
    logits = MatMul(z, head)
}
"""


def skeleton(name: str) -> onnx.ModelProto:
    model: onnx.ModelProto = refill(read_skeleton(ZOO / "skeletons" / f"{name}.onnx.xz"))
    return model


def cached(past: int, count: int = 2, sequence: int = 5, heads: int = 4) -> dict[str, np.ndarray]:
    names = [f"past_key_values.{layer}.{part}" for layer in (0, 1) for part in ("key", "value")]
    return {
        "input_ids": RNG.integers(0, VOCABULARY, (count, sequence)),
        "attention_mask": np.ones((count, past + sequence), np.int64),
        **{name: RNG.standard_normal((count, heads, past, 8)).astype(np.float32) for name in names},
    }


@pytest.mark.parametrize(("name", "heads"), [("gpt2_cache", 4), ("llama_cache", 2)])
@pytest.mark.parametrize("exporter", ["ts17", "dynamo18"])
def test_a_cache_freezes_keys_and_values_and_leaves_the_rest(name: str, heads: int, exporter: str) -> None:
    model = skeleton(f"{name}_{exporter}")
    shapes = {key: value.shape for key, value in cached(3, heads=heads).items()}
    structure = analyse(model, shapes).structure
    hidden = [group for group in structure.prunable if group.entries == 1]
    assert [group.size for group in hidden] == [64 if heads == 2 else 128] * 2
    held = [reason for group in structure.frozen for reason in group.reasons if "past_key_values" in reason]
    # Heads and their channels, of keys and of values, in both layers.
    assert {
        f"axis {axis} of graph input 'past_key_values.{n}.{part}'"
        for axis in (1, 3)
        for n in (0, 1)
        for part in ("key", "value")
    } == set(held)


@pytest.mark.parametrize(("name", "heads"), [("gpt2_cache", 4), ("llama_cache", 2)])
@pytest.mark.parametrize("exporter", ["ts17", "dynamo18"])
def test_token_ids_alone_calibrate_a_decoder_with_a_cache(name: str, heads: int, exporter: str) -> None:
    model = skeleton(f"{name}_{exporter}")
    result = prune(model, {"input_ids": RNG.integers(0, VOCABULARY, (64, 12))}, HALF)
    assert result.pruned.parameters < 0.8 * result.dense.parameters
    for past in (0, 1, 9):
        feeds = cached(past, heads=heads)
        dense, pruned = (run(open_session(each), feeds) for each in (model, result.model))
        assert {key: value.shape for key, value in pruned.items()} == {k: v.shape for k, v in dense.items()}
        assert dense["output1"].shape == (2, heads, past + 5, 8)
        # The first layer's keys are made before anything that is pruned.
        np.testing.assert_allclose(pruned["output1"], dense["output1"], rtol=1e-5, atol=1e-5)
        assert np.isfinite(pruned["output0"]).all()


def tied(*, twice: bool = False) -> onnx.ModelProto:
    """Return a decoder without normalisation, whose embedding is its head too, stored once or twice."""
    model = onnx.parser.parse_model(TIED)
    values = {
        "embedding": RNG.standard_normal((40, 16)),
        "up": RNG.standard_normal((16, 32)) / 4,
        "down": RNG.standard_normal((32, 16)) / 6,
    }
    if twice:
        values["head"] = values["embedding"].T
        del model.graph.node[5]
    for name, array in values.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
    return model


def pruned(model: onnx.ModelProto) -> Result:
    return prune(model, {"input_ids": RNG.integers(0, 40, (64, 10))}, HALF)


def test_a_tied_embedding_stays_one_tensor_and_is_not_corrected() -> None:
    model = tied()
    result = pruned(model)
    before, after = (
        [numpy_helper.to_array(t) for t in each.graph.initializer if t.name.startswith("embedding")]
        for each in (model, result.model)
    )
    (group,) = [group for group in result.plan.groups if group.size == 16]
    assert len(after) == 1
    np.testing.assert_array_equal(after[0], before[0][:, list(group.kept)])
    assert "weight 'embedding' has other uses as well; it was pruned without recovery" in result.warnings


def test_an_embedding_stored_twice_is_corrected_at_the_head() -> None:
    result = pruned(tied(twice=True))
    found = {tuple(tensor.dims) for tensor in result.model.graph.initializer}
    assert {(40, 8), (8, 40)} <= found
    assert not any("other uses" in warning for warning in result.warnings)


@pytest.mark.parametrize("twice", [False, True])
def test_tied_embeddings_hold_the_mask_oracle(mask_oracle, twice: bool) -> None:
    mask_oracle(tied(twice=twice), {"input_ids": (2, 7)})
