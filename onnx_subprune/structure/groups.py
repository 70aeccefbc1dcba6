"""Groups of units that live and die together, and what removing units changes in the graph.

A surviving Atom with at least one parameter that produces it is a group of `size` units. It knows its producers
(weights whose output axis holds it), carriers (biases, normalisation parameters, per-channel constants, depthwise
weights), consumers (weights that contract it) and contractions (products of two activations that sum over it).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import cached_property
from typing import TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Atom, Dim, Keeps, Products, fresh, keep_mask, unit_index
from onnx_subprune.structure.branch_places import Place, cost_places, dearest
from onnx_subprune.structure.branches import Branches, Removal
from onnx_subprune.structure.copying import GraphCopy, copied_records
from onnx_subprune.structure.dtypes import is_float
from onnx_subprune.structure.normalisations import Normalisation
from onnx_subprune.structure.records import Axes, Consumer, Contraction, Records, Use
from onnx_subprune.structure.rule_errors import RuleError

__all__ = ["Group", "Structure", "collect"]

_Readers: TypeAlias = tuple[Mapping[Atom, list[Consumer]], Mapping[Atom, list[Contraction]]]


@dataclass(frozen=True, eq=False)
class Group:
    """Units that must be removed together.

    Attributes:
        name: of the first node that produces it, and a number where another group has that name.
        atom: the index set of its units.
        producers: weights whose output axis holds it.
        carriers: biases, parameters of normalisations, constants for each channel and depthwise weights that hold it.
        consumers: linear maps that contract it.
        contractions: products of two activations that sum over it.
        reasons: why no unit may be removed; empty for a prunable group.
        macs: multiply-accumulates of all nodes that make or read it.
        branches: what happens when groups lose all their units.
        scopes: of the exported program that its nodes come from, for each producer and carrier that has any.

    """

    name: str
    atom: Atom
    producers: tuple[Use, ...]
    carriers: tuple[Use, ...]
    consumers: tuple[Consumer, ...]
    contractions: tuple[Contraction, ...]
    reasons: tuple[str, ...]
    macs: int
    branches: Branches = field(repr=False)
    scopes: tuple[tuple[str, ...], ...] = ()

    @property
    def size(self) -> int:
        """Number of units."""
        return self.atom.size

    @property
    def prunable(self) -> bool:
        """Whether units may be removed."""
        return not self.reasons

    @property
    def removable(self) -> bool:
        """Whether all units may be removed, and with them the branch that the group is part of."""
        return self.prunable and self.branches.is_removable(self.atom)

    @property
    def module(self) -> str | None:
        """The innermost module of the exported program that it comes from; None where the model does not say."""
        modules = self.scopes[0][:-1] if self.scopes else ()
        return modules[-1] if modules else None

    @property
    def entries(self) -> int:
        """Entries that one unit stands for where it is made or read: 1 for a channel, head_dim for a head."""
        axes = [(self.producers[0].dim, 1), *((c.features, c.blocks.size) for c in self.consumers)]
        return min(int((unit_index(dim, self.atom) == 0).sum()) // blocks for dim, blocks in axes)

    def matches(self, pattern: str) -> bool:
        """Whether a glob matches the group, or a node, weight or scope that produces or carries it.

        Args:
            pattern: as in `fnmatch`, with `*`, `?` and `[...]`; upper and lower case differ.

        """
        return any(fnmatchcase(name, pattern) for name in self._names())

    def on(self, copies: GraphCopy, branches: Branches) -> Group:
        """Return the same group of a copied graph; its Atom is the same.

        Args:
            copies: nodes and records of the copied graph by those of the original.
            branches: of the copied graph.

        """
        return replace(
            self,
            producers=tuple(copies.records(self.producers)),
            carriers=tuple(copies.records(self.carriers)),
            consumers=tuple(copies.records(self.consumers)),
            contractions=tuple(copies.records(self.contractions)),
            branches=branches,
        )

    def _names(self) -> Iterable[str]:
        yield self.name
        for use in (*self.producers, *self.carriers):
            yield use.node.name
            yield use.constant.name
        for scopes in self.scopes:
            yield from scopes


@dataclass(frozen=True, eq=False)
class Structure:
    """The axes of a graph and the groups found in it.

    Attributes:
        graph: that was analysed. It stays as it is: passes edit that of a `copy`.
        records: all that was learnt about the graph.
        groups: in graph order.
        branches: what happens when groups lose all their units.
        scopes: of the exported program that nodes come from, by the node's name, the outermost first.
        fixed_parameters: parameters that no node of the graph reads, such as those within bodies; they stay.
        origins: where tensors were made before branches were hoisted into the graph, by name; none where none were.

    """

    graph: gs.Graph
    records: Records
    groups: tuple[Group, ...]
    branches: Branches
    scopes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fixed_parameters: int = 0
    origins: Mapping[str, Place] = field(default_factory=dict)
    _parameters: dict[frozenset[int] | None, Products] = field(default_factory=dict, init=False, repr=False)

    def copy(self) -> Structure:
        """Return the same structure on a graph of its own, which passes may edit; this one and its graph stay whole.

        All that is computed from it, and its order, is as inference on the same graph would give it. The values of
        constants are shared, and so are Atoms: keep masks and widths of this structure are those of the copy.
        """
        copies = GraphCopy(self.graph)
        records = copied_records(self.records, copies)
        branches = Branches(copies.graph, records)
        groups = tuple(group.on(copies, branches) for group in self.groups)
        return Structure(copies.graph, records, groups, branches, self.scopes, self.fixed_parameters, self.origins)

    @property
    def prunable(self) -> tuple[Group, ...]:
        """Groups that may lose units, in graph order."""
        return tuple(group for group in self.groups if group.prunable)

    @property
    def frozen(self) -> tuple[Group, ...]:
        """Groups that may not, in graph order."""
        return tuple(group for group in self.groups if not group.prunable)

    @property
    def consumers(self) -> list[Consumer]:
        """All linear maps with a constant weight, in graph order."""
        return self.records.consumers

    @property
    def contractions(self) -> list[Contraction]:
        """All products of two activations, in graph order."""
        return self.records.contractions

    @property
    def rule_errors(self) -> tuple[RuleError, ...]:
        """Rules that failed: bugs of ours, which froze what their nodes touch, in graph order."""
        return tuple(self.records.rule_errors)

    @property
    def normalisations(self) -> list[Normalisation]:
        """Normalisations over a group which may lose units, whose statistics can be put right then, in graph order."""
        atoms = {group.atom for group in self.prunable}
        known = (normalisation for normalisation in self.records.normalisations if normalisation.unrestored is None)
        return [normalisation for normalisation in known if atoms & set(normalisation.dim.atoms())]

    @property
    def removable(self) -> tuple[Group, ...]:
        """Groups that may lose all their units, each by itself, in graph order."""
        return tuple(group for group in self.groups if group.removable)

    def removal(self, groups: Iterable[str]) -> Removal:
        """Return what happens when groups lose all their units.

        Args:
            groups: by name.

        """
        atoms = {group.name: group.atom for group in self.groups}
        return self.branches.removal([atoms[name] for name in groups])

    def needed(self, groups: Iterable[str]) -> dict[str, str]:
        """Return which groups cannot lose all their units together with the others, and why.

        Args:
            groups: by name; the earlier ones go.

        """
        names = list(groups)
        if self.removal(names).reason is None:
            return {}
        gone: list[str] = []
        reasons: dict[str, str] = {}
        for name in names:
            reason = self.removal([*gone, name]).reason
            if reason is None:
                gone.append(name)
            else:
                reasons[name] = reason
        return reasons

    def macs(self, counts: Mapping[Atom, int], removal: Removal | None = None) -> int:
        """Return the multiply-accumulates of the network, of every If those of the dearer branch.

        Args:
            counts: units that Atoms keep; an Atom without an entry stays whole.
            removal: leaves out the nodes that are gone with whole branches.

        """
        live = None if removal is None else removal.live
        if not self.places:
            return self.mac_products.value(counts, live)
        places = [self.places[id(term.node)] for term in self.records.mac_terms]
        return dearest(self.mac_products.values(counts, live).tolist(), places)

    def dearest(self, costs: Mapping[str, int]) -> int:
        """Return the sum of what nodes cost, of every If that of the dearer branch.

        Args:
            costs: by the name of a node's first output.

        """
        if not self.places:
            return sum(costs.values())
        nodes = [node for node in self.graph.nodes if node.outputs]
        return dearest(
            [costs.get(node.outputs[0].name, 0) for node in nodes], [self.places[id(node)] for node in nodes]
        )

    def macs_touched(self, counts: Mapping[Atom, int], removal: Removal | None = None) -> dict[Atom, int]:
        """Return for every Atom the multiply-accumulates of the nodes that make or read it, of an If as `macs` does.

        Args:
            counts: units that Atoms keep; an Atom without an entry stays whole.
            removal: leaves out the nodes that are gone with whole branches.

        """
        live = None if removal is None else removal.live
        return _macs_touched(self.records, lambda product: product.value(counts, live), self.places)

    def parameters(self, counts: Mapping[Atom, int], removal: Removal | None = None) -> int:
        """Return the number of floating-point parameters of the network.

        Args:
            counts: units that Atoms keep; an Atom without an entry stays whole.
            removal: leaves out what only nodes read that are gone with whole branches.

        """
        live = None if removal is None else removal.live
        if live not in self._parameters:
            self._parameters[live] = Products(("", axes) for axes in self._parameter_axes(removal))
        return self._parameters[live].value(counts) + self.fixed_parameters

    @cached_property
    def places(self) -> dict[int, Place]:
        """The branches that nodes cost something in; empty where all of them stand in the main graph."""
        return cost_places(self.graph, self.origins)

    @cached_property
    def mac_products(self) -> Products:
        """The multiply-accumulates of all nodes, those of both branches of an If."""
        return Products((id(term.node), term.factors) for term in self.records.mac_terms)

    def constant_axes(self, node: gs.Node, index: int) -> Axes | None:
        """Return the axes of the constant at an input of a node, in its stored layout; None for an activation.

        Args:
            node: of the graph.
            index: of the input.

        """
        return self.records.constant_axes(node, index)

    def masks(self, axes: Iterable[Dim], keeps: Keeps) -> list[np.ndarray]:
        """Return the keep mask of every axis, bool [size].

        Args:
            axes: of a tensor.
            keeps: for Atoms that lose units, bool [size].

        """
        return [keep_mask(dim, keeps) for dim in axes]

    def _parameter_axes(self, removal: Removal | None) -> list[tuple[Dim, ...]]:
        parameters: dict[str, tuple[Dim, ...]] = {}
        for node in self.graph.nodes:
            if removal is not None and id(node) not in removal.live:
                continue
            for index, tensor in enumerate(node.inputs):
                if isinstance(tensor, gs.Constant) and len(tensor.shape) and _is_float(tensor):
                    axes = self.constant_axes(node, index) or tuple(fresh(int(n)) for n in tensor.shape)
                    parameters.setdefault(tensor.name, axes)
        return list(parameters.values())


def collect(graph: gs.Graph, records: Records, scopes: Mapping[str, tuple[str, ...]]) -> Structure:
    """Gather the groups of a graph whose rules have run."""
    roles: dict[Atom, dict[str, list[Use]]] = {}
    for use in records.uses:
        for atom in (use.dim if use.part is None else use.part).atoms():
            roles.setdefault(atom, {"producer": [], "carrier": [], "consumer": []})[use.role].append(use)
    readers = (_readers(records), _contracted(records))
    cost = _macs_touched(records, lambda product: product.value({}), {})
    name = _namer()
    branches = Branches(graph, records)
    groups = [
        _group(name(uses["producer"][0].node.name), atom, uses, readers, macs=cost.get(atom, 0), branches=branches)
        for atom, uses in roles.items()
        if uses["producer"] and not atom.dynamic
    ]
    return Structure(graph, records, tuple(_with_scopes(group, scopes) for group in groups), branches, scopes)


def _with_scopes(group: Group, scopes: Mapping[str, tuple[str, ...]]) -> Group:
    names = dict.fromkeys(use.node.name for use in (*group.producers, *group.carriers))
    return replace(group, scopes=tuple(scopes[name] for name in names if name in scopes))


def _group(
    name: str, atom: Atom, uses: dict[str, list[Use]], readers: _Readers, *, macs: int, branches: Branches
) -> Group:
    consumers, contractions = tuple(readers[0].get(atom, ())), tuple(readers[1].get(atom, ()))
    reasons = tuple(atom.reasons)
    if not reasons and not consumers and not contractions:
        reasons = ("no weight downstream contracts it",)
    producers, carriers = tuple(uses["producer"]), tuple(uses["carrier"])
    return Group(name, atom, producers, carriers, consumers, contractions, reasons, macs, branches)


def _contracted(records: Records) -> dict[Atom, list[Contraction]]:
    pairs: dict[Atom, list[Contraction]] = {}
    for contraction in records.contractions:
        passed = set(contraction.blocks.atoms())
        for atom in dict.fromkeys(atom for atom in contraction.features.atoms() if atom not in passed):
            pairs.setdefault(atom, []).append(contraction)
    return pairs


def _readers(records: Records) -> dict[Atom, list[Consumer]]:
    """Map Atoms to the consumers that contract them; a grouped Conv only passes the index of its groups on."""
    readers: dict[Atom, list[Consumer]] = {}
    for consumer in records.consumers:
        passed = set(consumer.blocks.atoms())
        for atom in dict.fromkeys(consumer.features.atoms()):
            if atom not in passed:
                readers.setdefault(atom, []).append(consumer)
    return readers


def _macs_touched(records: Records, value: Callable[[Products], int], places: Mapping[int, Place]) -> dict[Atom, int]:
    costs: dict[Atom, list[tuple[int, Place]]] = {}
    for term in records.mac_terms:
        macs = value(Products([(id(term.node), term.factors)]))
        for atom in {atom for dim in term.factors for atom in dim.atoms()}:
            costs.setdefault(atom, []).append((macs, places.get(id(term.node), ())))
    return {atom: dearest(*zip(*spent, strict=True)) for atom, spent in costs.items()}


def _namer() -> Callable[[str], str]:
    seen: dict[str, int] = {}

    def name(base: str) -> str:
        seen[base] = seen.get(base, 0) + 1
        return base if seen[base] == 1 else f"{base}#{seen[base]}"

    return name


def _is_float(tensor: gs.Constant) -> bool:
    return tensor.dtype is not None and is_float(tensor.dtype)
