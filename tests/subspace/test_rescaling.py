"""The factor and the offset that stand for the statistics of all units."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.subspace import rescaling, unscaled

RNG = np.random.default_rng(0)
KEEP = np.arange(12) < 8


def moments(n: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E[n nᵀ] and E[n] of rows."""
    return n.T @ n / len(n), n.mean(axis=0)


def layer_norm(x: np.ndarray) -> np.ndarray:
    centred = x - x.mean(axis=1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(axis=1, keepdims=True))


def test_the_factor_is_the_spread_of_what_stays_and_the_offset_its_mean():
    n = layer_norm(RNG.standard_normal((5000, 12)) * np.linspace(0.5, 3, 12) + np.linspace(-1, 2, 12))
    result = rescaling(*moments(n), KEEP, centred=True, averaged=True, pooled=False)
    assert result.factor == pytest.approx(np.sqrt(n[:, KEEP].var(axis=1).mean()))
    assert result.offset == pytest.approx(n[:, KEEP].mean())


def test_normalised_anew_and_rescaled_the_units_that_stay_are_nearer_to_what_they_were():
    n = layer_norm(RNG.standard_normal((5000, 12)) * np.linspace(0.5, 3, 12) + np.linspace(-1, 2, 12))
    result = rescaling(*moments(n), KEEP, centred=True, averaged=True, pooled=False)
    again = layer_norm(n[:, KEEP])
    restored = result.factor * again + result.offset
    assert ((restored - n[:, KEEP]) ** 2).mean() < 0.5 * ((again - n[:, KEEP]) ** 2).mean()


@pytest.mark.parametrize("averaged", [True, False])
def test_without_a_mean_the_squares_alone_count(averaged):
    n = RNG.standard_normal((100, 12)) * np.linspace(0.5, 3, 12)
    result = rescaling(*moments(n), KEEP, centred=False, averaged=averaged, pooled=False)
    reduce = np.mean if averaged else np.sum
    assert result.factor == pytest.approx(np.sqrt(reduce((n**2)[:, KEEP]) / reduce(n**2)))
    assert result.offset == 0


def test_a_common_scale_of_the_normalised_values_makes_no_difference():
    n = layer_norm(RNG.standard_normal((100, 12)) + np.linspace(-1, 2, 12))
    first, second = (rescaling(*moments(k * n), KEEP, centred=True, averaged=True, pooled=False) for k in (1, 7))
    assert (first.factor, first.offset) == pytest.approx((second.factor, second.offset))


def test_statistics_over_many_positions_are_centred_on_the_mean_of_all_of_them():
    n = RNG.standard_normal((20000, 12))
    pooled = rescaling(*moments(n), np.arange(12) < 1, centred=True, averaged=True, pooled=True)
    assert pooled.factor == pytest.approx(1, abs=0.05)


def test_where_nothing_varies_nothing_is_rescaled():
    zero = rescaling(np.zeros((12, 12)), np.zeros(12), KEEP, centred=True, averaged=True, pooled=False)
    assert zero.trivial
    lonely = rescaling(np.eye(12), np.zeros(12), np.arange(12) < 1, centred=True, averaged=True, pooled=False)
    assert lonely.trivial


def test_scale_and_shift_are_taken_out_again():
    n = layer_norm(RNG.standard_normal((100, 12)))
    scale, shift = RNG.standard_normal(12), RNG.standard_normal(12)
    second, mean = unscaled(*moments(n * scale + shift), scale, shift)
    np.testing.assert_allclose(second, moments(n)[0], atol=1e-10)
    np.testing.assert_allclose(mean, moments(n)[1], atol=1e-10)


def test_what_a_scale_of_zero_hides_is_the_rest_of_the_spread():
    n = layer_norm(RNG.standard_normal((100, 12)) * np.linspace(0.5, 3, 12))
    scale = np.where(np.arange(12) < 10, 2.0, 0.0)
    second, _ = unscaled(*moments(n * scale), scale, np.zeros(12))
    assert np.trace(second) == pytest.approx(12)
    assert second[10, 10] == second[11, 11] > 0
    assert not second[10, :10].any()
