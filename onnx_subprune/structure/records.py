"""What inference learns about a graph: records that point into it, and the axes of all its tensors.

Records say what a node does with an axis; they name axes by their Dims, and nodes and constants as they stand in the
graph. `Records` holds all that was learnt about one graph: rules fill it through their `Context`, and all that comes
after inference reads it. Constants are read by whoever holds the model: no values are loaded here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeGuard

import numpy as np
import onnx_graphsurgeon as gs
from onnx.helper import tensor_dtype_to_np_dtype

from onnx_subprune.structure.axes import ONE, Dim, Extent, fresh
from onnx_subprune.structure.dtypes import is_float
from onnx_subprune.structure.normalisations import Normalisation, Statistic
from onnx_subprune.structure.rule_errors import RuleError
from onnx_subprune.structure.weight_layout import PASSED_THROUGH, Link, contracted_axis, follow, unfused

__all__ = [
    "DEFAULT_DOMAINS",
    "PASSED_THROUGH",
    "RECURRENT",
    "RECURRENT_STATES",
    "Axes",
    "Consumer",
    "Contraction",
    "Default",
    "IndexUse",
    "MacTerm",
    "ReadValues",
    "Record",
    "Records",
    "Role",
    "SizeUse",
    "Squeezed",
    "Use",
    "Weight",
    "captured",
    "label",
]

Axes: TypeAlias = tuple[Dim, ...]
Role = Literal["producer", "carrier", "consumer"]
ReadValues: TypeAlias = Callable[[gs.Constant], np.ndarray]
"""Returns the values of a constant in its stored layout, wherever they lie (`onnx_subprune.model.constant_values`)."""

DEFAULT_DOMAINS = (None, "", "ai.onnx")
RECURRENT = ("LSTM", "GRU", "RNN")
# Their inputs that hold the first states: hidden, and of an LSTM the cell's.
RECURRENT_STATES = (5, 6)


def label(node: gs.Node) -> str:
    """Return how a node is named to the user: operator and name."""
    return f"{node.op} '{node.name}'"


def captured(node: gs.Node) -> Iterator[gs.Tensor]:
    """Yield the tensors that a node's subgraphs read."""
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            for inner in value.nodes:
                yield from inner.inputs
                yield from captured(inner)
            yield from value.outputs


@dataclass(frozen=True, eq=False)
class Weight:
    """A stored constant as its node sees it: transposed by `perm` and cast to `dtype` on the way.

    Attributes:
        constant: as it is stored.
        perm: the stored axis at each position of the node's layout.
        dtype: that the node reads.

    """

    constant: gs.Constant
    perm: tuple[int, ...]
    dtype: np.dtype[Any]

    def view(self, read: ReadValues) -> np.ndarray:
        """Return the values in the layout that the node sees, in the stored dtype.

        Args:
            read: returns the stored values of a constant.

        """
        return read(self.constant).transpose(self.perm)

    def store(self, values: np.ndarray) -> np.ndarray:
        """Return values in the stored layout: the inverse of `view`.

        Args:
            values: in the layout that the node sees.

        """
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
        return unfused(self.node.op)

    @property
    def contracted(self) -> int:
        """The axis of the stored weight that is contracted."""
        return self.weight.perm[self.contracted_view]

    @property
    def contracted_view(self) -> int:
        """The axis of the weight, as the node sees it, that is contracted."""
        transposed = bool(self.node.attrs.get("transB" if self.index == 1 else "transA"))
        return contracted_axis(self.node.op, len(self.weight.perm), index=self.index, transposed=transposed)


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


Record: TypeAlias = (
    Use
    | Consumer
    | Contraction
    | SizeUse
    | Default
    | IndexUse
    | Squeezed
    | MacTerm
    | Statistic
    | Normalisation
    | RuleError
)


@dataclass
class Records:
    """All that was learnt about one graph.

    Attributes:
        opset: of ONNX, that the graph is written in.
        overridable: names of initializers that are graph inputs too: the caller may replace them.
        axes: of every activation by name, and of every overridable initializer that is read.
        extents: the integers that a tensor holds, by name, where they are known as expressions (object arrays).
        tied: stored weights by name with their axes, in the stored layout; the same for all their uses.
        own: constants whose axes belong to one use alone, by node and input: biases, factors for each channel.
        uses: the parts that axes of constants play, in graph order, as are all that follow.
        consumers: linear maps with a constant weight.
        contractions: products of two activations.
        size_uses: integers that have to equal a size.
        defaults: attributes that are not there and stand for a size.
        index_uses: literal positions of an axis.
        squeezed: nodes that drop all axes of one entry.
        mac_terms: multiply-accumulates.
        statistics: nodes that take statistics over axes that may shrink.
        normalisations: what these statistics are for.
        rule_errors: rules that failed; what their nodes touch is frozen.

    """

    opset: int
    overridable: Collection[str] = ()
    axes: dict[str, Axes] = field(default_factory=dict)
    extents: dict[str, np.ndarray] = field(default_factory=dict)
    tied: dict[str, tuple[gs.Constant, Axes]] = field(default_factory=dict)
    own: dict[tuple[int, int], tuple[gs.Node, int, Axes]] = field(default_factory=dict)
    uses: list[Use] = field(default_factory=list)
    consumers: list[Consumer] = field(default_factory=list)
    contractions: list[Contraction] = field(default_factory=list)
    size_uses: list[SizeUse] = field(default_factory=list)
    defaults: list[Default] = field(default_factory=list)
    index_uses: list[IndexUse] = field(default_factory=list)
    squeezed: list[Squeezed] = field(default_factory=list)
    mac_terms: list[MacTerm] = field(default_factory=list)
    statistics: list[Statistic] = field(default_factory=list)
    normalisations: list[Normalisation] = field(default_factory=list)
    rule_errors: list[RuleError] = field(default_factory=list)

    def add(self, *records: Record) -> None:
        """Enter records, given in graph order, each behind those of its kind."""
        for record in records:
            getattr(self, _FIELDS[type(record)]).append(record)

    def has(self, node: gs.Node, index: int) -> bool:
        """Whether the optional input `index` of a node is there: neither beyond the last nor empty."""
        return index < len(node.inputs) and not node.inputs[index].is_empty()

    def is_constant(self, tensor: gs.Tensor) -> TypeGuard[gs.Constant]:
        """Whether a tensor is a stored value that the caller of the model cannot replace."""
        return isinstance(tensor, gs.Constant) and tensor.name not in self.overridable

    def own_axes(self, node: gs.Node, index: int) -> Axes | None:
        """Return the axes of the constant at input `index` that are this use's own; None where they are not."""
        entry = self.own.get((id(node), index))
        return None if entry is None else entry[2]

    def give_own_axes(self, node: gs.Node, index: int, axes: Sequence[Dim]) -> None:
        """Enter the axes of a constant that a node alone reads with them, where a rule or a pass has put it there.

        Args:
            node: the only reader of the constant with these axes.
            index: of the input.
            axes: one for each axis of the constant, in its stored layout.

        """
        self.own[(id(node), index)] = (node, index, tuple(axes))

    def constant_axes(self, node: gs.Node, index: int) -> Axes | None:
        """Return the axes of the constant at input `index` of a node, in its stored layout; None for an activation."""
        tensor = node.inputs[index]
        if not isinstance(tensor, gs.Constant):
            return None
        own = self.own_axes(node, index)
        if own is not None or tensor.name not in self.tied:
            return own
        return self.tied[tensor.name][1]

    def give_axes_of(self, name: str, other: str) -> None:
        """Enter the activation `name`, which a pass has made, with the axes of another one that are known."""
        self.axes[name] = self.axes[other]

    def tie(self, constant: gs.Constant) -> Axes:
        """Return the axes of a stored weight, the same for all its uses; the first use makes them."""
        if constant.name not in self.tied:
            self.tied[constant.name] = (constant, tuple(fresh(int(n)) for n in constant.shape))
        return self.tied[constant.name][1]

    def extents_of(self, tensor: Any) -> np.ndarray | None:
        """Return the extents a tensor holds (object array), or None where it is not made of integers known so far."""
        if self.is_constant(tensor) and tensor.name not in self.extents:
            if tensor.dtype not in (np.int64, np.int32, np.bool_) or int(np.prod(tensor.shape)) > 1024:
                return None
            values = np.asarray(tensor.values)
            self.extents[tensor.name] = np.array([int(v) for v in values.ravel()], dtype=object).reshape(values.shape)
        return self.extents.get(tensor.name)

    def weight(self, node: gs.Node, index: int) -> tuple[Weight, tuple[Dim, ...]] | None:
        """Return the constant behind input `index` and its axes as the node sees them; None for an activation."""
        chain = follow(node.inputs[index], self.is_constant, _link_to)
        if chain is None:
            return None
        constant = chain.stored
        assert isinstance(constant, gs.Constant)
        dtypes = [np.dtype(constant.dtype), *(np.dtype(tensor_dtype_to_np_dtype(code)) for code in chain.dtypes)]
        if not all(is_float(dtype) for dtype in dtypes):
            return None
        dims, perm = self.tie(constant), chain.perm(len(constant.shape))
        return Weight(constant, perm, dtypes[-1]), tuple(dims[axis] for axis in perm)


def _link_to(tensor: gs.Tensor) -> Link[gs.Tensor] | None:
    """Return the node that makes a tensor of another one and only hands it on."""
    producer = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    if producer is None or producer.op not in PASSED_THROUGH or producer.domain not in DEFAULT_DOMAINS:
        return None
    return Link(producer.inputs[0], producer.op, producer.attrs.get("perm"), int(producer.attrs.get("to", 0)))


_FIELDS: dict[type, str] = {
    Use: "uses",
    Consumer: "consumers",
    Contraction: "contractions",
    SizeUse: "size_uses",
    Default: "defaults",
    IndexUse: "index_uses",
    Squeezed: "squeezed",
    MacTerm: "mac_terms",
    Statistic: "statistics",
    Normalisation: "normalisations",
    RuleError: "rule_errors",
}
