"""What a model costs: multiply-accumulate operations (MACs), parameters, bytes.

MACs follow from shapes alone. n elements, each a sum of k products, are n k MACs:

- Conv, weight [M, C/g, k1, ..]: k = C/g k1 .. for each output element; ConvTranspose the same for each *input* element;
- MatMul and Gemm, [.., M, K] by [.., K, N]: k = K for each output element;
- LSTM, GRU and RNN: every entry of W and R once for each step of each sample.

A Loop or Scan counts its body once (the trip count is not known), an If the dearer of its branches.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx.inliner
from numpy.typing import NDArray

from onnx_subprune.errors import ModelError, UserError
from onnx_subprune.model.attention_cost import AttentionCost, PackedCost
from onnx_subprune.model.made_inputs import made_inputs, made_shapes, plausible_shapes
from onnx_subprune.model.protos import (
    ONNX_DOMAINS,
    assign,
    bodies,
    constant_tensor,
    estimated_bytes,
    graphs,
    tensor_bytes,
)
from onnx_subprune.model.session import concrete_shapes, input_specs, open_session, run

__all__ = ["Cost", "measure_cost", "node_macs", "operator_counts", "runnable_shapes"]

logger = logging.getLogger(__name__)

_Shape = tuple[int, ...]
_OUTPUT = -1
_LARGEST_SHAPE_CONSTANT = 4096  # bytes; larger initializers are weights; shape inference needs only their dims
_FLOATS = frozenset(
    number
    for name, number in onnx.TensorProto.DataType.items()
    if name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE") or name.startswith(("FLOAT8", "FLOAT4"))
)


@dataclass(frozen=True)
class Cost:
    """The cost of a model.

    Attributes:
        macs: multiply-accumulates of one inference.
        parameters: elements of float weights with at least one axis.
        bytes: on the disk.

    """

    macs: int
    parameters: int
    bytes: int


@dataclass(frozen=True)
class _Product:
    """An operator that sums products: `counted` elements (an input, or the output), `terms` products in each.

    `terms` reads the node and the shape of its input `operand`.
    """

    counted: int
    operand: int
    terms: Callable[[onnx.NodeProto, _Shape], int]

    def names(self, node: onnx.NodeProto) -> tuple[str, str]:
        counted = node.output[0] if self.counted == _OUTPUT else node.input[self.counted]
        return counted, node.input[self.operand]

    def macs(self, node: onnx.NodeProto, known: Mapping[str, _Shape]) -> int:
        counted, operand = self.names(node)
        return math.prod(known[counted]) * self.terms(node, known[operand])


def _kernel(_: onnx.NodeProto, weight: _Shape) -> int:
    return math.prod(weight[1:])


def _inner(node: onnx.NodeProto, matrix: _Shape) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return matrix[-2] if transposed else matrix[-1]


class _Recurrence:
    """LSTM, GRU, RNN: X [S, N, I] (or [N, S, I]), W [D, G*H, I], R [D, G*H, H]."""

    @staticmethod
    def names(node: onnx.NodeProto) -> tuple[str, ...]:
        return tuple(node.input[:3])

    @staticmethod
    def macs(node: onnx.NodeProto, known: Mapping[str, _Shape]) -> int:
        x, w, r = (known[name] for name in node.input[:3])
        return math.prod(x[:2]) * (math.prod(w) + math.prod(r))


_CONV = _Product(_OUTPUT, 1, _kernel)
_MATMUL = _Product(_OUTPUT, 0, _inner)
_PACKED = PackedCost(4)
_PRODUCTS: dict[str, _Product | _Recurrence | AttentionCost] = {
    "Attention": AttentionCost(4),
    "Conv": _CONV,
    "ConvInteger": _CONV,
    "ConvTranspose": _Product(0, 1, _kernel),
    "FusedConv": _CONV,
    "FusedGemm": _MATMUL,
    "FusedMatMul": _MATMUL,
    "Gemm": _MATMUL,
    "GroupQueryAttention": AttentionCost(3),
    "MatMul": _MATMUL,
    "MatMulInteger": _MATMUL,
    "MultiHeadAttention": AttentionCost(6),
    "QLinearConv": _Product(_OUTPUT, 3, _kernel),
    "QLinearMatMul": _MATMUL,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _Recurrence()),
}


def measure_cost(
    model: onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, NDArray[Any]] | None = None,
) -> Cost:
    """Return what a model costs for inputs of given shapes.

    Args:
        model: local functions count where they are called.
        input_shapes: by input name; a dynamic axis of an input that is not named counts as 1, or as empty where it
            holds the past.
        values: inputs by name; one may steer sizes by its value. Made up where not given, or of another shape.

    Raises:
        OptionError: a shape does not fit its input.
        ModelError: a shape that the MACs need cannot be found.

    >>> from onnx import parser
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[N, 3] x, float[3, 5] w) => (y) { y = MatMul(x, w) }'
    >>> measure_cost(parser.parse_model(text), {"x": (2, 3)}).macs
    30

    """
    macs = sum(node_macs(model, input_shapes, values).values())
    return Cost(macs, _parameters(model), estimated_bytes(model))


def _parameters(model: onnx.ModelProto) -> int:
    stored = [tensor for graph in graphs(model.graph) for tensor in graph.initializer]
    nodes = [node for graph in graphs(model.graph) for node in graph.node]
    nodes += [node for function in model.functions for node in function.node]
    stored += [tensor for node in nodes if (tensor := constant_tensor(node)) is not None]
    sizes = [tensor.dims for tensor in stored if tensor.data_type in _FLOATS]
    sparse = [tensor for graph in graphs(model.graph) for tensor in graph.sparse_initializer]
    sizes += [tensor.dims for tensor in sparse if tensor.values.data_type in _FLOATS]
    return sum(math.prod(dims) for dims in sizes if dims)


def node_macs(
    model: onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, int]:
    """Return the MACs of every node that has any, by the name of its first output; local functions are inlined.

    Shapes come from ONNX shape inference and, where that does not reach, from one run: on `values`, or made-up inputs.

    Args:
        model: see `measure_cost`.
        input_shapes: see `measure_cost`.
        values: see `measure_cost`.

    Raises:
        OptionError: a shape does not fit its input.
        ModelError: a shape that the MACs need cannot be found.

    """
    plain = onnx.inliner.inline_local_functions(model) if model.functions else model
    specs = input_specs(plain)
    fed = made_shapes(specs, input_shapes)
    skeleton = _skeleton(plain, fed)
    inferred = onnx.shape_inference.infer_shapes(skeleton, data_prop=True).graph
    known = _known_shapes(inferred)
    unknown = [name for node in inferred.node for name in _needed_tensors(node) if name not in known]
    if unknown:
        feeds = made_inputs(specs, fed, seed=None)
        feeds |= {name: value for name, value in (values or {}).items() if value.shape == fed.get(name)}
        known |= _observed_shapes(plain, skeleton, feeds, list(dict.fromkeys(unknown)))
    macs = {node.output[0]: _node_macs(node, known) for node in inferred.node if node.output}
    return {name: count for name, count in macs.items() if count}


def _skeleton(model: onnx.ModelProto, fed: Mapping[str, _Shape]) -> onnx.ModelProto:
    """Copy `model` with concrete inputs, without old shapes, and with weights as inputs so that none is copied."""
    light = onnx.ModelProto()
    for field, value in model.ListFields():
        if field.name != "graph":
            assign(light, field.name, value)
    light.graph.name = "skeleton"
    light.graph.node.extend(model.graph.node)
    light.graph.sparse_initializer.extend(model.graph.sparse_initializer)
    light.graph.output.extend(onnx.ValueInfoProto(name=value.name) for value in model.graph.output)
    for value in model.graph.input:
        if value.name in fed:
            kind = value.type.tensor_type.elem_type
            light.graph.input.append(onnx.helper.make_tensor_value_info(value.name, kind, fed[value.name]))
    for tensor in model.graph.initializer:
        if tensor_bytes(tensor) > _LARGEST_SHAPE_CONSTANT:
            light.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        else:
            light.graph.initializer.append(tensor)
    for inner in graphs(light.graph):
        del inner.value_info[:]
    return light


def _known_shapes(graph: onnx.GraphProto) -> dict[str, _Shape]:
    shapes: dict[str, _Shape] = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    shapes |= {tensor.values.name: tuple(tensor.dims) for tensor in graph.sparse_initializer}
    for value in (*graph.input, *graph.output, *graph.value_info):
        message = value.type.tensor_type
        if message.HasField("shape") and all(dim.HasField("dim_value") for dim in message.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in message.shape.dim)
    return shapes


def _needed_tensors(node: onnx.NodeProto) -> tuple[str, ...]:
    product = _product_of(node)
    return () if product is None else product.names(node)


def _product_of(node: onnx.NodeProto) -> _Product | _Recurrence | AttentionCost | None:
    """Return how a node is counted; ONNX Runtime has an Attention of its own under the name of ONNX's."""
    if node.op_type == "Attention" and node.domain not in ONNX_DOMAINS:
        return _PACKED
    return _PRODUCTS.get(node.op_type)


def _observed_shapes(
    model: onnx.ModelProto, skeleton: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> dict[str, _Shape]:
    try:
        # Without its weights the model opens many times faster, but some kernels want theirs constant.
        return _shapes_in_run(skeleton, feeds, names)
    except UserError:
        logger.debug("the model without its weights does not run: running it with them")
    try:
        return _shapes_in_run(model, feeds, names)
    except UserError as error:
        raise ModelError(
            f"the shape of '{names[0]}' must be known to count MACs, a run failed: {error}; give sizes that suit the "
            "model with --input-shapes, or real inputs with --calib or --data"
        ) from error


def _shapes_in_run(
    model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]
) -> dict[str, _Shape]:
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.output[:]
    probe.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    # Inputs that are not fed are the weights that the skeleton leaves out.
    weights = {spec.name: spec for spec in input_specs(probe) if spec.name not in feeds}
    zeros = {name: np.zeros(shape, weights[name].dtype) for name, shape in concrete_shapes(weights.values()).items()}
    values = run(open_session(probe, optimise=False), {**feeds, **zeros})
    return {name: tuple(value.shape) for name, value in values.items()}


def _node_macs(node: onnx.NodeProto, known: Mapping[str, _Shape]) -> int:
    product = _product_of(node)
    if product is None:
        inside = [_body_macs(body, known) for body in bodies(node)]
        return max(inside, default=0) if node.op_type == "If" else sum(inside)
    return product.macs(node, known)


def _body_macs(body: onnx.GraphProto, outer: Mapping[str, _Shape]) -> int:
    known = {**outer, **_known_shapes(body)}
    total = 0
    for node in body.node:
        if all(name in known for name in _needed_tensors(node)):
            total += _node_macs(node, known)
        else:
            logger.warning(
                "MACs of %s '%s' in a body do not count: its shapes are not known", node.op_type, node.output[0]
            )
    return total


def runnable_shapes(
    model: onnx.ModelProto,
    given: Mapping[str, Sequence[int]] | None = None,
    values: Mapping[str, NDArray[Any]] | None = None,
) -> dict[str, _Shape]:
    """Return the first plausible shapes of all inputs with which MACs can be counted; the very first if none is.

    Args:
        model: whose inputs may have open axes.
        given: shapes by input name, which stay.
        values: see `measure_cost`.

    Raises:
        OptionError: a shape does not fit its input.

    """
    candidates = list(plausible_shapes(input_specs(model), given))
    # Nothing to choose from, nothing to count.
    for shapes in candidates if len(candidates) > 1 else []:
        try:
            node_macs(model, shapes, values)
        except ModelError as error:
            logger.info("the model does not run with inputs of shapes %s: %s", shapes, error)
        else:
            return shapes
    return candidates[0]


def operator_counts(model: onnx.ModelProto) -> dict[str, int]:
    """Return how many nodes of each operator a graph has, by the operator's name.

    Args:
        model: bodies of its nodes are not looked into.

    >>> from onnx import parser
    >>> text = '<ir_version: 8, opset_import: ["": 17]> g (float[2] x) => (y) { a = Relu(x) b = Abs(a) y = Relu(b) }'
    >>> operator_counts(parser.parse_model(text))
    {'Abs': 1, 'Relu': 2}

    """
    return dict(sorted(Counter(node.op_type for node in model.graph.node).items()))
