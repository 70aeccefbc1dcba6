"""Inputs of language models that data leaves out."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration import open_data
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

IDS = np.arange(12).reshape(2, 6)
INT, FLOAT, BOOL = np.dtype(np.int64), np.dtype(np.float32), np.dtype(np.bool_)
TOKENS = InputSpec("input_ids", ("batch", "sequence"), INT)
DECODER = (
    InputSpec("use_cache_branch", (1,), BOOL),
    TOKENS,
    InputSpec("attention_mask", ("batch", "past + sequence"), INT),
    InputSpec("position_ids", ("batch", "sequence"), INT),
    InputSpec("past_key_values.0.key", ("batch", 2, "past", 8), FLOAT),
    InputSpec("past_key_values.0.value", ("batch", 2, "past", 8), np.dtype(np.float16)),
)


def batches(specs: tuple[InputSpec, ...], source: Any, size: int = 32) -> list[dict[str, np.ndarray]]:
    return list(open_data(source, specs).batches(size))


def filled(spec: InputSpec) -> np.ndarray:
    (feeds,) = batches((TOKENS, spec), {"input_ids": IDS})
    return feeds[spec.name]


def test_a_decoder_with_a_cache_needs_only_its_token_ids() -> None:
    data = open_data({"input_ids": IDS}, DECODER)
    (feeds,) = data.batches(32)
    assert list(feeds) == [spec.name for spec in DECODER]
    assert all(feeds[spec.name].dtype == spec.dtype for spec in DECODER)
    np.testing.assert_array_equal(feeds["attention_mask"], np.ones((2, 6)))
    np.testing.assert_array_equal(feeds["position_ids"], [range(6), range(6)])
    assert feeds["past_key_values.0.key"].shape == feeds["past_key_values.0.value"].shape == (2, 2, 0, 8)
    assert feeds["use_cache_branch"].tolist() == [False]
    # Neither the flag nor the empty cache is taken for the batch.
    assert (data.samples, data.samples_in(feeds)) == (2, 2)
    assert [each["past_key_values.0.key"].shape for each in data.batches(1)] == [(1, 2, 0, 8)] * 2


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (InputSpec("attention_mask", ("n", "t"), FLOAT), np.ones((2, 6))),
        (InputSpec("token_type_ids", (None, None), INT), np.zeros((2, 6))),
        (InputSpec("position_ids", (1, "t"), INT), [range(6)]),
        (InputSpec("position_ids", ("t",), np.dtype(np.int32)), range(6)),
        (InputSpec("use_cache_branch", (), BOOL), False),
        (InputSpec("cache_position", ("t",), INT), range(6)),
        (InputSpec("seqlens_k", ("batch",), np.dtype(np.int32)), [5, 5]),
        (InputSpec("total_sequence_length", (), np.dtype(np.int32)), 6),
        (InputSpec("total_seq_len", (1,), np.dtype(np.int32)), [6]),
        (InputSpec("past_seq_len", (1,), np.dtype(np.int32)), [0]),
        (InputSpec("past_0", (2, "batch", 2, "past", 8), FLOAT), np.zeros((2, 2, 2, 0, 8))),
        (InputSpec("past_key_values.3.value", (None, 2, None, 8), FLOAT), np.zeros((2, 2, 0, 8))),
    ],
)
def test_shapes_follow_the_model(spec: InputSpec, expected: Any) -> None:
    found = filled(spec)
    np.testing.assert_array_equal(found, np.asarray(expected))
    assert found.shape == np.asarray(expected).shape
    assert found.dtype == spec.dtype


@pytest.mark.parametrize(
    "spec",
    [
        InputSpec("attention_mask", ("batch", 1, "t", "t"), BOOL),
        InputSpec("attention_mask", ("batch", 9), INT),
        InputSpec("position_ids", (3, "t"), INT),
        InputSpec("past_key_values.0.key", ("batch", 2, 16, 8), FLOAT),
        InputSpec("past_key_values.0.key", ("batch", "heads", "past", 8), FLOAT),
    ],
)
def test_what_cannot_be_guessed_is_asked_for(spec: InputSpec) -> None:
    with pytest.raises(
        DataError, match=rf"input '{spec.name}' of shape \[.*\] cannot be guessed .* give it in the data"
    ):
        filled(spec)


def test_only_known_names_are_filled() -> None:
    with pytest.raises(DataError, match="input 'pixel_values' expected, found nothing else"):
        filled(InputSpec("pixel_values", ("batch", 3), FLOAT))
    with pytest.raises(DataError, match="input 'attention_mask' expected, found nothing else"):
        batches((InputSpec("features", ("n", 2), FLOAT), DECODER[2]), {"features": np.ones((2, 2), np.float32)})


def test_what_the_data_gives_is_fed(caplog: pytest.LogCaptureFixture) -> None:
    mask = np.tri(2, 6, dtype=np.int64)
    with caplog.at_level(logging.WARNING):
        (feeds,) = batches(DECODER, {"attention_mask": mask, "input_ids": IDS})
    np.testing.assert_array_equal(feeds["attention_mask"], mask)
    assert not caplog.records


def test_a_mask_that_is_not_there_is_spoken_of(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        batches(DECODER, {"input_ids": IDS})
    (record,) = caplog.records
    assert "attention_mask, position_ids, past_key_values.0.key and 1 like it" in record.getMessage()


def test_files_folders_and_streams_alike(tmp_path: Path) -> None:
    np.savez(tmp_path / "tokens.npz", input_ids=IDS)
    np.save(tmp_path / "tokens.npy", IDS)
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "folder" / "1.npz", input_ids=IDS)
    items = [{"input_ids": IDS[:1]}, {"input_ids": IDS[1:, :4]}]
    for source in (tmp_path / "tokens.npz", tmp_path / "tokens.npy", tmp_path / "folder"):
        (feeds,) = batches(DECODER, source)
        assert feeds["attention_mask"].shape == (2, 6), source
    assert [feeds["position_ids"].shape for feeds in batches(DECODER, iter(items))] == [(1, 6), (1, 4)]
