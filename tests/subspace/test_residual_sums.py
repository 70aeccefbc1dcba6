"""Sums over rows: in batches as at once, about a pivot, weighted, and with an intercept for each reader of a weight."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.subspace.residual_ridge import refine
from onnx_subprune.subspace.residual_sums import Pairs, total_of

RNG = np.random.default_rng(3)


def _layer(features: int, outputs: int = 2, blocks: int = 1) -> tuple[np.ndarray, np.ndarray]:
    return RNG.standard_normal((blocks, outputs, features)), RNG.standard_normal((blocks, outputs))


def test_sums_are_those_of_products_with_the_error():
    weight, bias = _layer(3, blocks=2)
    x, target = RNG.standard_normal((2, 50, 3)), RNG.standard_normal((2, 50, 2))
    pivot = x.mean(axis=1) + 0.3
    pairs = Pairs(weight, bias, 1, pivot)
    for rows in (slice(0, 20), slice(20, 50)):
        pairs.add(x[:, rows], [target[:, rows]])
    z = np.concatenate([x - pivot[:, None], np.ones((2, 50, 1))], axis=2)
    error = target - x @ weight.transpose(0, 2, 1) - bias[:, None]
    np.testing.assert_allclose(pairs.gram, z.transpose(0, 2, 1) @ z, rtol=1e-10)
    np.testing.assert_allclose(pairs.cross[0], error.transpose(0, 2, 1) @ z, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(pairs.missed, np.square(error).sum(axis=1))
    np.testing.assert_allclose(pairs.square, np.square(target).sum(axis=1))
    assert pairs.count == 50


def test_a_weight_of_two_counts_a_row_twice():
    weight, bias = _layer(3)
    x, target = RNG.standard_normal((1, 10, 3)), RNG.standard_normal((1, 10, 2))
    weighted, repeated = (Pairs(weight, bias, 1) for _ in range(2))
    weighted.add(x, [target], np.full(10, 2.0))
    for _ in range(2):
        repeated.add(x, [target])
    np.testing.assert_allclose(weighted.gram, repeated.gram)
    np.testing.assert_allclose(weighted.cross, repeated.cross)
    np.testing.assert_allclose(weighted.missed, repeated.missed)


@pytest.mark.parametrize("features", [300, 513])
def test_wide_sums_in_panels_are_whole(features):
    weight, bias = _layer(features)
    x = RNG.standard_normal((1, 40, features)).astype(np.float32)
    pairs = Pairs(weight, bias, 1)
    pairs.add(x, [np.zeros((1, 40, 2), np.float32)])
    assert pairs.single
    np.testing.assert_array_equal(pairs.gram, pairs.gram.transpose(0, 2, 1))
    np.testing.assert_allclose(pairs.gram[0, :features, :features], x[0].T @ x[0], rtol=1e-3, atol=1e-3)


def test_what_is_given_stays_as_it_was():
    weight, bias = _layer(3)
    given = [RNG.standard_normal((1, 10, 3)), RNG.standard_normal((1, 10, 2)), np.full(10, 2.0)]
    before = [array.copy() for array in given]
    Pairs(weight, bias, 1).add(given[0], [given[1]], given[2])
    for array, copy in zip(given, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_what_is_not_finite_is_told():
    weight, bias = _layer(3)
    pairs = Pairs(weight, bias, 1)
    pairs.add(np.ones((1, 2, 3)), [np.ones((1, 2, 2))])
    assert pairs.finite
    pairs.add(np.full((1, 1, 3), np.inf), [np.ones((1, 1, 2))])
    assert not pairs.finite


def test_total_of_parts():
    parts = [np.array([1.0]), np.array([2.0]), np.array([4.0])]
    assert total_of(parts) == [7.0]
    assert total_of(parts[:1]) is parts[0]


def test_readers_with_biases_of_their_own_share_a_weight():
    """Least squares on the inputs and a column of ones for each reader gives the same weight and the same biases."""
    weight, bias = RNG.standard_normal((1, 2, 3)), RNG.standard_normal((2, 1, 2))
    wanted, offsets = RNG.standard_normal((2, 3)), RNG.standard_normal((2, 2))
    rows = [RNG.standard_normal((1, count, 3)) + 5 * reader for reader, count in enumerate((60, 25))]
    targets = [x @ wanted.T + offsets[reader] + 0.1 * RNG.standard_normal(2) for reader, x in enumerate(rows)]
    pivot = np.stack([x.mean(axis=1) for x in rows])
    pairs = Pairs(weight, bias, 1, pivot)
    for reader, (x, target) in enumerate(zip(rows, targets, strict=True)):
        pairs.add(x, [target], reader=reader)
    (refined,) = refine(pairs, pairs, affine=True, strengths=(1e-12,))
    columns = [np.hstack([x[0], np.tile(np.eye(2)[reader], (x.shape[1], 1))]) for reader, x in enumerate(rows)]
    solution = np.linalg.lstsq(np.vstack(columns), np.vstack([target[0] for target in targets]), rcond=None)[0]
    np.testing.assert_allclose(refined.weight[0], solution[:3].T, atol=1e-6)
    np.testing.assert_allclose(refined.bias[:, 0], solution[3:], atol=1e-5)


def test_one_reader_is_the_same_with_and_without_an_axis_of_readers():
    weight, bias = _layer(4, blocks=2)
    x, target = RNG.standard_normal((2, 80, 4)), RNG.standard_normal((2, 80, 2))
    fits = []
    for biases, pivot in ((bias, x.mean(axis=1)), (bias[None], x.mean(axis=1)[None])):
        pairs = Pairs(weight, biases, 1, pivot)
        pairs.add(x, [target])
        fits += refine(pairs, pairs, affine=True)
    np.testing.assert_array_equal(fits[0].weight, fits[1].weight)
    np.testing.assert_array_equal(fits[0].bias, fits[1].bias[0])
