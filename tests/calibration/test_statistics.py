"""Statistics add up, and come back from the file they are kept in."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from onnx_subprune.calibration import Gram, Statistics, Tap, accumulate, thin_taps
from onnx_subprune.calibration.accumulate import Accumulator
from onnx_subprune.errors import DataError, OutputError


def test_mean_second_moment_and_covariance():
    x = np.random.default_rng(4).standard_normal((50, 6)).astype(np.float32)
    gram = accumulate(x, Tap("x", 1))
    np.testing.assert_allclose(gram.mean()[0], x.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gram.second_moment()[0, :-1, :-1], x.T @ x / 50, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gram.covariance()[0], np.cov(x, rowvar=False, bias=True), rtol=1e-5, atol=1e-6)


def test_grams_of_parts_add_up_to_the_whole():
    x = np.random.default_rng(5).standard_normal((20, 4, 3)).astype(np.float32)
    tap = Tap("x", 1, blocks=2)
    merged = accumulate(x[:7], tap) + accumulate(x[7:], tap)
    assert merged.count == 60
    np.testing.assert_allclose(merged.matrix, accumulate(x, tap).matrix, rtol=1e-6, atol=1e-5)
    with pytest.raises(DataError, match="Gram matrices of one shape expected"):
        merged + accumulate(x, Tap("x", 1))


def statistics(seed: int = 0, fingerprint: str = "f" * 64, rows: int = 9) -> Statistics:
    x = np.random.default_rng(seed).standard_normal((rows, 4)).astype(np.float32)
    taps = (Tap("b", 1), Tap("a", 1, blocks=2))
    return Statistics({tap.key: accumulate(x, tap) for tap in taps}, rows, fingerprint)


def test_saved_statistics_come_back_and_repeat_their_bytes(tmp_path: Path):
    saved = statistics()
    saved.save(tmp_path / "s.safetensors")
    first = (tmp_path / "s.safetensors").read_bytes()
    saved.save(tmp_path / "s.safetensors")
    assert (tmp_path / "s.safetensors").read_bytes() == first
    assert [path.name for path in tmp_path.iterdir()] == ["s.safetensors"]

    loaded = Statistics.load(tmp_path / "s.safetensors")
    assert (loaded.samples, loaded.fingerprint) == (saved.samples, saved.fingerprint)
    assert loaded.grams.keys() == saved.grams.keys()
    for key, gram in saved.grams.items():
        assert loaded.grams[key].count == gram.count
        np.testing.assert_array_equal(loaded.grams[key].matrix, gram.matrix)


def test_saved_file_is_readable_by_whom_the_umask_allows(tmp_path: Path):
    statistics().save(tmp_path / "s.safetensors")
    (tmp_path / "other").touch()
    assert (tmp_path / "s.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_a_failed_save_leaves_what_was_there(tmp_path: Path):
    with pytest.raises(OutputError, match="No such file or directory"):
        statistics().save(tmp_path / "nowhere" / "s.safetensors")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="Is a directory"):
        statistics().save(tmp_path / "folder")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_files_that_are_not_statistics_are_refused(tmp_path: Path):
    path = tmp_path / "s.safetensors"
    with pytest.raises(DataError, match="No such file"):
        Statistics.load(path)
    path.write_bytes(b"not a safetensors file")
    with pytest.raises(DataError, match="statistics saved by onnx-subprune expected"):
        Statistics.load(path)
    save_file({"x": np.ones(3)}, path)
    with pytest.raises(DataError, match="statistics saved by onnx-subprune expected"):
        Statistics.load(path)
    statistics().save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    with pytest.raises(DataError, match="statistics saved by onnx-subprune expected"):
        Statistics.load(path)
    path.write_bytes(whole[:-8] + np.float64(3.0).tobytes())
    with pytest.raises(DataError, match="does not fit its count"):
        Statistics.load(path)


def test_merging_needs_the_same_model_and_taps():
    one, other = statistics(0), statistics(1)
    merged = one.merge(other)
    assert merged.samples == 18
    np.testing.assert_array_equal(
        merged.grams["b@1/1/1"].matrix, one.grams["b@1/1/1"].matrix + other.grams["b@1/1/1"].matrix
    )
    with pytest.raises(DataError, match="statistics of one model expected"):
        one.merge(statistics(1, "0" * 64))
    with pytest.raises(DataError, match="found 'b@1/1/1' in only one"):
        one.merge(Statistics({"a@1/2/1": one.grams["a@1/2/1"]}, 9, one.fingerprint))


def test_thin_taps_are_those_below_sixteen_rows_a_feature():
    assert thin_taps(statistics(rows=64)) == []
    assert thin_taps(statistics(rows=63)) == [
        "'b@1/1/1' was measured on 63 rows for 4 features, where at least 64 are advised; use more samples"
    ]
    assert len(thin_taps(statistics(rows=31))) == 2


def relative_gram(x: np.ndarray, beside: np.ndarray, parts: int = 1) -> Gram:
    accumulator = Accumulator(Tap("x", -1, relative="s"))
    for part, other in zip(np.array_split(x, parts), np.array_split(beside, parts), strict=True):
        accumulator.add(part, other)
    return Gram(accumulator.count, accumulator.finish())


def test_relative_moments_merge_and_are_saved_and_are_no_others(tmp_path: Path):
    rng = np.random.default_rng(6)
    x, beside = rng.standard_normal((8, 4)).astype(np.float32), rng.standard_normal((8, 3)).astype(np.float32)
    tap, plain = Tap("x", -1, relative="s"), Tap("x", -1)
    first, second = (Statistics({tap.key: relative_gram(x[i], beside[i])}, 4, "f") for i in (slice(4), slice(4, 8)))
    merged = first.merge(second)
    np.testing.assert_allclose(merged.grams[tap.key].matrix, relative_gram(x, beside).matrix, rtol=1e-6)
    merged.save(tmp_path / "s.safetensors")
    loaded = Statistics.load(tmp_path / "s.safetensors")
    assert np.array_equal(loaded.grams[tap.key].matrix, merged.grams[tap.key].matrix)
    with pytest.raises(DataError, match="the same taps expected"):
        merged.merge(Statistics({plain.key: accumulate(x, plain)}, 8, "f"))
