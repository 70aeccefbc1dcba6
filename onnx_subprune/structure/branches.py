"""Whole branches: the rest of a graph when groups lose all their units.

A tensor is *empty* when one of its axes has no entry left. A Conv, Gemm or MatMul that contracts an empty axis gives
its bias at every position: it is *cut*, and a constant takes its place that has one entry on every axis but that of its
outputs. Such a tensor is *short*: it means what the graph says only where it is broadcast to the full shape again. A
Concat leaves its empty pieces out. What nobody reads any more is gone.

That is sound where no node that is left reads an empty tensor in another way (zero query channels would make uniform
attention of all scores), or counts what is gone (an attention whose keys are remembered, without heads), and where
every short tensor is broadcast before its shape counts.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Container, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import onnx_graphsurgeon as gs

from onnx_subprune.errors import InternalError
from onnx_subprune.structure.axes import Atom, Dim, Keeps, Size
from onnx_subprune.structure.branch_constants import Flags, is_one, shorten
from onnx_subprune.structure.context import NotUnderstood
from onnx_subprune.structure.normalisations import Normalisation
from onnx_subprune.structure.reachability import Reachability
from onnx_subprune.structure.records import DEFAULT_DOMAINS, Consumer, Records, captured, label

__all__ = ["Branches", "Removal", "emptied"]

_CUT = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BIASED = ("Conv", "ConvTranspose", "Gemm")
_Short: TypeAlias = dict[str, Flags]


@dataclass(frozen=True, eq=False)
class Removal:
    """What removing all units of some groups does to the graph.

    Attributes:
        gone: the Atoms that lose all their units.
        reason: why it cannot be done, or None; the rest means nothing where there is a reason.
        cut: the linear maps that a constant takes the place of, in graph order.
        empty: tensors without entries.
        short: tensors that are left with one entry on the axes flagged True.
        live: ids of the nodes that the outputs still need, the cut ones included.

    """

    gone: frozenset[Atom]
    reason: str | None
    cut: tuple[Consumer, ...] = ()
    empty: frozenset[str] = frozenset()
    short: Mapping[str, Flags] = field(default_factory=dict)
    live: frozenset[int] = frozenset()


class Branches:
    """The graph as removals see it; every answer is worked out once.

    Args:
        graph: as its rules saw it, its nodes in topological order; it is to be left alone until `close`.
        records: what the rules learnt.

    """

    def __init__(self, graph: gs.Graph, records: Records) -> None:
        self._graph = graph
        self._records = records
        self._removals: dict[frozenset[Atom], Removal] = {}
        self._removable: dict[Atom, bool] = {}
        self._closed = False

    def removal(self, gone: Collection[Atom]) -> Removal:
        """Return what happens when these Atoms lose all their units.

        Raises:
            InternalError: it was not asked for before the graph was edited.

        """
        key = frozenset(gone)
        if key not in self._removals:
            self._check_open()
            self._removals[key] = self._removal(key)
        return self._removals[key]

    def is_removable(self, atom: Atom) -> bool:
        """Whether an Atom may lose all its units: whether nothing is against its removal alone.

        The work goes with the nodes that change, so that this can be asked of every group of a large graph.

        Raises:
            InternalError: it was not asked for before the graph was edited.

        """
        removal = self._removals.get(frozenset((atom,)))
        if removal is not None:
            return removal.reason is None
        if atom not in self._removable:
            self._check_open()
            self._removable[atom] = self._is_removable(atom)
        return self._removable[atom]

    def close(self) -> None:
        """Take no new questions: the graph is about to be edited."""
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise InternalError("expected a question on branches before the graph is edited; please report this")

    def _removal(self, gone: frozenset[Atom]) -> Removal:
        change = self._change(gone)
        needed = self._reachability.needed(change.cut, change.dropped)
        short: _Short = {}
        try:
            self._check_statistics(gone, needed)
            for place in sorted(needed):
                self._visit(place, change, short)
            self._check_outputs(change, short)
        except NotUnderstood as refusal:
            return Removal(gone, str(refusal))
        cut = tuple(consumer for place, consumer in change.cut.items() if place in needed)
        live = frozenset(id(self._graph.nodes[place]) for place in needed)
        return Removal(gone, None, cut, change.empty, short, live)

    def _is_removable(self, atom: Atom) -> bool:
        """Look at the nodes that read an empty or a short tensor, and are needed still: only they can be against it."""
        gone = frozenset((atom,))
        change = self._change(gone)
        outputs = [tensor.name for tensor in self._graph.outputs]
        if not change.empty.isdisjoint(outputs) or self._reachability.settles(change.cut, change.dropped):
            return False
        unneeded = self._reachability.unneeded(change.cut, change.dropped)
        short: _Short = {}
        pending = [*change.cut, *change.uncounted]
        pending += [place for name in change.empty for place in self._reachability.readers.get(name, ())]
        heapq.heapify(pending)
        done = -1
        try:
            self._check_statistics(gone, _Needed(self._reachability, unneeded))
            while pending:
                place = heapq.heappop(pending)
                if place == done or place in unneeded or not self._reachability.is_needed(place):
                    continue
                done = place
                for name in self._visit(place, change, short):
                    for reader in self._reachability.readers.get(name, ()):
                        heapq.heappush(pending, reader)
        except NotUnderstood:
            return False
        return short.keys().isdisjoint(outputs)

    def _change(self, gone: frozenset[Atom]) -> _Change:
        """Return which tensors are empty then, and which nodes read nothing, or less, for it."""
        touched = {name for atom in gone for name in self._tensors_of.get(atom, ())}
        empty = frozenset(name for name in touched if any(_is_empty(dim, gone) for dim in self._records.axes[name]))
        candidates = sorted({index for atom in gone for index in self._consumers_of.get(atom, ())})
        consumers = (self._records.consumers[index] for index in candidates)
        cut = {self._places[id(c.node)]: c for c in consumers if self._is_cut(c, gone, empty)}
        readers = {place for name in empty for place in self._reachability.readers.get(name, ())}
        dropped = {place: empty for place in readers if self._graph.nodes[place].op == "Concat"}
        counts = {count for atom in gone for count in self._counts.get(atom, ())}
        return _Change(empty, cut, dropped, {place: name for place, name, dim in counts if _is_empty(dim, gone)})

    def _is_cut(self, consumer: Consumer, gone: frozenset[Atom], empty: frozenset[str]) -> bool:
        node = consumer.node
        emptied = _is_empty(consumer.features, gone) and node.outputs[0].name not in empty
        return emptied and _is_plain(consumer) and self._has_known_bias(node)

    def _has_known_bias(self, node: gs.Node) -> bool:
        biased = node.op in _BIASED and self._records.has(node, 2)
        return not biased or self._records.is_constant(node.inputs[2])

    def _check_statistics(self, gone: frozenset[Atom], needed: Container[int]) -> None:
        for normalisation in self._normalisations_of(gone):
            if self._places[id(normalisation.node)] in needed and _is_empty(normalisation.dim, gone):
                raise NotUnderstood(f"{label(normalisation.node)} takes statistics over it")

    def _normalisations_of(self, gone: frozenset[Atom]) -> list[Normalisation]:
        indices = sorted({index for atom in gone for index in self._normalised.get(atom, ())})
        return [self._records.normalisations[index] for index in indices]

    def _check_outputs(self, change: _Change, short: _Short) -> None:
        """Refuse where an output of the graph is left without the inputs: of one sample, none need be short for it."""
        settled = self._varying - self._reachability.varying(change.cut, change.dropped)
        for tensor in self._graph.outputs:
            if tensor.name in short or tensor.name in change.empty or tensor.name in settled:
                raise NotUnderstood(f"nothing of graph output '{tensor.name}' would depend on the inputs")

    def _visit(self, place: int, change: _Change, short: _Short) -> list[str]:
        """Note which outputs of a node are short, and return them; NotUnderstood where it cannot do without entries."""
        node, consumer = self._graph.nodes[place], change.cut.get(place)
        if consumer is not None:
            output = node.outputs[0].name
            axes = self._records.axes[output]
            channels = _output_axis(consumer, len(axes))
            short[output] = tuple(i != channels and not is_one(dim) for i, dim in enumerate(axes))
            return [output]
        if place in change.uncounted:
            raise NotUnderstood(f"{label(node)} would be left with {change.uncounted[place]} of 0")
        names = self._reads[place]
        if place in change.dropped:
            names = [name for name in names if name not in change.empty]
        bare = next((name for name in names if name in change.empty), None)
        if bare is not None:
            raise NotUnderstood(f"{label(node)} needs an entry of '{bare}'")
        if not any(name in short for name in names):
            return []
        shortened = {tensor.name: flags for tensor, flags in shorten(node, short, self._records) if any(flags)}
        short.update(shortened)
        return list(shortened)

    @cached_property
    def _tensors_of(self) -> dict[Atom, set[str]]:
        tensors: dict[Atom, set[str]] = {}
        for name, axes in self._records.axes.items():
            for dim in axes:
                for atom in dim.atoms():
                    tensors.setdefault(atom, set()).add(name)
        return tensors

    @cached_property
    def _consumers_of(self) -> dict[Atom, list[int]]:
        return _indices([consumer.features for consumer in self._records.consumers])

    @cached_property
    def _normalised(self) -> dict[Atom, list[int]]:
        return _indices([normalisation.dim for normalisation in self._records.normalisations])

    @cached_property
    def _counts(self) -> dict[Atom, list[tuple[int, str, Dim]]]:
        """The attributes of nodes that count units, by the Atoms of what they count."""
        counts: dict[Atom, list[tuple[int, str, Dim]]] = {}
        for use in self._records.size_uses:
            if isinstance(use.where, str) and use.position is None and isinstance(use.expected, Size):
                for atom in dict.fromkeys(use.expected.dim.atoms()):
                    counts.setdefault(atom, []).append((self._places[id(use.node)], use.where, use.expected.dim))
        return counts

    @cached_property
    def _places(self) -> dict[int, int]:
        return {id(node): place for place, node in enumerate(self._graph.nodes)}

    @cached_property
    def _reads(self) -> list[list[str]]:
        return [
            [tensor.name for tensor in (*node.inputs, *captured(node)) if tensor.name] for node in self._graph.nodes
        ]

    @cached_property
    def _reachability(self) -> Reachability:
        makes = [[tensor.name for tensor in node.outputs if tensor.name] for node in self._graph.nodes]
        sources = {tensor.name for tensor in self._graph.inputs} | set(self._records.overridable)
        return Reachability(self._reads, makes, sources, [tensor.name for tensor in self._graph.outputs])

    @cached_property
    def _varying(self) -> set[str]:
        return self._reachability.varying()


@dataclass(frozen=True, eq=False)
class _Change:
    """What removing units does at first.

    Tensors are `empty`. By place, nodes are `cut`, reads are `dropped`, and an attribute has nothing to count any more.
    """

    empty: frozenset[str]
    cut: Mapping[int, Consumer]
    dropped: Mapping[int, frozenset[str]]
    uncounted: Mapping[int, str]


@dataclass(frozen=True, eq=False)
class _Needed:
    """The nodes that are needed in the whole graph and are not among the `unneeded`."""

    whole: Reachability
    unneeded: Collection[int]

    def __contains__(self, place: object) -> bool:
        return isinstance(place, int) and self.whole.is_needed(place) and place not in self.unneeded


def _indices(dims: Sequence[Dim]) -> dict[Atom, list[int]]:
    """Map Atoms to the places of the Dims that they are part of."""
    indices: dict[Atom, list[int]] = {}
    for index, dim in enumerate(dims):
        for atom in dict.fromkeys(dim.atoms()):
            indices.setdefault(atom, []).append(index)
    return indices


def emptied(keeps: Keeps) -> frozenset[Atom]:
    """Return the Atoms that lose all their units.

    Args:
        keeps: for each Atom that loses units, bool [size].

    >>> import numpy as np
    >>> from onnx_subprune.structure.axes import fresh
    >>> gone, thinned = (fresh(2).factors[0] for _ in range(2))
    >>> emptied({gone: np.zeros(2, bool), thinned: np.array([True, False])}) == {gone}
    True

    """
    return frozenset(atom for atom, mask in keeps.items() if not mask.any())


def _is_plain(consumer: Consumer) -> bool:
    """Fused operators do more than the map, and the matrices of a stack write on several axes."""
    node = consumer.node
    placed = consumer.index == 1 or node.op == "MatMul"
    return node.op in _CUT and node.domain in DEFAULT_DOMAINS and placed and not consumer.stack


def _is_empty(dim: Dim, gone: frozenset[Atom]) -> bool:
    return any(
        factor in gone if isinstance(factor, Atom) else all(_is_empty(part, gone) for part in factor.parts)
        for factor in dim.resolve().factors
    )


def _output_axis(consumer: Consumer, rank: int) -> int:
    """Return the axis of the node's output that holds the outputs of the map."""
    if consumer.node.op != "MatMul":
        return 1
    return rank - 1 if consumer.index == 1 else rank - 2
