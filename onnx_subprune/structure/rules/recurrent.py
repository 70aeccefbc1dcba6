"""Recurrent layers: LSTM, GRU, RNN. Unit j has the rows j, H + j, 2H + j ... of W, R and B, and the column j of R.

The two directions of a bidirectional layer have the same number of units, for the operator has one `hidden_size`:
unit j of one goes with unit j of the other.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Dim, fresh, product, set_apart
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import RECURRENT, RECURRENT_STATES, Consumer, MacTerm, Use, Weight, label

__all__ = ["RULES"]

_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_W, _R, _B, _LENGTHS, _PEEPHOLES = 1, 2, 3, 4, 7


@dataclass(frozen=True)
class _Layer:
    """The axes of one layer; `rows` is gates x hidden."""

    steps: Dim
    batch: Dim
    directions: Dim
    hidden: Dim
    rows: Dim
    batch_first: bool

    @property
    def state(self) -> tuple[Dim, ...]:
        """Axes of a hidden or cell state."""
        first = (self.batch, self.directions) if self.batch_first else (self.directions, self.batch)
        return (*first, self.hidden)

    @property
    def states(self) -> tuple[Dim, ...]:
        """Axes of the hidden states of all steps."""
        if self.batch_first:
            return (self.batch, self.steps, self.directions, self.hidden)
        return (self.steps, self.directions, self.batch, self.hidden)


def recurrent(node: gs.Node, ctx: Context) -> None:
    """Relate X [S, N, I], W [D, G*H, I], R [D, G*H, H], B [D, 2*G*H], states [D, N, H], P [D, 3*H], Y [S, D, N, H]."""
    x = ctx.input(node, 0, rank=3)
    (weight, w), (feedback, r) = _constant_weight(node, _W, ctx), _constant_weight(node, _R, ctx)
    layer = _layer(node, x, r[2].size, w[0], ctx)
    if w[1].size != layer.rows.size or not node.outputs[0].name:
        raise NotUnderstood(f"{label(node)} has weights that do not fit its gates, or no first output")
    ctx.unify(x[2], w[2], node)
    for axis, expected in ((r[0], w[0]), (r[2], layer.hidden), (w[1], layer.rows), (r[1], layer.rows)):
        ctx.unify(axis, expected, node)
    _pass_parameters(node, layer, ctx)
    if "hidden_size" in node.attrs:
        ctx.expect_size(node, "hidden_size", None, layer.hidden)
    _record(node, ctx, _W, weight, layer)
    _record(node, ctx, _R, feedback, layer)
    _consumers(node, ctx, (weight, feedback), layer, w[2])
    for index, axes in enumerate((layer.states, layer.state, layer.state)):
        ctx.output(node, axes, index)
    once = (layer.steps, layer.batch, layer.directions, layer.rows)
    ctx.note(*(MacTerm(node, (*once, dim)) for dim in (w[2], layer.hidden)))


def _layer(node: gs.Node, x: tuple[Dim, ...], units: int, directions: Dim, ctx: Context) -> _Layer:
    batch_first = bool(node.attrs.get("layout", 0))
    steps, batch = (x[1], x[0]) if batch_first else (x[0], x[1])
    gates, hidden = fresh(_GATES[node.op]), fresh(units)
    ctx.freeze(steps, node, "runs along this axis")
    ctx.freeze(gates, node, "has these gates")
    ctx.freeze(directions, node, "has these directions")
    for dim in (gates, directions):
        set_apart(dim)
    return _Layer(steps, batch, directions, hidden, product(gates, hidden), batch_first)


def _constant_weight(node: gs.Node, index: int, ctx: Context) -> tuple[Weight, tuple[Dim, ...]]:
    known = ctx.weight(node, index)
    if known is None or len(known[1]) != 3:
        raise NotUnderstood(f"{label(node)} has weights that are computed")
    return known


def _pass_parameters(node: gs.Node, layer: _Layer, ctx: Context) -> None:
    """Biases, sequence lengths, initial states and peepholes."""
    two, three = fresh(2), fresh(3)
    for dim in (two, three):
        ctx.freeze(dim, node, "has these gates")
    if ctx.has(node, _B):
        _unify_all(node, _bias(node, ctx), (layer.directions, product(two, layer.rows)), ctx)
    if ctx.has(node, _LENGTHS):
        _unify_all(node, ctx.input(node, _LENGTHS), (layer.batch,), ctx)
    for index in RECURRENT_STATES:
        if ctx.has(node, index):
            _unify_all(node, ctx.input(node, index), layer.state, ctx)
    if ctx.has(node, _PEEPHOLES):
        _unify_all(node, ctx.input(node, _PEEPHOLES), (layer.directions, product(three, layer.hidden)), ctx)


def _unify_all(node: gs.Node, axes: tuple[Dim, ...], expected: tuple[Dim, ...], ctx: Context) -> None:
    ctx.same_rank(node, axes, expected)
    for axis, other in zip(axes, expected, strict=True):
        ctx.unify(axis, other, node)


def _bias(node: gs.Node, ctx: Context) -> tuple[Dim, ...]:
    """Return the axes of B; one that is stored elsewhere and handed on is tied to its other uses."""
    if ctx.is_constant(node.inputs[_B]):
        return ctx.input(node, _B)
    known = ctx.weight(node, _B)
    if known is None:
        raise NotUnderstood(f"{label(node)} has a bias that is computed")
    weight, axes = known
    ctx.use("carrier", node, _B, weight.constant, list(zip(weight.perm, axes, strict=True)))
    return axes


def _record(node: gs.Node, ctx: Context, index: int, weight: Weight, layer: _Layer) -> None:
    ctx.note(Use("producer", node, index, weight.constant, weight.perm[1], layer.rows, part=layer.hidden))


def _consumers(node: gs.Node, ctx: Context, weights: tuple[Weight, Weight], layer: _Layer, inputs: Dim) -> None:
    """W reads the input. R reads the states that the layer gives out, a step later: each direction its own."""
    weight, feedback = weights
    for index, read, dim in ((_W, weight, inputs), (_R, feedback, layer.hidden)):
        ctx.use("consumer", node, index, read.constant, [(read.perm[2], dim)])
    outputs = product(layer.directions, layer.rows)
    ctx.note(Consumer(node, node.inputs[0].name, 2, inputs, outputs, weight, _W))
    own = product(layer.directions, layer.hidden)
    stack = () if layer.directions.size == 1 else (2 if layer.batch_first else 1,)
    states = node.outputs[0].name
    ctx.note(Consumer(node, states, 3, own, outputs, feedback, _R, blocks=layer.directions, stack=stack))


RULES = dict.fromkeys(RECURRENT, recurrent)
