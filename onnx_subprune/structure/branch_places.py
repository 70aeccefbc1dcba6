"""Nodes that run in one branch of an If alone, where the branches have been hoisted into the main graph.

A pass (`passes.HoistBranches`) moves the nodes of both branches in front of their If, whose bodies then only hand out
tensors of the main graph. So structure, calibration and recovery see one graph; another pass moves the nodes back. A
node belongs to a branch where nothing but that branch needs it, and where it did not stand in the main graph before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TypeAlias

import onnx_graphsurgeon as gs

from onnx_subprune.structure.records import DEFAULT_DOMAINS, captured

__all__ = [
    "BRANCHES",
    "Place",
    "branch_of",
    "cost_places",
    "dearest",
    "handed_out",
    "is_hoisted",
    "places_of",
    "unhoisted",
]

Place: TypeAlias = tuple[tuple[str, str], ...]
"""The branches that a node runs in, the outermost first: the first output of an If, and the name of the branch."""

BRANCHES = ("then_branch", "else_branch")


def handed_out(body: gs.Graph | None) -> list[gs.Tensor] | None:
    """Return the tensors of outer graphs that a body hands out, one for each output; None where it does more.

    Args:
        body: of an If; None where it has none.

    """
    if body is None:
        return None
    makers = {id(node.outputs[0]): node for node in body.nodes if node.op == "Identity" and len(node.outputs) == 1}
    if len(makers) < len(body.nodes) or not all(id(output) in makers for output in body.outputs):
        return None
    sources = [makers[id(output)].inputs[0] for output in body.outputs]
    return None if any(id(source) in makers for source in sources) else sources


def is_hoisted(node: gs.Node) -> bool:
    """Whether a node is an If whose branches only hand out tensors of the main graph.

    Args:
        node: of the main graph.

    """
    is_if = node.op == "If" and node.domain in DEFAULT_DOMAINS
    return is_if and all(handed_out(node.attrs.get(branch)) is not None for branch in BRANCHES)


def unhoisted(node: gs.Node) -> Place:
    """Return the branch of an If that is not hoisted, where the other is; an empty place for all other nodes.

    Args:
        node: of the main graph.

    """
    if node.op != "If" or node.domain not in DEFAULT_DOMAINS:
        return ()
    left = [branch for branch in BRANCHES if handed_out(node.attrs.get(branch)) is None]
    return (branch_of(node, left[0]),) if len(left) == 1 else ()


def places_of(graph: gs.Graph, origins: Mapping[str, Place]) -> dict[int, Place]:
    """Return where every node of a graph runs, by its id; an empty place is the main graph.

    Args:
        graph: whose branches are hoisted, its nodes in topological order.
        origins: where tensors were made before, by name; what was made later is made where it is needed.

    """
    needed: dict[int, Place] = {}
    places: dict[int, Place] = {}
    for tensor in graph.outputs:
        needed[id(tensor)] = ()
    for node in reversed(graph.nodes):
        wanted = [needed[id(tensor)] for tensor in node.outputs if id(tensor) in needed]
        wanted += [origins[tensor.name] for tensor in node.outputs if tensor.name in origins]
        places[id(node)] = _common(wanted)
        for tensor, place in _reads(node, places[id(node)]):
            needed[id(tensor)] = _common([needed[id(tensor)], place]) if id(tensor) in needed else place
    return places


def cost_places(graph: gs.Graph, origins: Mapping[str, Place]) -> dict[int, Place]:
    """Return in which branches what a node costs is spent, by the node's id.

    What an If itself costs is that of a branch which was not hoisted.

    Args:
        graph: whose branches are hoisted, its nodes in topological order.
        origins: where tensors were made before, by name; empty where nothing was hoisted.

    """
    places = places_of(graph, origins) if origins else {}
    return {id(node): (*places[id(node)], *unhoisted(node)) for node in graph.nodes} if places else {}


def branch_of(node: gs.Node, branch: str) -> tuple[str, str]:
    """Return the step of a `Place` into a branch of an If.

    Args:
        node: the If.
        branch: one of `BRANCHES`.

    """
    return next(str(tensor.name) for tensor in node.outputs if tensor.name), branch


def dearest(costs: Sequence[int], places: Sequence[Place]) -> int:
    """Return a sum in which only the dearer branch of every If counts.

    Args:
        costs: of nodes.
        places: where each of them runs.

    >>> then, other = (("if", "then_branch"),), (("if", "else_branch"),)
    >>> dearest([1, 10, 20, 5], [(), then, other, then])
    21

    """
    totals: dict[Place, int] = {(): 0}
    for cost, place in zip(costs, places, strict=True):
        for depth in range(1, len(place) + 1):
            totals.setdefault(place[:depth], 0)
        totals[place] += cost
    for depth in range(max(map(len, totals)), 0, -1):
        branches: dict[tuple[Place, str], list[int]] = {}
        for place, total in totals.items():
            if len(place) == depth:
                branches.setdefault((place[:-1], place[-1][0]), []).append(total)
        for (outer, _), both in branches.items():
            totals[outer] += max(both)
    return totals[()]


def _reads(node: gs.Node, place: Place) -> Iterator[tuple[gs.Tensor, Place]]:
    """Yield the tensors that a node reads, each with where it is needed."""
    yield from ((tensor, place) for tensor in node.inputs)
    if node.op != "If" or node.domain not in DEFAULT_DOMAINS:
        yield from ((tensor, place) for tensor in captured(node))
        return
    for branch in BRANCHES:
        body = node.attrs[branch]
        sources = handed_out(body)
        inner = place if sources is None else (*place, branch_of(node, branch))
        yield from (
            (tensor, inner) for inner_node in body.nodes for tensor in (*inner_node.inputs, *captured(inner_node))
        )


def _common(places: Collection[Place]) -> Place:
    """Return the branches that places have in common, from the outermost on."""
    common: list[tuple[str, str]] = []
    for steps in zip(*places, strict=False):
        if len(set(steps)) > 1:
            break
        common.append(steps[0])
    return tuple(common)
