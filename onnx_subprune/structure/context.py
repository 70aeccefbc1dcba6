"""What an operator rule sees: the Dims of its inputs, and the places to write down what it learnt.

A rule relates the Dims of a node's inputs, parameters and outputs. It may raise `NotUnderstood`; the node then becomes
a barrier: all that it touches is frozen with that reason. So a gap in a rule costs pruning, never correctness.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeGuard

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Dim, Doubt, Extent, Size, Symbols, dense, dims_of, freeze, fresh, unify
from onnx_subprune.structure.normalisations import NORMALISED_OPTION, Statistic
from onnx_subprune.structure.records import PASSED_THROUGH, Axes, Record, Records, Role, SizeUse, Use, Weight, label

__all__ = ["Context", "NotUnderstood"]


class NotUnderstood(Exception):  # noqa: N818 - a refusal, not an error: it becomes a reason the user reads
    """The node cannot be related index by index; the message is the reason."""


@dataclass
class Context:
    """A graph on its way through the rules.

    Attributes:
        records: all that has been learnt about the graph.
        prune_normalised: whether axes that a normalisation takes statistics over may shrink.
        sizes: of inputs of the graph, and of tensors that were observed in a run, by name.
        symbols: the axes that names of sizes stand for.
        doubts: axes that are in step under a condition, which the rest of the graph may settle.
        reductions: what runs over an axis, until it is known what for.

    """

    records: Records
    prune_normalised: bool = False
    sizes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    symbols: Symbols = field(default_factory=Symbols)
    doubts: list[Doubt] = field(default_factory=list)
    reductions: list[Statistic] = field(default_factory=list)

    @property
    def opset(self) -> int:
        """The opset of ONNX that the graph is written in."""
        return self.records.opset

    @property
    def axes(self) -> dict[str, Axes]:
        """The axes of every tensor met so far, by name."""
        return self.records.axes

    @property
    def extents(self) -> dict[str, np.ndarray]:
        """The integers that tensors hold, by name."""
        return self.records.extents

    def note(self, *records: Record) -> None:
        """Enter records of the graph."""
        self.records.add(*records)

    def input(self, node: gs.Node, index: int, rank: int | None = None) -> Axes:
        """Return the axes of an input. A constant met here is a carrier with axes of its own for this use.

        Args:
            node: it reads the input.
            index: of the input.
            rank: how many axes it has to have; None for any number.

        Raises:
            NotUnderstood: there is no such input, its shape is not known, or it has another rank.

        """
        if index >= len(node.inputs):
            raise NotUnderstood(f"{label(node)} lacks input {index}")
        axes = self._axes_of_input(node, index)
        if rank is not None and len(axes) != rank:
            name = node.inputs[index].name
            raise NotUnderstood(f"{label(node)} reads '{name}' of {len(axes)} axes, where {rank} are expected")
        return axes

    def _axes_of_input(self, node: gs.Node, index: int) -> Axes:
        tensor = node.inputs[index]
        if self.is_constant(tensor):
            if node.op in PASSED_THROUGH:
                return self.tie(tensor)
            return self._axes_of_carrier(node, index, tensor)
        axes = self.axes.get(tensor.name)
        if axes is None and isinstance(tensor, gs.Constant):
            axes = self.axes[tensor.name] = tuple(fresh(int(n)) for n in tensor.shape)
            for dim in axes:
                freeze(dim, f"'{tensor.name}' is an input of the graph with a default value")
        if axes is None:
            raise NotUnderstood(f"{label(node)} reads '{tensor.name}', whose shape is not known")
        return axes

    def has(self, node: gs.Node, index: int) -> bool:
        """Whether the optional input is there."""
        return self.records.has(node, index)

    def is_constant(self, tensor: gs.Tensor) -> TypeGuard[gs.Constant]:
        """Whether a tensor is a stored value that the caller of the model cannot replace."""
        return self.records.is_constant(tensor)

    def tie(self, constant: gs.Constant) -> Axes:
        """Return the axes of a stored weight, the same for all its uses."""
        return self.records.tie(constant)

    def weight(self, node: gs.Node, index: int) -> tuple[Weight, Axes] | None:
        """Return the constant behind an input and its axes as the node sees them; None for an activation."""
        return self.records.weight(node, index)

    def output(self, node: gs.Node, axes: Sequence[Dim], index: int = 0) -> None:
        """Set the axes of an output."""
        if index < len(node.outputs) and node.outputs[index].name:
            self.axes[node.outputs[index].name] = tuple(axes)

    def use(
        self, role: Role, node: gs.Node, index: int, constant: gs.Constant, dims: Sequence[tuple[int, Dim]]
    ) -> None:
        """Record the part that axes of a constant play at a node."""
        self.note(*(Use(role, node, index, constant, axis, dim) for axis, dim in dims))

    def axis(self, node: gs.Node, axes: Sequence[Dim], default: int, name: str = "axis") -> int:
        """Return the axis that an attribute names, counted from the front; NotUnderstood for one that is not there."""
        return self.counted(node, axes, int(node.attrs.get(name, default)))

    def counted(self, node: gs.Node, axes: Sequence[Dim], axis: int) -> int:
        """Return an axis counted from the front, where a negative number counts from the end; NotUnderstood outside."""
        if not -len(axes) <= axis < len(axes):
            raise NotUnderstood(f"{label(node)} names axis {axis} of a tensor of {len(axes)} axes")
        return axis % len(axes)

    def required(self, node: gs.Node, name: str) -> Any:
        """Return an attribute; NotUnderstood where the node does not have it."""
        if name not in node.attrs:
            raise NotUnderstood(f"{label(node)} lacks its attribute '{name}'")
        return node.attrs[name]

    def count(self, node: gs.Node, name: str) -> int:
        """Return an attribute that is a number of parts; NotUnderstood where it is missing or not positive."""
        number = int(self.required(node, name))
        if number < 1:
            raise NotUnderstood(f"{label(node)} has {number} as its '{name}'")
        return number

    def same_rank(self, node: gs.Node, *inputs: Sequence[Dim]) -> None:
        """Raise NotUnderstood where inputs differ in their number of axes."""
        if len({len(axes) for axes in inputs}) > 1:
            raise NotUnderstood(f"{label(node)} reads inputs of {[len(axes) for axes in inputs]} axes")

    def ints(self, node: gs.Node, index: int, attribute: str | None = None) -> list[int]:
        """Return a literal integer list from an input or, in older opsets, an attribute; NotUnderstood otherwise."""
        return [self._literal(node, v) for v in self.extent_list(node, index, attribute)]

    def extent_list(self, node: gs.Node, index: int, attribute: str | None = None) -> list[Extent]:
        """Return the integers of an input (or attribute) as extents, flat."""
        if attribute is not None and attribute in node.attrs:
            value = node.attrs[attribute]
            return [int(v) for v in (value if isinstance(value, (list, tuple, np.ndarray)) else [value])]
        values = self.extents_of(node.inputs[index]) if self.has(node, index) else None
        if values is None:
            raise NotUnderstood(f"{label(node)} takes sizes that are computed from data")
        return list(values.ravel())

    def extents_of(self, tensor: Any) -> np.ndarray | None:
        """Return the extents a tensor holds (object array), or None where it is not made of integers known so far."""
        return self.records.extents_of(tensor)

    def expect(
        self,
        node: gs.Node,
        where: int | str,
        position: int | None,
        extent: Extent,
        present: Extent | None = None,
        *,
        spare: bool = False,
    ) -> None:
        """Record that an integer of a node equals `extent` before and after pruning."""
        if present is None and isinstance(where, str):
            value = node.attrs[where]
            present = int(value if position is None else value[position])
        elif present is None:
            present = self.extent_list(node, int(where))[position or 0]
        self.note(SizeUse(node, where, position, extent, present, spare))

    def expect_size(self, node: gs.Node, where: int | str, position: int | None, dim: Dim) -> None:
        """Record that an integer of a node is the size of `dim`."""
        self.expect(node, where, position, Size(dim))

    def unify(self, a: Dim, b: Dim, node: gs.Node) -> None:
        """Make two axes keep the same indices because of `node`."""
        unify(a, b, label(node))

    def freeze(self, dim: Dim, node: gs.Node, does: str) -> None:
        """Freeze an axis: `does` says what the node does to it ('normalises over this axis')."""
        freeze(dim, f"{label(node)} {does}")

    def normalise(
        self, node: gs.Node, axes: Mapping[int, Dim], what: str | None = None, does: str = "normalises"
    ) -> None:
        """Note that a node takes statistics over `axes` of its first input: they shrink only where the user asks."""
        if self.prune_normalised:
            self.note(Statistic(node, tuple(axes.items())))
            return
        for dim in axes.values():
            freeze(dim, f"{what or label(node)} {does} over this axis; {NORMALISED_OPTION} lets it shrink")

    def computed_axis(self, node: gs.Node, size: int, *, dynamic: bool = False) -> Dim:
        """Return a new axis whose entries the node computes by itself: none of them can be left out."""
        dim = fresh(max(size, 1), dynamic)
        self.freeze(dim, node, "makes this axis")
        return dim

    def hold(self, node: gs.Node, index: int, position: int, extent: Extent) -> None:
        """Let a number that a node computes with stay what it is in the dense network, whatever is removed."""
        if all(atom.dynamic for dim in dims_of(extent) for atom in dim.atoms()):
            return
        kept = dense(extent)
        if kept is None:
            self.pin([extent], node)
        else:
            self.expect(node, index, position, kept, extent)

    def pin(self, extents: Iterable[Extent], node: gs.Node) -> None:
        """Freeze the axes whose sizes a node takes as numbers, so that what it computes stays the same."""
        for extent in extents:
            for dim in dims_of(extent):
                self.freeze(dim, node, "computes with the size of this axis")

    def _axes_of_carrier(self, node: gs.Node, index: int, tensor: gs.Constant) -> Axes:
        axes = self.records.own_axes(node, index)
        if axes is None:
            axes = tuple(fresh(int(n)) for n in tensor.shape)
            self.records.give_own_axes(node, index, axes)
            self.use("carrier", node, index, tensor, list(enumerate(axes)))
        return axes

    @staticmethod
    def _literal(node: gs.Node, value: Extent) -> int:
        if not isinstance(value, int):
            raise NotUnderstood(f"{label(node)} takes sizes that are computed from data")
        return value
