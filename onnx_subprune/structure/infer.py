"""Run the operator rules over a graph, in topological order.

Unification only refines and sizes never change, so one pass reaches the fixpoint. Whatever a rule does not understand
becomes a barrier: the axes it touches are frozen with a reason.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, TypeAlias

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import DEFAULT_DOMAINS, Context, NotUnderstood, captured, label
from onnx_subprune.structure.dims import Dim, freeze, fresh, purely_dynamic
from onnx_subprune.structure.extents import dims_of, evaluate, fixed, in_step
from onnx_subprune.structure.groups import Structure, collect
from onnx_subprune.structure.recognise import settle_reductions
from onnx_subprune.structure.rules import SHAPE_RULES, rule_of

__all__ = ["infer"]

# The axis that a declared symbol stands for, by symbol and nominal size.
Symbols: TypeAlias = dict[tuple[str, int], Dim]

# What exporters write for a size of which nothing is known.
_ANY_SIZE = {"", "?", "*", "-1", "none", "unknown", "unk", "dynamic"}

# Operators that read sizes as sizes: an extent that ends anywhere else enters the computation as a number.
_SIZE_INPUTS = {
    "Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Split": (1,), "Pad": (1, 3), "Tile": (1,),
    "ConstantOfShape": (0,), "Resize": (3,), "Squeeze": (1,), "Unsqueeze": (1,), "Shape": (0,),
}  # fmt: skip


def infer(
    graph: gs.Graph,
    input_shapes: Mapping[str, tuple[int, ...]],
    overridable: Collection[str] = (),
    *,
    prune_normalised: bool = False,
) -> Structure:
    """Return groups, consumers and all that has to change together in `graph`.

    Args:
        graph: topologically sorted; constants folded. It is not changed.
        input_shapes: the sizes to count multiply-accumulates with, for every graph input.
        overridable: names of initializers that are graph inputs too: the caller may replace them, so they stay whole.
        prune_normalised: whether axes that a normalisation takes statistics over may shrink.

    """
    ctx = Context(opset=graph.opset, overridable=frozenset(overridable), prune_normalised=prune_normalised)
    symbols: Symbols = {}
    for tensor in graph.inputs:
        _enter(tensor, input_shapes[tensor.name], symbols, ctx)
    for node in graph.nodes:
        _visit(node, ctx)
        _name_sizes(node, symbols, ctx)
    for tensor in graph.outputs:
        _freeze_tensor(tensor, f"graph output '{tensor.name}'", ctx)
    settle_reductions(graph, ctx)
    _settle_sizes(ctx)
    return collect(graph, ctx)


def _enter(tensor: gs.Variable, shape: tuple[int, ...], symbols: Symbols, ctx: Context) -> None:
    declared = tensor.shape if tensor.shape is not None else [None] * len(shape)
    axes = []
    for size, given in zip(shape, declared, strict=True):
        # Some exporters write a dynamic axis as -1.
        if isinstance(given, int) and given > 0:
            axes.append(fresh(given))
        elif _names_a_size(given):
            axes.append(symbols.setdefault((given, size), fresh(size, dynamic=True)))
        else:
            axes.append(fresh(size, dynamic=True))
    for i, dim in enumerate(axes):
        freeze(dim, f"axis {i} of graph input '{tensor.name}'")
    ctx.axes[tensor.name] = tuple(axes)


def _names_a_size(symbol: object) -> bool:
    """Whether a declared size is a name that means the same size everywhere, and not a mark for any size."""
    return isinstance(symbol, str) and symbol.strip().lower() not in _ANY_SIZE


def _name_sizes(node: gs.Node, symbols: Symbols, ctx: Context) -> None:
    """Take axes that are declared to have the same size at run time for one; nothing is ever pruned from them."""
    for tensor in node.outputs:
        axes, declared = ctx.axes.get(tensor.name, ()), tensor.shape or ()
        for dim, symbol in zip(axes, declared, strict=False):
            if _names_a_size(symbol) and purely_dynamic(dim):
                known = symbols.setdefault((symbol, dim.size), dim)
                ctx.unify(known, dim, node)


def _visit(node: gs.Node, ctx: Context) -> None:
    try:
        if not _shape_arithmetic(node, ctx):
            rule = rule_of(node)
            if rule is None:
                raise NotUnderstood(f"no rule for operator {label(node)}")
            _guard_sizes(node, ctx)
            rule(node, ctx)
            _check_sizes(node, ctx)
    except (NotUnderstood, ValueError, KeyError, IndexError, ArithmeticError) as refusal:
        # A malformed or unusual node surfaces as one of the built-in errors: it is refused like an unknown one.
        known = isinstance(refusal, NotUnderstood)
        _barrier(node, str(refusal) if known else f"{label(node)} has an unusual form ({refusal})", ctx)


def _shape_arithmetic(node: gs.Node, ctx: Context) -> bool:
    rule = SHAPE_RULES.get(node.op) if node.domain in DEFAULT_DOMAINS else None
    values = rule(node, ctx) if rule is not None else None
    if values is None:
        return False
    name = node.outputs[0].name
    ctx.extents[name] = values
    ctx.axes[name] = tuple(fresh(n) for n in values.shape)
    for dim in ctx.axes[name]:
        ctx.freeze(dim, node, "computes sizes")
    return True


def _check_sizes(node: gs.Node, ctx: Context) -> None:
    """Hold the sizes that a rule found against those that ONNX's own inference knows."""
    for tensor in node.outputs:
        axes = ctx.axes.get(tensor.name)
        if axes is None or tensor.shape is None:
            continue
        agree = len(axes) == len(tensor.shape) and all(
            dim.dynamic or not isinstance(size, int) or dim.size == size
            for dim, size in zip(axes, tensor.shape, strict=True)
        )
        if not agree:
            found = "x".join(str(dim.size) for dim in axes)
            raise NotUnderstood(f"{label(node)} was expected to give {found} entries, but gives {tensor.shape}")


def _guard_sizes(node: gs.Node, ctx: Context) -> None:
    """Keep the numbers that this node computes from sizes (an attention scale from the width, say) as they are.

    A size that is cast is written down as the number it was; any other use freezes the axis.
    """
    for index, tensor in enumerate(node.inputs):
        if index in _SIZE_INPUTS.get(node.op, ()) or isinstance(tensor, gs.Constant):
            continue
        values = ctx.extents.get(tensor.name)
        known = values is not None and node.op == "Cast" and all(fixed(extent) is not None for extent in values.ravel())
        if values is None or not known:
            _freeze_sizes(values, f"{label(node)} computes with the size of this axis")
            continue
        for position, extent in enumerate(values.ravel()):
            ctx.expect(node, index, position, evaluate(extent, {}))


def _settle_sizes(ctx: Context) -> None:
    """Freeze the axes of sizes that could not be rewritten: at odds with the graph, or known at run time only."""
    settled = []
    for use in ctx.size_uses:
        expected, present = fixed(use.expected), evaluate(use.present, {})
        if in_step(use.expected, use.present) or expected == present:
            settled.append(use)
            continue
        for dim in (*dims_of(use.expected), *dims_of(use.present)):
            ctx.freeze(dim, use.node, "takes a size that cannot be rewritten")
    ctx.size_uses[:] = settled


def _freeze_sizes(values: np.ndarray | None, reason: str) -> None:
    for extent in () if values is None else values.ravel():
        for dim in dims_of(extent):
            freeze(dim, reason)


def _barrier(node: gs.Node, reason: str, ctx: Context) -> None:
    """Freeze all that a node touches, also from inside its subgraphs, and give its outputs frozen axes."""
    for tensor in node.inputs:
        _freeze_tensor(tensor, reason, ctx)
    for tensor in captured(node):
        _freeze_tensor(tensor, f"{label(node)} reads it in a body", ctx)
    for tensor in node.outputs:
        if tensor.shape is None:
            ctx.axes.pop(tensor.name, None)
            continue
        axes = tuple(fresh(n if isinstance(n, int) and n > 0 else 1, not isinstance(n, int)) for n in tensor.shape)
        for dim in axes:
            freeze(dim, reason)
        ctx.axes[tensor.name] = axes


def _freeze_tensor(tensor: Any, reason: str, ctx: Context) -> None:
    _freeze_sizes(ctx.extents.get(tensor.name), reason)
    axes = ctx.tie(tensor) if ctx.is_constant(tensor) else ctx.axes.get(tensor.name, ())
    for dim in axes:
        freeze(dim, reason)
