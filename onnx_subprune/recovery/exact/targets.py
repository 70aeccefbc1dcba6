"""What layers of a pruned network are fitted to: tensors of the dense network, cut down to the units that stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx

from onnx_subprune.model import Scratch, array_of
from onnx_subprune.recovery.exact.correspondence import Surroundings
from onnx_subprune.recovery.exact.linear_layers import Linear, find_linears, intercept_of
from onnx_subprune.recovery.exact.shortcuts import Shortcut

__all__ = ["Networks", "Restrict", "Targets"]

Array = np.ndarray[Any, Any]
Restrict = Callable[[str, Array], Array]


@dataclass(frozen=True, eq=False)
class Networks:
    """A pruned network and the one that it was.

    Attributes:
        dense: the network that was pruned; tensors that both networks have bear the same name.
        pruned: what became of it.
        restrict: cuts the value of a dense tensor, by name, down to the units that stay, on every axis; that of a
            linear map whose output is not in the graph too, by the name that `projection_of` gives it.
        scratch: where large new weights go.
        sample_shapes: of tensors of the dense network for the first sample, kept from one pruned network to the next.
        versions: inputs of both networks beside those of the samples; every sample is run with each of them.

    """

    dense: onnx.ModelProto
    pruned: onnx.ModelProto
    restrict: Restrict
    scratch: Scratch | None = None
    sample_shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    versions: Sequence[Mapping[str, Array]] = ({},)


class Targets:
    """The dense values that layers should give.

    Args:
        dense: the network that was pruned.
        restrict: as in `Networks`.
        surroundings: of the pruned network.

    """

    def __init__(self, dense: onnx.ModelProto, restrict: Restrict, surroundings: Surroundings) -> None:
        self._restrict = restrict
        self._surroundings = surroundings
        self._tensors = {tensor.name: tensor for tensor in dense.graph.initializer}
        self._projected = {linear.name: linear for linear in find_linears(dense)[0] if linear.projected}
        self._last: tuple[str, Array, Array] | None = None
        self._known = {value.name for value in dense.graph.input}
        self._known |= {name for node in dense.graph.node for name in node.output}

    def refusal(self, linear: Linear) -> str | None:
        """Return why the dense network has no target for a layer; None where it has."""
        if linear.projected and linear.name not in self._projected:
            return "the dense network has no such layer"
        return None if self.tensor(linear) in self._known else "the dense network has no such tensor"

    def tensor(self, linear: Linear) -> str:
        """Return the dense tensor that the target of a layer is made of."""
        return self._surroundings.counterpart(linear.source if linear.projected else linear.output)

    def value(self, values: Mapping[str, Array], linear: Linear) -> Array:
        """Return the target of a layer, from values of the dense network."""
        if not linear.projected:
            return self.plain(values, linear.output)
        x = values[self.tensor(linear)]
        kind = np.result_type(x.dtype, np.float32)
        matrix, bias = self._map(linear.name)
        y = x.astype(kind, copy=False) @ matrix.T.astype(kind) + bias.astype(kind)
        return self._restrict(linear.output, np.asarray(y))

    def _map(self, name: str) -> tuple[Array, Array]:
        """Return the matrix and the bias of a dense layer whose output is not in the graph."""
        if self._last is None or self._last[0] != name:
            dense = self._projected[name]
            matrix = dense.matrices(array_of(self._tensors[dense.weight]))[0]
            self._last = (name, matrix, intercept_of(dense, self._tensors)[0])
        return self._last[1:]

    def plain(self, values: Mapping[str, Array], name: str) -> Array:
        """Return the dense tensor that a tensor of the pruned network stands for, cut down to the units that stay."""
        counterpart = self._surroundings.counterpart(name)
        return self._restrict(counterpart, values[counterpart])

    def shortcut(self, values: Mapping[str, Array], shortcut: Shortcut) -> Array:
        """Return what a layer is added to in the dense network, with the branches that went since."""
        beside = self.plain(values, shortcut.name)
        if self._surroundings.counterpart(shortcut.total) == shortcut.total:
            return beside
        own = self._restrict(shortcut.total, values[shortcut.total])
        return np.asarray(beside + (self.plain(values, shortcut.total) - own))
