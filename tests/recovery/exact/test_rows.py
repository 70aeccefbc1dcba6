"""What a layer is fitted on: rows of inputs and targets that belong together, and misfits that are told."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.calibration import position_weights
from onnx_subprune.recovery.exact.linear_layers import Linear, find_linears
from onnx_subprune.recovery.exact.rows import Rows, Values, rows_of
from onnx_subprune.recovery.exact.shortcuts import Shortcut

RNG = np.random.default_rng(11)
PRODUCT = "g (float[N,M,4] x) => (float[a,b,c] y) { [m] y = MatMul(x, w) }"
CONV = "g (float[N,4,5,5] x) => (float[a,b,c,d] y) { [m] y = Conv <pads=[1,1,1,1]> (x, w) }"


def _linear(net, text: str, **weights: object) -> Linear:
    (linear,) = find_linears(net(text, **weights))[0]
    return linear


def _rows(linears, values, shape, most=100, *, shortcut=None, normalised=False, summed=False) -> Rows | str:
    generator = np.random.default_rng(0)
    return rows_of(linears, values, shortcut, shape, most, normalised=normalised, rng=generator, summed=summed)


def _drawn(*shape: int, dtype: type = np.float32) -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def test_positions_are_rows_and_the_last_axis_features(net) -> None:
    linear = _linear(net, PRODUCT, w=(4, 3))
    x, y = _drawn(2, 5, 4), _drawn(2, 5, 3)
    rows = _rows([linear], Values(x, [y], samples=2), (4, 3))
    np.testing.assert_array_equal(rows.x, x.reshape(1, 10, 4))
    np.testing.assert_array_equal(rows.parts[0], y.reshape(1, 10, 3))
    np.testing.assert_allclose(rows.places, np.arange(10) / 10)
    assert rows.weights is None
    assert rows.total is None


def test_over_the_limit_rows_are_drawn_with_their_targets(net) -> None:
    linear = _linear(net, PRODUCT, w=(4, 3))
    x = _drawn(2, 50, 4)
    y = np.ascontiguousarray(x[..., :3] * 2)
    rows = _rows([linear], Values(x, [y], samples=2), (4, 3), most=7)
    assert rows.x.shape == (1, 14, 4)
    np.testing.assert_array_equal(rows.parts[0], 2 * rows.x[..., :3])
    places = np.round(rows.places * 100).astype(int)
    assert len(set(places.tolist())) == 14
    np.testing.assert_array_equal(rows.x[0], x.reshape(100, 4)[places])


def test_targets_of_layers_that_read_the_same_lie_side_by_side(net) -> None:
    text = "g (float[N,4] x) => (float[a,b] y, float[c,d] z) { [m] y = MatMul(x, w)\n[k] z = MatMul(x, v) }"
    linears, _ = find_linears(net(text, w=(4, 3), v=(4, 2)))
    x, y, z = _drawn(6, 4), _drawn(6, 3), _drawn(6, 2)
    rows = _rows(linears, Values(x, [y, z], samples=6), (4, 3))
    np.testing.assert_array_equal(rows.parts[0][0], np.concatenate([y, z], axis=1))


def test_one_sample_for_all_is_repeated(net) -> None:
    """An input of one row, of which a target has many, counts once for each."""
    linear = _linear(net, PRODUCT, w=(3, 4, 2))
    x, y = _drawn(1, 6, 4), _drawn(3, 6, 2)
    rows = _rows([linear], Values(x, [y], samples=1), (3, 4, 2))
    assert rows.x.shape == (3, 6, 4)
    np.testing.assert_array_equal(rows.x, np.broadcast_to(x, (3, 6, 4)))
    np.testing.assert_array_equal(rows.parts[0], y)


def test_the_drift_of_a_shortcut_is_a_part_of_its_own(net) -> None:
    linear = _linear(net, PRODUCT, w=(4, 3))
    x, y, dense, pruned = _drawn(2, 5, 4), _drawn(2, 5, 3), _drawn(2, 5, 3), _drawn(2, 5, 3)
    values = Values(x, [y], dense, pruned, samples=2)
    shortcut = Shortcut("s", "t", ())
    rows = _rows([linear], values, (4, 3), shortcut=shortcut, summed=True)
    np.testing.assert_array_equal(rows.parts[0][0], y.reshape(-1, 3))
    np.testing.assert_array_equal(rows.parts[1][0], (dense - pruned).reshape(-1, 3))
    np.testing.assert_array_equal(rows.total[0], (y + dense).reshape(-1, 3))


def test_a_scale_behind_the_layer_is_part_of_its_target(net) -> None:
    linear = _linear(net, PRODUCT, w=(4, 3))
    x, y, dense, pruned = _drawn(2, 5, 4), _drawn(2, 5, 3), _drawn(2, 5, 3), _drawn(2, 5, 3)
    scale = np.array([1.0, 2.0, -0.5])
    rows = _rows(
        [linear], Values(x, [y], dense, pruned, 2), (4, 3), shortcut=Shortcut("s", "t", (), scale), summed=True
    )
    np.testing.assert_allclose(rows.parts[0][0], (y * scale).reshape(-1, 3), rtol=1e-6)
    np.testing.assert_allclose(rows.total[0], (y * scale + dense).reshape(-1, 3), rtol=1e-6)


def test_a_shortcut_of_another_shape_is_not_counted(net) -> None:
    linear = _linear(net, PRODUCT, w=(4, 3))
    values = Values(_drawn(2, 5, 4), [_drawn(2, 5, 3)], _drawn(2, 5, 3), _drawn(2, 5, 2), samples=2)
    rows = _rows([linear], values, (4, 3), shortcut=Shortcut("s", "t", ()), summed=True)
    assert len(rows.parts) == 1
    assert rows.total is None, "without the shortcut the sum is not known"


def test_errors_before_a_normalisation_are_relative_to_the_sum(net) -> None:
    linear = _linear(net, PRODUCT, w=(4, 3))
    x, y = _drawn(2, 5, 4), _drawn(2, 5, 3) * np.linspace(0.5, 4, 5, dtype=np.float32)[:, None]
    rows = _rows([linear], Values(x, [y], samples=2), (4, 3), normalised=True)
    np.testing.assert_allclose(rows.weights, position_weights(y), rtol=1e-12)
    part = rows.chosen(np.arange(10) % 2 == 0)
    np.testing.assert_array_equal(part.weights, rows.weights[::2])


def test_half_precision_is_counted_in_single(net) -> None:
    linear = _linear(
        net, "g (float16[N,4] x) => (float16[a,b] y) { [m] y = MatMul(x, w) }", w=np.ones((4, 3), np.float16)
    )
    rows = _rows([linear], Values(_drawn(6, 4, dtype=np.float16), [_drawn(6, 3, dtype=np.float16)], samples=6), (4, 3))
    assert rows.x.dtype == rows.parts[0].dtype == np.float32


def test_chosen_rows_keep_everything_together() -> None:
    rows = Rows(_drawn(2, 6, 3), (_drawn(2, 6, 1), _drawn(2, 6, 1)), np.arange(6) / 6, np.arange(6.0), _drawn(2, 6, 1))
    mask = np.array([True, False, True, True, False, False])
    part = rows.chosen(mask)
    np.testing.assert_array_equal(part.x, rows.x[:, [0, 2, 3]])
    np.testing.assert_array_equal(part.parts[1], rows.parts[1][:, [0, 2, 3]])
    np.testing.assert_array_equal(part.places, rows.places[[0, 2, 3]])
    np.testing.assert_array_equal(part.weights, [0.0, 2.0, 3.0])
    np.testing.assert_array_equal(part.total, rows.total[:, [0, 2, 3]])


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ((2, 5, 3), (2, 5, 3), "its input of shape (2, 5, 3) does not have 4 features"),
        ((4,), (3,), "its input of shape (4,) does not have 4 features"),
        ((2, 5, 4), (2, 5, 2), "its target of shape (2, 5, 2) does not fit its input of shape (2, 5, 4)"),
        ((2, 5, 4), (2, 6, 3), "its target of shape (2, 6, 3) does not fit its input of shape (2, 5, 4)"),
        ((2, 5, 4), (10, 3), "its target of shape (10, 3) does not fit its input of shape (2, 5, 4)"),
    ],
)
def test_misfits_of_a_product(net, x, y, reason) -> None:
    linear = _linear(net, PRODUCT, w=(4, 3))
    assert _rows([linear], Values(_drawn(*x), [_drawn(*y)]), (4, 3)) == reason


@pytest.mark.parametrize(
    ("x", "y", "reason"),
    [
        ((2, 4, 5), (2, 3, 5), "its input has 3 axes, its weight 4"),
        ((2, 3, 5, 5), (2, 3, 5, 5), "its input of shape (2, 3, 5, 5) does not have 4 features"),
        ((2, 4, 5, 5), (3, 3, 5, 5), "its target of shape (3, 3, 5, 5) does not fit its input of shape (2, 4, 5, 5)"),
    ],
)
def test_misfits_of_a_convolution(net, x, y, reason) -> None:
    linear = _linear(net, CONV, w=(3, 4, 3, 3))
    assert _rows([linear], Values(_drawn(*x), [_drawn(*y)]), (3, 4, 3, 3)) == reason


@pytest.mark.parametrize(
    ("x", "y"), [((4, 6, 4), (3, 6, 2)), ((3, 6, 4), (3, 6, 3)), ((3, 6, 4), (6, 2)), ((3, 6, 4), (3, 5, 2))]
)
def test_misfits_of_a_stack(net, x, y) -> None:
    linear = _linear(net, PRODUCT, w=(3, 4, 2))
    reason = _rows([linear], Values(_drawn(*x), [_drawn(*y)]), (3, 4, 2))
    assert reason == f"its target of shape {y} does not fit its input of shape {x}"


def test_the_sum_of_a_map_is_sampled_where_its_rows_are(net) -> None:
    linear = _linear(net, CONV, w=(3, 4, 3, 3))
    x, y = _drawn(2, 4, 5, 5), _drawn(2, 3, 5, 5)
    rows = _rows([linear], Values(x, [y], samples=2), (3, 4, 3, 3), most=6, summed=True)
    assert rows.x.shape == (1, 12, 36)
    np.testing.assert_array_equal(rows.total, rows.parts[0])
    assert (rows.places >= 0).all()
    assert (rows.places < 1).all()
    flat = y.transpose(0, 2, 3, 1).reshape(50, 3)
    np.testing.assert_array_equal(rows.parts[0][0], flat[np.round(rows.places * 50).astype(int)])
