"""How samples lie in the inputs of a model, and which arrays fit them."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from onnx_subprune.calibration.layout import castable, check_names, conform, converted, layout_of
from onnx_subprune.errors import DataError
from onnx_subprune.model import InputSpec

F32, I64 = np.dtype(np.float32), np.dtype(np.int64)


def specs(*shapes: tuple[int | str | None, ...]) -> list[InputSpec]:
    return [InputSpec(f"x{index}", shape, F32) for index, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("shapes", "batch", "whole"),
    [
        ([("N", 3)], None, False),
        ([(None, 3), ("N", 5)], None, False),
        ([("batch", "length"), ("batch", "length")], None, False),
        ([(8, 3), (8,)], 8, False),
        ([(8, 3), (4, 3)], None, True),
        ([("N", 3), ()], None, True),
        # A state [layers, batch, width] beside [batch, features]: the batch is another axis there.
        ([("N", 3), ("L", "N", 5)], None, True),
        ([("sequence", "batch", 5)], None, True),
        ([("batch", "batch_of_words")], None, False),
    ],
)
def test_a_layout_is_read_off_the_shapes(
    shapes: list[tuple[int | str | None, ...]], batch: int | None, whole: bool
) -> None:
    layout = layout_of(specs(*shapes))
    assert (layout.batch, layout.whole) == (batch, whole)


def test_many_samples_have_another_axis_in_front_where_a_sample_is_whole() -> None:
    spec = specs(("N", 3))[0]
    free, whole = layout_of([spec]), layout_of([spec, *specs((), ())])
    assert (free.stacked(spec), free.fed(spec)) == ((None, 3), (None, 3))
    assert (whole.stacked(spec), whole.fed(spec)) == ((None, "N", 3), ("N", 3))


def test_names_are_those_of_the_inputs() -> None:
    check_names(["x1", "x0"], specs((1,), (1,)), "d")
    with pytest.raises(DataError, match="input 'x1' expected, found 'y'; name the arrays 'x0', 'x1'"):
        check_names(["x0", "y"], specs((1,), (1,)), "d")
    with pytest.raises(DataError, match="found 'y' too"):
        check_names(["x0", "y"], specs((1,)), "d")


@pytest.mark.parametrize(
    ("given", "wanted", "fits"),
    [
        (np.float64, np.float32, True),
        (np.float32, ml_dtypes.bfloat16, True),
        (np.int32, np.int64, True),
        (np.int64, np.int32, False),
        (np.uint8, np.float32, False),
        (np.float32, np.int64, False),
        (np.dtype("U4"), np.dtype(object), True),
        (np.bool_, np.int64, True),
    ],
)
def test_values_are_cast_only_where_they_mean_the_same(given: type, wanted: type, fits: bool) -> None:
    assert castable(np.dtype(given), np.dtype(wanted)) is fits


def test_arrays_come_back_in_order_contiguous_and_in_the_models_types() -> None:
    inputs = [*specs(("N", 2)), InputSpec("ids", ("N",), I64)]
    layout = layout_of(inputs)
    feeds = {"ids": np.arange(3, dtype=np.int32), "x0": np.ones((2, 3)).T}
    fed = conform(feeds, layout, layout.fed, "d")
    assert list(fed) == ["x0", "ids"]
    assert [array.dtype for array in fed.values()] == [F32, I64]
    assert fed["x0"].flags.c_contiguous
    assert converted(np.float64(2), F32).shape == ()


def test_a_value_that_is_not_finite_is_named_with_its_sample() -> None:
    layout = layout_of(specs(("N", 2)))
    values = np.ones((3, 2))
    values[1, 0] = np.inf
    with pytest.raises(DataError, match="found inf in sample 11"):
        conform({"x0": values}, layout, layout.fed, "d", first=10)
