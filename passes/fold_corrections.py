"""Fold what removed units contributed into the consumers: new weights for the kept units and a bias correction.

With x ≈ A x_S + c for the features x of a consumer, W x + b becomes (W A) x_S + (b + W c); see docs/mathematics.md. The
weights keep their size here, the columns of removed units are set to zero; slicing is the business of `Shrink`.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from numpy.typing import NDArray

from onnx_subprune.model import constant_values
from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import fresh_name, in_memory, place_of, stored_input
from onnx_subprune.structure import ONE, RECURRENT, Consumer, Dim, Structure, as_blocks, fresh, from_blocks, product
from onnx_subprune.subspace import Correction, Fit

__all__ = ["Bias", "FoldCorrections", "GiveBiases", "corrected_weight", "give_bias", "shift_bias"]

_RECURRENT_BIAS = 3
# The input that holds the bias of a linear map, where it is not the third.
_BIASES = {"DeformConv": 3}


@dataclass(frozen=True, eq=False)
class Bias:
    """A constant that adds to what a linear map gives, and that nothing else reads.

    Attributes:
        node: reads it.
        index: of the input.
        delta: from a value for each output of the linear map to what the constant gains.

    """

    node: gs.Node
    index: int
    delta: Callable[[NDArray[np.float64]], NDArray[np.float64]]

    @property
    def constant(self) -> gs.Constant:
        """What holds it."""
        return stored_input(self.node, self.index)

    def shifted(self, shift: NDArray[np.float64], values: np.ndarray | None = None) -> np.ndarray:
        """Return the values of the constant with a shift added to what the linear map gives.

        Args:
            shift: a value for each output.
            values: in the place of those that the constant has: the two maps of a recurrent layer share it.

        """
        present = np.asarray(self.constant.values if values is None else values).astype(np.float64)
        delta = self.delta(shift)
        # A Gemm may add a bias of its own to every row.
        delta = delta.reshape(present.shape) if delta.size == present.size else delta
        return np.asarray(present + delta, self.constant.dtype)


class FoldCorrections(Pass):
    """Write corrected weights and biases.

    Args:
        structure: of the very graph that the pass runs on; new biases are entered into it.
        corrections: at most one for each stored weight; they are solved one by one.
        store: returns what a constant is to hold of its new values.

    """

    def __init__(
        self,
        structure: Structure,
        corrections: Sequence[Correction],
        store: Callable[[np.ndarray], Any] = in_memory,
    ) -> None:
        self._structure = structure
        self._corrections = corrections
        self._store = store

    def requires(self, graph: gs.Graph) -> str | None:
        """The structure is of this graph, and no weight is corrected twice."""
        if graph is not self._structure.graph:
            return "the structure was inferred from another graph"
        names = Counter(correction.consumers[0].weight.constant.name for correction in self._corrections)
        twice = next((name for name, count in names.items() if count > 1), None)
        return None if twice is None else f"weight '{twice}' has two corrections"

    def run(self, graph: gs.Graph) -> bool:
        """Correct one weight after the other, then the biases of its nodes."""
        for correction in self._corrections:
            weight, shift = corrected_weight(correction.solve())
            correction.consumers[0].weight.constant.values = self._store(weight)
            if np.any(shift):
                for consumer in correction.consumers:
                    shift_bias(graph, self._structure, consumer, shift)
        return bool(self._corrections)


def corrected_weight(fit: Fit) -> tuple[np.ndarray, NDArray[np.float64]]:
    """Return a weight whose map reads kept units alone, as it is stored, and what its nodes gain at each output.

    Args:
        fit: of the consumers that share the weight.

    """
    first = fit.consumers[0]
    blocks = as_blocks(first, first.weight.view(constant_values).astype(np.float64))
    grouped = blocks.reshape(*blocks.shape[:2], fit.outer, fit.kept.shape[1], -1)
    shift: NDArray[np.float64] = np.einsum("gopft,gf->go", grouped, fit.intercepts, optimize=True).ravel()
    corrected = np.zeros_like(grouped)
    for block, (kept, removed) in enumerate(zip(fit.kept, fit.removed, strict=True)):
        if removed is not None:
            # Taps of the kernel and positions of a feature share the map: contract the feature axis alone.
            gained = np.einsum("opft,fk->opkt", grouped[block][:, :, ~kept], removed, optimize=True)
            corrected[block][:, :, kept] = grouped[block][:, :, kept] + gained
    stored = first.weight.store(from_blocks(first, corrected.reshape(blocks.shape)))
    return stored.astype(first.weight.constant.dtype), shift


class GiveBiases(Pass):
    """Give linear maps the biases that a correction would, of ones: the time of a run does not depend on their values.

    Args:
        structure: of the very graph that the pass runs on; new biases are entered into it.
        consumers: the nodes of the linear maps.

    """

    def __init__(self, structure: Structure, consumers: Sequence[Consumer]) -> None:
        self._structure = structure
        self._consumers = consumers

    def requires(self, graph: gs.Graph) -> str | None:
        """The structure is of this graph."""
        return None if graph is self._structure.graph else "the structure was inferred from another graph"

    def run(self, graph: gs.Graph) -> bool:
        """Add one to every output."""
        for consumer in self._consumers:
            outputs = math.prod(as_blocks(consumer, consumer.weight.view(constant_values)).shape[:2])
            shift_bias(graph, self._structure, consumer, np.ones(outputs))
        return bool(self._consumers)


def shift_bias(graph: gs.Graph, structure: Structure, consumer: Consumer, shift: np.ndarray) -> None:
    """Add `shift`, a value per output, to what the linear map of `consumer` gives."""
    bias = give_bias(graph, structure, consumer)
    bias.constant.values = bias.shifted(shift)


def give_bias(graph: gs.Graph, structure: Structure, consumer: Consumer) -> Bias:
    """Return the bias of a linear map, with a value for each output and of its own; zeros where it had none.

    Args:
        graph: whose node it is.
        structure: of that graph; what is new is entered into it.
        consumer: the linear map.

    """
    if consumer.kind == "MatMul" or (consumer.kind == "Gemm" and consumer.index == 0):
        return _bias_after_matmul(graph, structure, consumer)
    if consumer.node.op in RECURRENT:
        return _recurrent_bias(graph, structure, consumer)
    return _own_bias(graph, structure, consumer)


def _own_bias(graph: gs.Graph, structure: Structure, consumer: Consumer) -> Bias:
    """Conv, ConvTranspose, Gemm: the third input; Gemm scales its product by alpha and its bias by beta."""
    node = consumer.node
    index, scale = _BIASES.get(node.op, 2), 1.0
    if consumer.kind == "Gemm":
        alpha, beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
        if beta == 0 or not _has_input(node, 2):
            node.attrs["beta"] = beta = 1.0
            _set_input(node, 2, gs.Variable.empty())
        scale = alpha / beta
    nothing = np.zeros(consumer.outputs.size)
    if not _has_input(node, index):
        name = fresh_name(graph, f"{node.name}_bias")
        _set_input(node, index, gs.Constant(name, nothing.astype(consumer.weight.dtype)))
        structure.records.give_own_axes(node, index, (consumer.outputs,))
    elif structure.records.own_axes(node, index) is not None:
        _own_constant(graph, structure, node, index, nothing)
    else:
        node, index = _add_before(graph, structure, consumer, index), 1
    return Bias(node, index, lambda shift: shift * scale)


def _add_before(graph: gs.Graph, structure: Structure, consumer: Consumer, index: int) -> gs.Node:
    """Put an Add of zeros before a node: its bias is computed, or reaches it through others."""
    node, bias = consumer.node, consumer.node.inputs[index]
    name = fresh_name(graph, f"{bias.name}_corrected")
    nothing = np.zeros(consumer.outputs.size, consumer.weight.dtype)
    constant = gs.Constant(fresh_name(graph, f"{name}_shift"), nothing)
    corrected = gs.Variable(name, dtype=bias.dtype)
    node.inputs[index] = corrected
    add = gs.Node("Add", name=f"{node.name}_bias", inputs=[bias, constant], outputs=[corrected])
    graph.nodes.insert(place_of(graph, node), add)
    structure.records.give_own_axes(add, 1, (consumer.outputs,))
    return add


def _recurrent_bias(graph: gs.Graph, structure: Structure, consumer: Consumer) -> Bias:
    """Return B [directions, 2 x rows]: its first half goes with W, its second with R. Other readers of B keep it."""
    node, weight = consumer.node, structure.records.weight(consumer.node, 1)
    assert weight is not None
    directions, rows, _ = weight[1]
    bias = np.zeros((directions.size, 2 * rows.size))
    stored = structure.records.weight(node, _RECURRENT_BIAS) if _has_input(node, _RECURRENT_BIAS) else None
    if stored is not None:
        bias += stored[0].view(constant_values)
    constant = gs.Constant(fresh_name(graph, f"{node.name}_bias"), bias.astype(consumer.weight.dtype))
    _set_input(node, _RECURRENT_BIAS, constant)
    axes = (directions, product(fresh(2), rows))
    structure.records.give_own_axes(node, _RECURRENT_BIAS, axes)

    def delta(shift: NDArray[np.float64]) -> NDArray[np.float64]:
        shift = shift.reshape(directions.size, rows.size)
        nothing = np.zeros_like(shift)
        return np.concatenate([nothing, shift] if consumer.recurrence else [shift, nothing], axis=1)

    return Bias(node, _RECURRENT_BIAS, delta)


def _has_input(node: gs.Node, index: int) -> bool:
    return len(node.inputs) > index and not node.inputs[index].is_empty()


def _set_input(node: gs.Node, index: int, tensor: gs.Tensor) -> None:
    if len(node.inputs) > index:
        node.inputs[index] = tensor
    else:
        node.inputs.append(tensor)


def _own_constant(graph: gs.Graph, structure: Structure, node: gs.Node, index: int, nothing: np.ndarray) -> None:
    """Let a node have a constant for itself, with the entries of `nothing` along its last axes."""
    bias = stored_input(node, index)
    values = np.asarray(bias.values).astype(np.float64)
    widened = np.asarray(values + nothing, bias.dtype)
    shared = len(bias.outputs) > 1 or any(tensor is bias for tensor in graph.outputs)
    name = fresh_name(graph, f"{bias.name}_corrected") if shared else bias.name
    node.inputs[index] = gs.Constant(name, widened)
    if widened.shape != values.shape:
        # A scalar or [1] bias became one value per output.
        out = structure.records.axes[node.outputs[0].name]
        structure.records.give_own_axes(node, index, out[len(out) - widened.ndim :])


def _bias_after_matmul(graph: gs.Graph, structure: Structure, consumer: Consumer) -> Bias:
    """MatMul has no bias: use the constant of the Add that follows, or add one; FusedMatMul scales its product."""
    axes, alpha = _written(structure, consumer), float(consumer.node.attrs.get("alpha", 1.0))
    nothing = np.zeros([dim.size for dim in axes])
    place = _bias_add(graph, structure, consumer, nothing)
    if place is None:
        place = _add_behind(graph, structure, consumer, nothing, axes), 1
    else:
        _own_constant(graph, structure, *place, nothing.reshape(np.shape(stored_input(*place).values)))
    return Bias(*place, lambda shift: shift * alpha)


def _written(structure: Structure, consumer: Consumer) -> tuple[Dim, ...]:
    """Return the axes of a value for each output of a matrix product: those of its stack, and rows or columns."""
    stored = structure.records.tied[consumer.weight.constant.name][1]
    matrices = tuple(stored[axis] for axis in consumer.weight.perm[:-2])
    column = consumer.index == 0
    if matrices:
        return (*matrices, consumer.outputs, ONE) if column else (*matrices, ONE, consumer.outputs)
    return (consumer.outputs, ONE) if column else (consumer.outputs,)


def _add_behind(
    graph: gs.Graph, structure: Structure, consumer: Consumer, values: np.ndarray, axes: tuple[Dim, ...]
) -> gs.Node:
    """Put an Add of a constant with the axes `axes` behind the node."""
    node = consumer.node
    output = node.outputs[0]
    name = fresh_name(graph, f"{output.name}_product")
    product = gs.Variable(name, dtype=output.dtype, shape=output.shape)
    node.outputs[0] = product
    structure.records.give_axes_of(name, output.name)
    constant = gs.Constant(fresh_name(graph, f"{name}_bias"), values.astype(consumer.weight.dtype))
    add = gs.Node("Add", name=f"{node.name}_bias", inputs=[product, constant], outputs=[output])
    graph.nodes.insert(place_of(graph, node) + 1, add)
    structure.records.give_own_axes(add, 1, axes)
    return add


def _bias_add(
    graph: gs.Graph, structure: Structure, consumer: Consumer, delta: np.ndarray
) -> tuple[gs.Node, int] | None:
    """Return the Add (and its constant's place) that is the only reader of a MatMul and adds a value per output."""
    output = consumer.node.outputs[0]
    if len(output.outputs) != 1 or any(output is t for t in graph.outputs):
        return None
    add = output.outputs[0]
    if add.op != "Add":
        return None
    index = next((i for i, t in enumerate(add.inputs) if isinstance(t, gs.Constant)), None)
    if index is None or structure.records.own_axes(add, index) is None:
        return None
    return (add, index) if _stripped(stored_input(add, index).shape) == _stripped(delta.shape) else None


def _stripped(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape without the axes of one entry that broadcasting adds in front."""
    wide = next((axis for axis, size in enumerate(shape) if size != 1), len(shape))
    return tuple(shape[wide:])
