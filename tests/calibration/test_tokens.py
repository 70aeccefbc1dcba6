"""Token ids as windows, or as one stream that is cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnx_subprune.calibration import open_tokens
from onnx_subprune.errors import DataError, ModelError, OptionError
from onnx_subprune.model import InputSpec

INT = np.dtype(np.int64)
SPECS = (InputSpec("input_ids", ("n", "t"), INT), InputSpec("attention_mask", ("n", "t"), INT))
STREAM = np.arange(10)


def windows(source: Any, specs: tuple[InputSpec, ...] = SPECS, **options: Any) -> np.ndarray:
    found = [feeds[specs[0].name] for feeds in open_tokens(source, specs, **options).batches(8)]
    return np.concatenate(found)


def test_a_stream_is_cut_and_its_rest_left_out() -> None:
    np.testing.assert_array_equal(windows(STREAM, window=4), [[0, 1, 2, 3], [4, 5, 6, 7]])


def test_windows_stay_as_they_are(tmp_path: Path) -> None:
    ids = STREAM.reshape(2, 5).astype(np.uint16)
    np.save(tmp_path / "ids.npy", ids)
    np.savez(tmp_path / "unnamed.npz", ids)
    np.savez(tmp_path / "named.npz", input_ids=ids, attention_mask=np.ones((2, 5), np.int64))
    (tmp_path / "ids.json").write_text(json.dumps(ids.tolist()))
    for source in (ids, ids.tolist(), {"input_ids": ids}, *sorted(tmp_path.iterdir())):
        found = windows(source)
        assert found.dtype == np.int64, source
        np.testing.assert_array_equal(found, ids)
    np.testing.assert_array_equal(windows(ids, window=5), ids)


def test_windows_of_several_lengths_run_with_those_of_their_length(tmp_path: Path) -> None:
    lists = [[1, 2, 3], [4, 5], [6, 7, 8]]
    (tmp_path / "ids.json").write_text(json.dumps(lists))
    for source in (lists, {"input_ids": lists}, tmp_path / "ids.json", [{"input_ids": row} for row in lists]):
        found = [feeds["input_ids"].tolist() for feeds in open_tokens(source, SPECS).batches(8)]
        assert found == [[[1, 2, 3], [6, 7, 8]], [[4, 5]]]


def test_samples_are_windows_of_a_seeded_permutation() -> None:
    found = windows(np.arange(100), window=10, samples=3, seed=4)
    np.testing.assert_array_equal(found[:, 0] // 10, np.random.default_rng(4).permutation(10)[:3])


def test_the_model_may_name_its_tokens_as_it_likes_and_take_int32() -> None:
    specs = (InputSpec("tokens", ("n", "t"), np.dtype(np.int32)),)
    assert windows(STREAM, specs, window=5).dtype == np.int32


def test_a_folder_is_read_as_other_data_is(tmp_path: Path) -> None:
    np.savez(tmp_path / "1.npz", input_ids=STREAM.reshape(2, 5))
    np.testing.assert_array_equal(windows(tmp_path), STREAM.reshape(2, 5))


@pytest.mark.parametrize(
    ("source", "options", "kind", "message"),
    [
        (STREAM, {}, OptionError, "a window expected for one stream of 10 token ids, found none; give --window"),
        (STREAM, {"window": 1}, OptionError, "a window of at least 2 tokens expected, found 1"),
        (STREAM.reshape(2, 5), {"window": 4}, OptionError, "with a window of 4, found windows of 5"),
        (STREAM, {"window": 11}, DataError, "at least 11 token ids expected, one window, found 10"),
        (STREAM.astype(np.float32), {"window": 5}, DataError, "integer token ids expected .* found float32"),
        (STREAM - 1, {"window": 5}, DataError, "token ids from 0 to .* expected, found -1"),
        ([[1, 2], [3]], {"window": 2}, OptionError, "with a window of 2, found windows of several lengths"),
        ([[1, 2], [3, -4, 5]], {}, DataError, "token ids from 0 to .* expected, found -4"),
        ([[1, 2], [[3], [4, 5]]], {}, DataError, "list: an array expected for input 'ids' in sample 1"),
        (STREAM.reshape(1, 2, 5), {}, DataError, r"expected of shape \[\?, t\], found \[1, 2, 5\]"),
        ({"ids": STREAM}, {}, DataError, "input 'input_ids' expected, found 'ids'"),
    ],
)
def test_bad_tokens(source: Any, options: dict[str, Any], kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        windows(source, **options)


def test_ids_must_fit_the_type_that_the_model_takes() -> None:
    with pytest.raises(DataError, match="token ids from 0 to 2147483647 expected, found 4294967296"):
        windows(np.array([0, 2**32]), (InputSpec("tokens", ("n", "t"), np.dtype(np.int32)),), window=2)


def test_a_model_without_token_ids() -> None:
    with pytest.raises(ModelError, match=r"an integer input 'input_ids' .* found 'x' float32 \['n', 3\]"):
        windows(STREAM, (InputSpec("x", ("n", 3), np.dtype(np.float32)),))


def test_json_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "ids.json").write_text("{")
    with pytest.raises(DataError, match=r"ids.json' expected to hold lists of token ids"):
        windows(tmp_path / "ids.json")
