from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from onnx_subprune.budget import Curve, fit_sensitivity
from onnx_subprune.errors import InternalError

Make = Callable[..., Any]
LOSS = np.array([64.0, 32.0, 16.0, 8.0, 4.0, 2.0, 0.0])


def test_one_level_scales_the_curve(make_lossy: Make) -> None:
    (fitted,) = fit_sensitivity([make_lossy("a", LOSS)], {"a": [(3, 0.4)]})
    np.testing.assert_allclose(fitted.loss, 0.05 * LOSS)
    assert fitted.group == "a"


def test_two_levels_find_a_power_of_the_loss_and_predict_the_rest(make_lossy: Make) -> None:
    """With errors c * loss ** p the sum over groups is the output error at any widths between the levels."""
    rng = np.random.default_rng(0)
    curves, truth, measured = [], {}, {}
    for index in range(5):
        loss = np.append(np.sort(rng.random(12))[::-1] * 10.0**index, 0.0)
        curves.append(make_lossy(f"g{index}", loss))
        truth[f"g{index}"] = rng.uniform(0.1, 2.0) * loss ** rng.uniform(0.5, 1.5)
        measured[f"g{index}"] = [(k, float(truth[f"g{index}"][k])) for k in (9, 2)]
    fitted = fit_sensitivity(curves, measured)
    for _ in range(20):
        widths = rng.integers(2, 10, 5)
        predicted = sum(float(one.loss[k]) for one, k in zip(fitted, widths, strict=True))
        assert predicted == pytest.approx(sum(truth[f"g{i}"][k] for i, k in enumerate(widths)))


def test_beyond_the_levels_the_error_is_in_proportion(make_lossy: Make) -> None:
    (fitted,) = fit_sensitivity([make_lossy("a", LOSS)], {"a": [(2, 8.0), (4, 0.5)]})
    assert fitted.loss is not None
    np.testing.assert_allclose(fitted.loss, [32.0, 16.0, 8.0, 2.0, 0.5, 0.25, 0.0])


def test_a_group_that_was_not_measured_is_scaled_like_the_others(make_lossy: Make) -> None:
    curves = [make_lossy(name, LOSS) for name in ("a", "b", "c", "new")]
    fitted = fit_sensitivity(curves, {"a": [(3, 0.8)], "b": [(3, 8.0)], "c": [(3, 80.0)], "new": []})
    np.testing.assert_allclose(fitted[3].loss, LOSS)
    np.testing.assert_allclose(fit_sensitivity(curves, {})[0].loss, LOSS)


def test_points_that_contradict_each_other_are_pooled(make_lossy: Make) -> None:
    """Fewer units, less error: noise. The curve passes between and never rises."""
    (fitted,) = fit_sensitivity([make_lossy("a", LOSS)], {"a": [(1, 1.0), (3, 4.0)]})
    assert fitted.loss is not None
    assert fitted.loss[2] == pytest.approx(2.0)
    (fitted,) = fit_sensitivity([make_lossy("a", LOSS)], {"a": [(3, 1.0), (3, 4.0)]})
    assert fitted.loss is not None
    assert fitted.loss[3] == pytest.approx(2.0)


def test_dead_units_and_errors_of_nothing(make_lossy: Make) -> None:
    dead = make_lossy("a", [4.0, 2.0, 0.0, 0.0])
    np.testing.assert_allclose(fit_sensitivity([dead], {"a": [(2, 5.0), (1, 6.0)]})[0].loss, [12.0, 6.0, 0.0, 0.0])
    fitted = fit_sensitivity([dead], {"a": [(1, 0.0)]})[0].loss
    assert fitted is not None
    assert 0.0 <= fitted[0] < 1e-8


def test_noise_still_gives_valid_curves(make_lossy: Make) -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        loss = np.append(np.sort(rng.random(9) * 10.0 ** rng.uniform(-9, 9))[::-1], 0.0)
        points = [(int(rng.integers(0, 10)), float(10.0 ** rng.uniform(-6, 6))) for _ in range(4)]
        (fitted,) = fit_sensitivity([make_lossy("a", loss)], {"a": points})  # a Curve refuses losses that rise
        assert fitted.loss is not None
        assert np.isfinite(fitted.loss).all()


def test_what_cannot_be_is_refused(make_lossy: Make) -> None:
    curve = make_lossy("a", LOSS)
    for point in ((7, 1.0), (-1, 1.0), (3, -1.0), (3, float("nan")), (3, float("inf"))):
        with pytest.raises(InternalError, match="'a': no error can be"):
            fit_sensitivity([curve], {"a": [point]})
    with pytest.raises(InternalError, match="expected losses"):
        fit_sensitivity([Curve("b", 1, np.arange(1), np.array([0.0, 1.0]))], {})
