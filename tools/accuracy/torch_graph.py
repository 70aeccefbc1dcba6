"""An ONNX graph as a PyTorch module, operator by operator; runs only where torch is installed.

Conv, and MatMul and Gemm by a constant, become layers that a pruner can shrink; LayerNormalization too. All else is
computed by functions of torch, in the order of the graph. Only float weights that a layer holds are parameters. Sizes
stay tensors wherever they go into a Reshape or Expand, so that an export by tracing keeps a free batch.

A pad of the *channels* (the "option A" shortcut of the CIFAR ResNets), with the strided slices before it, becomes a
1x1 convolution with fixed weights of zeros and ones: the same function, in a form whose channels a pruner follows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["OnnxModule"]

_Step = Callable[..., Any]
# What ONNX Runtime takes for "to the end".
_FAR = 2**31 - 1


class OnnxModule(nn.Module):
    """Computes the first output of a graph from its only input."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        super().__init__()
        self.layers = nn.ModuleDict()
        self.names: dict[str, str] = {}  # of layers, by the ONNX node
        self._constants: dict[str, Tensor] = {
            each.name: torch.from_numpy(numpy_helper.to_array(each).copy()) for each in graph.initializer
        }
        self.given = next(i.name for i in graph.input if i.name not in self._constants)
        self._asked = graph.output[0].name
        # The node, its function or the key of its layer, and the names of what it reads.
        self._steps: list[tuple[onnx.NodeProto, _Step | str, tuple[str, ...]]] = []
        for node in graph.node:
            self._add(node)

    def _add(self, node: onnx.NodeProto) -> None:
        if node.op_type == "Constant":
            self._constants[node.output[0]] = torch.from_numpy(numpy_helper.to_array(node.attribute[0].t).copy())
            return
        if self._is_bias(node):
            return
        made = self._layer(node)
        if made is None:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            function = _FUNCTIONS[node.op_type]
            self._steps.append((node, lambda *x: function(attributes, *x), tuple(node.input)))
            return
        key = f"layer{len(self.layers)}"
        self.layers[key], inputs = made
        self.names[node.name] = key
        self._steps.append((node, key, inputs))

    def _layer(self, node: onnx.NodeProto) -> tuple[nn.Module, tuple[str, ...]] | None:
        known = [self._constants.get(name) for name in node.input]
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv":
            return _conv(attributes, *known[1:]), (node.input[0],)
        if node.op_type == "Gemm" and known[1] is not None:
            return _linear(known[1] if attributes.get("transB") else known[1].T, known[2]), (node.input[0],)
        if node.op_type == "MatMul" and known[1] is not None and known[1].ndim == 2:
            return _linear(known[1].T, None), (node.input[0],)
        if node.op_type == "LayerNormalization":
            return _norm(attributes, known[1], known[2]), (node.input[0],)
        if node.op_type == "Pad":
            return self._widening(node, known[1])
        return None

    def _is_bias(self, node: onnx.NodeProto) -> bool:
        """Whether an Add was taken into the layer before it: a constant vector on what a MatMul made."""
        constants = [self._constants[name] for name in node.input if name in self._constants]
        if node.op_type != "Add" or len(constants) != 1 or constants[0].ndim != 1 or not self._steps:
            return False
        before, step, inputs = self._steps[-1]
        layer = self.layers[step] if isinstance(step, str) else None
        if not isinstance(layer, nn.Linear) or layer.bias is not None or before.output[0] not in node.input:
            return False
        layer.bias = nn.Parameter(constants[0].clone())
        after = onnx.NodeProto()
        after.CopyFrom(before)
        after.output[0] = node.output[0]
        self._steps[-1] = (after, step, inputs)
        return True

    def _widening(self, node: onnx.NodeProto, pads: Tensor | None) -> tuple[nn.Module, tuple[str, ...]] | None:
        """A pad of channels, as a fixed convolution; it takes its strides from the slices before it."""
        if pads is None or len(pads) != 8 or not pads[[1, 5]].any():
            return None
        source, stride = node.input[0], [1, 1]
        while (found := self._slice_of(source)) is not None:
            axes, steps = (self._constants[found[0].input[i]].tolist() for i in (3, 4))
            for axis, step in zip(axes, steps, strict=True):
                stride[axis - 2] *= step
            source = found[2][0]
            self._steps.remove(found)
        before, after = int(pads[1]), int(pads[5])
        return _Widening(before, after, stride), (source,)

    def _slice_of(self, name: str) -> tuple[onnx.NodeProto, _Step | str, tuple[str, ...]] | None:
        made = (step for step in self._steps if step[0].output[0] == name and step[0].op_type == "Slice")
        return next(made, None)

    def forward(self, x: Tensor) -> Tensor:
        """Compute the output."""
        values: dict[str, Any] = {self.given: x}
        for node, step, inputs in self._steps:
            found = [values[name] if name in values else self._constants.get(name) for name in inputs]
            result = self.layers[step](*found) if isinstance(step, str) else step(*found)
            values.update(zip(node.output, result if isinstance(result, tuple) else (result,), strict=False))
        answer: Tensor = values[self._asked]
        return answer

    def settle(self, example: Tensor) -> None:
        """Run once, so that layers that take their width from the input have it."""
        with torch.no_grad():
            self(example)
        for key, layer in list(self.layers.items()):
            if isinstance(layer, _Widening):
                self.layers[key] = layer.made


class _Widening(nn.Module):
    """Holds the place of a fixed convolution until the width of its input is known."""

    def __init__(self, before: int, after: int, stride: list[int]) -> None:
        super().__init__()
        self._before, self._after, self._stride = before, after, stride
        self.made: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[1]
        made = nn.Conv2d(width, self._before + width + self._after, 1, self._stride, bias=False)
        made.weight.data.zero_()
        made.weight.data[self._before : self._before + width, :, 0, 0] = torch.eye(width)
        self.made = made
        result: Tensor = made(x)
        return result


def _conv(attributes: dict[str, Any], weight: Tensor | None, bias: Tensor | None = None) -> nn.Module:
    assert weight is not None
    pads = list(attributes.get("pads", [0, 0, 0, 0]))
    group = attributes.get("group", 1)
    even = pads[:2] == pads[2:]
    layer = nn.Conv2d(
        weight.shape[1] * group,
        weight.shape[0],
        tuple(weight.shape[2:]),
        attributes.get("strides", [1, 1]),
        pads[:2] if even else 0,
        attributes.get("dilations", [1, 1]),
        group,
        bias=bias is not None,
    )
    _fill(layer, weight, bias)
    return layer if even else nn.Sequential(nn.ZeroPad2d((pads[1], pads[3], pads[0], pads[2])), layer)


def _linear(weight: Tensor, bias: Tensor | None) -> nn.Module:
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    _fill(layer, weight, bias)
    return layer


def _norm(attributes: dict[str, Any], scale: Tensor | None, bias: Tensor | None) -> nn.Module:
    assert scale is not None
    layer = nn.LayerNorm(tuple(scale.shape), attributes.get("epsilon", 1e-5), bias=bias is not None)
    _fill(layer, scale, bias)
    return layer


def _fill(layer: Any, weight: Tensor, bias: Tensor | None) -> None:
    layer.weight.data = weight.clone().contiguous()
    if bias is not None:
        layer.bias.data = bias.clone()


def _ints(x: Tensor | None) -> list[int]:
    return [] if x is None else [int(each) for each in x.reshape(-1)]


def _reshape(_: dict[str, Any], x: Tensor, shape: Tensor) -> Tensor:
    if len(_ints(shape)) == 2 and x.ndim == 4 and x.shape[2:] == (1, 1):
        # Pooled features: written so that it holds for fewer channels too.
        return x.flatten(1)
    return x.reshape([x.shape[i] if int(size) == 0 else size for i, size in enumerate(shape.unbind())])


def _slice(_: dict[str, Any], x: Tensor, starts: Tensor, ends: Tensor, *more: Tensor) -> Tensor:
    axes = _ints(more[0]) if more else list(range(len(starts)))
    steps = _ints(more[1]) if len(more) > 1 else [1] * len(axes)
    where = [slice(None)] * x.ndim
    if not x.is_floating_point() and len(axes) == 1 and steps == [1] and int(starts) >= 0 and 0 <= int(ends) < _FAR:
        # Positions, as many as there are: an end that is a number, or cuts a constant, would be fixed by an export.
        return torch.index_select(x, axes[0], torch.arange(int(starts), ends.reshape(())))
    for axis, start, end, step in zip(axes, _ints(starts), _ints(ends), steps, strict=True):
        where[axis] = slice(start, None if end >= _FAR else end, step)
    return x[tuple(where)]


def _gather(attributes: dict[str, Any], x: Tensor, indices: Tensor) -> Tensor:
    axis = attributes.get("axis", 0)
    if indices.ndim == 0:
        return x.select(axis, int(indices))
    taken = torch.index_select(x, axis, indices.reshape(-1))
    return taken.reshape(*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])


def _reduce_mean(attributes: dict[str, Any], x: Tensor, axes: Tensor | None = None) -> Tensor:
    over = _ints(axes) or list(attributes.get("axes", range(x.ndim)))
    return x.mean(over, keepdim=bool(attributes.get("keepdims", 1)))


def _unsqueeze(attributes: dict[str, Any], x: Tensor, axes: Tensor | None = None) -> Tensor:
    for axis in sorted(_ints(axes) or attributes["axes"]):
        x = x.unsqueeze(axis)
    return x


def _squeeze(attributes: dict[str, Any], x: Tensor, axes: Tensor | None = None) -> Tensor:
    gone = _ints(axes) or list(attributes.get("axes", ())) or [axis for axis, size in enumerate(x.shape) if size == 1]
    for axis in sorted(gone, reverse=True):
        x = x.squeeze(axis)
    return x


def _flatten(attributes: dict[str, Any], x: Tensor) -> Tensor:
    axis = attributes.get("axis", 1)
    return x.flatten(1) if axis == 1 else x.reshape(math.prod(x.shape[:axis]), -1)


def _pad(_: dict[str, Any], x: Tensor, pads: Tensor, *__: Tensor) -> Tensor:
    amounts = _ints(pads)
    half = len(amounts) // 2
    return functional.pad(x, [amounts[i + side * half] for i in reversed(range(half)) for side in (0, 1)])


def _average_pool(attributes: dict[str, Any], x: Tensor) -> Tensor:
    kernel = attributes["kernel_shape"]
    return functional.avg_pool2d(x, kernel, attributes.get("strides", [1] * len(kernel)))


def _expand(_: dict[str, Any], x: Tensor, shape: Tensor) -> Tensor:
    missing = len(shape) - x.ndim
    return x.expand([x.shape[i - missing] if int(size) == 1 else size for i, size in enumerate(shape.unbind())])


def _constant_of_shape(attributes: dict[str, Any], shape: Tensor) -> Tensor:
    value = numpy_helper.to_array(attributes["value"]) if "value" in attributes else np.zeros(1, np.float32)
    return torch.from_numpy(value.copy()).expand(list(shape.unbind())).clone()


def _cast(attributes: dict[str, Any], x: Tensor) -> Tensor:
    kind = torch.from_numpy(np.zeros(1, onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))).dtype
    return x.to(kind)


def _shape(attributes: dict[str, Any], x: Tensor) -> Tensor:
    return torch.stack([torch.as_tensor(size) for size in x.shape[attributes.get("start", 0) : attributes.get("end")]])


_FUNCTIONS: dict[str, _Step] = {
    "Add": lambda _, x, y: x + y,
    "Sub": lambda _, x, y: x - y,
    "Mul": lambda _, x, y: x * y,
    "Div": lambda _, x, y: x / y if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc"),
    "Pow": lambda _, x, y: x**y,
    "Sqrt": lambda _, x: torch.sqrt(x),
    "Reciprocal": lambda _, x: torch.reciprocal(x),
    "Neg": lambda _, x: -x,
    "Cos": lambda _, x: torch.cos(x),
    "Sin": lambda _, x: torch.sin(x),
    "Range": lambda _, start, limit, step: torch.arange(start, limit, step),
    "And": lambda _, x, y: x & y,
    "Greater": lambda _, x, y: x > y,
    "GreaterOrEqual": lambda _, x, y: x >= y,
    "Erf": lambda _, x: torch.erf(x),
    "Equal": lambda _, x, y: x == y,
    "Where": lambda _, c, x, y: torch.where(c, x, y),
    "MatMul": lambda _, x, y: x @ y,
    "Relu": lambda _, x: torch.relu(x),
    "Sigmoid": lambda _, x: torch.sigmoid(x),
    "Clip": lambda _, x, low=None, high=None: torch.clamp(
        x, None if low is None else float(low), None if high is None else float(high)
    ),
    "Softmax": lambda a, x: torch.softmax(x, a.get("axis", -1)),
    "Identity": lambda _, x: x,
    "Flatten": _flatten,
    "Transpose": lambda a, x: x.permute(*a["perm"]),
    "Concat": lambda a, *x: torch.cat(x, a["axis"]),
    "Cast": _cast,
    "Reshape": _reshape,
    "Slice": _slice,
    "Gather": _gather,
    "ReduceMean": _reduce_mean,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Pad": _pad,
    "AveragePool": _average_pool,
    "Expand": _expand,
    "ConstantOfShape": _constant_of_shape,
    "Shape": _shape,
}
