"""Whole branches: what is left of a graph when groups lose all their units.

A tensor is *empty* when one of its axes has no entry left. A Conv, Gemm or MatMul that contracts an empty axis gives
its bias at every position: it is *cut*, and a constant takes its place that has one entry on every axis but that of its
outputs. Such a tensor is *short*: it means what the graph says only where it is broadcast to the full shape again. A
Concat leaves its empty pieces out. What nobody reads any more is gone.

That is sound where no node that is left reads an empty tensor in another way (zero query channels would make uniform
attention of all scores), and where every short tensor is broadcast before its shape counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeAlias

import onnx_graphsurgeon as gs

from onnx_subprune.errors import InternalError
from onnx_subprune.structure.axes import Atom, Dim, Keeps
from onnx_subprune.structure.branch_constants import Flags, is_one, shorten
from onnx_subprune.structure.context import NotUnderstood
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
        graph: as its rules saw it; it is to be left alone until `close`.
        records: what the rules learnt.

    """

    def __init__(self, graph: gs.Graph, records: Records) -> None:
        self._graph = graph
        self._records = records
        self._known: dict[frozenset[Atom], Removal] = {}
        self._closed = False

    def removal(self, gone: Collection[Atom]) -> Removal:
        """Return what happens when these Atoms lose all their units.

        Raises:
            InternalError: it was not asked for before the graph was edited.

        """
        key = frozenset(gone)
        if key not in self._known:
            if self._closed:
                raise InternalError("expected a question on branches before the graph is edited; please report this")
            self._known[key] = self._removal(key)
        return self._known[key]

    def close(self) -> None:
        """Take no new questions: the graph is about to be edited."""
        self._closed = True

    def _removal(self, gone: frozenset[Atom]) -> Removal:
        empty = self._empty(gone)
        cut = {id(consumer.node): consumer for consumer in self._cut(gone, empty)}
        live = self._live(empty, cut)
        short: _Short = {}
        try:
            for one in self._records.normalisations:
                if id(one.node) in live and _is_empty(one.dim, gone):
                    raise NotUnderstood(f"{label(one.node)} takes statistics over it")
            for node in self._graph.nodes:
                if id(node) in live:
                    self._visit(node, cut.get(id(node)), empty, short)
            self._check_outputs(cut, empty, short)
        except NotUnderstood as refusal:
            return Removal(gone, str(refusal))
        return Removal(gone, None, tuple(c for i, c in cut.items() if i in live), empty, short, frozenset(live))

    def _empty(self, gone: frozenset[Atom]) -> frozenset[str]:
        touched = {name for atom in gone for name in self._tensors_of.get(atom, ())}
        return frozenset(name for name in touched if any(_is_empty(dim, gone) for dim in self._records.axes[name]))

    def _cut(self, gone: frozenset[Atom], empty: frozenset[str]) -> Iterator[Consumer]:
        for consumer in self._records.consumers:
            node = consumer.node
            left = _is_empty(consumer.features, gone) and node.outputs[0].name not in empty
            if left and _is_plain(consumer) and self._has_known_bias(node):
                yield consumer

    def _has_known_bias(self, node: gs.Node) -> bool:
        biased = node.op in _BIASED and self._records.has(node, 2)
        return not biased or self._records.is_constant(node.inputs[2])

    def _live(self, empty: frozenset[str], cut: Mapping[int, Consumer]) -> set[int]:
        """Return the nodes that the outputs need: a cut node needs nothing, a Concat nothing of its empty pieces."""
        live: set[int] = set()
        pending = [tensor.name for tensor in self._graph.outputs]
        while pending:
            node = self._producers.get(pending.pop())
            if node is not None and id(node) not in live:
                live.add(id(node))
                if id(node) not in cut:
                    pending.extend(self._reads(node, empty))
        return live

    def _check_outputs(self, cut: Mapping[int, Consumer], empty: frozenset[str], short: _Short) -> None:
        """Refuse where an output of the graph is left without the inputs: of one sample, none need be short for it."""
        settled = self._varying({}, frozenset()) - self._varying(cut, empty)
        for tensor in self._graph.outputs:
            if tensor.name in short or tensor.name in empty or tensor.name in settled:
                raise NotUnderstood(f"nothing of graph output '{tensor.name}' would depend on the inputs")

    def _varying(self, cut: Mapping[int, Consumer], empty: frozenset[str]) -> set[str]:
        """Return the tensors that depend on the inputs of the graph where constants take the place of cut nodes."""
        varying = {tensor.name for tensor in self._graph.inputs} | set(self._records.overridable)
        for node in self._graph.nodes:
            if id(node) not in cut and not varying.isdisjoint(self._reads(node, empty)):
                varying.update(tensor.name for tensor in node.outputs if tensor.name)
        return varying

    def _reads(self, node: gs.Node, empty: frozenset[str]) -> list[str]:
        names = self._inputs[id(node)]
        return [name for name in names if name not in empty] if node.op == "Concat" else names

    def _visit(self, node: gs.Node, cut: Consumer | None, empty: frozenset[str], short: _Short) -> None:
        if cut is not None:
            axes = self._records.axes[node.outputs[0].name]
            place = _output_axis(cut, len(axes))
            short[node.outputs[0].name] = tuple(i != place and not is_one(dim) for i, dim in enumerate(axes))
            return
        names = self._reads(node, empty)
        bare = next((name for name in names if name in empty), None)
        if bare is not None:
            raise NotUnderstood(f"{label(node)} needs an entry of '{bare}'")
        if any(name in short for name in names):
            for tensor, flags in shorten(node, short, self._records):
                if any(flags):
                    short[tensor.name] = flags

    @cached_property
    def _tensors_of(self) -> dict[Atom, set[str]]:
        found: dict[Atom, set[str]] = {}
        for name, axes in self._records.axes.items():
            for dim in axes:
                for atom in dim.atoms():
                    found.setdefault(atom, set()).add(name)
        return found

    @cached_property
    def _producers(self) -> dict[str, gs.Node]:
        return {tensor.name: node for node in self._graph.nodes for tensor in node.outputs if tensor.name}

    @cached_property
    def _inputs(self) -> dict[int, list[str]]:
        return {
            id(node): [tensor.name for tensor in (*node.inputs, *captured(node)) if tensor.name]
            for node in self._graph.nodes
        }


def emptied(keeps: Keeps) -> frozenset[Atom]:
    """Return the Atoms that lose all their units."""
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
