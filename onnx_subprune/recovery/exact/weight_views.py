"""Stored weights as nodes read them: at once, or through a chain of Identity, Transpose and Cast."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import onnx

from onnx_subprune.model import attribute_of
from onnx_subprune.model.protos import ONNX_DOMAINS
from onnx_subprune.structure import PASSED_THROUGH

__all__ = ["View", "Views"]


@dataclass(frozen=True, eq=False)
class View:
    """A stored weight as a node reads it.

    Attributes:
        tensor: the initializer.
        perm: its axes in the order that the node sees.
        kind: element type that the node sees.
        sole: whether nobody else reads the weight, or a link of the chain.

    """

    tensor: onnx.TensorProto
    perm: tuple[int, ...]
    kind: int
    sole: bool

    @property
    def dims(self) -> tuple[int, ...]:
        """Sizes as the node sees them."""
        return tuple(int(self.tensor.dims[axis]) for axis in self.perm)


class Views:
    """The weights of a network.

    Args:
        model: the network.
        reads: how often each name is read.

    """

    def __init__(self, model: onnx.ModelProto, reads: Counter[str]) -> None:
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._makers = {
            node.output[0]: node
            for node in model.graph.node
            if node.op_type in PASSED_THROUGH and node.domain in ONNX_DOMAINS
        }
        self._reads = reads
        self._fixed = {value.name for value in (*model.graph.input, *model.graph.output)}

    def of(self, name: str) -> View | None:
        """Return the weight behind the input of a node; None for what is computed otherwise."""
        steps: list[onnx.NodeProto] = []
        sole = self._is_sole(name)
        while name not in self._stored:
            if name not in self._makers:
                return None
            steps.append(self._makers[name])
            name = steps[-1].input[0]
            sole = sole and self._is_sole(name)
        tensor = self._stored[name]
        perm, kind = tuple(range(len(tensor.dims))), int(tensor.data_type)
        for step in reversed(steps):
            if step.op_type == "Transpose":
                order = attribute_of(step, "perm", None) or range(len(perm))[::-1]
                perm = tuple(perm[axis] for axis in order)
            elif step.op_type == "Cast":
                kind = int(attribute_of(step, "to", 0))
        return View(tensor, perm, kind, sole)

    def _is_sole(self, name: str) -> bool:
        return self._reads[name] == 1 and name not in self._fixed
