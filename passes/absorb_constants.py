"""Move the constants that branches left behind into biases.

An Add of a constant goes where the other operand has a bias of its own that nobody else sees: behind a Conv,
ConvTranspose or Gemm, an Add of another constant, or through an Add of two activations. An Add of zeros goes
altogether. What cannot be moved exactly stays as it is.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import drop_nodes, fresh_name, protected_names, read_values, replace_uses
from onnx_subprune.structure import DEFAULT_DOMAINS, Keeps, Structure, keep_mask

__all__ = ["AbsorbConstants"]

_CHANNELS = ("Conv", "ConvTranspose", "Gemm")


class AbsorbConstants(Pass):
    """Remove every Add of one of the named constants that does nothing or can be moved.

    Args:
        structure: of the graph as it was before units were removed.
        keeps: for each Atom that loses units, bool [size].
        constants: names; other constants of the graph are the user's and stay where they are.
        short: names of tensors whose shape is not the one the graph means: their Adds stay.

    """

    def __init__(self, structure: Structure, keeps: Keeps, constants: Collection[str], short: Collection[str]) -> None:
        self._axes = structure.records.axes
        self._keeps = keeps
        self._constants = constants
        self._short = short

    def run(self, graph: gs.Graph) -> bool:
        """Look at every Add once, in the order of the graph."""
        protected = protected_names(graph)
        idle = [node for node in graph.nodes if node.op == "Add" and self._is_absorbed(graph, node, protected)]
        drop_nodes(graph, idle)
        return bool(idle)

    def _is_absorbed(self, graph: gs.Graph, node: gs.Node, protected: frozenset[str]) -> bool:
        output = node.outputs[0]
        place = next(
            (i for i, t in enumerate(node.inputs) if t.name in self._constants and read_values(t) is not None), -1
        )
        if place < 0 or output.name in self._short or isinstance(node.inputs[1 - place], gs.Constant):
            return False
        delta, other = read_values(node.inputs[place]), node.inputs[1 - place]
        if delta is None or not self._keeps_shape(other, delta):
            return False
        if np.any(delta) and not self._move_upstream(graph, other, delta, protected):
            return False
        if output.name in protected:
            # The output keeps its name, so a node stays that gives it.
            node.op = "Identity"
            node.inputs.pop(place)
            return False
        replace_uses(output, other)
        return True

    def _keeps_shape(self, tensor: gs.Tensor, delta: np.ndarray) -> bool:
        """Whether a tensor has the shape of its sum with `delta`, so that the Add does not broadcast it."""
        full = self._aligned(tensor, delta)
        return full is not None and full.ndim >= delta.ndim

    def _move_upstream(self, graph: gs.Graph, tensor: gs.Tensor, delta: np.ndarray, protected: frozenset[str]) -> bool:
        """Add `delta` where `tensor` is made; False, with nothing changed, where others read it or there is no bias."""
        if len(tensor.outputs) != 1 or len(tensor.inputs) != 1 or tensor.name in protected:
            return False
        node, full = tensor.inputs[0], self._aligned(tensor, delta)
        if full is None or node.domain not in DEFAULT_DOMAINS:
            return False
        if node.op in _CHANNELS:
            return _into_bias(graph, node, full, protected)
        if node.op != "Add":
            return False
        constant = next((i for i, t in enumerate(node.inputs) if isinstance(t, gs.Constant)), None)
        if constant is not None:
            return _into_constant(graph, node, constant, full, protected)
        return any(self._move_upstream(graph, operand, full, protected) for operand in node.inputs)

    def _aligned(self, tensor: gs.Tensor, delta: np.ndarray) -> np.ndarray | None:
        """Return `delta` with the rank of the tensor, or None where the tensor does not have all its entries."""
        if tensor.name not in self._axes or tensor.name in self._short:
            return None
        dims = self._axes[tensor.name]
        spare = max(0, delta.ndim - len(dims))
        shape = (1,) * (len(dims) - delta.ndim) + delta.shape[spare:]
        sizes = [None if dim.dynamic else int(keep_mask(dim, self._keeps).sum()) for dim in dims]
        fits = all(entries in (1, size) for entries, size in zip(shape, sizes, strict=True))
        return delta.reshape(shape) if fits and set(delta.shape[:spare]) <= {1} else None


def _into_bias(graph: gs.Graph, node: gs.Node, delta: np.ndarray, protected: frozenset[str]) -> bool:
    bias = read_values(node.inputs[2]) if len(node.inputs) > 2 else None
    beta = float(node.attrs.get("beta", 1.0)) if node.op == "Gemm" else 1.0
    if bias is None or node.inputs[2].name in protected or beta == 0:
        return False
    # One value per channel on both sides: the bias of a Gemm may be a row, or one for all.
    if delta.size != delta.shape[1] or bias.size != delta.size or bias.shape[-1:] != (bias.size,):
        return False
    # Rounded once, when it is stored.
    _store(graph, node, 2, bias + delta.reshape(bias.shape).astype(np.float64) / beta)
    return True


def _into_constant(graph: gs.Graph, node: gs.Node, index: int, delta: np.ndarray, protected: frozenset[str]) -> bool:
    values = read_values(node.inputs[index])
    if values is None or node.inputs[index].name in protected:
        return False
    total = values + delta
    if total.size > max(values.size, delta.size):
        return False
    _store(graph, node, index, total)
    return True


def _store(graph: gs.Graph, node: gs.Node, index: int, values: np.ndarray) -> None:
    old = node.inputs[index]
    shared = len(old.outputs) > 1 or any(tensor is old for tensor in graph.outputs)
    name = fresh_name(graph, f"{old.name}_shifted") if shared else old.name
    node.inputs[index] = gs.Constant(name, values.astype(old.dtype))
