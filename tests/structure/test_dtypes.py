"""Floating-point weights are weights, whatever their width; nothing else is."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from onnx_subprune.structure.dtypes import is_float


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16, "float32", np.dtype("f8")])
def test_weights_of_any_width(dtype: object) -> None:
    assert is_float(dtype)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint8, np.bool_, np.complex64, ml_dtypes.float8_e4m3fn, "U4"])
def test_integers_codes_and_text_are_no_weights(dtype: object) -> None:
    assert not is_float(dtype)
