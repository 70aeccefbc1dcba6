"""Operators that take pieces of an axis or add some: Split, Slice, Gather, Pad."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import (
    Atom,
    Dim,
    Extent,
    Size,
    apply,
    concat,
    evaluate,
    fixed,
    fresh,
    in_step,
    product,
    split,
    total,
)
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import IndexUse, label

__all__ = ["CONTRIB", "RULES", "axis_at"]

# ONNX spells "to the end" as any integer beyond the axis; exporters use the largest of int32 or int64.
_FAR = 2**31 - 1


def split_rule(node: gs.Node, ctx: Context) -> None:
    """Cut one axis into consecutive pieces, one per output."""
    x = ctx.input(node, 0)
    axis = ctx.axis(node, x, 0)
    explicit = "split" in node.attrs or ctx.has(node, 1)
    sizes = _split_sizes(node, x[axis], explicit, ctx)
    pieces = None if min(sizes) < 1 or sum(sizes) != x[axis].size else split(x[axis], sizes)
    if pieces is None:
        ctx.freeze(x[axis], node, "cuts this axis in the middle of a unit")
        pieces = [ctx.computed_axis(node, size, dynamic=x[axis].dynamic) for size in sizes]
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
    listed = ctx.ints(node, 3, "axes") if given else range(len(starts))
    axes = [ctx.counted(node, x, axis) for axis in listed]
    steps = ctx.ints(node, 4) if ctx.has(node, 4) else [1] * len(starts)
    if not len(axes) == len(starts) == len(ends) == len(steps) or 0 in steps:
        raise NotUnderstood(f"{label(node)} gives {len(starts)} starts, {len(ends)} ends and the steps {steps}")
    places: tuple[int | str, int | str] = ("starts", "ends") if "starts" in node.attrs else (1, 2)
    for i, axis in enumerate(axes):
        x[axis] = _sliced(node, x[axis], _Range(starts[i], ends[i], steps[i], i, places), ctx)
    ctx.output(node, x)


def _sliced(node: gs.Node, dim: Dim, taken: _Range, ctx: Context) -> Dim:
    start, end = fixed(taken.start), fixed(taken.end)
    whole = start == 0 and isinstance(taken.end, int) and taken.end >= _FAR
    if taken.step == 1 and (whole or (start == 0 and in_step(taken.end, Size(dim)))):
        return dim
    if start is not None and end is not None and _strides_evenly(dim, start, end, taken.step):
        return _strided(node, dim, taken, ctx)
    if dim.dynamic or start is None or end is None or taken.step != 1:
        ctx.freeze(dim, node, "takes only some positions of this axis")
        ctx.pin([taken.start, taken.end], node)
        if start == 0 and taken.step == 1 and isinstance(taken.end, Size) and taken.end.dim.dynamic:
            # The first T positions of a table, for a sequence of T: a shorter table would fail where the two meet.
            return taken.end.dim
        length = _length(dim.size, evaluate(taken.start, {}), evaluate(taken.end, {}), taken.step)
        return ctx.computed_axis(node, length, dynamic=dim.dynamic or start is None or end is None)
    return _piece(node, dim, taken, ctx)


def _strides_evenly(dim: Dim, start: int, end: int, step: int) -> bool:
    """Whether one entry is taken of every block of `step` entries, to the end."""
    return not dim.dynamic and 0 <= start < step and end >= dim.size > step > 1 and dim.size % step == 0


def _strided(node: gs.Node, dim: Dim, taken: _Range, ctx: Context) -> Dim:
    """The axis is blocks x entries of a block; one entry of each block is left."""
    blocks, entries = fresh(dim.size // taken.step), fresh(taken.step)
    ctx.freeze(entries, node, "takes one of several entries along this axis")
    ctx.unify(dim, product(blocks, entries), node)
    ctx.pin([taken.start], node)
    if taken.end == dim.size or not isinstance(taken.end, int):
        ctx.expect(node, taken.places[1], taken.position, Size(dim))
    return blocks


def _length(size: int, start: int, end: int, step: int) -> int:
    # A negative step that runs past the first entry is spelt as a very negative end.
    stop = None if step < 0 and end < -size else end
    return len(range(*slice(start, stop, step).indices(size)))


def _piece(node: gs.Node, dim: Dim, taken: _Range, ctx: Context) -> Dim:
    """Cut out a range whose bounds are known; where that is impossible the axis is frozen."""
    start, end, size = fixed(taken.start) or 0, fixed(taken.end) or 0, dim.size
    low, high, _ = slice(start, end, 1).indices(size)
    if high <= low:
        return _empty_range(node, dim, taken, ctx)
    pieces = split(dim, [n for n in (low, high - low, size - high) if n])
    if pieces is None:
        ctx.freeze(dim, node, "cuts this axis in the middle of a unit")
        ctx.pin([taken.start, taken.end], node)
        return ctx.computed_axis(node, high - low)
    before = 1 if low else 0
    lead = total(*(Size(d) for d in pieces[:before]))
    tail = total(*(Size(d) for d in pieces[before + 1 :]))
    _expect_bounds(node, taken, (lead, Size(pieces[before]), tail), size, ctx)
    return pieces[before]


def _empty_range(node: gs.Node, dim: Dim, taken: _Range, ctx: Context) -> Dim:
    """A range that is empty now, and with fewer units too, is an axis without entries (a rotation of all channels)."""
    start, end = fixed(taken.start) or 0, fixed(taken.end) or 0
    if start < 0 <= end:
        raise NotUnderstood(f"{label(node)} takes an empty range")
    if not in_step(taken.start, Size(dim)):
        ctx.pin([taken.start], node)
    if not (in_step(taken.end, Size(dim)) and in_step(taken.start, Size(dim))):
        ctx.pin([taken.end], node)
    empty = Dim((Atom(0),))
    ctx.freeze(empty, node, "takes an empty range")
    return empty


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
        # Counted from the end, no small number says "up to the end": that is what it is once all of the tail is gone.
        none = apply("Equal", tail, 0)
        ctx.expect(node, taken.places[1], taken.position, apply("Where", none, _FAR, apply("Sub", 0, tail)))


def gather(node: gs.Node, ctx: Context) -> None:
    """Look rows up in a table (embedding), or pick constant positions of an activation."""
    table = ctx.weight(node, 0)
    if table is not None:
        weight, data = table
        axis = ctx.axis(node, data, 0)
        rest = [(weight.perm[i], dim) for i, dim in enumerate(data) if i != axis]
        ctx.use("producer", node, 0, weight.constant, rest)
    else:
        data = ctx.input(node, 0)
        axis = ctx.axis(node, data, 0)
    ctx.output(node, (*data[:axis], *_index_axes(node, data[axis], ctx), *data[axis + 1 :]))


def _index_axes(node: gs.Node, dim: Dim, ctx: Context) -> Sequence[Dim]:
    """Return the axes of the indices; runs of literal positions are pieces like those of a Slice."""
    indices = node.inputs[1]
    if ctx.is_constant(indices):
        axes = ctx.input(node, 1)
        piece = axis_at(node, dim, [int(i) for i in np.ravel(indices.values)], ctx) if len(axes) <= 1 else None
        if piece is not None:
            if axes:
                ctx.unify(axes[0], piece, node)
            ctx.note(IndexUse(node, 1, dim))
            return axes
        ctx.freeze(dim, node, "picks single positions of this axis")
        return axes
    extents = ctx.extents_of(indices)
    if extents is not None:
        ctx.pin(extents.ravel(), node)
    ctx.freeze(dim, node, "looks positions of this axis up by computed indices")
    return ctx.input(node, 1)


def axis_at(node: gs.Node, dim: Dim, positions: Sequence[int], ctx: Context) -> Dim | None:
    """Return the axis that holds the entries of `dim` at literal positions, or None where `dim` must freeze for it.

    Runs of consecutive positions are pieces laid end to end, cut out of `dim`; an entry between them is cut out by
    itself and stays. Positions that count along the factors of a grid are a product of these: a channel shuffle, the
    axis repeated entry by entry or all in a row, every second entry.
    """
    if dim.dynamic or not positions or all(atom.reasons for atom in dim.atoms()):
        return None
    places = [position % dim.size for position in positions]
    loops = _loops(places)
    if len(loops) > 1 or any(loop.stride > 1 for loop in loops):
        grid = _grid(node, dim, loops, places[0], ctx)
        if grid is not None:
            return grid
    return _pieces(dim, _runs(places))


@dataclass(frozen=True)
class _Loop:
    """One of several nested loops: as many steps as `size` says, each of `stride` positions; 0 where it repeats."""

    size: int
    stride: int


def _loops(places: Sequence[int]) -> list[_Loop]:
    """Return the nested loops that count through the places, the outermost first; none where no loops do.

    >>> _loops([0, 3, 1, 4, 2, 5])
    [_Loop(size=3, stride=1), _Loop(size=2, stride=3)]
    >>> _loops([0, 0, 1, 1]), _loops([3, 1, 2])
    ([_Loop(size=2, stride=1), _Loop(size=2, stride=0)], [])

    """
    loops: list[_Loop] = []
    starts = np.asarray(places)
    while starts.size > 1:
        steps = np.diff(starts)
        stride = int(steps[0])
        size = int(np.argmax(steps != stride)) + 1 if (steps != stride).any() else starts.size
        if stride < 0 or starts.size % size:
            return []
        rows = starts.reshape(-1, size)
        if (rows != rows[:, :1] + stride * np.arange(size)).any():
            return []
        loops.append(_Loop(size, stride))
        starts = rows[:, 0]
    return loops[::-1]


def _grid(node: gs.Node, dim: Dim, loops: Sequence[_Loop], start: int, ctx: Context) -> Dim | None:
    """Return the product of the factors that loops count along; None where these are no factors of `dim`.

    Where the smallest step is more than one entry, it is one entry of a block that is taken.
    """
    counting = sorted((loop for loop in loops if loop.stride), key=lambda loop: -loop.stride)
    block = counting[-1].stride if counting else 0
    sizes = [loop.size for loop in counting]
    strides = [block * math.prod(sizes[place + 1 :]) for place in range(len(sizes))]
    if start >= block or block * math.prod(sizes) != dim.size or strides != [loop.stride for loop in counting]:
        return None
    factors = {loop.stride: fresh(loop.size) for loop in counting} if len(counting) > 1 or block > 1 else {1: dim}
    if block > 1:
        entries = fresh(block)
        ctx.freeze(entries, node, "takes one of several entries along this axis")
        ctx.unify(dim, product(*factors.values(), entries), node)
    elif len(counting) > 1:
        ctx.unify(dim, product(*factors.values()), node)
    taken = [factors[loop.stride] if loop.stride else _repetitions(node, loop.size, ctx) for loop in loops]
    return product(*taken)


def _repetitions(node: gs.Node, count: int, ctx: Context) -> Dim:
    times = fresh(count)
    ctx.freeze(times, node, "repeats along this axis")
    return times


def _runs(places: Sequence[int]) -> list[tuple[int, int]]:
    """Return the runs of consecutive places, each as its first and one past its last."""
    runs: list[tuple[int, int]] = []
    for place in places:
        if runs and runs[-1][1] == place:
            runs[-1] = (runs[-1][0], place + 1)
        else:
            runs.append((place, place + 1))
    return runs


def _pieces(dim: Dim, runs: Sequence[tuple[int, int]]) -> Dim | None:
    """Cut `dim` wherever a run begins or ends and lay the runs end to end; None where that leaves no units."""
    cuts = sorted({0, dim.size, *(bound for run in runs for bound in run)})
    sizes = [high - low for low, high in pairwise(cuts)]
    pieces = split(dim, sizes) if max(sizes) > 1 else None
    if pieces is None:
        return None
    by_start = dict(zip(cuts, pieces, strict=False))
    return concat(*(by_start[cut] for low, high in runs for cut in cuts if low <= cut < high))


def pad(node: gs.Node, ctx: Context) -> None:
    """Add entries before and after; zero-padded channels are units like others, so a Pad can shrink."""
    x = list(ctx.input(node, 0))
    pads = ctx.extent_list(node, 1, "pads")
    given = ctx.ints(node, 3) if ctx.has(node, 3) else list(range(len(x)))
    where: int | str = "pads" if "pads" in node.attrs else 1
    count = len(given)
    if len(pads) != 2 * count:
        raise NotUnderstood(f"{label(node)} gives {len(pads)} pads for {count} axes")
    for i, axis in enumerate(ctx.counted(node, x, axis) for axis in given):
        before, after = pads[i], pads[i + count]
        if before == 0 and after == 0:
            continue
        ends = _padding(node, x[axis], (before, after))
        if ends is None:
            ctx.freeze(x[axis], node, "pads this axis")
            ctx.pin([before, after], node)
            sizes = [fixed(before), fixed(after)]
            grown = x[axis].size + sum(n or 0 for n in sizes)
            x[axis] = ctx.computed_axis(node, grown, dynamic=x[axis].dynamic or None in sizes)
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


def center(node: gs.Node, ctx: Context) -> None:
    """CenterCropPad: axes whose size is asked for are cut or padded on both sides; those that have it already pass."""
    x = list(ctx.input(node, 0))
    asked = ctx.extent_list(node, 1)
    axes = [ctx.counted(node, x, axis) for axis in node.attrs.get("axes", range(len(x)))]
    if len(asked) != len(axes):
        raise NotUnderstood(f"{label(node)} gives {len(asked)} sizes for {len(axes)} axes")
    for position, (axis, extent) in enumerate(zip(axes, asked, strict=True)):
        if in_step(extent, Size(x[axis])) or (not x[axis].dynamic and extent == x[axis].size):
            ctx.expect_size(node, 1, position, x[axis])
            continue
        ctx.freeze(x[axis], node, "cuts or pads both ends of this axis")
        ctx.pin([extent], node)
        size = fixed(extent)
        x[axis] = ctx.computed_axis(node, evaluate(extent, {}) if size is None else size, dynamic=size is None)
    ctx.output(node, x)


RULES = {"CenterCropPad": center, "Split": split_rule, "Slice": slice_rule, "Gather": gather, "Pad": pad}
CONTRIB = {"Pad": pad, "TorchEmbedding": gather}
