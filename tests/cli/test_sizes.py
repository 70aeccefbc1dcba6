"""Sizes where nobody gives data: guesses are warned of, batches fit the model or are refused."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.cli.sizes import assumed, batched
from onnx_subprune.errors import OptionError
from onnx_subprune.model import InputSpec

FLOAT = np.dtype(np.float32)
IMAGE = InputSpec("image", ("N", 3, 8, 8), FLOAT)
TEXT = InputSpec("ids", ("batch", "length"), np.dtype(np.int64))
FIXED = InputSpec("state", (1, 4), FLOAT)


def test_a_dynamic_batch_is_no_guess() -> None:
    assert assumed([IMAGE, FIXED], {}) == []


def test_any_other_dynamic_axis_is_one_and_the_warning_says_how_to_give_it() -> None:
    (warning,) = assumed([IMAGE, TEXT], {})
    assert "input 'ids' has dynamic axes" in warning
    assert "--input-shapes ids:N,N" in warning
    assert assumed([TEXT], {"ids": (1, 16)}) == []


def test_sizes_that_are_known_stand_in_the_advice() -> None:
    (warning,) = assumed([InputSpec("x", ("N", 3, None, None), FLOAT)], {})
    assert "--input-shapes x:N,3,N,N" in warning


def test_a_batch_takes_the_first_axis_of_every_input() -> None:
    assert batched([IMAGE, TEXT], {"ids": (1, 16)}, 4) == {"image": (4, 3, 8, 8), "ids": (4, 16)}


def test_without_a_batch_shapes_stay_as_given() -> None:
    assert batched([IMAGE, TEXT], {"image": (2, 3, 8, 8), "ids": (2, 16)}, None) == {
        "image": (2, 3, 8, 8), "ids": (2, 16)
    }  # fmt: skip


def test_a_batch_that_the_model_fixes_is_refused_unless_it_is_the_same() -> None:
    assert batched([FIXED], {}, 1) == {"state": (1, 4)}
    with pytest.raises(OptionError, match="found 1 in input 'state'; leave --batch out"):
        batched([FIXED], {}, 2)


@pytest.mark.parametrize("batch", [0, -3])
def test_no_samples_are_no_batch(batch: int) -> None:
    with pytest.raises(OptionError, match="expected a batch of 1 or more"):
        batched([IMAGE], {}, batch)
