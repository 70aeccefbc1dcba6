"""Which element types hold weights."""

from __future__ import annotations

from typing import Any

import numpy as np

__all__ = ["is_float"]

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})


def is_float(dtype: Any) -> bool:
    """Whether values of a type are weights that can be corrected: bfloat16 too, which NumPy counts as no number.

    Args:
        dtype: anything that `numpy.dtype` takes.

    >>> is_float("float16"), is_float("int64")
    (True, False)

    """
    return np.dtype(dtype).name in _FLOATS
