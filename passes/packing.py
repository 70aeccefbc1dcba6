"""Find projections that are stacked: one flat axis reshaped to [.., n, ..] whose n entries are then picked one by one.

Exporters write the queries, keys and values of timm, torchvision, Swin and others as one projection to 3*h*d channels,
Reshape to [B, N, 3, h, d], Transpose to [3, B, h, N, d], and one Gather (or a piece of a Split, or a Slice) for each of
the three. A tensor of that shape cannot be ragged: while it exists, queries, keys and values have as many channels.

Which axes of the Reshape belong together is read off the structure: of sizes computed at run time the shapes alone say
nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.wiring import protected_names, read_values
from onnx_subprune.structure import Atom, Dim, Structure

__all__ = ["Packing", "Pick", "has_candidates", "packings"]

_LAYOUT = frozenset({"Identity", "Squeeze", "Transpose", "Unsqueeze"})
_PICKS = frozenset({"Gather", "Slice", "Split"})


@dataclass(frozen=True, eq=False)
class Pick:
    """Output `index` of `node` holds entry `position` of the stacked axis; `keeps`: with that axis, of one entry."""

    node: gs.Node
    index: int
    position: int
    keeps: bool

    @property
    def tensor(self) -> gs.Variable:
        """What holds the entry."""
        tensor: gs.Variable = self.node.outputs[self.index]
        return tensor


@dataclass(frozen=True)
class Place:
    """Where a stacked axis of `count` entries lies: `stack` of a Reshape's output, within the axis `flat` of its input.

    The flat axis is outer x count x inner, row-major. `alike` says that an input cut to one entry of the stacked axis
    has all the axes that the Reshape would give it.
    """

    flat: int
    stack: int
    count: int
    outer: int
    inner: int
    alike: bool


@dataclass(frozen=True, eq=False)
class Packing:
    """A stacked projection.

    Attributes:
        reshape: the node that makes the stacked axis, one of `rank` axes.
        place: where it lies.
        next_size: entries of the axis that follows the stacked one.
        order: for each axis of the tensor that is picked from, that of the Reshape's output; None for an axis of
            one entry that was inserted.
        layout: the nodes that permute, insert and drop axes between the Reshape and the picks.
        picks: all readers of the picked tensor, and the nodes that drop the axis of one entry which a pick kept.

    """

    reshape: gs.Node
    rank: int
    place: Place
    next_size: int
    order: tuple[int | None, ...]
    layout: tuple[gs.Node, ...]
    picks: tuple[Pick, ...]


def has_candidates(graph: gs.Graph) -> bool:
    """Whether there may be a stacked projection: without one there is no need to infer the structure for this.

    Args:
        graph: before its structure is inferred.

    """
    return any(
        _readers(_layout(node)[-1].outputs[0]) is not None for node in graph.nodes if _is_operator(node, "Reshape")
    )


def packings(structure: Structure) -> list[Packing]:
    """Return the stacked projections of a graph, in graph order."""
    graph = structure.graph
    held = protected_names(graph)
    held |= {t.name for body in graph.subgraphs(recursive=True) for node in body.nodes for t in node.inputs}
    produced = {atom for use in structure.records.uses if use.role == "producer" for atom in use.dim.atoms()}
    candidates = (_packing(node, structure, held, produced) for node in graph.nodes if _is_operator(node, "Reshape"))
    return [packing for packing in candidates if packing is not None]


def _is_operator(node: gs.Node, op: str) -> bool:
    return node.op == op and not node.domain


def _packing(node: gs.Node, structure: Structure, held: Collection[str], produced: set[Atom]) -> Packing | None:
    axes = structure.records.axes.get(node.outputs[0].name)
    layout = _layout(node)
    readers = _readers(layout[-1].outputs[0])
    if axes is None or readers is None:
        return None
    order = _order(layout[1:], len(axes))
    picked = None if order is None else _picks(readers, order, axes)
    if order is None or picked is None:
        return None
    stack, picks = picked
    edited = (*layout, *(pick.node for pick in picks))
    if any(t.name in held for reader in edited for t in reader.outputs):
        return None
    if any(t.name in structure.records.overridable for reader in edited for t in reader.inputs):
        # What stands there is only a default: another caller may pick another part.
        return None
    picks += tuple(_dropped(picks, order.index(stack), len(order), held))
    place = _place(node, stack, structure, produced)
    if place is None or {pick.position for pick in picks} != set(range(place.count)):
        return None
    return Packing(node, len(axes), place, axes[stack + 1].size, order, tuple(layout[1:]), picks)


def _layout(reshape: gs.Node) -> list[gs.Node]:
    """Return the Reshape and the nodes behind it that only lay its axes out anew, as far as there is one reader."""
    nodes = [reshape]
    while len(nodes[-1].outputs[0].outputs) == 1 and nodes[-1].outputs[0].outputs[0].op in _LAYOUT:
        follower = nodes[-1].outputs[0].outputs[0]
        if follower.domain:
            break
        nodes.append(follower)
    return nodes


def _readers(tensor: gs.Tensor) -> list[gs.Node] | None:
    """Return the nodes that may pick from a tensor, or None where another reads it."""
    readers = list({id(node): node for node in tensor.outputs}.values())
    fits = readers and all(node.op in _PICKS and not node.domain and node.inputs[0] is tensor for node in readers)
    return readers if fits else None


def _order(layout: list[gs.Node], rank: int) -> tuple[int | None, ...] | None:
    """Return where each axis behind the layout nodes comes from, or None where that is not literal."""
    order: list[int | None] = list(range(rank))
    for node in layout:
        if node.op == "Transpose":
            order = [order[i] for i in node.attrs.get("perm") or range(len(order))[::-1]]
            continue
        if node.op == "Identity":
            continue
        axes = literal(node, 1, "axes")
        if axes is None:
            return None
        width = len(order) + (len(axes) if node.op == "Unsqueeze" else 0)
        places = {axis % width for axis in axes}
        if node.op == "Squeeze":
            order = [source for i, source in enumerate(order) if i not in places]
        else:
            rest = iter(order)
            order = [None if i in places else next(rest) for i in range(width)]
    return tuple(order)


def _picks(
    readers: list[gs.Node], order: tuple[int | None, ...], axes: tuple[Dim, ...]
) -> tuple[int, tuple[Pick, ...]] | None:
    """Return the axis that all readers pick single positions of, and the picks; None where that is not so."""
    stacks: set[int] = set()
    picks: list[Pick] = []
    for node in readers:
        along = _axis(node, len(order))
        stack = None if along is None else order[along]
        positions = None if stack is None or axes[stack].dynamic else _positions(node, axes[stack].size)
        if stack is None or positions is None:
            return None
        stacks.add(stack)
        picks.extend(positions)
    stack = stacks.pop()
    return None if stacks or stack + 1 >= len(axes) else (stack, tuple(picks))


def _axis(node: gs.Node, rank: int) -> int | None:
    if node.op != "Slice":
        return int(node.attrs.get("axis", 0)) % rank
    axes = literal(node, 3, "axes")
    return axes[0] % rank if axes is not None and len(axes) == 1 else None


def _positions(node: gs.Node, count: int) -> list[Pick] | None:
    """Return what a reader picks of an axis of `count` entries, or None where it is not one entry each."""
    if node.op == "Split":
        return [Pick(node, i, i, True) for i in range(count)] if len(node.outputs) == count else None
    if node.op == "Gather":
        indices = read_values(node.inputs[1])
        if indices is None or indices.size != 1 or indices.ndim > 1:
            return None
        return [Pick(node, 0, int(indices.ravel()[0]) % count, indices.ndim == 1)]
    starts, ends = literal(node, 1, "starts"), literal(node, 2, "ends")
    steps = literal(node, 4, "steps") if len(node.inputs) > 4 else [1]
    if not starts or not ends or steps != [1]:
        return None
    low, high, _ = slice(starts[0], ends[0]).indices(count)
    return [Pick(node, 0, low, True)] if high == low + 1 else None


def _dropped(picks: Sequence[Pick], along: int, rank: int, held: Collection[str]) -> Iterator[Pick]:
    for pick in picks:
        for node in pick.tensor.outputs if pick.keeps else ():
            axes = literal(node, 1, "axes") if _is_operator(node, "Squeeze") else None
            if axes is not None and [axis % rank for axis in axes] == [along] and node.outputs[0].name not in held:
                yield Pick(node, 0, pick.position, False)


def literal(node: gs.Node, index: int, attribute: str) -> list[int] | None:
    """Return a constant list of integers, from an input or from an attribute (older opsets); None where it is not."""
    if attribute in node.attrs:
        return [int(value) for value in node.attrs[attribute]]
    values = read_values(node.inputs[index]) if index < len(node.inputs) else None
    return None if values is None else [int(value) for value in np.ravel(values)]


def _place(node: gs.Node, stack: int, structure: Structure, produced: set[Atom]) -> Place | None:
    """Find the static axis of a Reshape's input, written by a weight, that the stacked axis is a factor of."""
    extents = structure.records.extents_of(node.inputs[1]) if len(node.inputs) > 1 else np.array(node.attrs["shape"])
    if extents is None or any(isinstance(n, int) and n == 0 for n in extents.ravel().tolist()[stack + 1 :]):
        # A zero copies the size of the axis in the same place, and places behind the stacked axis will move.
        return None
    before, after = (structure.records.axes.get(tensor.name) for tensor in (node.inputs[0], node.outputs[0]))
    if before is None or after is None:
        return None
    x, y = ([dim.resolve().factors for dim in dims] for dims in (before, after))
    if [f for factors in x for f in factors] != [f for factors in y for f in factors]:
        return None
    ends_x, ends_y = (list(accumulate((len(f) for f in factors), initial=0)) for factors in (x, y))
    low, high = ends_y[stack], ends_y[stack + 1]
    flat = next((i for i in range(len(x)) if ends_x[i] <= low and high <= ends_x[i + 1]), None)
    if low == high or flat is None or before[flat].dynamic or not produced & set(before[flat].atoms()):
        return None
    outer = Dim(x[flat][: low - ends_x[flat]])
    inner = Dim(x[flat][high - ends_x[flat] :])
    if inner.size == 1 or after[stack + 1].size == 1 or ends_y[stack + 2] > ends_x[flat + 1]:
        return None
    rest = [*y[:stack], *y[stack + 1 :]]
    alike = len(rest) == len(x) and all(a == b for i, (a, b) in enumerate(zip(rest, x, strict=True)) if i != flat)
    return Place(flat, stack, after[stack].size, outer.size, inner.size, alike)
