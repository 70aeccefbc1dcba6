"""Attention in one operator: heads go from queries, keys and values at once, value channels from values.

Flat axes are heads x channels, row-major; H heads of queries share the K heads of keys and values, H = K x shared. What
queries and keys multiply may go as well, in pairs, where both come as tensors and nothing in between (a bias, a
rotation) ties the pairs together: the scale, which follows from the size of the heads, is then written out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import ONE, Dim, Size, concat, fresh, product
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import Consumer, Contraction, Default, MacTerm, label

__all__ = ["CONTRIB", "RULES"]

_PACKED, _FLAT, _SPLIT = 5, 3, 4


@dataclass(frozen=True)
class _Heads:
    """The axes inside an attention: `keys` heads of keys and values, each `shared` by as many heads of queries."""

    keys: Dim
    shared: Dim
    channels: Dim
    values: Dim

    @classmethod
    def of(cls, node: gs.Node, queries: int, keys: int, channels: int, values: int) -> _Heads:
        """Return new axes: `channels` and `values` are the sizes of a head. Raises NotUnderstood for odd numbers."""
        if keys < 1 or queries % keys or channels < 1 or values < 1:
            raise NotUnderstood(f"{label(node)} has {queries} heads of queries and {keys} of keys")
        return cls(fresh(keys), fresh(queries // keys), fresh(channels), fresh(values))

    @property
    def all(self) -> Dim:
        """The heads of queries."""
        return product(self.keys, self.shared)

    @property
    def query(self) -> Dim:
        """The flat axis of queries."""
        return product(self.all, self.channels)

    @property
    def key(self) -> Dim:
        """The flat axis of keys."""
        return product(self.keys, self.channels)

    @property
    def value(self) -> Dim:
        """The flat axis of values."""
        return product(self.keys, self.values)

    @property
    def output(self) -> Dim:
        """The flat axis of what comes out."""
        return product(self.all, self.values)


def packed_attention(node: gs.Node, ctx: Context) -> None:
    """Attention of ONNX Runtime: X [B, S, I], weights [I, q + k + v], bias, past [2, B, H, P, C], output [B, S, v]."""
    known = ctx.weight(node, 1)
    if known is None:
        raise NotUnderstood(f"{label(node)} has a weight that is computed")
    weight, w = known
    if len(w) != 2:
        raise NotUnderstood(f"{label(node)} has a weight of {len(w)} axes, where 2 are expected")
    contracted, columns = w
    batch, sequence, width = ctx.input(node, 0, rank=3)
    ctx.unify(width, contracted, node)
    heads = _packed_heads(node, columns, ctx)
    rows = concat(heads.query, heads.key, heads.value)
    ctx.unify(columns, rows, node)
    if ctx.has(node, 2):
        (bias,) = ctx.input(node, 2, rank=1)
        ctx.unify(bias, rows, node)
    ctx.freeze(heads.channels, node, "multiplies queries by keys over this axis, out of sight")
    ctx.use("producer", node, 1, weight.constant, [(weight.perm[1], columns)])
    ctx.use("consumer", node, 1, weight.constant, [(weight.perm[0], contracted)])
    ctx.note(Consumer(node, node.inputs[0].name, 2, contracted, columns, weight, 1))
    _hold_batch(node, batch, (3, 4, 5, 6), ctx)
    total = _packed_memory(node, batch, sequence, heads, ctx)
    _scores(node, 5, heads, ctx)
    ctx.output(node, (batch, sequence, heads.output))
    ctx.note(MacTerm(node, (batch, sequence, contracted, columns)))
    _count(node, (batch, sequence, total), heads, ctx)


def _packed_memory(node: gs.Node, batch: Dim, sequence: Dim, heads: _Heads, ctx: Context) -> Dim:
    """Return the axis that is attended over; keys and values of earlier steps are one tensor [2, B, H, P, C]."""
    remembers = ctx.has(node, 4) or (len(node.outputs) > 1 and node.outputs[1].name)
    if not remembers:
        ctx.freeze(sequence, node, "attends over this axis")
        return sequence
    if heads.values.size != heads.channels.size:
        raise NotUnderstood(f"{label(node)} remembers keys and values of different sizes in one tensor")
    ctx.freeze(heads.values, node, "remembers keys and values in one tensor")
    total = _total(node, sequence, ctx)
    if ctx.has(node, 4):
        past = ctx.input(node, 4, rank=5)
        ctx.unify(past[2], heads.keys, node)
        ctx.unify(past[4], heads.channels, node)
    ctx.output(node, (ctx.computed_axis(node, 2), batch, heads.keys, total, heads.channels), 1)
    return total


def _packed_heads(node: gs.Node, columns: Dim, ctx: Context) -> _Heads:
    """Return the heads of packed weights; sizes that are not given are those of three equal parts."""
    count, given = ctx.count(node, "num_heads"), node.attrs.get("qkv_hidden_sizes")
    sizes = tuple(int(n) for n in given) if given else (columns.size // 3,) * 3
    if len(sizes) != 3 or sum(sizes) != columns.size or sizes[0] != sizes[1] or any(size % count for size in sizes):
        raise NotUnderstood(f"{label(node)} cuts {columns.size} columns to {count} heads of {sizes}")
    heads = _Heads.of(node, count, count, sizes[0] // count, sizes[2] // count)
    if not given:
        ctx.note(Default(node, "qkv_hidden_sizes", sizes, product(heads.keys, heads.values)))
    ctx.expect_size(node, "num_heads", None, heads.keys)
    for position, part in enumerate((heads.query, heads.key, heads.value)):
        ctx.expect(node, "qkv_hidden_sizes", position, Size(part), sizes[position])
    return heads


def multi_head(node: gs.Node, ctx: Context) -> None:
    """MultiHeadAttention of ONNX Runtime: flat queries [B, S, H*C], keys and values flat or [B, H, L, C], a bias."""
    _refuse_packed(node, ctx)
    count = ctx.count(node, "num_heads")
    operands = _Operands.of(node, ctx, count, count)
    heads = operands.heads
    ctx.expect_size(node, "num_heads", None, heads.keys)
    if len(ctx.input(node, 1)) == _SPLIT or ctx.has(node, 6):
        for dim in (heads.channels, heads.values):
            ctx.freeze(dim, node, "has one size of head for keys and values")
    if ctx.has(node, 3):
        (bias,) = ctx.input(node, 3, rank=1)
        ctx.unify(bias, concat(heads.query, heads.key, heads.value), node)
        ctx.freeze(heads.channels, node, "adds a bias before it multiplies queries by keys")
    operands.relate(node, ctx, past=(6, 7), scores=5, per_sample=(4,))


def grouped(node: gs.Node, ctx: Context) -> None:
    """GroupQueryAttention of ONNX Runtime: flat queries, keys, values of one size of head, apart or in one tensor."""
    if any(ctx.has(node, index) for index in (12, 13)):
        raise NotUnderstood(f"{label(node)} keeps quantised keys and values")
    queries, keys = ctx.count(node, "num_heads"), ctx.count(node, "kv_num_heads")
    if ctx.has(node, 1):
        operands = _Operands.of(node, ctx, queries, keys)
    else:
        operands = _Operands.in_one(node, ctx, queries, keys)
    heads = operands.heads
    for dim in (heads.channels, heads.values):
        ctx.freeze(dim, node, "has one size of head for keys and values")
    ctx.expect_size(node, "num_heads", None, heads.all)
    ctx.expect_size(node, "kv_num_heads", None, heads.keys)
    if ctx.has(node, 11):
        (sink,) = ctx.input(node, 11, rank=1)
        ctx.unify(sink, heads.all, node)
    operands.relate(node, ctx, past=(3, 4), scores=10, per_sample=(5, 9))


def attention(node: gs.Node, ctx: Context) -> None:
    """Attention of ONNX (opset 23): queries, keys, values, all flat and the numbers of heads given, or [B, H, S, C]."""
    query, key = ctx.input(node, 0), ctx.input(node, 1)
    flat = len(query) == _FLAT
    if not flat:
        ctx.same_rank(node, query, key, (ONE,) * _SPLIT)
    queries = ctx.count(node, "q_num_heads") if flat else query[1].size
    keys = ctx.count(node, "kv_num_heads") if flat else key[1].size
    operands = _Operands.of(node, ctx, queries, keys)
    if flat:
        ctx.expect_size(node, "q_num_heads", None, operands.heads.all)
        ctx.expect_size(node, "kv_num_heads", None, operands.heads.keys)
    operands.relate(node, ctx, past=(4, 5), scores=3, per_sample=(6,))


def _refuse_packed(node: gs.Node, ctx: Context) -> None:
    if len(ctx.input(node, 0)) == _PACKED or not (ctx.has(node, 1) and ctx.has(node, 2)):
        raise NotUnderstood(f"{label(node)} takes queries, keys or values packed in one tensor")


@dataclass(frozen=True)
class _Operands:
    """Queries, keys and values of one node, and what they have in common; `place` is where a head's channels are."""

    heads: _Heads
    batch: Dim
    queries: Dim
    keys: Dim
    flat: bool
    place: tuple[int, int] | None

    @classmethod
    def of(cls, node: gs.Node, ctx: Context, queries: int, keys: int) -> _Operands:
        """Unify the axes of three tensors with those of `queries` and `keys` heads."""
        q, k, v = (ctx.input(node, index) for index in range(3))
        if any(len(axes) not in (_FLAT, _SPLIT) for axes in (q, k, v)):
            raise NotUnderstood(f"{label(node)} takes queries, keys or values packed in one tensor")
        channels = q[2].size // queries if len(q) == _FLAT else q[3].size
        values = v[2].size // keys if len(v) == _FLAT else v[3].size
        heads = _Heads.of(node, queries, keys, channels, values)
        sequence = _unify_heads(node, q, heads.all, heads.channels, ctx)
        length = _unify_heads(node, k, heads.keys, heads.channels, ctx)
        ctx.unify(_unify_heads(node, v, heads.keys, heads.values, ctx), length, node)
        for other in (k, v):
            # Heads may be part of the batch: those of queries go with those of keys and values.
            ctx.unify(q[0], other[0], node)
        place = (len(q) - 1, len(k) - 1) if len(q) == len(k) else None
        return cls(heads, q[0], sequence, length, len(q) == _FLAT, place)

    @classmethod
    def in_one(cls, node: gs.Node, ctx: Context, queries: int, keys: int) -> _Operands:
        """Unify the axis of one tensor with queries, keys and values laid end to end."""
        batch, sequence, width = ctx.input(node, 0, rank=_FLAT)
        channels, rest = divmod(width.size, queries + 2 * keys)
        if rest:
            raise NotUnderstood(f"{label(node)} cuts {width.size} entries to {queries} and 2 x {keys} heads")
        heads = _Heads.of(node, queries, keys, channels, channels)
        ctx.unify(width, concat(heads.query, heads.key, heads.value), node)
        return cls(heads, batch, sequence, sequence, flat=True, place=None)

    def relate(
        self, node: gs.Node, ctx: Context, *, past: tuple[int, int], scores: int, per_sample: tuple[int, ...]
    ) -> None:
        """Set the outputs: the attended values, the keys and values remembered, and the scores.

        Inputs `per_sample` (lengths, padding masks) hold something for each sample, as those of `past` and `scores` do.
        """
        heads = self.heads
        _hold_batch(node, self.batch, (*past, scores, *per_sample), ctx)
        for dim in (self.queries, self.keys):
            ctx.freeze(dim, node, "attends over this axis")
        self._pair(node, ctx)
        total = self.keys
        for index, channels in zip(past, (heads.channels, heads.values), strict=True):
            if ctx.has(node, index):
                earlier = ctx.input(node, index, rank=_SPLIT)
                ctx.unify(earlier[1], heads.keys, node)
                ctx.unify(earlier[3], channels, node)
                total = _total(node, self.keys, ctx) if total is self.keys else total
        _scores(node, scores, heads, ctx)
        split = (self.batch, heads.all, self.queries, heads.values)
        ctx.output(node, (self.batch, self.queries, heads.output) if self.flat else split)
        ctx.output(node, (self.batch, heads.keys, total, heads.channels), 1)
        ctx.output(node, (self.batch, heads.keys, total, heads.values), 2)
        ctx.output(node, (self.batch, heads.all, self.queries, total), 3)
        _count(node, (self.batch, self.queries, total), heads, ctx)

    def _pair(self, node: gs.Node, ctx: Context) -> None:
        """Let pairs of query and key channels go, where every head of queries has keys of its own."""
        heads = self.heads
        if self.place is None or heads.shared.size > 1:
            ctx.freeze(heads.channels, node, "multiplies keys that several heads share, or that lie otherwise")
            return
        if any(ctx.is_constant(tensor) for tensor in node.inputs[:2]):
            ctx.freeze(heads.channels, node, "multiplies queries or keys that are constant")
            return
        queries, keys = (tensor.name for tensor in node.inputs[:2])
        blocks = heads.keys if self.flat else ONE
        sides = ((queries, self.place[0]), (keys, self.place[1]))
        ctx.note(Contraction(node, sides, product(blocks, heads.channels), blocks))
        if not node.attrs.get("scale"):
            ctx.note(Default(node, "scale", 1 / math.sqrt(heads.channels.size), heads.channels))


def _unify_heads(node: gs.Node, axes: tuple[Dim, ...], heads: Dim, channels: Dim, ctx: Context) -> Dim:
    """Unify the axes of queries, keys or values with heads and channels; return the axis of the sequence."""
    if len(axes) == _FLAT:
        ctx.unify(axes[2], product(heads, channels), node)
        return axes[1]
    ctx.unify(axes[1], heads, node)
    ctx.unify(axes[3], channels, node)
    return axes[2]


def _hold_batch(node: gs.Node, batch: Dim, inputs: tuple[int, ...], ctx: Context) -> None:
    """Freeze the batch where other inputs hold something for each sample of it."""
    if any(ctx.has(node, index) for index in inputs):
        ctx.freeze(batch, node, "has other inputs for each sample")


def _total(node: gs.Node, new: Dim, ctx: Context) -> Dim:
    """Return the axis of remembered entries and new ones."""
    ctx.freeze(new, node, "attends over this axis")
    return ctx.computed_axis(node, new.size, dynamic=True)


def _scores(node: gs.Node, index: int, heads: _Heads, ctx: Context) -> None:
    """Unify the axis of heads of the summand of the scores [..., H, S, T]."""
    axes = ctx.input(node, index) if ctx.has(node, index) else ()
    if len(axes) > 2 and axes[-3].resolve() != ONE:
        ctx.unify(axes[-3], heads.all, node)


def _count(node: gs.Node, positions: tuple[Dim, Dim, Dim], heads: _Heads, ctx: Context) -> None:
    for channels in (heads.channels, heads.values):
        ctx.note(MacTerm(node, (*positions, heads.all, channels)))


def rotary(node: gs.Node, ctx: Context) -> None:
    """RotaryEmbedding: channels of a head are turned in pairs; heads pass. X is [B, S, H*C] or [B, H, S, C]."""
    x = ctx.input(node, 0)
    if len(x) not in (_FLAT, _SPLIT):
        raise NotUnderstood(f"{label(node)} turns a tensor of {len(x)} axes")
    channels = x[-1]
    if len(x) == _FLAT:
        heads = _rotated_heads(node, x[2].size, ctx)
        count, channels = fresh(heads), fresh(x[2].size // heads)
        ctx.unify(x[2], product(count, channels), node)
        if node.attrs.get("num_heads"):
            ctx.expect_size(node, "num_heads", None, count)
    ctx.freeze(channels, node, "turns the pairs of this axis")
    for dim in (x[0], x[1] if len(x) == _FLAT else x[2]):
        ctx.freeze(dim, node, "turns this axis by position")
    ctx.output(node, x)


def _rotated_heads(node: gs.Node, width: int, ctx: Context) -> int:
    """Return the number of heads: given, or what the table of cosines [positions, C / 2] says of their size."""
    heads = int(node.attrs.get("num_heads", 0))
    if not heads and not node.attrs.get("rotary_embedding_dim"):
        cosines = ctx.input(node, 2 if node.domain == "com.microsoft" else 1)
        heads = width // max(1, 2 * cosines[-1].size) if cosines else 0
    if heads < 1 or width % heads:
        raise NotUnderstood(f"{label(node)} does not say how many heads it turns")
    return heads


RULES = {"Attention": attention, "RotaryEmbedding": rotary}
CONTRIB = {
    "Attention": packed_attention,
    "GroupQueryAttention": grouped,
    "MultiHeadAttention": multi_head,
    "RotaryEmbedding": rotary,
}
