"""Second moments of a tensor equal their definition, whatever its rank, type and length."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from onnx_subprune.calibration import Gram, Tap, accumulate
from onnx_subprune.calibration.accumulate import Accumulator
from onnx_subprune.errors import DataError


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


def test_a_constant_feature_has_no_variance():
    gram = accumulate(np.full((10, 2), 0.1, dtype=np.float32), Tap("x", 1))
    assert np.all(gram.covariance() >= 0)
    assert np.all(np.abs(gram.covariance()) < 1e-15)


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


@pytest.mark.parametrize("mean", [0.0, 50.0])
def test_few_positions_of_many_features_are_added_to_one_triangle(mean: float):
    x = (mean + np.random.default_rng(8).standard_normal((7, 1100))).astype(np.float32)
    check(x, Tap("x", -1), rtol=1e-12 if mean == 0.0 else 1e-6)
    check(np.concatenate([x, x], axis=1), Tap("x", -1, blocks=2), rtol=1e-12 if mean == 0.0 else 1e-6)


def test_few_and_many_positions_add_up():
    x = np.random.default_rng(9).standard_normal((700, 1030)).astype(np.float32)
    accumulator = Accumulator(Tap("x", -1))
    for part in (x[:600], x[600:]):
        accumulator.add(part)
    np.testing.assert_allclose(accumulator.finish(), reference(x, Tap("x", -1)), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e30])
def test_values_that_spoil_the_sums_of_many_features_are_refused(bad: float):
    x = np.ones((4, 1024), dtype=np.float32)
    x[2, 1] = bad
    with pytest.raises(DataError, match=r"tensor 'h': .* in feature"):
        accumulate(x, Tap("h", -1))


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


def test_a_few_positions_of_zeros_do_not_decide_and_other_positions_are_refused():
    x, beside = np.random.default_rng(7).standard_normal((20, 3)).astype(np.float32), np.ones((20, 3), np.float32)
    assert np.isfinite(relative_gram(x, 0 * beside).matrix).all()
    beside[7] = 0
    assert relative_gram(x, beside).weight[0, 0, 0] == pytest.approx(19 + 100)
    x = x[:2]
    with pytest.raises(DataError, match="2 positions expected as in 'x', found 3"):
        relative_gram(x, np.ones((3, 3), np.float32))
