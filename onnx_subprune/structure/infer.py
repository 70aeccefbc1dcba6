"""Run the operator rules over a graph, in topological order.

Unification only refines and sizes never change, so one pass reaches the fixpoint. Whatever a rule does not understand
becomes a barrier: the axes it touches are frozen with a reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context, NotUnderstood, label
from onnx_subprune.structure.dims import Dim, fresh, freeze
from onnx_subprune.structure.extents import dims_of
from onnx_subprune.structure.groups import Structure, collect
from onnx_subprune.structure.rules import RULES, SHAPE_RULES

__all__ = ["infer"]

_DEFAULT_DOMAINS = (None, "", "ai.onnx")
# Operators that read sizes as sizes: an extent that ends anywhere else enters the computation as a number.
_SIZE_INPUTS = {
    "Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Split": (1,), "Pad": (1, 3), "Tile": (1,),
    "ConstantOfShape": (0,), "Resize": (3,), "Squeeze": (1,), "Unsqueeze": (1,), "Shape": (0,),
}  # fmt: skip


def infer(graph: gs.Graph, input_shapes: Mapping[str, tuple[int, ...]]) -> Structure:
    """Return groups, consumers and all that has to change together in `graph`.

    Args:
        graph: topologically sorted; constants folded. It is not changed.
        input_shapes: the sizes to count multiply-accumulates with, for every graph input.
    """
    ctx = Context(opset=graph.opset)
    for tensor in graph.inputs:
        _enter(tensor, input_shapes[tensor.name], ctx)
    for node in graph.nodes:
        _visit(node, ctx)
    for tensor in graph.outputs:
        _freeze_tensor(tensor, f"graph output '{tensor.name}'", ctx)
    return collect(graph, ctx)


def _enter(tensor: gs.Variable, shape: tuple[int, ...], ctx: Context) -> None:
    declared = tensor.shape if tensor.shape is not None else [None] * len(shape)
    symbols: dict[str, Dim] = {}
    axes = []
    for size, given in zip(shape, declared, strict=True):
        if isinstance(given, int):
            axes.append(fresh(given))
        elif given in symbols and isinstance(given, str):
            axes.append(symbols[given])
        else:
            axes.append(fresh(size, dynamic=True))
            symbols[str(given)] = axes[-1]
    for i, dim in enumerate(axes):
        freeze(dim, f"axis {i} of graph input '{tensor.name}'")
    ctx.axes[tensor.name] = tuple(axes)


def _visit(node: gs.Node, ctx: Context) -> None:
    try:
        if node.domain not in _DEFAULT_DOMAINS or node.op not in RULES | SHAPE_RULES:
            raise NotUnderstood(f"no rule for operator {label(node)}")
        if not _shape_arithmetic(node, ctx):
            if node.op not in RULES:
                raise NotUnderstood(f"no rule for operator {label(node)}")
            _guard_sizes(node, ctx)
            RULES[node.op](node, ctx)
    except (NotUnderstood, ValueError, KeyError, IndexError) as refusal:
        # A malformed or unusual node surfaces as one of the built-in errors: it is refused like an unknown one.
        known = isinstance(refusal, NotUnderstood)
        _barrier(node, str(refusal) if known else f"{label(node)} has an unusual form ({refusal})", ctx)


def _shape_arithmetic(node: gs.Node, ctx: Context) -> bool:
    rule = SHAPE_RULES.get(node.op)
    values = rule(node, ctx) if rule is not None else None
    if values is None:
        return False
    name = node.outputs[0].name
    ctx.extents[name] = values
    ctx.axes[name] = tuple(fresh(n) for n in values.shape)
    return True


def _guard_sizes(node: gs.Node, ctx: Context) -> None:
    """Freeze the axes whose size this node takes as a number (an attention scale computed from the width, say)."""
    for index, tensor in enumerate(node.inputs):
        if index in _SIZE_INPUTS.get(node.op, ()) or isinstance(tensor, gs.Constant):
            continue
        _freeze_sizes(ctx.extents.get(tensor.name), f"{label(node)} computes with the size of this axis", ctx)


def _freeze_sizes(values: np.ndarray | None, reason: str, ctx: Context) -> None:
    for extent in () if values is None else values.ravel():
        for dim in dims_of(extent):
            freeze(dim, reason)


def _barrier(node: gs.Node, reason: str, ctx: Context) -> None:
    """Freeze all that a node touches, also from inside its subgraphs, and give its outputs frozen axes."""
    for tensor in (*node.inputs, *_captured(node)):
        _freeze_tensor(tensor, reason, ctx)
    for tensor in node.outputs:
        if tensor.shape is None:
            ctx.axes.pop(tensor.name, None)
            continue
        axes = tuple(fresh(n if isinstance(n, int) and n > 0 else 1, not isinstance(n, int)) for n in tensor.shape)
        for dim in axes:
            freeze(dim, reason)
        ctx.axes[tensor.name] = axes


def _freeze_tensor(tensor: Any, reason: str, ctx: Context) -> None:
    _freeze_sizes(ctx.extents.get(tensor.name), reason, ctx)
    if isinstance(tensor, gs.Constant):
        axes = ctx.tie(tensor)
    else:
        axes = ctx.axes.get(tensor.name, ())
    for dim in axes:
        freeze(dim, reason)


def _captured(node: gs.Node) -> Iterator[Any]:
    """Yield the tensors that a node's subgraphs read."""
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            for inner in value.nodes:
                yield from inner.inputs
                yield from _captured(inner)
            yield from value.outputs
