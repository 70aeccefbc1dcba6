"""The states of recurrent layers (LSTM, GRU, RNN), spelt so that they can be pruned and measured.

Exporters write initial states of zeros out, and one tensor of zeros for several layers, which would tie their widths;
left out, an initial state is zero as well. Where only the last state is used, the first output has no name; the
recovery needs what it holds, the hidden states of all steps.
"""

from __future__ import annotations

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import fresh_name, read_values
from onnx_subprune.structure import DEFAULT_DOMAINS, RECURRENT, RECURRENT_STATES

__all__ = ["DropStates", "NameStates"]

_STEM = "onnx_subprune_states"
_MOVES = ("Cast", "Expand", "Gather", "Identity", "Reshape", "Slice", "Squeeze", "Tile", "Transpose", "Unsqueeze")


class NameStates(Pass):
    """Leave initial states of zeros out, and name the first output of every recurrent layer.

    Args:
        overridable: initializers that are graph inputs too; they are not constant.

    """

    def __init__(self, overridable: frozenset[str] = frozenset()) -> None:
        self._overridable = overridable

    def run(self, graph: gs.Graph) -> bool:
        """Returns whether anything changed."""
        changed = False
        for node in _layers(graph):
            for index in RECURRENT_STATES:
                if index < len(node.inputs) and not node.inputs[index].is_empty() and self._is_zero(node.inputs[index]):
                    node.inputs[index] = gs.Variable.empty()
                    changed = True
            if node.outputs[0].is_empty():
                last = next(tensor for tensor in node.outputs if tensor.name)
                node.outputs[0] = gs.Variable(fresh_name(graph, f"{node.name}_{_STEM}"), dtype=last.dtype)
                changed = True
        return changed

    def _is_zero(self, tensor: gs.Tensor) -> bool:
        if isinstance(tensor, gs.Constant):
            values = None if tensor.name in self._overridable else read_values(tensor)
            return values is not None and not np.any(values)
        maker = tensor.inputs[0] if len(tensor.inputs) == 1 else None
        if maker is None or maker.domain not in DEFAULT_DOMAINS:
            return False
        if maker.op == "ConstantOfShape":
            value = maker.attrs.get("value")
            return value is None or not np.any(value.values)
        if maker.op == "Concat":
            return all(self._is_zero(part) for part in maker.inputs)
        return maker.op in _MOVES and self._is_zero(maker.inputs[0])


class DropStates(Pass):
    """Take the names away again that `NameStates` gave."""

    def run(self, graph: gs.Graph) -> bool:
        """Returns whether there was one."""
        named = [node for node in _layers(graph) if node.outputs[0].name.endswith(_STEM)]
        for node in named:
            node.outputs[0] = gs.Variable.empty()
        return bool(named)


def _layers(graph: gs.Graph) -> list[gs.Node]:
    known = [node for node in graph.nodes if node.op in RECURRENT and node.domain in DEFAULT_DOMAINS]
    return [node for node in known if any(tensor.name for tensor in node.outputs)]
