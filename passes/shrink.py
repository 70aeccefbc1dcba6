"""Slice every constant to the units that stay, and bring the recorded shapes of tensors up to date.

Works from the Dims of the structure alone: each axis of each constant has a keep mask. A constant that several nodes
read under different masks is cloned, so that a bias shared by two layers never ties their widths.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.model import values_of
from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import fresh_name, in_memory, stored_input
from onnx_subprune.structure import BRANCHES, Atom, Dim, Structure, emptied, is_hoisted, keep_mask

__all__ = ["Shrink"]

Masks = tuple[np.ndarray, ...]


class Shrink(Pass):
    """Remove the units outside `keeps` from all constants.

    Args:
        structure: of the very graph that the pass runs on.
        keeps: for each Atom that loses units, bool [size]; where none is True, `DropBranches` has to follow.
        store: returns what a constant is to hold of its new values.

    """

    def __init__(
        self,
        structure: Structure,
        keeps: Mapping[Atom, np.ndarray],
        store: Callable[[np.ndarray], Any] = in_memory,
    ) -> None:
        self._structure = structure
        self._keeps = keeps
        self._store = store

    def requires(self, graph: gs.Graph) -> str | None:
        """The structure is of this graph, and groups that lose all their units may do so."""
        if graph is not self._structure.graph:
            return "the structure was inferred from another graph"
        return self._structure.branches.removal(emptied(self._keeps)).reason

    def run(self, graph: gs.Graph) -> bool:
        """Slice the constants, then update the shapes."""
        modified = False
        for uses in self._uses(graph).values():
            modified |= self._slice(graph, uses)
        for tensor in graph.tensors().values():
            if isinstance(tensor, gs.Variable):
                self._update_shape(tensor)
        for node in graph.nodes:
            if is_hoisted(node):
                _update_handed_out(node)
        return modified

    def _uses(self, graph: gs.Graph) -> dict[str, list[tuple[gs.Node, int, Masks]]]:
        uses: dict[str, list[tuple[gs.Node, int, Masks]]] = {}
        for node, index, axes in self._constants(graph):
            masks = tuple(self._structure.masks(axes, self._keeps))
            uses.setdefault(node.inputs[index].name, []).append((node, index, masks))
        return uses

    def _constants(self, graph: gs.Graph) -> Iterator[tuple[gs.Node, int, tuple[Dim, ...]]]:
        for node in graph.nodes:
            for index in range(len(node.inputs)):
                axes = self._structure.constant_axes(node, index)
                if axes is not None:
                    yield node, index, axes

    def _slice(self, graph: gs.Graph, uses: list[tuple[gs.Node, int, Masks]]) -> bool:
        """Give every use the slice its masks ask for; equal masks share one constant."""
        dense = stored_input(*uses[0][:2])
        values: np.ndarray | None = None
        slices: dict[tuple[bytes, ...], gs.Constant] = {}
        # A use that is not listed (in the body of an If, say) keeps the dense constant under its name.
        alone = len(uses) == len(dense.outputs) and all(tensor is not dense for tensor in graph.outputs)
        for node, index, masks in uses:
            key = tuple(mask.tobytes() for mask in masks)
            if key not in slices:
                if all(mask.all() for mask in masks):
                    slices[key] = dense
                else:
                    values = values_of(dense._values) if values is None else values
                    name = dense.name if alone and len(uses) == 1 else fresh_name(graph, f"{dense.name}_pruned")
                    slices[key] = gs.Constant(name, self._store(_compress(values, masks)))
            if slices[key] is not dense:
                node.inputs[index] = slices[key]
        return any(constant is not dense for constant in slices.values())

    def _update_shape(self, tensor: gs.Variable) -> None:
        axes = self._structure.records.axes.get(tensor.name)
        if axes is None or tensor.shape is None or len(axes) != len(tensor.shape):
            return
        tensor.shape = [self._kept_size(size, dim) for size, dim in zip(tensor.shape, axes, strict=True)]

    def _kept_size(self, size: int | str | None, dim: Dim) -> int | str | None:
        """Return the size of an axis that was recorded as `size`; None where it is not known any more."""
        if size is None or self._keeps.keys().isdisjoint(dim.atoms()):
            return size
        mask = keep_mask(dim, self._keeps)
        if dim.dynamic and mask.all():
            return size
        if isinstance(size, str):
            # A symbol such as "4*batch" stands for the same size everywhere: the runtime shares memory by it.
            return size if mask.all() else None
        # Sizes of run time that are on record are those that the structure was analysed with, or others.
        return int(mask.sum()) if not dim.dynamic or len(mask) == size else None


def _update_handed_out(node: gs.Node) -> None:
    """Give what the branches of an If hand out the shapes of the tensors that it is."""
    for branch in BRANCHES:
        for inner in node.attrs[branch].nodes:
            if isinstance(inner.inputs[0], gs.Variable):
                inner.outputs[0].shape = inner.inputs[0].shape


def _compress(values: np.ndarray, masks: Masks) -> np.ndarray:
    for axis, mask in enumerate(masks):
        if not mask.all():
            values = np.compress(mask, values, axis=axis)
    return np.ascontiguousarray(values)
