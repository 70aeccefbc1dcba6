"""Principal components of a layer's outputs, and its two factors."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.errors import InternalError
from onnx_subprune.subspace import factors, input_spectrum, output_spectrum, share_of_variance


def moments(x: np.ndarray) -> np.ndarray:
    """Return the affine Gram matrix of the columns of x [features, samples]."""
    wide = np.vstack([x, np.ones(x.shape[1])])
    return wide @ wide.T


@pytest.fixture
def layer() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return W [9, 6], b [9] and inputs [6, 500] with correlations and a mean."""
    rng = np.random.default_rng(0)
    mixed = rng.standard_normal((6, 6)) @ np.diag([3.0, 2.0, 1.0, 0.5, 0.2, 0.1])
    return rng.standard_normal((9, 6)), rng.standard_normal(9), mixed @ rng.standard_normal((6, 500)) + 2.0


def test_outputs_and_inputs_lead_to_the_same_factors(layer: tuple[np.ndarray, ...]) -> None:
    weight, bias, x = layer
    by_output = output_spectrum(moments(weight @ x + bias[:, None]), bias)
    by_input = input_spectrum(weight, moments(x))
    assert by_output.variances[:6] == pytest.approx(by_input.variances)
    assert by_output.mean == pytest.approx(by_input.mean)
    for rank in (1, 3, 5):
        one, other = (factors(weight, spectrum, rank) for spectrum in (by_output, by_input))
        assert one.first == pytest.approx(other.first, abs=1e-8)
        assert one.second == pytest.approx(other.second, abs=1e-8)
        assert one.shift == pytest.approx(other.shift, abs=1e-8)


@pytest.mark.parametrize("rank", [1, 2, 4])
def test_no_map_of_the_rank_is_nearer(layer: tuple[np.ndarray, ...], rank: int) -> None:
    weight, bias, x = layer
    y = weight @ x
    spectrum = output_spectrum(moments(y + bias[:, None]), bias)
    found = factors(weight, spectrum, rank)
    error = ((found.second @ (found.first @ x) + found.shift[:, None] - y) ** 2).sum()
    centred = y - y.mean(axis=1, keepdims=True)
    assert error == pytest.approx((np.linalg.svd(centred, compute_uv=False)[rank:] ** 2).sum())
    left = 1.0 - share_of_variance(spectrum, [rank])[0]
    assert error == pytest.approx(left * (centred**2).sum())


def test_at_full_rank_nothing_changes_whatever_the_data(layer: tuple[np.ndarray, ...]) -> None:
    weight, _, x = layer
    dead = np.where(np.arange(6)[:, None] < 3, x, 0.0)
    for spectrum in (input_spectrum(weight, moments(dead)), output_spectrum(moments(weight @ dead), np.zeros(9))):
        found = factors(weight, spectrum, len(spectrum.variances))
        assert found.second @ found.first == pytest.approx(weight)
        assert not found.shift.any()


def test_outputs_of_a_lower_rank_lose_nothing(layer: tuple[np.ndarray, ...]) -> None:
    weight, _, x = layer
    low = weight[:, :2] @ weight[:6, :2].T
    spectrum = output_spectrum(moments(low @ x), np.zeros(9))
    assert share_of_variance(spectrum, [0, 2, 9]) == pytest.approx([0.0, 1.0, 1.0])
    found = factors(low, spectrum, 2)
    assert found.second @ (found.first @ x) + found.shift[:, None] == pytest.approx(low @ x)


def test_outputs_that_never_vary_are_their_mean() -> None:
    spectrum = output_spectrum(moments(np.full((3, 10), 2.0)), np.zeros(3))
    assert share_of_variance(spectrum, range(3)).tolist() == [0.0, 1.0, 1.0]
    found = factors(np.ones((3, 2)), spectrum, 1)
    assert found.second @ found.first @ [1.0, 1.0] + found.shift == pytest.approx([2.0, 2.0, 2.0])


def test_signs_do_not_depend_on_the_solver(layer: tuple[np.ndarray, ...]) -> None:
    weight, _, x = layer
    directions = input_spectrum(weight, moments(x)).directions
    largest = np.abs(directions).argmax(axis=0)
    assert (directions[largest, np.arange(6)] > 0).all()


@pytest.mark.parametrize("rank", [0, 7])
def test_a_rank_that_there_is_not_is_a_bug(layer: tuple[np.ndarray, ...], rank: int) -> None:
    weight, _, x = layer
    with pytest.raises(InternalError, match="rank of 1 to 6"):
        factors(weight, input_spectrum(weight, moments(x)), rank)
