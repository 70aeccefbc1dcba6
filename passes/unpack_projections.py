"""Cut stacked projections where they are still flat, so that their parts can keep different channels.

    [.., 3*h*d] -> Reshape [.., 3, h, d] -> Transpose -> 3 x Gather

becomes a Split of the flat axis and, for each part, the same Reshape and Transpose without the stacked axis:

    [.., 3*h*d] -> Split -> 3 x ([.., h*d] -> Reshape [.., h, d] -> Transpose)

Where the stacked axis lies within the flat one (h x 3 x d, of BLOOM), the Reshape merges it with the axis behind it and
the Split follows: [.., h, 3*d] -> Split -> 3 x [.., h, d]. The values are the same, bit for bit, and as many are moved.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.packing import Packing, packings
from onnx_subprune.passes.wiring import drop_nodes, is_sorted, place_of, read_values, replace_uses
from onnx_subprune.structure import Structure

__all__ = ["UnpackProjections"]

_LISTS_ARE_INPUTS = 13
_LISTS = {"Split": "split", "Squeeze": "axes", "Unsqueeze": "axes"}


class UnpackProjections(Pass):
    """Split projections whose parts (queries, keys, values) are picked singly after a Reshape.

    Args:
        structure: of the very graph that the pass runs on; it does not describe the graph any more afterwards.

    """

    def __init__(self, structure: Structure) -> None:
        self._structure = structure

    def requires(self, graph: gs.Graph) -> str | None:
        """The structure is of this graph, whose nodes are sorted."""
        if graph is not self._structure.graph:
            return "the structure was inferred from another graph"
        return None if is_sorted(graph) else "the nodes are not in topological order; sort them first"

    def ensures(self, graph: gs.Graph) -> str | None:
        """The nodes are sorted."""
        return None if is_sorted(graph) else "the nodes are not in topological order"

    def run(self, graph: gs.Graph) -> bool:
        """Rewrite one stacked projection after the other."""
        stacked = packings(self._structure)
        maker = _Maker(graph, self._structure.records.extents)
        for packing in stacked:
            maker.begin(packing.reshape)
            gone = _rewrite(packing, maker)
            maker.insert(before=packing.reshape)
            drop_nodes(graph, gone)
        return bool(stacked)


class _Maker:
    """Makes nodes with names of their own, and puts them into a graph; `integers` holds those known by tensor."""

    def __init__(self, graph: gs.Graph, integers: Mapping[str, np.ndarray]) -> None:
        self._graph = graph
        self._integers = integers
        self._taken = {name for part in (graph, *graph.subgraphs(recursive=True)) for name in part.tensors()}
        self._taken |= {node.name for part in (graph, *graph.subgraphs(recursive=True)) for node in part.nodes}
        self._made: list[gs.Node] = []
        self._stem = ""

    def begin(self, node: gs.Node) -> None:
        """Name new nodes and tensors after a node from now on."""
        self._stem, self._made = node.name, []

    def insert(self, before: gs.Node) -> None:
        """Put the new nodes in front of a node."""
        place = place_of(self._graph, before)
        self._graph.nodes[place:place] = self._made

    def constant(self, values: Sequence[int]) -> gs.Constant:
        """Return a vector of integers."""
        return gs.Constant(self._name("sizes"), np.array(values, np.int64))

    def node(
        self, op: str, inputs: Sequence[gs.Tensor], attrs: dict[str, object] | None = None, outputs: int = 1
    ) -> list[gs.Variable]:
        """Return the outputs of a new node; they hold what its first input holds."""
        results = [gs.Variable(self._name(op.lower()), dtype=inputs[0].dtype) for _ in range(outputs)]
        self._made.append(gs.Node(op, name=self._name(op), attrs=attrs or {}, inputs=list(inputs), outputs=results))
        return results

    def listing(
        self,
        op: str,
        tensor: gs.Tensor,
        values: Sequence[int],
        attrs: dict[str, object] | None = None,
        outputs: int = 1,
    ) -> list[gs.Variable]:
        """Return the outputs of a node that takes a list of integers, as an attribute or, from opset 13, an input."""
        if self._graph.opset < _LISTS_ARE_INPUTS:
            return self.node(op, [tensor], {**(attrs or {}), _LISTS[op]: list(values)}, outputs)
        return self.node(op, [tensor, self.constant(values)], attrs, outputs)

    def entries(self, vector: gs.Tensor) -> list[gs.Tensor] | None:
        """Return the parts of one entry each that a Concat makes a vector of; None where it is made otherwise."""
        concat = vector.inputs[0] if len(vector.inputs) == 1 else None
        if concat is None or concat.op != "Concat":
            return None
        return list(concat.inputs) if all(self._length(part) == 1 for part in concat.inputs) else None

    def _length(self, part: gs.Tensor) -> int | None:
        if isinstance(part, gs.Constant):
            return int(part.values.size)
        return self._integers[part.name].size if part.name in self._integers else None

    def _name(self, what: str) -> str:
        stem = f"{self._stem}_{what}"
        name, count = stem, 0
        while name in self._taken:
            count += 1
            name = f"{stem}_{count}"
        self._taken.add(name)
        return name


def _rewrite(packing: Packing, maker: _Maker) -> list[gs.Node]:
    """Make the parts and let the readers of each pick read its part; returns the nodes that are not needed any more."""
    parts = [_laid_out(part, packing, maker) for part in _parts(packing, maker)]
    axis = packing.order.index(packing.place.stack)
    gone = list({id(n): n for n in (packing.reshape, *packing.layout, *(p.node for p in packing.picks))}.values())
    for pick in packing.picks:
        part = parts[pick.position]
        readers = [node for node in pick.tensor.outputs if all(node is not other for other in gone)]
        if readers and pick.keeps:
            (part,) = maker.listing("Unsqueeze", part, [axis])
        replace_uses(pick.tensor, part)
    return gone


def _parts(packing: Packing, maker: _Maker) -> list[gs.Variable]:
    """Return the entries of the stacked axis, each with the axes of the Reshape's output without that axis."""
    place, flat = packing.place, packing.reshape.inputs[0]
    if place.outer > 1:
        size = packing.next_size
        merged = _reshaped(flat, _target(packing, [place.count * size], maker), packing, maker)
        return maker.listing("Split", merged, [size] * place.count, {"axis": place.stack}, place.count)
    parts = maker.listing("Split", flat, [place.inner] * place.count, {"axis": place.flat}, place.count)
    if place.alike:
        return parts
    target = _target(packing, [], maker)
    return [_reshaped(part, target, packing, maker) for part in parts]


def _target(packing: Packing, merged: list[int], maker: _Maker) -> gs.Tensor | list[int]:
    """Return the shape that the Reshape asks for without the stacked axis, which is `merged` with the one behind it."""
    stack = packing.place.stack
    behind = stack + 1 + len(merged)
    if "shape" in packing.reshape.attrs:
        shape = list(packing.reshape.attrs["shape"])
        return [*shape[:stack], *merged, *shape[behind:]]
    asked = packing.reshape.inputs[1]
    values = read_values(asked)
    if values is not None:
        return maker.constant([*values[:stack], *merged, *values[behind:]])
    before, after = list(range(stack)), list(range(behind, packing.rank))
    if (entries := maker.entries(asked)) is not None:
        middle = [maker.constant(merged)] if merged else []
        kept = [*(entries[place] for place in before), *middle, *(entries[place] for place in after)]
        return maker.node("Concat", kept, {"axis": 0})[0]
    if not merged:
        return _pick(asked, [*before, *after], maker)
    tail = [_pick(asked, after, maker)] if after else []
    pieces = [_pick(asked, before, maker), maker.constant(merged), *tail]
    return maker.node("Concat", pieces, {"axis": 0})[0]


def _pick(vector: gs.Tensor, places: list[int], maker: _Maker) -> gs.Variable:
    return maker.node("Gather", [vector, maker.constant(places)], {"axis": 0})[0]


def _reshaped(tensor: gs.Tensor, target: gs.Tensor | list[int], packing: Packing, maker: _Maker) -> gs.Variable:
    attrs = {name: value for name, value in packing.reshape.attrs.items() if name != "shape"}
    if isinstance(target, list):
        return maker.node("Reshape", [tensor], {**attrs, "shape": target})[0]
    return maker.node("Reshape", [tensor, target], attrs)[0]


def _laid_out(part: gs.Variable, packing: Packing, maker: _Maker) -> gs.Variable:
    """Drop, permute and insert axes of a part as the layout nodes do."""
    stack = packing.place.stack
    kept = [source for source in packing.order if source is not None and source != stack]
    dropped = [axis for axis in range(packing.rank) if axis != stack and axis not in kept]
    if dropped:
        (part,) = maker.listing("Squeeze", part, [axis - (axis > stack) for axis in dropped])
    if kept != sorted(kept):
        (part,) = maker.node("Transpose", [part], {"perm": [sorted(kept).index(axis) for axis in kept]})
    inserted = [place for place, source in enumerate(s for s in packing.order if s != stack) if source is None]
    return maker.listing("Unsqueeze", part, inserted)[0] if inserted else part
