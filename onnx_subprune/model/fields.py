"""Single fields of ONNX messages as Python and NumPy values, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx

from onnx_subprune.model.stored import SMALLEST_PLACED, Scratch, StoredValues, values_of

__all__ = ["array_of", "attribute_of", "initializer"]


def attribute_of(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of an attribute of a node, or the default where it is not given."""
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def array_of(tensor: onnx.TensorProto) -> np.ndarray[Any, Any]:
    """Return the values of a stored tensor in their own type; of one that stays in a file a map of them."""
    return np.asarray(values_of(StoredValues(tensor)))


def initializer(values: np.ndarray[Any, Any], name: str, scratch: Scratch | None = None) -> onnx.TensorProto:
    """Return `values` as a stored tensor; large ones lie in `scratch`, where one is given."""
    contiguous = np.ascontiguousarray(values)
    if scratch is not None and contiguous.nbytes >= SMALLEST_PLACED:
        return scratch.put(contiguous, name)
    return onnx.numpy_helper.from_array(contiguous, name)
