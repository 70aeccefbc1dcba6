"""Reduced precision: the same network computed in float32.

Weights in float16 and bfloat16 are corrected in float64 and stored in their own type. Whether a network was understood
is another question than how it rounds, so that is checked on its float32 twin. ONNX Runtime has next to no kernels for
bfloat16, and NumPy has no such type to feed them with: a network that computes in it runs as its twin throughout.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from onnx_subprune.model.protos import graphs, is_external, tensors

__all__ = ["computes_in_bfloat16", "has_half", "in_float32", "rounded_once_more", "widened"]

_HALF = frozenset({onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16})
# Attributes that name an element type: of Cast; of EyeLike, RandomNormal and their like.
_TYPE_ATTRIBUTES = frozenset({"to", "dtype"})
# Half a unit in the last place, at most, as a share of the value.
_ROUNDING: Mapping[int, float] = {onnx.TensorProto.FLOAT16: 2.0**-11, onnx.TensorProto.BFLOAT16: 2.0**-8}
# sin(_SPREAD w) takes the place of random numbers: it needs no state, and a graph can compute it too.
_SPREAD = 98765.4321

_Convert: TypeAlias = Callable[[onnx.TensorProto], onnx.TensorProto]


def has_half(model: onnx.ModelProto) -> bool:
    """Whether a stored tensor or an input is of float16 or bfloat16.

    Args:
        model: bodies and local functions are looked into.

    """
    kinds = {tensor.data_type for tensor in tensors(model)}
    return bool(_HALF & (kinds | {value.type.tensor_type.elem_type for value in model.graph.input}))


def computes_in_bfloat16(model: onnx.ModelProto) -> bool:
    """Whether any value but a weight that is cast on its way is of bfloat16: an input, an output, what a node reads.

    Args:
        model: bodies and local functions are looked into.

    """
    kind = onnx.TensorProto.BFLOAT16
    values = [value for graph in graphs(model.graph) for value in (*graph.input, *graph.output)]
    if any(value.type.tensor_type.elem_type == kind for value in values):
        return True
    stored = {tensor.name for tensor in tensors(model) if tensor.data_type == kind}
    for node in _nodes(model):
        if any(attribute.name in _TYPE_ATTRIBUTES and attribute.i == kind for attribute in node.attribute):
            return True
        if node.op_type != "Cast" and not stored.isdisjoint(node.input):
            return True
    return False


def in_float32(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy that stores, takes, gives and computes float32 wherever the model has float16 or bfloat16.

    Args:
        model: left as it is. Weights that stay in files stay there, and are read through a Cast.

    """
    return _twin(model, moved=False)


def rounded_once_more(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float32 twin of a model with its half-precision constants moved by half a unit in the last place.

    A weight that a pass works out anew, such as one that takes up a BatchNormalization, is rounded once when it is
    stored. How far such roundings move the network is how far this twin is from `in_float32`. Constants of one entry
    (exponents, factors, bounds) stay: they are exact as they are.

    Args:
        model: left as it is. Weights that stay in files stay there, and are moved by nodes.

    """
    return _twin(model, moved=True)


def widened(feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Return inputs for the float32 twin of a model.

    Args:
        feeds: what the model itself takes, by input name.

    >>> widened({"x": np.ones(2, np.float16), "ids": np.array([7])})
    {'x': array([1., 1.], dtype=float32), 'ids': array([7])}

    """
    return {
        name: array.astype(np.float32) if array.dtype.name in ("float16", "bfloat16") else array
        for name, array in feeds.items()
    }


def _twin(model: onnx.ModelProto, *, moved: bool) -> onnx.ModelProto:
    convert = _moved if moved else _as_float32
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for tensor in tensors(twin):
        if tensor.data_type in _HALF and not is_external(tensor):
            tensor.CopyFrom(convert(tensor))
    _cast_stored(twin.graph, moved=moved)
    for graph in graphs(twin.graph):
        for value in (*graph.input, *graph.output, *graph.value_info):
            _widen_type(value.type)
    for node in _nodes(twin):
        for attribute in node.attribute:
            if attribute.name in _TYPE_ATTRIBUTES and attribute.i in _HALF:
                attribute.i = onnx.TensorProto.FLOAT
    return twin


def _cast_stored(graph: onnx.GraphProto, *, moved: bool) -> None:
    """Let the weights that stay in files be read through a Cast, so that they stay there."""
    nodes = []
    for tensor in list(graph.initializer):
        if tensor.data_type in _HALF:
            name, tensor.name = tensor.name, f"{tensor.name}/onnx_subprune/half"
            move = moved and math.prod(tensor.dims) > 1
            single = f"{name}/onnx_subprune/single" if move else name
            nodes.append(onnx.helper.make_node("Cast", [tensor.name], [single], to=onnx.TensorProto.FLOAT))
            if move:
                nodes += _moving(graph, single, name, _ROUNDING[tensor.data_type])
    if nodes:
        nodes += graph.node
        del graph.node[:]
        graph.node.extend(nodes)


def _moving(graph: onnx.GraphProto, source: str, result: str, rounding: float) -> list[onnx.NodeProto]:
    """Return nodes that compute w + rounding w sin(_SPREAD w), as `_moved` does."""
    names = [f"{result}/onnx_subprune/{part}" for part in ("spread", "rounding", "angle", "sine", "share", "step")]
    spread, factor, angle, sine, share, step = names
    for name, value in ((spread, _SPREAD), (factor, rounding)):
        graph.initializer.append(numpy_helper.from_array(np.array(value, np.float32), name))
    node = onnx.helper.make_node
    return [
        node("Mul", [source, spread], [angle]),
        node("Sin", [angle], [sine]),
        node("Mul", [sine, factor], [share]),
        node("Mul", [share, source], [step]),
        node("Add", [source, step], [result]),
    ]


def _moved(tensor: onnx.TensorProto) -> onnx.TensorProto:
    values = numpy_helper.to_array(tensor).astype(np.float32)
    if values.size > 1:
        finite = np.isfinite(values)
        w = values[finite]
        values[finite] = w + np.float32(_ROUNDING[tensor.data_type]) * w * np.sin(np.float32(_SPREAD) * w)
    return numpy_helper.from_array(values, tensor.name)


def _as_float32(tensor: onnx.TensorProto) -> onnx.TensorProto:
    return numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)


def _widen_type(kind: onnx.TypeProto) -> None:
    """Widen a tensor type, also within a sequence or an optional."""
    for container in (kind.sequence_type, kind.optional_type):
        if container.HasField("elem_type"):
            _widen_type(container.elem_type)
    for tensor in (kind.tensor_type, kind.sparse_tensor_type):
        if tensor.elem_type in _HALF:
            tensor.elem_type = onnx.TensorProto.FLOAT


def _nodes(model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
    for graph in graphs(model.graph):
        yield from graph.node
    for function in model.functions:
        yield from function.node
