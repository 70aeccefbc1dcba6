"""Normalisations that are written out: which reductions take the mean and the spread of n = (x - mean) / spread.

A reduction's result is followed through elementwise operators for as long as it meets nothing but constants and other
statistics. What it then meets must be the reduced tensor itself: a mean is subtracted from it, a spread (the root of a
mean or sum of squares) divides it. Exporters write

    RMSNorm     x / sqrt(mean(x^2) + eps)           Pow or Mul, ReduceMean, Add, Sqrt, then Div, or Reciprocal and Mul
    LayerNorm   d / sqrt(mean(d^2) + eps)           the same, with d = x - mean(x)
                x g + (shift - mean(x) g)           with g = scale / sqrt(var + eps), the variance from d, or
                                                    as mean(x^2) - mean(x)^2 (Keras, Flax)
    L2          x / max(sqrt(sum(x^2)), eps)        ReduceL2, or Mul, ReduceSum, Sqrt, then Clip or Max, Expand, Div

A reduction that is none of these freezes its axis, but for one: the mean and the largest over channels that spatial
attention (CBAM) lays side by side for a Conv. They are statistics of the units that are there as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Dim
from onnx_subprune.structure.context import Context
from onnx_subprune.structure.normalisations import Normalisation, Spread, Statistic
from onnx_subprune.structure.records import DEFAULT_DOMAINS, label

__all__ = ["settle_reductions"]

# Operators through which a statistic stays one: elementwise, or moving axes of one entry.
_FOLLOWED = frozenset(
    ("Abs", "Add", "Cast", "Clip", "Div", "Expand", "Identity", "Max", "Min", "Mul", "Neg", "Pow", "Reciprocal",
     "Reshape", "Sqrt", "Squeeze", "Sub", "Sum", "Unsqueeze")
)  # fmt: skip
_HANDED_ON = ("Cast", "Identity")
_SUMMARIES = ("ReduceMax", "ReduceMean", "ReduceMin")


@dataclass(eq=False)
class _Trace:
    """What becomes of one reduction's result.

    Attributes:
        statistic: the reduction.
        met: (node, input) where the result meets a tensor that is no statistic.
        carried: names of the tensors that hold it, or what it became.
        lost: whether it goes anywhere else.

    """

    statistic: Statistic
    met: list[tuple[gs.Node, int]] = field(default_factory=list)
    carried: set[str] = field(default_factory=set)
    lost: bool = False

    @property
    def node(self) -> gs.Node:
        """The reduction."""
        return self.statistic.node


@dataclass(frozen=True, eq=False)
class _Meeting:
    """Where a spread meets input `index` of `node`: its way there, the last node first, and what took its root."""

    node: gs.Node
    index: int
    path: list[tuple[gs.Node, int]]
    root: gs.Node


def settle_reductions(graph: gs.Graph, ctx: Context) -> None:
    """Freeze the axes of every reduction, or note that it is part of a normalisation."""
    unfrozen = [reduction for reduction in ctx.reductions if any(_unfrozen(dim) for _, dim in reduction.axes)]
    traces = _trace(graph, unfrozen, ctx)
    means = {id(trace.node): trace for trace in traces if _is_mean(trace)}
    named: dict[int, str] = {}
    for trace in traces:
        pattern = _spread(trace, means.values(), ctx)
        if pattern is None:
            continue
        named[id(trace.node)] = pattern.kind
        named.update({key: pattern.kind for key, mean in means.items() if pattern.centred and _reads(mean, trace, ctx)})
        if ctx.prune_normalised:
            ctx.note(pattern)
    for reduction in unfrozen:
        kind = named.get(id(reduction.node))
        if kind is not None:
            ctx.normalise(reduction.node, dict(reduction.axes), f"{kind} written out at {label(reduction.node)}")
            continue
        if _is_read_by_a_conv(reduction.node, graph):
            ctx.normalise(reduction.node, dict(reduction.axes), does="reduces")
            continue
        for _, dim in reduction.axes:
            ctx.freeze(dim, reduction.node, "reduces over this axis")


def _is_read_by_a_conv(node: gs.Node, graph: gs.Graph) -> bool:
    """Whether a mean, or the largest or smallest, is read by Convs alone, at once or beside others in a Concat."""
    if node.op not in _SUMMARIES:
        return False
    read = [node.outputs[0]]
    for reader in node.outputs[0].outputs:
        if reader.op == "Concat":
            read.append(reader.outputs[0])
    readers = [reader for tensor in read for reader in tensor.outputs if reader.op != "Concat"]
    given_out = any(tensor is output for tensor in read for output in graph.outputs)
    return bool(readers) and all(reader.op == "Conv" for reader in readers) and not given_out


def _unfrozen(dim: Dim) -> bool:
    return any(not atom.reasons for atom in dim.atoms())


def _trace(graph: gs.Graph, reductions: Iterable[Statistic], ctx: Context) -> list[_Trace]:
    """Follow the results of the reductions, in graph order."""
    traces = {id(reduction.node): _Trace(reduction) for reduction in reductions}
    made_of: dict[str, tuple[_Trace, ...]] = {}
    for node in graph.nodes:
        own = traces.get(id(node))
        origins = tuple(dict.fromkeys(trace for t in node.inputs for trace in made_of.get(t.name, ())))
        if own is not None:
            for trace in origins:
                trace.lost = True
            made_of[node.outputs[0].name] = (own,)
            own.carried.add(node.outputs[0].name)
        elif origins:
            _step(node, origins, made_of, ctx)
    for tensor in graph.outputs:
        for trace in made_of.get(tensor.name, ()):
            trace.lost = True
    return list(traces.values())


def _step(node: gs.Node, origins: tuple[_Trace, ...], made_of: dict[str, tuple[_Trace, ...]], ctx: Context) -> None:
    """Hand the statistics that a node reads on, or note what they meet there."""
    if node.op == "Shape":
        return
    others = [
        t for t in node.inputs if t.name not in made_of and not ctx.is_constant(t) and t.name not in ctx.extents
        and not t.is_empty()
    ]  # fmt: skip
    if node.op not in _FOLLOWED or node.domain not in DEFAULT_DOMAINS:
        for trace in origins:
            trace.lost = True
    elif others:
        for index, tensor in enumerate(node.inputs):
            for trace in made_of.get(tensor.name, ()):
                trace.met.append((node, index))
    else:
        made_of[node.outputs[0].name] = origins
        for trace in origins:
            trace.carried.add(node.outputs[0].name)


def _is_mean(trace: _Trace) -> bool:
    """Whether the reduction is a mean that is subtracted from what it is the mean of."""
    if trace.lost or trace.node.op != "ReduceMean":
        return False
    x = _source(trace.node.inputs[0])
    return any(_is_centring(node, index, x) for node, index in trace.met)


def _is_centring(node: gs.Node, index: int, x: gs.Tensor) -> bool:
    return node.op == "Sub" and index == 1 and _source(node.inputs[0]) is x


def _reads(mean: _Trace, spread: _Trace, ctx: Context) -> bool:
    """Whether a mean belongs to a spread: of the tensor that is squared, or of the one that was centred to give it."""
    x, base = _source(mean.node.inputs[0]), _squared(spread.node, ctx)
    return base is x or any(_is_centring(n, i, x) and n.outputs[0] is base for n, i in mean.met)


def _spread(trace: _Trace, means: Iterable[_Trace], ctx: Context) -> Normalisation | None:
    """Return the normalisation whose spread a reduction takes, or None."""
    base = None if trace.lost else _squared(trace.node, ctx)
    if base is None:
        return None
    own_means = [mean for mean in means if _reads(mean, trace, ctx)]
    centred = {id(n.outputs[0]) for mean in own_means for n, i in mean.met if n.op == "Sub" and i == 1}
    allowed = {id(base), *centred, *(id(_source(mean.node.inputs[0])) for mean in own_means)}
    for node, index in trace.met:
        if node.op not in ("Div", "Mul") or id(_source(node.inputs[1 - index])) not in allowed:
            continue
        path = _path(node.inputs[index], trace)
        root = next((step for step, _ in path if _takes_root(step, trace, ctx)), None)
        # To divide by the spread is to multiply by one over it.
        if root is not None and _inverts(path, ctx) == (node.op == "Mul") and (node.op == "Mul" or index == 1):
            return _normalisation(trace, _Meeting(node, 1 - index, path, root), bool(own_means), ctx)
    return None


def _path(tensor: gs.Tensor, trace: _Trace) -> list[tuple[gs.Node, int]]:
    """Return the nodes between a reduction and what became of it, the last one first, with the input they read."""
    node = tensor.inputs[0]
    if node is trace.node:
        return [(node, 0)]
    index, inner = next((i, t) for i, t in enumerate(node.inputs) if t.name in trace.carried)
    return [(node, index), *_path(inner, trace)]


def _takes_root(node: gs.Node, trace: _Trace, ctx: Context) -> bool:
    if node is trace.node:
        return bool(node.op == "ReduceL2")
    return bool(node.op == "Sqrt" or (node.op == "Pow" and _exponent(node, ctx) in (0.5, -0.5)))


def _inverts(path: list[tuple[gs.Node, int]], ctx: Context) -> bool:
    """Whether the result at the end of a path falls as the statistic rises."""
    turns = [
        node.op == "Reciprocal" or (node.op == "Div" and index == 1)
        or (node.op == "Pow" and (_exponent(node, ctx) or 0) < 0)
        for node, index in path
    ]  # fmt: skip
    return turns.count(True) % 2 == 1


def _normalisation(trace: _Trace, meeting: _Meeting, centred: bool, ctx: Context) -> Normalisation:
    """Return the normalisation whose spread divides a tensor at `meeting`."""
    node, root = meeting.node, meeting.root
    averaged = trace.node.op == "ReduceMean"
    kind = ("LayerNorm" if centred else "RMSNorm") if averaged else "L2 normalisation"
    axis, dim = max(trace.statistic.axes, key=lambda pair: _unfrozen(pair[1]))
    # Where a factor for each entry was multiplied into the spread, the product is not the normalised tensor.
    mixed = any(_has_entries(step, ctx) for step, _ in meeting.path[:-1])
    # Nor is it where the mean is subtracted afterwards (Keras).
    raw = centred and not _is_centred(_source(node.inputs[meeting.index]))
    inverse = root.op == "Pow" and (_exponent(root, ctx) or 0) < 0
    unrestored = "its scale is part of them" if mixed or raw else None
    pooled = len(trace.statistic.axes) > 1
    return Normalisation(
        trace.node, kind, node.outputs[0].name, axis, dim, centred, averaged, pooled,
        spread=Spread(root, inverse), unrestored=unrestored,
    )  # fmt: skip


def _has_entries(node: gs.Node, ctx: Context) -> bool:
    """Whether a constant of more than one entry takes part in elementwise arithmetic."""
    moves = node.op in ("Expand", "Reshape", "Squeeze", "Unsqueeze", "ReduceMean")
    return not moves and any(ctx.is_constant(tensor) and math.prod(tensor.shape) > 1 for tensor in node.inputs)


def _squared(node: gs.Node, ctx: Context) -> gs.Tensor | None:
    """Return the tensor whose squares a reduction sums or averages, or None."""
    x = _source(node.inputs[0])
    if node.op in ("ReduceL2", "ReduceSumSquare"):
        return x
    maker = x.inputs[0] if node.op in ("ReduceMean", "ReduceSum") and x.inputs else None
    if maker is None or maker.op not in ("Pow", "Mul"):
        return None
    first, second = maker.inputs
    if maker.op == "Pow":
        return _source(first) if _scalar(second, ctx) == 2 else None
    return _source(first) if _source(first) is _source(second) else None


def _is_centred(tensor: gs.Tensor) -> bool:
    return bool(tensor.inputs) and tensor.inputs[0].op == "Sub"


def _exponent(node: gs.Node, ctx: Context) -> float | None:
    return _scalar(node.inputs[1], ctx)


def _source(tensor: gs.Tensor) -> gs.Tensor:
    """Return the tensor behind casts."""
    while tensor.inputs and tensor.inputs[0].op in _HANDED_ON:
        tensor = tensor.inputs[0].inputs[0]
    return tensor


def _scalar(tensor: gs.Tensor, ctx: Context) -> float | None:
    if not ctx.is_constant(tensor) or int(np.prod(tensor.shape)) != 1:
        return None
    return float(np.asarray(tensor.values).ravel()[0])
