"""Single fields of ONNX messages as Python and NumPy values, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from onnx_subprune.model.stored import SMALLEST_PLACED, Scratch, StoredValues, values_of

__all__ = ["array_of", "attribute_of", "initializer"]


def attribute_of(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of an attribute, or the default where the node does not give it.

    Args:
        node: that may have the attribute.
        name: of the attribute.
        default: what the operator takes where there is none.

    >>> node = onnx.helper.make_node("Transpose", ["x"], ["y"], perm=[1, 0])
    >>> attribute_of(node, "perm", None), attribute_of(node, "axis", -1)
    ([1, 0], -1)

    """
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default


def array_of(tensor: onnx.TensorProto) -> NDArray[Any]:
    """Return the values of a stored tensor in their own type.

    Args:
        tensor: of any encoding; of one that stays in a file the array is a read-only map.

    Raises:
        ModelError: the file is gone or has changed.

    >>> array_of(onnx.helper.make_tensor("w", onnx.TensorProto.INT8, [2, 2], [1, 2, 3, 4]))
    array([[1, 2],
           [3, 4]], dtype=int8)

    """
    return np.asarray(values_of(StoredValues(tensor)))


def initializer(values: NDArray[Any], name: str, scratch: Scratch | None = None) -> onnx.TensorProto:
    """Return values as a stored tensor.

    Args:
        values: of any type that ONNX has.
        name: of the tensor.
        scratch: where large values go instead of into the message; None to hold all in the message.

    Raises:
        OutputError: `scratch` has no room.

    """
    contiguous = np.ascontiguousarray(values)
    if scratch is not None and contiguous.nbytes >= SMALLEST_PLACED:
        return scratch.put(contiguous, name)
    return onnx.numpy_helper.from_array(contiguous, name)
