"""What an operator rule sees: the Dims of its inputs, and the places to write down what it learnt.

A rule relates the Dims of a node's inputs, parameters and outputs. It may raise `NotUnderstood`; the node then becomes
a barrier: all that it touches is frozen with that reason. So a gap in a rule costs pruning, never correctness.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes.size_expressions import Extent, Size, dense, dims_of
from onnx_subprune.structure.axes.symbolic_sizes import Doubt, Symbols
from onnx_subprune.structure.axes.unification import ONE, Dim, freeze, fresh, unify
from onnx_subprune.structure.dtypes import is_float
from onnx_subprune.structure.normalisations import Normalisation, Statistic

__all__ = [
    "DEFAULT_DOMAINS",
    "PASSED_THROUGH",
    "RECURRENT",
    "RECURRENT_STATES",
    "Consumer",
    "Context",
    "Contraction",
    "Default",
    "IndexUse",
    "MacTerm",
    "NotUnderstood",
    "Role",
    "SizeUse",
    "Squeezed",
    "Use",
    "Weight",
    "captured",
    "constant_values",
    "label",
]

Role = Literal["producer", "carrier", "consumer"]
PASSED_THROUGH = ("Identity", "Transpose", "Cast")
DEFAULT_DOMAINS = (None, "", "ai.onnx")
_FUSED = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}
RECURRENT = ("LSTM", "GRU", "RNN")
# Their inputs that hold the first states: hidden, and of an LSTM the cell's.
RECURRENT_STATES = (5, 6)


class NotUnderstood(Exception):  # noqa: N818 - a refusal, not an error: it becomes a reason the user reads
    """The node cannot be related index by index; the message is the reason."""


def label(node: gs.Node) -> str:
    """Return how a node is named to the user: operator and name."""
    return f"{node.op} '{node.name}'"


def captured(node: gs.Node) -> Iterator[Any]:
    """Yield the tensors that a node's subgraphs read."""
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            for inner in value.nodes:
                yield from inner.inputs
                yield from captured(inner)
            yield from value.outputs


def constant_values(constant: gs.Constant) -> np.ndarray:
    """Return a constant's values; of those that stay in a file a map that is made anew each time and not kept."""
    stored = constant._values
    return np.asarray(stored.load() if getattr(stored, "in_file", False) else constant.values)


@dataclass(frozen=True, eq=False)
class Weight:
    """A stored constant as its node sees it: transposed by `perm` and cast to `dtype` on the way."""

    constant: gs.Constant
    perm: tuple[int, ...]
    dtype: np.dtype[Any]

    def view(self) -> np.ndarray:
        """Return the values in the layout that the node sees, in the stored dtype."""
        return constant_values(self.constant).transpose(self.perm)

    def store(self, values: np.ndarray) -> np.ndarray:
        """Return `values`, given in the node's layout, in the stored layout."""
        return np.ascontiguousarray(values.transpose(np.argsort(self.perm)))


@dataclass(frozen=True, eq=False)
class Use:
    """A constant's axis that holds a Dim at one input of one node; `axis` counts in the stored layout.

    Where the role is that of some factors only (the multiplier of a depthwise weight), `part` is these.
    """

    role: Role
    node: gs.Node
    index: int
    constant: gs.Constant
    axis: int
    dim: Dim
    part: Dim | None = None


@dataclass(frozen=True, eq=False)
class Consumer:
    """A linear map that contracts the axis `axis` of the activation `source` with a constant weight.

    The weight's view has `blocks` consecutive blocks (groups of a grouped Conv, matrices of a stack). `features` is the
    Dim of blocks x inputs per block: the whole contracted axis, or, where the blocks lie on axes `stack` of their own,
    these and the contracted one. `outputs` is the Dim of the axis it writes.
    """

    node: gs.Node
    source: str
    axis: int
    features: Dim
    outputs: Dim
    weight: Weight
    index: int
    blocks: Dim = ONE
    padded: bool = False
    stack: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The node's name; a recurrent layer contracts its own states as well as its input."""
        return f"{self.node.name} (recurrence)" if self.recurrence else str(self.node.name)

    @property
    def recurrence(self) -> bool:
        """Whether the node contracts its own earlier output `source`."""
        return self.node.op in RECURRENT and self.index == 2

    @property
    def kind(self) -> str:
        """The operator, or the one that the node is a fused form of."""
        return str(_FUSED.get(self.node.op, self.node.op))

    @property
    def contracted(self) -> int:
        """The axis of the stored weight that is contracted."""
        return self.weight.perm[self.contracted_view]

    @property
    def contracted_view(self) -> int:
        """The axis of the weight, as the node sees it, that is contracted."""
        if self.kind == "Conv":
            return 1
        if self.kind == "ConvTranspose":
            return 0
        if self.node.op in RECURRENT:
            return 2
        turned = bool(self.node.attrs.get("transB" if self.index == 1 else "transA"))
        last = turned if self.index == 1 else not turned
        return len(self.weight.perm) - (1 if last else 2)


@dataclass(frozen=True, eq=False)
class Contraction:
    """A product of two activations that sums over one axis of each (queries times keys): `sides` are (tensor, axis).

    A unit adds one term to the sum, so it may go from both sides at once; there is no weight to correct. Where the axes
    hold `blocks` that are summed over apart (the heads of a fused attention), `features` is blocks x terms.
    """

    node: gs.Node
    sides: tuple[tuple[str, int], tuple[str, int]]
    features: Dim
    blocks: Dim = ONE

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.node.name)


@dataclass(frozen=True)
class SizeUse:
    """An integer of a node that has to equal `expected`: element `position` of an input (int) or attribute (str).

    `present` is what the graph gives there as it stands. Where `spare`, -1 says the same as the number: all other
    sizes of the Reshape are given; once `inferred`, it is written so.
    """

    node: gs.Node
    where: int | str
    position: int | None
    expected: Extent
    present: Extent
    spare: bool = False
    inferred: bool = False


@dataclass(frozen=True)
class Default:
    """An attribute that a node has not, with the value this stands for as long as `dim` is whole: what shrinks differs.

    The scale of a fused attention is one over the square root of the size of its heads, unless it is given.
    """

    node: gs.Node
    name: str
    value: float | tuple[int, ...]
    dim: Dim


@dataclass(frozen=True)
class IndexUse:
    """Literal positions of the axis `dim`, at input `index` of a node."""

    node: gs.Node
    index: int
    dim: Dim


@dataclass(frozen=True)
class Squeezed:
    """A Squeeze that drops every axis of one entry; `axes` are those it drops in the dense network."""

    node: gs.Node
    axes: tuple[int, ...]


@dataclass(frozen=True)
class MacTerm:
    """Multiply-accumulates of a node: the product of the sizes of `factors`."""

    node: gs.Node
    factors: tuple[Dim, ...]


@dataclass
class Context:
    """Everything learnt so far about one graph."""

    opset: int
    overridable: Collection[str] = ()
    prune_normalised: bool = False
    axes: dict[str, tuple[Dim, ...]] = field(default_factory=dict)
    extents: dict[str, np.ndarray] = field(default_factory=dict)
    tied: dict[str, tuple[gs.Constant, tuple[Dim, ...]]] = field(default_factory=dict)
    private: dict[tuple[int, int], tuple[gs.Node, int, tuple[Dim, ...]]] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    size_uses: list[SizeUse] = field(default_factory=list)
    defaults: list[Default] = field(default_factory=list)
    index_uses: list[IndexUse] = field(default_factory=list)
    squeezed: list[Squeezed] = field(default_factory=list)
    doubts: list[Doubt] = field(default_factory=list)
    symbols: Symbols = field(default_factory=Symbols)
    mac_terms: list[MacTerm] = field(default_factory=list)
    reductions: list[Statistic] = field(default_factory=list)
    statistics: list[Statistic] = field(default_factory=list)
    normalisations: list[Normalisation] = field(default_factory=list)

    def input(self, node: gs.Node, index: int) -> tuple[Dim, ...]:
        """Return the axes of an input. A constant met here is a carrier with axes of its own for this use."""
        tensor = node.inputs[index]
        if self.is_constant(tensor):
            if node.op in PASSED_THROUGH:
                return self.tie(tensor)
            return self._carry(node, index, tensor)
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
        return index < len(node.inputs) and not node.inputs[index].is_empty()

    def tie(self, constant: gs.Constant) -> tuple[Dim, ...]:
        """Return the axes of a stored weight, the same for all its uses."""
        if constant.name not in self.tied:
            self.tied[constant.name] = (constant, tuple(fresh(int(n)) for n in constant.shape))
        return self.tied[constant.name][1]

    def weight(self, node: gs.Node, index: int) -> tuple[Weight, tuple[Dim, ...]] | None:
        """Return the constant behind an input and its axes as the node sees them; None for an activation."""
        tensor, steps = node.inputs[index], []
        while not self.is_constant(tensor):
            producer = tensor.inputs[0] if len(tensor.inputs) == 1 else None
            if producer is None or producer.op not in PASSED_THROUGH or producer.domain not in DEFAULT_DOMAINS:
                return None
            steps.append(producer)
            tensor = producer.inputs[0]
        perm, dtype = list(range(len(tensor.shape))), np.dtype(tensor.dtype)
        for step in reversed(steps):
            if step.op == "Transpose":
                order = step.attrs.get("perm")
                perm = perm[::-1] if order is None else [perm[i] for i in order]
            elif step.op == "Cast":
                dtype = np.dtype(onnx.helper.tensor_dtype_to_np_dtype(int(step.attrs["to"])))
                if not is_float(dtype):
                    return None
        if not is_float(tensor.dtype) or not is_float(dtype):
            return None
        dims = self.tie(tensor)
        return Weight(tensor, tuple(perm), dtype), tuple(dims[i] for i in perm)

    def output(self, node: gs.Node, axes: Sequence[Dim], index: int = 0) -> None:
        """Set the axes of an output."""
        if index < len(node.outputs) and node.outputs[index].name:
            self.axes[node.outputs[index].name] = tuple(axes)

    def use(
        self, role: Role, node: gs.Node, index: int, constant: gs.Constant, dims: Sequence[tuple[int, Dim]]
    ) -> None:
        """Record the part that axes of a constant play at a node."""
        self.uses.extend(Use(role, node, index, constant, axis, dim) for axis, dim in dims)

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
        if self.is_constant(tensor) and tensor.name not in self.extents:
            if tensor.dtype not in (np.int64, np.int32, np.bool_) or int(np.prod(tensor.shape)) > 1024:
                return None
            values = np.asarray(tensor.values)
            self.extents[tensor.name] = np.array([int(v) for v in values.ravel()], dtype=object).reshape(values.shape)
        return self.extents.get(tensor.name)

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
        self.size_uses.append(SizeUse(node, where, position, extent, present, spare))

    def expect_size(self, node: gs.Node, where: int | str, position: int | None, dim: Dim) -> None:
        """Record that an integer of a node is the size of `dim`."""
        self.expect(node, where, position, Size(dim))

    def unify(self, a: Dim, b: Dim, node: gs.Node) -> None:
        """Make two axes keep the same indices because of `node`."""
        unify(a, b, label(node))

    def freeze(self, dim: Dim, node: gs.Node, does: str) -> None:
        """Freeze an axis: `does` says what the node does to it ('normalises over this axis')."""
        freeze(dim, f"{label(node)} {does}")

    def normalise(self, node: gs.Node, axes: Mapping[int, Dim], what: str | None = None) -> None:
        """Note that a node takes statistics over `axes` of its first input: they shrink only where the user asks."""
        if self.prune_normalised:
            self.statistics.append(Statistic(node, tuple(axes.items())))
            return
        for dim in axes.values():
            freeze(dim, f"{what or label(node)} normalises over this axis; --prune-normalised lets it shrink")

    def made(self, node: gs.Node, size: int, *, dynamic: bool = False) -> Dim:
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

    def is_constant(self, tensor: Any) -> bool:
        """Whether a tensor is a stored value that the caller of the model cannot replace."""
        return isinstance(tensor, gs.Constant) and tensor.name not in self.overridable

    def _carry(self, node: gs.Node, index: int, tensor: gs.Constant) -> tuple[Dim, ...]:
        key = (id(node), index)
        if key not in self.private:
            dims = tuple(fresh(int(n)) for n in tensor.shape)
            self.private[key] = (node, index, dims)
            self.use("carrier", node, index, tensor, list(enumerate(dims)))
        return self.private[key][2]

    @staticmethod
    def _literal(node: gs.Node, value: Extent) -> int:
        if not isinstance(value, int):
            raise NotUnderstood(f"{label(node)} takes sizes that are computed from data")
        return value
