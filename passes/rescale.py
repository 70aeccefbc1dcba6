"""Give normalisations over fewer units the scale and the mean that they had over all: n becomes factor * n + offset.

An operator with a scale and a shift of its own takes both into these. One that is written out has the factor put on its
spread, one value per position, and the offset into the summand that follows, or behind it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import float_type, fresh_name, place_of, stored_input
from onnx_subprune.structure import Normalisation, Structure
from onnx_subprune.subspace import Rescaling

__all__ = ["RescaleNormalised"]


class RescaleNormalised(Pass):
    """Write factors and offsets into the graph.

    Args:
        structure: of the very graph that the pass runs on; new constants are entered into it.
        rescalings: by normalisation.

    """

    def __init__(self, structure: Structure, rescalings: Mapping[Normalisation, Rescaling]) -> None:
        self._structure = structure
        self._rescalings = rescalings

    def requires(self, graph: gs.Graph) -> str | None:
        """The structure is of this graph."""
        return None if graph is self._structure.graph else "the structure was inferred from another graph"

    def run(self, graph: gs.Graph) -> bool:
        """Rescale one normalisation after the other."""
        for normalisation, rescaling in self._rescalings.items():
            if normalisation.spread is not None:
                self._rescale_written_out(graph, normalisation, rescaling)
            elif not self._rescale_parameters(graph, normalisation, rescaling):
                self._put_behind(graph, normalisation.node.outputs[0], "Mul", rescaling.factor)
                self._put_behind(graph, normalisation.node.outputs[0], "Add", rescaling.offset)
        return bool(self._rescalings)

    def _rescale_parameters(self, graph: gs.Graph, normalisation: Normalisation, rescaling: Rescaling) -> bool:
        """Take factor and offset into the operator's own scale and shift; False where they are not plain constants."""
        node, scale_at, shift_at = normalisation.node, normalisation.scale, normalisation.shift
        scale = self._stored_values(node, scale_at)
        has_shift = shift_at is not None and shift_at < len(node.inputs) and not node.inputs[shift_at].is_empty()
        shift = self._stored_values(node, shift_at) if has_shift else None
        if scale is None or (has_shift and (shift is None or shift.shape != scale.shape)):
            return False
        if rescaling.offset and not has_shift and (shift_at is None or shift_at != len(node.inputs)):
            return False
        assert scale_at is not None
        self._replace(graph, node, scale_at, scale * rescaling.factor)
        if rescaling.offset:
            assert shift_at is not None
            if not has_shift:
                axes = self._structure.records.own_axes(node, scale_at)
                assert axes is not None
                values = stored_input(node, scale_at).values
                node.inputs.append(gs.Constant(fresh_name(graph, f"{node.name}_shift"), values))
                self._structure.records.give_own_axes(node, shift_at, axes)
            base = 0.0 if shift is None else shift
            self._replace(graph, node, shift_at, base + scale * rescaling.offset)
        return True

    def _rescale_written_out(self, graph: gs.Graph, normalisation: Normalisation, rescaling: Rescaling) -> None:
        assert normalisation.spread is not None
        factor = rescaling.factor if normalisation.spread.inverse else 1 / rescaling.factor
        self._put_behind(graph, normalisation.spread.node.outputs[0], "Mul", factor)
        if not rescaling.offset:
            return
        tensor = next(t for node in graph.nodes for t in node.outputs if t.name == normalisation.tensor)
        place = self._summand(tensor)
        if place is None:
            self._put_behind(graph, tensor, "Add", rescaling.offset)
        else:
            add, index, scale = place
            self._replace(graph, add, index, np.asarray(self._stored_values(add, index)) + scale * rescaling.offset)

    def _summand(self, tensor: gs.Variable) -> tuple[gs.Node, int, np.ndarray] | None:
        """Return the constant that is added to a tensor, past constants it is multiplied by, and their product."""
        scale = np.ones(())
        while len(tensor.outputs) == 1:
            node = tensor.outputs[0]
            index = next((i for i, t in enumerate(node.inputs) if t is not tensor), None)
            values = self._stored_values(node, index) if node.op in ("Mul", "Add") else None
            if values is None or index is None:
                return None
            if node.op == "Add":
                return (node, index, scale) if np.broadcast_shapes(values.shape, scale.shape) == values.shape else None
            scale, tensor = scale * values, node.outputs[0]
        return None

    def _stored_values(self, node: gs.Node, index: int | None) -> np.ndarray | None:
        """Return the values of a constant that a node reads by itself, in double precision."""
        if index is None or self._structure.records.own_axes(node, index) is None:
            return None
        return np.asarray(stored_input(node, index).values).astype(np.float64)

    def _replace(self, graph: gs.Graph, node: gs.Node, index: int, values: np.ndarray) -> None:
        """Give a node new values for a constant; it gets a constant of its own, for others may read the old one."""
        old = node.inputs[index]
        name = fresh_name(graph, f"{old.name}_rescaled")
        node.inputs[index] = gs.Constant(name, values.astype(old.dtype))

    def _put_behind(self, graph: gs.Graph, tensor: gs.Variable, op: str, value: float) -> None:
        """Multiply or add a number behind the node that makes a tensor."""
        if value == {"Mul": 1.0, "Add": 0.0}[op]:
            return
        node, dtype = tensor.inputs[0], float_type(tensor)
        index = next(i for i, output in enumerate(node.outputs) if output is tensor)
        inner = gs.Variable(fresh_name(graph, f"{tensor.name}_bare"), dtype=tensor.dtype, shape=tensor.shape)
        node.outputs[index] = inner
        self._structure.records.give_axes_of(inner.name, tensor.name)
        number = gs.Constant(fresh_name(graph, f"{inner.name}_{op.lower()}"), np.array(value, dtype))
        new = gs.Node(op, name=f"{inner.name}/{op.lower()}", inputs=[inner, number], outputs=[tensor])
        graph.nodes.insert(place_of(graph, node) + 1, new)
