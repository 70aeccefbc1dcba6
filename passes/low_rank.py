"""Write layers as two of a smaller rank: W x becomes second (first x) + shift.

The first takes the place of the layer in all but the number of its outputs (kernel, strides, padding, transposition).
The second is the layer's own node, now 1 x 1, so that its name, its output and its bias stay what they were.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.fold_corrections import shift_bias
from onnx_subprune.passes.wiring import fresh_name, in_memory, place_of
from onnx_subprune.structure import Layer, Structure, layers_of
from onnx_subprune.subspace import Factors

__all__ = ["LowRank"]

# The opset from which on its third input may be left out.
_GEMM_WITHOUT_SUMMAND = 11


class LowRank(Pass):
    """Put two layers in the place of one.

    Args:
        structure: of the very graph that the pass runs on.
        factors: by node name; each is asked for once, when its layer is written.
        store: returns what a constant is to hold of its values.

    """

    def __init__(
        self,
        structure: Structure,
        factors: Mapping[str, Callable[[Layer], Factors]],
        store: Callable[[np.ndarray], Any] = in_memory,
    ) -> None:
        self._structure = structure
        self._factors = factors
        self._store = store
        self._layers: list[Layer] = []

    def requires(self, graph: gs.Graph) -> str | None:
        """The structure is of this graph, and every layer that is named can be factorised."""
        if graph is not self._structure.graph:
            return "the structure was inferred from another graph"
        self._layers = [layer for layer in layers_of(self._structure)[0] if layer.name in self._factors]
        missing = self._factors.keys() - {layer.name for layer in self._layers}
        return f"'{min(missing)}' cannot be factorised" if missing else None

    def ensures(self, graph: gs.Graph) -> str | None:  # noqa: ARG002 - the layers know their nodes
        """Every second layer reads what one node makes for it alone."""
        for layer in self._layers:
            inner = layer.consumer.node.inputs[1 - layer.consumer.index]
            if len(inner.inputs) != 1 or len(inner.outputs) != 1:
                return f"'{layer.name}' was not cut in two"
        return None

    def run(self, graph: gs.Graph) -> bool:
        """Factorise one layer after the other."""
        for layer in self._layers:
            factors = self._factors[layer.name](layer)
            _Split(graph, layer, self._store).write(factors)
            if np.any(factors.shift):
                shift_bias(graph, self._structure, layer.consumer, factors.shift)
        return bool(self._layers)


class _Split:
    """One layer on its way to two."""

    def __init__(self, graph: gs.Graph, layer: Layer, store: Callable[[np.ndarray], Any]) -> None:
        self._graph = graph
        self._consumer = layer.consumer
        self._node = layer.consumer.node
        self._store = store

    def write(self, factors: Factors) -> None:
        """Put the first layer before the node, and make the node the second."""
        index, node = self._consumer.index, self._node
        output = node.outputs[0]
        inner = gs.Variable(fresh_name(self._graph, f"{output.name}_inner"), dtype=output.dtype)
        operands = [node.inputs[1 - index]]
        operands.insert(index, self._weight(factors.first, "first"))
        if self._consumer.kind == "Gemm" and self._graph.opset < _GEMM_WITHOUT_SUMMAND:
            operands.append(gs.Constant(fresh_name(self._graph, f"{node.name}_zero"), np.zeros((), output.dtype)))
        first = gs.Node(node.op, f"{node.name}_first", self._first_attributes(), operands, [inner], domain=node.domain)
        self._graph.nodes.insert(place_of(self._graph, node), first)
        node.inputs[index] = self._weight(factors.second, "second")
        node.inputs[1 - index] = inner
        node.attrs = self._second_attributes()

    def _weight(self, matrix: np.ndarray, which: str) -> gs.Tensor:
        """Return [outputs, features] as the node sees its weight, stored in the type that the layer's own has."""
        old = self._consumer.weight
        name = fresh_name(self._graph, f"{old.constant.name}_{which}")
        constant = gs.Constant(name, self._store(self._laid_out(matrix, which).astype(old.constant.dtype)))
        if np.dtype(old.constant.dtype) == old.dtype:
            return constant
        cast = gs.Variable(fresh_name(self._graph, f"{name}_cast"), dtype=old.dtype, shape=constant.shape)
        kind = int(onnx.helper.np_dtype_to_tensor_dtype(old.dtype))
        node = gs.Node("Cast", cast.name, {"to": kind}, [constant], [cast])
        self._graph.nodes.insert(place_of(self._graph, self._node), node)
        return cast

    def _laid_out(self, matrix: np.ndarray, which: str) -> np.ndarray:
        if self._consumer.kind != "Conv":
            return np.ascontiguousarray(matrix if self._consumer.contracted_view == 1 else matrix.T)
        kernel = self._kernel() if which == "first" else (1,) * len(self._kernel())
        return np.ascontiguousarray(matrix.reshape(len(matrix), -1, *kernel))

    def _kernel(self) -> tuple[int, ...]:
        weight = self._consumer.weight
        return tuple(weight.constant.shape[axis] for axis in weight.perm[2:])

    def _first_attributes(self) -> dict[str, Any]:
        return {name: value for name, value in self._node.attrs.items() if name not in ("alpha", "beta")}

    def _second_attributes(self) -> dict[str, Any]:
        if self._consumer.kind == "Conv":
            return {"kernel_shape": [1] * len(self._kernel())}
        turned = "transB" if self._consumer.index == 1 else "transA"
        return {name: value for name, value in self._node.attrs.items() if name in ("alpha", "beta", turned)}
