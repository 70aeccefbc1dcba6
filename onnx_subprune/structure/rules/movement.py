"""Operators that move, join or cut axes without arithmetic: Transpose, Concat, Split, Slice, Gather, Pad, Expand ..."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context, NotUnderstood, label
from onnx_subprune.structure.dims import ONE, Dim, concat, fresh, product, split
from onnx_subprune.structure.extents import Extent, Size, apply, total

__all__ = ["RULES"]

# ONNX spells "to the end" as any integer beyond the axis; exporters use the largest of int32 or int64.
_FAR = 2**31 - 1


def transpose(node: gs.Node, ctx: Context) -> None:
    """Permute the axes."""
    x = ctx.input(node, 0)
    perm = node.attrs.get("perm") or range(len(x))[::-1]
    ctx.output(node, [x[i] for i in perm])


def squeeze(node: gs.Node, ctx: Context) -> None:
    """Drop axes of one entry."""
    x = ctx.input(node, 0)
    if "axes" in node.attrs or ctx.has(node, 1):
        axes = [a % len(x) for a in ctx.ints(node, 1, "axes")]
    else:
        axes = [i for i, dim in enumerate(x) if dim.size == 1]
    for axis in axes:
        ctx.freeze(x[axis], node, "drops this axis")
    ctx.output(node, [dim for i, dim in enumerate(x) if i not in axes])


def unsqueeze(node: gs.Node, ctx: Context) -> None:
    """Insert axes of one entry."""
    x = ctx.input(node, 0)
    axes = ctx.ints(node, 1, "axes")
    rank = len(x) + len(axes)
    places = {a % rank for a in axes}
    rest = iter(x)
    ctx.output(node, [ONE if i in places else next(rest) for i in range(rank)])


def flatten(node: gs.Node, ctx: Context) -> None:
    """Two axes: the products of those before and from `axis` on."""
    x = ctx.input(node, 0)
    axis = int(node.attrs.get("axis", 1))
    axis += len(x) if axis < 0 else 0
    ctx.output(node, (product(*x[:axis]), product(*x[axis:])))


def expand(node: gs.Node, ctx: Context) -> None:
    """Broadcast to a shape."""
    x = ctx.input(node, 0)
    shape = ctx.extent_list(node, 1)
    rank = max(len(x), len(shape))
    x = (ONE,) * (rank - len(x)) + x
    offset = rank - len(shape)
    y = list(x)
    for i, extent in enumerate(shape):
        dim = x[offset + i]
        if dim.size == 1 and not dim.dynamic:
            y[offset + i] = extent.dim if isinstance(extent, Size) else _sized(extent)
            ctx.expect_size(node, 1, i, y[offset + i])
        elif extent != 1:
            ctx.expect_size(node, 1, i, dim)
    ctx.output(node, y)


def _sized(extent: Extent) -> Dim:
    return fresh(extent) if isinstance(extent, int) else fresh(1, dynamic=True)


def tile(node: gs.Node, ctx: Context) -> None:
    """Repeat axes: repetitions x axis."""
    x = ctx.input(node, 0)
    y = []
    for dim, repeat in zip(x, ctx.extent_list(node, 1), strict=True):
        times = _sized(repeat)
        ctx.freeze(times, node, "repeats along this axis")
        y.append(product(times, dim))
    ctx.output(node, y)


def concat_rule(node: gs.Node, ctx: Context) -> None:
    """Join along one axis; the others are unified."""
    inputs = [ctx.input(node, i) for i in range(len(node.inputs))]
    first = inputs[0]
    axis = int(node.attrs["axis"]) % len(first)
    for other in inputs[1:]:
        for i, dim in enumerate(other):
            if i != axis:
                ctx.unify(first[i], dim, node)
    y = list(first)
    y[axis] = concat(*(axes[axis] for axes in inputs))
    ctx.output(node, y)


def split_rule(node: gs.Node, ctx: Context) -> None:
    """Cut one axis into consecutive pieces, one per output."""
    x = ctx.input(node, 0)
    axis = int(node.attrs.get("axis", 0)) % len(x)
    count = len(node.outputs)
    explicit = "split" in node.attrs or ctx.has(node, 1)
    if explicit:
        sizes = ctx.ints(node, 1, "split")
    else:
        chunk = -(-x[axis].size // count)
        sizes = [min(chunk, x[axis].size - i * chunk) for i in range(count)]
    pieces = None if min(sizes) < 1 else split(x[axis], sizes)
    if pieces is None:
        ctx.freeze(x[axis], node, "cuts this axis in the middle of a unit")
        pieces = [fresh(max(1, size), x[axis].dynamic) for size in sizes]
    for index, piece in enumerate(pieces):
        if explicit:
            ctx.expect_size(node, "split" if "split" in node.attrs else 1, index, piece)
        elif index:
            # Without sizes the pieces are equal by definition and must stay so: the same units go from each.
            ctx.unify(pieces[0], piece, node)
        y = list(x)
        y[axis] = piece
        ctx.output(node, y, index)


def slice_rule(node: gs.Node, ctx: Context) -> None:
    """Take a range of one or more axes: [before, taken, after]."""
    x = list(ctx.input(node, 0))
    starts, ends = ctx.ints(node, 1, "starts"), ctx.extent_list(node, 2, "ends")
    given = "axes" in node.attrs or ctx.has(node, 3)
    axes = [a % len(x) for a in ctx.ints(node, 3, "axes")] if given else list(range(len(starts)))
    steps = ctx.ints(node, 4) if ctx.has(node, 4) else [1] * len(starts)
    attributes = "starts" in node.attrs
    for i, axis in enumerate(axes):
        places = ("starts", "ends") if attributes else (1, 2)
        x[axis] = _sliced(node, x[axis], i, starts[i], ends[i], steps[i], places, ctx)
    ctx.output(node, x)


def _sliced(
    node: gs.Node,
    dim: Dim,
    position: int,
    start: int,
    end: Extent,
    step: int,
    places: tuple[int | str, int | str],
    ctx: Context,
) -> Dim:
    size = dim.size
    if step == 1 and start == 0 and isinstance(end, int) and end >= _FAR:
        return dim
    if dim.dynamic or step != 1 or not isinstance(end, int):
        ctx.freeze(dim, node, "takes only some positions of this axis")
        length = len(range(*slice(start, end if isinstance(end, int) else size, step).indices(size)))
        return fresh(max(1, length), dim.dynamic or not isinstance(end, int))
    low, high, _ = slice(start, end, 1).indices(size)
    if high <= low:
        raise NotUnderstood(f"{label(node)} takes an empty range")
    sizes = [n for n in (low, high - low, size - high) if n]
    pieces = split(dim, sizes)
    if pieces is None:
        ctx.freeze(dim, node, "cuts this axis in the middle of a unit")
        return fresh(high - low)
    before = [pieces[0]] if low else []
    taken = pieces[len(before)]
    after = pieces[len(before) + 1 :]
    _expect_bounds(node, position, (start, end, size), (before, taken, after), places, ctx)
    return taken


def _expect_bounds(
    node: gs.Node,
    position: int,
    bounds: tuple[int, int, int],
    pieces: tuple[Sequence[Dim], Dim, Sequence[Dim]],
    places: tuple[int | str, int | str],
    ctx: Context,
) -> None:
    """Keep literal bounds in step with the pieces; negative bounds count from the end, far ones mean the end."""
    start, end, size = bounds
    before, taken, after = pieces
    lead = total(*(Size(d) for d in before))
    tail = total(*(Size(d) for d in after))
    body = Size(taken)
    if start >= 0:
        ctx.expect(node, places[0], position, lead)
    elif start > -size:
        ctx.expect(node, places[0], position, _negative(total(body, tail)))
    if 0 <= end < size:
        ctx.expect(node, places[1], position, total(lead, body))
    elif end == size:
        ctx.expect(node, places[1], position, total(lead, body, tail))
    elif end < 0:
        ctx.expect(node, places[1], position, _negative(tail))


def _negative(extent: Extent) -> Extent:
    return apply("Sub", 0, extent)


def gather(node: gs.Node, ctx: Context) -> None:
    """Look rows up in a table (embedding), or pick constant positions of an activation."""
    table = ctx.weight(node, 0)
    if table is not None:
        weight, data = table
        axis = int(node.attrs.get("axis", 0)) % len(data)
        rest = [(weight.perm[i], dim) for i, dim in enumerate(data) if i != axis]
        ctx.use("producer", node, 0, weight.constant, rest)
    else:
        data = ctx.input(node, 0)
        axis = int(node.attrs.get("axis", 0)) % len(data)
    indices = ctx.extents_of(node.inputs[1])
    if indices is not None and all(isinstance(i, int) for i in indices.ravel()):
        picked = _picked(node, data[axis], [int(i) for i in indices.ravel()], indices.ndim, ctx)
        middle: Sequence[Dim] = picked if indices.ndim < 2 else [fresh(n) for n in indices.shape]
    else:
        middle = ctx.input(node, 1)
        ctx.freeze(data[axis], node, "looks positions of this axis up by computed indices")
    ctx.output(node, (*data[:axis], *middle, *data[axis + 1 :]))


def _picked(node: gs.Node, dim: Dim, indices: list[int], rank: int, ctx: Context) -> list[Dim]:
    if rank == 1 and indices == list(range(dim.size)) and not dim.dynamic:
        ctx.freeze(dim, node, "lists every position of this axis")
        return [dim]
    ctx.freeze(dim, node, "picks single positions of this axis")
    return [] if rank == 0 else [fresh(len(indices))]


def pad(node: gs.Node, ctx: Context) -> None:
    """Add entries before and after; zero-padded channels are units like others, so a Pad can shrink."""
    x = list(ctx.input(node, 0))
    pads = ctx.extent_list(node, 1, "pads")
    given = ctx.ints(node, 3) if ctx.has(node, 3) else list(range(len(x)))
    where: int | str = "pads" if "pads" in node.attrs else 1
    constant = str(node.attrs.get("mode", "constant")) == "constant"
    count = len(given)
    for i, axis in enumerate(a % len(x) for a in given):
        before, after = pads[i], pads[i + count]
        if before == 0 and after == 0:
            continue
        known = isinstance(before, int) and isinstance(after, int) and before >= 0 and after >= 0
        if known and constant and not x[axis].dynamic:
            ends = [fresh(int(n)) if n else None for n in (before, after)]
            for position, end in ((i, ends[0]), (i + count, ends[1])):
                if end is not None:
                    ctx.expect_size(node, where, position, end)
            x[axis] = concat(*(d for d in (ends[0], x[axis], ends[1]) if d is not None))
        else:
            ctx.freeze(x[axis], node, "pads this axis")
            grown = x[axis].size + sum(n for n in (before, after) if isinstance(n, int))
            x[axis] = fresh(max(1, grown), x[axis].dynamic or not known)
    ctx.output(node, x)


RULES = {
    "Transpose": transpose,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Flatten": flatten,
    "Expand": expand,
    "Tile": tile,
    "Concat": concat_rule,
    "Split": split_rule,
    "Slice": slice_rule,
    "Gather": gather,
    "Pad": pad,
}
