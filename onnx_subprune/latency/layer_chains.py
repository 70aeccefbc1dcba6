"""Small networks of one kind of work, to learn which widths its kernels like: narrow layers between wide ones.

In a chain, as in real networks, the layouts that kernels want stay from layer to layer; a layer alone would be timed
with the changes of layout around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

__all__ = ["Sizes", "chain"]

_OPSET, _IR = 17, 8


@dataclass(frozen=True)
class Sizes:
    """The sizes of a chain of equal layers that is timed.

    Attributes:
        outer: channels of the wide layers.
        image: positions along each axis of an image.
        rows: of a matrix.
        repeats: layers.
        batch: samples in a run.

    """

    outer: int = 64
    image: int = 16
    rows: int = 256
    repeats: int = 3
    batch: int = 1


def chain(
    family: str, width: int, sizes: Sizes, dtype: str = "float32"
) -> tuple[onnx.ModelProto, dict[str, np.ndarray]]:
    """Return a network whose inner layers have this width, and inputs for it.

    Args:
        family: one of `families.FAMILIES`.
        width: of the layers in the middle.
        sizes: of all else.
        dtype: float32 or float16.

    """
    generator = np.random.default_rng(width)
    kind = np.dtype(dtype)
    builder = _Builder(generator, kind)
    tensor = "x"
    for _ in range(sizes.repeats):
        tensor = _add_bottleneck(builder, family, tensor, sizes.outer, width)
    shape = (sizes.rows, sizes.outer) if family == "matmul" else (sizes.outer, sizes.image, sizes.image)
    x = generator.standard_normal((sizes.batch, *shape)).astype(kind)
    element = helper.np_dtype_to_tensor_dtype(kind)
    graph = helper.make_graph(
        builder.nodes,
        "chain",
        [helper.make_tensor_value_info("x", element, x.shape)],
        [helper.make_tensor_value_info(tensor, element, x.shape)],
        builder.weights,
    )
    return helper.make_model(graph, ir_version=_IR, opset_imports=[helper.make_opsetid("", _OPSET)]), {"x": x}


class _Builder:
    """Nodes and weights of a network, added one after the other."""

    def __init__(self, generator: np.random.Generator, dtype: np.dtype) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[TensorProto] = []
        self._generator = generator
        self._dtype = dtype

    def add(self, operator: str, tensor: str, *shape: int, **attributes: int | list[int]) -> str:
        """Add a node that reads a tensor, and a weight if a shape is given; return what it writes."""
        inputs = [tensor]
        if shape:
            values = self._generator.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))
            inputs.append(f"w{len(self.weights)}")
            self.weights.append(numpy_helper.from_array(values.astype(self._dtype), inputs[1]))
        output = f"t{len(self.nodes)}"
        node = helper.make_node(operator, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(name, value) for name, value in sorted(attributes.items()))
        self.nodes.append(node)
        return output


def _add_bottleneck(builder: _Builder, family: str, tensor: str, outer: int, width: int) -> str:
    """Add layers from the outer width to the inner one and back; return what they write."""
    if family == "matmul":
        inner = builder.add("Relu", builder.add("MatMul", tensor, outer, width))
        return builder.add("MatMul", inner, width, outer)
    taps = 3 if family == "conv" else 1
    same = {"kernel_shape": [taps, taps], "pads": [taps // 2] * 4}
    inner = builder.add("Relu", builder.add("Conv", tensor, width, outer, taps, taps, **same))
    if family == "depthwise":
        inner = builder.add("Conv", inner, width, 1, 3, 3, kernel_shape=[3, 3], pads=[1] * 4, group=width)
    return builder.add("Conv", inner, outer, width, taps, taps, **same)
