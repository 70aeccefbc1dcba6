"""Operators that take pieces of an axis or add some: Split, Slice, Gather, Pad."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context, IndexUse, NotUnderstood, label
from onnx_subprune.structure.dims import Dim, concat, fresh, split
from onnx_subprune.structure.extents import Extent, Size, apply, evaluate, fixed, in_step, total

__all__ = ["RULES"]

# ONNX spells "to the end" as any integer beyond the axis; exporters use the largest of int32 or int64.
_FAR = 2**31 - 1


def split_rule(node: gs.Node, ctx: Context) -> None:
    """Cut one axis into consecutive pieces, one per output."""
    x = ctx.input(node, 0)
    axis = int(node.attrs.get("axis", 0)) % len(x)
    explicit = "split" in node.attrs or ctx.has(node, 1)
    sizes = _split_sizes(node, x[axis], explicit, ctx)
    pieces = None if min(sizes) < 1 or sum(sizes) != x[axis].size else split(x[axis], sizes)
    if pieces is None:
        ctx.freeze(x[axis], node, "cuts this axis in the middle of a unit")
        pieces = [ctx.made(node, size, dynamic=x[axis].dynamic) for size in sizes]
    for index, piece in enumerate(pieces):
        if explicit and not piece.dynamic:
            ctx.expect_size(node, "split" if "split" in node.attrs else 1, index, piece)
        elif index:
            # Without sizes the pieces are equal by definition and must stay so: the same units go from each.
            ctx.unify(pieces[0], piece, node)
        y = list(x)
        y[axis] = piece
        ctx.output(node, y, index)


def _split_sizes(node: gs.Node, dim: Dim, explicit: bool, ctx: Context) -> list[int]:
    if explicit:
        extents = ctx.extent_list(node, 1, "split")
        known = [size for size in map(fixed, extents) if size is not None]
        if len(known) < len(extents):
            raise NotUnderstood(f"{label(node)} takes sizes that are known at run time only")
        return known
    count = len(node.outputs)
    chunk = -(-dim.size // count)
    return [min(chunk, dim.size - i * chunk) for i in range(count)]


@dataclass(frozen=True)
class _Range:
    """What a Slice takes of one axis; `position` and `places` say where its bounds are written."""

    start: Extent
    end: Extent
    step: int
    position: int
    places: tuple[int | str, int | str]


def slice_rule(node: gs.Node, ctx: Context) -> None:
    """Take a range of one or more axes: [before, taken, after]."""
    x = list(ctx.input(node, 0))
    starts, ends = ctx.extent_list(node, 1, "starts"), ctx.extent_list(node, 2, "ends")
    given = "axes" in node.attrs or ctx.has(node, 3)
    axes = [a % len(x) for a in ctx.ints(node, 3, "axes")] if given else list(range(len(starts)))
    steps = ctx.ints(node, 4) if ctx.has(node, 4) else [1] * len(starts)
    places: tuple[int | str, int | str] = ("starts", "ends") if "starts" in node.attrs else (1, 2)
    for i, axis in enumerate(axes):
        x[axis] = _sliced(node, x[axis], _Range(starts[i], ends[i], steps[i], i, places), ctx)
    ctx.output(node, x)


def _sliced(node: gs.Node, dim: Dim, taken: _Range, ctx: Context) -> Dim:
    start, end = fixed(taken.start), fixed(taken.end)
    whole = start == 0 and isinstance(taken.end, int) and taken.end >= _FAR
    if taken.step == 1 and (whole or (start == 0 and in_step(taken.end, Size(dim)))):
        return dim
    if dim.dynamic or start is None or end is None or taken.step != 1:
        ctx.freeze(dim, node, "takes only some positions of this axis")
        ctx.pin([taken.start, taken.end], node)
        if start == 0 and taken.step == 1 and isinstance(taken.end, Size) and taken.end.dim.dynamic:
            # The first T positions of a table, for a sequence of T: a shorter table would fail where the two meet.
            return taken.end.dim
        length = _length(dim.size, evaluate(taken.start, {}), evaluate(taken.end, {}), taken.step)
        return ctx.made(node, length, dynamic=dim.dynamic or start is None or end is None)
    return _piece(node, dim, taken, ctx)


def _length(size: int, start: int, end: int, step: int) -> int:
    # A negative step that runs past the first entry is spelt as a very negative end.
    stop = None if step < 0 and end < -size else end
    return len(range(*slice(start, stop, step).indices(size)))


def _piece(node: gs.Node, dim: Dim, taken: _Range, ctx: Context) -> Dim:
    """Cut out a range whose bounds are known; where that is impossible the axis is frozen."""
    start, end, size = fixed(taken.start) or 0, fixed(taken.end) or 0, dim.size
    low, high, _ = slice(start, end, 1).indices(size)
    if high <= low:
        raise NotUnderstood(f"{label(node)} takes an empty range")
    pieces = split(dim, [n for n in (low, high - low, size - high) if n])
    if pieces is None:
        ctx.freeze(dim, node, "cuts this axis in the middle of a unit")
        ctx.pin([taken.start, taken.end], node)
        return ctx.made(node, high - low)
    before = 1 if low else 0
    lead = total(*(Size(d) for d in pieces[:before]))
    tail = total(*(Size(d) for d in pieces[before + 1 :]))
    _expect_bounds(node, taken, (lead, Size(pieces[before]), tail), size, ctx)
    return pieces[before]


def _expect_bounds(
    node: gs.Node, taken: _Range, pieces: tuple[Extent, Extent, Extent], size: int, ctx: Context
) -> None:
    """Keep the bounds in step with the pieces; negative bounds count from the end, far ones mean the end."""
    start, end = fixed(taken.start) or 0, fixed(taken.end) or 0
    lead, body, tail = pieces
    if start >= 0:
        ctx.expect(node, taken.places[0], taken.position, lead)
    elif start > -size:
        ctx.expect(node, taken.places[0], taken.position, apply("Sub", 0, total(body, tail)))
    if 0 <= end <= size:
        ctx.expect(node, taken.places[1], taken.position, total(lead, body, tail if end == size else 0))
    elif end < 0:
        ctx.expect(node, taken.places[1], taken.position, apply("Sub", 0, tail))


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
    ctx.output(node, (*data[:axis], *_picked(node, data[axis], ctx), *data[axis + 1 :]))


def _picked(node: gs.Node, dim: Dim, ctx: Context) -> Sequence[Dim]:
    """Return the axes of the indices; a run of positions is a piece like that of a Slice."""
    indices = node.inputs[1]
    if ctx.is_constant(indices):
        axes = ctx.input(node, 1)
        piece = None if len(axes) != 1 else _run(dim, [int(i) for i in indices.values])
        if piece is not None:
            ctx.unify(axes[0], piece, node)
            ctx.index_uses.append(IndexUse(node, 1, dim))
            return axes
        ctx.freeze(dim, node, "picks single positions of this axis")
        return axes
    extents = ctx.extents_of(indices)
    if extents is not None:
        ctx.pin(extents.ravel(), node)
    ctx.freeze(dim, node, "looks positions of this axis up by computed indices")
    return ctx.input(node, 1)


def _run(dim: Dim, indices: Sequence[int]) -> Dim | None:
    """Return the piece of `dim` that consecutive indices take, or None where it is not one."""
    places = [i % dim.size for i in indices] if dim.size else []
    low, high = (places[0], places[-1] + 1) if places else (0, 0)
    if dim.dynamic or not places or places != list(range(low, high)):
        return None
    pieces = split(dim, [n for n in (low, high - low, dim.size - high) if n])
    return None if pieces is None else pieces[1 if low else 0]


def pad(node: gs.Node, ctx: Context) -> None:
    """Add entries before and after; zero-padded channels are units like others, so a Pad can shrink."""
    x = list(ctx.input(node, 0))
    pads = ctx.extent_list(node, 1, "pads")
    given = ctx.ints(node, 3) if ctx.has(node, 3) else list(range(len(x)))
    where: int | str = "pads" if "pads" in node.attrs else 1
    count = len(given)
    for i, axis in enumerate(a % len(x) for a in given):
        before, after = pads[i], pads[i + count]
        if before == 0 and after == 0:
            continue
        ends = _padding(node, x[axis], (before, after))
        if ends is None:
            ctx.freeze(x[axis], node, "pads this axis")
            ctx.pin([before, after], node)
            sizes = [fixed(before), fixed(after)]
            grown = x[axis].size + sum(n or 0 for n in sizes)
            x[axis] = ctx.made(node, grown, dynamic=x[axis].dynamic or None in sizes)
            continue
        for position, end in ((i, ends[0]), (i + count, ends[1])):
            if end is not None:
                ctx.expect_size(node, where, position, end)
        x[axis] = concat(*(d for d in (ends[0], x[axis], ends[1]) if d is not None))
    ctx.output(node, x)


def _padding(node: gs.Node, dim: Dim, counts: tuple[Extent, Extent]) -> tuple[Dim | None, Dim | None] | None:
    """Return the axes of the entries added before and after (None for no entries), or None if `dim` must freeze."""
    before, after = (count if isinstance(count, int) and count >= 0 else None for count in counts)
    constant = str(node.attrs.get("mode", "constant")) == "constant"
    if before is None or after is None or dim.dynamic or not constant:
        return None
    return (fresh(before) if before else None, fresh(after) if after else None)


RULES = {"Split": split_rule, "Slice": slice_rule, "Gather": gather, "Pad": pad}
