"""Move nodes back into the branches of Ifs that need them alone: the inverse of `HoistBranches`."""

from __future__ import annotations

from collections.abc import Mapping

import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import is_sorted
from onnx_subprune.structure import BRANCHES, DEFAULT_DOMAINS, Place, branch_of, handed_out, places_of

__all__ = ["SinkBranches"]


class SinkBranches(Pass):
    """Sink the nodes that were hoisted, and new ones that one branch alone needs.

    Args:
        origins: where tensors were made before (`HoistBranches.origins`).

    Attributes:
        shared: names of the constants that nodes of several places read.

    """

    def __init__(self, origins: Mapping[str, Place]) -> None:
        self._origins = origins
        self.shared: frozenset[str] = frozenset()

    def requires(self, graph: gs.Graph) -> str | None:
        """The nodes stand in topological order, and keep it within every branch."""
        return None if is_sorted(graph) else "the nodes are not in topological order; sort them first"

    def run(self, graph: gs.Graph) -> bool:
        """Give every node to its branch."""
        places = places_of(graph, self._origins)
        self.shared = _shared(graph, places)
        by_place: dict[Place, list[gs.Node]] = {}
        for node in graph.nodes:
            by_place.setdefault(places[id(node)], []).append(node)
        for node in list(graph.nodes):
            if node.op == "If" and node.domain in DEFAULT_DOMAINS:
                for branch in BRANCHES:
                    place = (*places[id(node)], branch_of(node, branch))
                    _fill(node.attrs[branch], by_place.get(place, []))
        modified = set(by_place) != {()}
        graph.nodes = by_place.get((), [])
        return modified


def _shared(graph: gs.Graph, places: Mapping[int, Place]) -> frozenset[str]:
    readers: dict[str, set[Place]] = {}
    for node in graph.nodes:
        for tensor in node.inputs:
            if isinstance(tensor, gs.Constant):
                readers.setdefault(tensor.name, set()).add(places[id(node)])
    return frozenset(name for name, where in readers.items() if len(where) > 1)


def _fill(body: gs.Graph, nodes: list[gs.Node]) -> None:
    """Put nodes into a body; what they make it hands out itself, where it did so by an Identity."""
    sources = handed_out(body)
    if not nodes or sources is None:
        return
    made = {id(tensor) for node in nodes for tensor in node.outputs}
    outputs: list[gs.Tensor] = []
    tail: list[gs.Node] = []
    for identity, source in zip(_makers(body), sources, strict=True):
        direct = id(source) in made and all(source is not output for output in outputs)
        outputs.append(source if direct else identity.outputs[0])
        if direct:
            identity.inputs.clear()
            identity.outputs.clear()
        else:
            tail.append(identity)
    body.nodes = [*nodes, *tail]
    body.outputs = outputs


def _makers(body: gs.Graph) -> list[gs.Node]:
    """Return the node that makes each output."""
    return [output.inputs[0] for output in body.outputs]
