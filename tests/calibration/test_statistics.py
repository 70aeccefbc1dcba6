from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from onnx_subprune.calibration import Gram, Statistics, Tap, accumulate, thin_taps
from onnx_subprune.calibration.accumulate import Accumulator
from onnx_subprune.errors import DataError, OutputError


def reference(x: np.ndarray, tap: Tap) -> np.ndarray:
    """Affine second moments in float64, by the definition: one feature vector per position."""
    moved = np.moveaxis(x.astype(np.float64), tap.axis, -1)
    split = moved.reshape(*moved.shape[:-1], tap.blocks, -1, tap.inner)
    rows = np.moveaxis(split, (-3, -2), (0, -1)).reshape(tap.blocks, -1, split.shape[-2])
    affine = np.concatenate([rows, np.ones((*rows.shape[:2], 1))], axis=2)
    return np.einsum("bni,bnj->bij", affine, affine)


def check(x: np.ndarray, tap: Tap, rtol: float = 1e-5) -> Gram:
    gram = accumulate(x, tap)
    expected = reference(x, tap)
    np.testing.assert_allclose(gram.matrix, expected, rtol=rtol, atol=rtol * np.abs(expected).max())
    assert gram.matrix.dtype == np.float64
    assert np.array_equal(gram.matrix, gram.matrix.transpose(0, 2, 1))
    assert (gram.matrix[:, -1, -1] == gram.count).all()
    return gram


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_moments_equal_their_definition_for_any_rank_axis_blocks_and_inner(data: st.DataObject):
    shape = data.draw(st.lists(st.integers(1, 4), min_size=0, max_size=3))
    blocks, features, inner = (data.draw(st.integers(1, 3)) for _ in range(3))
    axis = data.draw(st.integers(0, len(shape)))
    shape.insert(axis, blocks * features * inner)
    if data.draw(st.booleans()):
        axis -= len(shape)
    x = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal(shape).astype(np.float32)
    gram = check(x, Tap("x", axis, blocks, inner))
    assert (gram.blocks, gram.features, gram.count) == (blocks, features, x.size // (blocks * features))


@pytest.mark.parametrize(
    ("shape", "tap"),
    [
        ((3, 70000), Tap("x", 0)),
        ((5, 24, 150, 160), Tap("x", 1)),
        ((5, 24, 50, 60), Tap("x", 1, blocks=4)),
        ((4, 12 * 49), Tap("x", 1, inner=49)),
        ((70000, 12), Tap("x", -1)),
        ((7000, 24), Tap("x", -1, blocks=2)),
    ],
)
def test_tensors_longer_than_one_run(shape: tuple[int, ...], tap: Tap):
    x = np.maximum(np.random.default_rng(1).standard_normal(shape), 0).astype(np.float32)
    check(x, tap, rtol=2e-6)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, np.int8, ml_dtypes.bfloat16])
@pytest.mark.parametrize("axis", [1, -1])
def test_other_dtypes(dtype: type, axis: int):
    x = (10 * np.random.default_rng(2).standard_normal((6, 5, 7))).astype(dtype)
    check(x, Tap("x", axis), rtol=1e-12 if dtype is np.float64 else 1e-6)


@pytest.mark.parametrize("axis", [1, -1])
def test_covariance_survives_a_mean_far_above_the_deviation(axis: int):
    generator = np.random.default_rng(3)
    x = (1000 + generator.standard_normal((64, 9, 9, 9))).astype(np.float32)
    x[:, 3] = 7.5
    gram = accumulate(x, Tap("x", axis))
    rows = np.moveaxis(x, axis, -1).reshape(-1, 9).astype(np.float64)
    expected = np.cov(rows, rowvar=False, bias=True)
    np.testing.assert_allclose(gram.covariance()[0], expected, atol=1e-5 * expected.max())


def test_mean_second_moment_and_covariance():
    x = np.random.default_rng(4).standard_normal((50, 6)).astype(np.float32)
    gram = accumulate(x, Tap("x", 1))
    np.testing.assert_allclose(gram.mean()[0], x.mean(axis=0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gram.second_moment()[0, :-1, :-1], x.T @ x / 50, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gram.covariance()[0], np.cov(x, rowvar=False, bias=True), rtol=1e-5, atol=1e-6)


def test_a_constant_feature_has_no_variance():
    gram = accumulate(np.full((10, 2), 0.1, dtype=np.float32), Tap("x", 1))
    assert np.all(gram.covariance() >= 0)
    assert np.all(np.abs(gram.covariance()) < 1e-15)


def test_grams_of_parts_add_up_to_the_whole():
    x = np.random.default_rng(5).standard_normal((20, 4, 3)).astype(np.float32)
    tap = Tap("x", 1, blocks=2)
    merged = accumulate(x[:7], tap) + accumulate(x[7:], tap)
    assert merged.count == 60
    np.testing.assert_allclose(merged.matrix, accumulate(x, tap).matrix, rtol=1e-6, atol=1e-5)
    with pytest.raises(DataError, match="Gram matrices of one shape expected"):
        merged + accumulate(x, Tap("x", 1))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e30])
def test_values_that_spoil_the_sums_are_refused(bad: float):
    x = np.ones((4, 3, 5), dtype=np.float32)
    x[2, 1, 0] = bad
    for axis in (1, -1):
        with pytest.raises(DataError, match=f"tensor 'h': .* in feature {1 if axis == 1 else 0}"):
            accumulate(x, Tap("h", axis))


@pytest.mark.parametrize(
    ("tap", "message"),
    [
        (Tap("x", 2), "an axis 2 expected, found rank 2"),
        (Tap("x", -3), "an axis -3 expected, found rank 2"),
        (Tap("x", 1, blocks=4), r"a multiple of 4 entries .*, found 6"),
    ],
)
def test_taps_that_do_not_fit_are_refused(tap: Tap, message: str):
    with pytest.raises(DataError, match=message):
        accumulate(np.ones((2, 6), dtype=np.float32), tap)


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


@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_positions_count_one_over_the_mean_square_of_the_tensor_that_they_are_relative_to(mean: float):
    rng = np.random.default_rng(5)
    x = (mean + rng.standard_normal((6, 50, 7))).astype(np.float32)
    beside = (rng.standard_normal((6, 50, 3)) * np.exp(rng.uniform(0, 9, (6, 50, 1)))).astype(np.float32)
    gram = relative_gram(x, beside, parts=3)
    squares = np.square(beside.astype(np.float64)).mean(axis=2).reshape(3, 100)
    weights = 1 / np.maximum(squares, 1e-2 * np.median(squares, axis=1, keepdims=True)).ravel()
    affine = np.concatenate([x.reshape(-1, 7).astype(np.float64), np.ones((300, 1))], axis=1)
    expected = (affine * weights[:, None]).T @ affine
    np.testing.assert_allclose(gram.matrix[0], expected, rtol=2e-5, atol=2e-6 * np.abs(expected).max())
    assert gram.count == 300
    rows = affine[:, :-1]
    np.testing.assert_allclose(gram.mean()[0], np.average(rows, axis=0, weights=weights), rtol=1e-4, atol=1e-4)
    covariance = np.cov(rows.T, aweights=weights, ddof=0)
    np.testing.assert_allclose(gram.covariance()[0], covariance, rtol=1e-3, atol=1e-3)


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


def test_a_few_positions_of_zeros_do_not_decide_and_other_positions_are_refused():
    x, beside = np.random.default_rng(7).standard_normal((20, 3)).astype(np.float32), np.ones((20, 3), np.float32)
    assert np.isfinite(relative_gram(x, 0 * beside).matrix).all()
    beside[7] = 0
    assert relative_gram(x, beside).weight[0, 0, 0] == pytest.approx(19 + 100)
    x = x[:2]
    with pytest.raises(DataError, match="2 positions expected as in 'x', found 3"):
        relative_gram(x, np.ones((3, 3), np.float32))
