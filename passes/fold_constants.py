"""Replace tensors that are computed from constants alone by constants.

Exporters write constants as small programs (the padding of a convolution as Slice, Concat, Reshape, Transpose and Cast
of constants); the rules of structure/ read them only once they are plain constants. Each node is evaluated on its own
by the reference implementation of ONNX, and its result is taken only if element type and shape are what ONNX's own
inference expects of that operator.

Left as they are:

- Identity, Transpose and Cast of a weight (a float constant of rank 2 or more) on its way to a node that runs, so that
  a weight tied to another node, or stored in half precision, stays one tensor;
- Shape of an input, however static: pruning changes it;
- quantised weights behind QuantizeLinear and DequantizeLinear, operators that draw random numbers, and those whose
  time is not bounded;
- results above 16 MiB that are larger than what they are made of, and results that grow once 1 GiB has been gained;
- initializers that are graph inputs too, graph outputs, other domains, and nodes with bodies (If, Loop, Scan).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx.reference import ReferenceEvaluator
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import drop_nodes, is_number, is_readable, is_sorted, protected_names, read_values
from onnx_subprune.structure import is_float

__all__ = ["NEVER", "FoldConstants", "evaluate"]

_logger = logging.getLogger(__name__)

_WEIGHT_CHAIN = frozenset({"Identity", "Transpose", "Cast"})
NEVER: Collection[str] = frozenset(
    {
        *("Bernoulli", "Dropout", "Multinomial"),
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        # Their time in Python is not bounded by the size of what they give.
        *("NonMaxSuppression", "RegexFullMatch", "RoiAlign", "MaxRoiPool", "TfIdfVectorizer"),
        *("DequantizeLinear", "DynamicQuantizeLinear", "QuantizeLinear"),
    }
)
"""Operators that are not evaluated."""
_FLOATS = frozenset(
    {onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE}
)
# Inputs this small (shapes, axes, repeats) are shown to shape inference, which needs them to know the result's shape.
_SHOWN_ELEMENTS = 1024


class FoldConstants(Pass):
    """Evaluate the nodes all of whose inputs are constant.

    Args:
        overridable: initializers that are graph inputs too (`overridable_initializers`); they are not constant.
        limit: bytes above which a result is taken only if it is no larger than what it is made of.
        gain: bytes that all results of a run together may be larger than what they are made of.

    """

    def __init__(self, overridable: Collection[str] = (), *, limit: int = 16 * 2**20, gain: int = 2**30) -> None:
        self._overridable = frozenset(overridable)
        self._limit = limit
        self._gain = gain
        self._gained = 0

    def requires(self, graph: gs.Graph) -> str | None:
        """The nodes stand in topological order, so that one walk folds whole chains."""
        return None if is_sorted(graph) else "the nodes are not in topological order; sort them first"

    def ensures(self, graph: gs.Graph) -> str | None:
        """They still do."""
        return None if is_sorted(graph) else "the nodes are not in topological order"

    def run(self, graph: gs.Graph) -> bool:
        """Walk the nodes once; returns whether any was folded."""
        protected = protected_names(graph) | self._overridable
        self._gained = 0
        folded: list[gs.Node] = []
        for node in graph.nodes:
            if _is_candidate(node, protected):
                results = self._results(node, graph.opset)
                if results is not None:
                    _become_constant(node, results)
                    folded.append(node)
        drop_nodes(graph, folded)
        return bool(folded)

    def _results(self, node: gs.Node, opset: int) -> list[np.ndarray | None] | None:
        """One array per output (None for an omitted one), or None where the node stays."""
        feeds = self._feeds(node, opset)
        if feeds is None:
            return None
        size = sum(array.nbytes for array in feeds.values())
        results = evaluate(node, feeds, opset, lambda nbytes: self._fits(nbytes, size))
        if results is not None:
            self._gained += max(0, sum(array.nbytes for array in results if array is not None) - size)
        return results

    def _fits(self, nbytes: int, size: int) -> bool:
        """Whether a result of `nbytes` may be taken that is made of `size` bytes."""
        return nbytes <= size or (nbytes <= self._limit and self._gained + nbytes - size <= self._gain)

    def _feeds(self, node: gs.Node, opset: int) -> dict[str, np.ndarray] | None:
        """The values of the inputs, or None if one of them is not known."""
        inputs = [tensor for tensor in node.inputs if tensor.name]
        if not all(self._is_known(tensor) for tensor in inputs):
            return None
        feeds = {tensor.name: self._value(tensor, opset) for tensor in inputs}
        arrays = {name: array for name, array in feeds.items() if array is not None}
        return arrays if len(arrays) == len(feeds) else None

    def _is_known(self, tensor: gs.Tensor) -> bool:
        """Whether the tensor is a constant, or the end of a weight chain that was left in the graph."""
        if tensor.name in self._overridable:
            return False
        return is_readable(tensor) or any(
            _is_weight_chain(maker) and self._is_known(maker.inputs[0]) for maker in tensor.inputs
        )

    def _value(self, tensor: gs.Tensor, opset: int) -> np.ndarray | None:
        if isinstance(tensor, gs.Constant):
            return read_values(tensor)
        results = self._results(tensor.inputs[0], opset)
        return results[0] if results else None


def _is_candidate(node: gs.Node, protected: frozenset[str]) -> bool:
    return (
        (node.domain or "") in ("", "ai.onnx")
        and node.op not in NEVER
        and any(tensor.name for tensor in node.inputs)
        and not any(tensor.name in protected for tensor in node.outputs)
        and not any(isinstance(value, gs.Graph) for value in node.attrs.values())
        and not _is_weight_chain(node)
    )


def _is_weight_chain(node: gs.Node) -> bool:
    """Whether the node is one of a chain of Identity, Transpose and Cast that starts at a weight."""
    while node.op in _WEIGHT_CHAIN and (node.op != "Cast" or node.attrs.get("to") in _FLOATS):
        source = node.inputs[0]
        if isinstance(source, gs.Constant):
            return len(source.shape) >= 2 and is_float(source.dtype)
        if not source.inputs:
            return False
        node = source.inputs[0]
    return False


def _become_constant(node: gs.Node, results: list[np.ndarray | None]) -> None:
    for tensor, array in zip(node.outputs, results, strict=True):
        if array is not None:
            tensor.to_constant(np.asarray(array, order="C"))


def evaluate(
    node: gs.Node, feeds: Mapping[str, np.ndarray], opset: int, fits: Callable[[int], bool]
) -> list[np.ndarray | None] | None:
    """Return the outputs of one node by ONNX's reference implementation; None where they cannot be had or trusted.

    Args:
        node: none of its inputs is left out of `feeds`, except the empty ones.
        feeds: values of the inputs, by tensor name.
        opset: version of ONNX's own operators that the node is written in.
        fits: whether a result of so many bytes may be taken; asked before the evaluation and after it.

    Returns:
        An array for each output, None for an output without a name.

    """
    try:
        model = _model_of(node, feeds, opset)
        expected = {value.name: value.type.tensor_type for value in model.graph.output}
        if not fits(sum(_expected_bytes(kind) for kind in expected.values())):
            return None
        given = {value.name: feeds[value.name] for value in model.graph.input}
        with np.errstate(all="ignore"):
            values = dict(zip(expected, ReferenceEvaluator(model).run(None, given), strict=True))
    except Exception as error:  # any operator may fail in its own way; the node then simply stays
        _logger.debug("node '%s' (%s) cannot be evaluated: %s", node.name, node.op, error)
        return None
    if not all(_agrees(values[name], kind) for name, kind in expected.items()):
        _logger.debug("node '%s' (%s): its value is not of the type or shape ONNX infers", node.name, node.op)
        return None
    if not fits(sum(array.nbytes for array in values.values())):
        return None
    return [values.get(tensor.name) for tensor in node.outputs]


def _model_of(node: gs.Node, feeds: Mapping[str, np.ndarray], opset: int) -> onnx.ModelProto:
    """A model of this one node, with inferred outputs; small integer inputs are initializers, the others inputs."""
    proto = OnnxExporter.export_node(node)
    proto.domain = ""
    initializers = {
        name for name, array in feeds.items() if array.dtype.kind in "biu" and array.size <= _SHOWN_ELEMENTS
    }
    graph = onnx.helper.make_graph(
        [proto],
        "one_node",
        [_value_info(name, array) for name, array in feeds.items() if name not in initializers],
        [onnx.helper.make_empty_tensor_value_info(name) for name in proto.output if name],
        [onnx.numpy_helper.from_array(feeds[name], name) for name in feeds if name in initializers],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def _value_info(name: str, array: np.ndarray) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name, onnx.helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)


def _expected_bytes(kind: onnx.TypeProto.Tensor) -> int:
    """Size of the output as far as inference knows it; 0 where a dimension is unknown."""
    if not kind.elem_type or not kind.HasField("shape"):
        return 0
    dims = [dim.dim_value if dim.HasField("dim_value") else 0 for dim in kind.shape.dim]
    itemsize = int(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).itemsize)
    return itemsize * int(np.prod(dims, dtype=object))


def _agrees(value: object, kind: onnx.TypeProto.Tensor) -> bool:
    """Whether a value has the element type and, as far as it is known, the shape that inference expects."""
    if not isinstance(value, np.ndarray) or not kind.elem_type or not kind.HasField("shape"):
        return False
    dims = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    return (
        is_number(value.dtype)
        and value.dtype == onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        and value.ndim == len(dims)
        and all(dim in (None, size) for dim, size in zip(dims, value.shape, strict=True))
    )
