"""Run the operator rules over a graph, in topological order.

Unification only refines and sizes never change, so one pass reaches the fixpoint. Whatever a rule does not understand
becomes a barrier: the axes it touches are frozen with a reason.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.errors import InternalError
from onnx_subprune.structure import rule_errors
from onnx_subprune.structure.axes import (
    ONE,
    dims_of,
    evaluate,
    fixed,
    freeze,
    fresh,
    in_step,
    proportional,
    purely_dynamic,
)
from onnx_subprune.structure.branch_places import is_hoisted
from onnx_subprune.structure.compared_outputs import freeze_unseen
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.groups import Structure, collect
from onnx_subprune.structure.normalisation_patterns import settle_reductions
from onnx_subprune.structure.records import DEFAULT_DOMAINS, Records, captured, label
from onnx_subprune.structure.rules import SHAPE_RULES, rule_of
from onnx_subprune.structure.rules.elementwise import ELEMENTWISE
from onnx_subprune.structure.rules.refusals import reason_for

__all__ = ["infer"]

_logger = logging.getLogger(__name__)

# Operators that read sizes as sizes: an extent that ends anywhere else enters the computation as a number.
_SIZE_INPUTS = {
    "Reshape": (1,), "Expand": (1,), "Slice": (1, 2, 3, 4), "Split": (1,), "Pad": (1, 3), "Tile": (1,),
    "ConstantOfShape": (0,), "Resize": (3,), "Squeeze": (1,), "Unsqueeze": (1,), "Shape": (0,),
    "CenterCropPad": (1,), "MaxUnpool": (2,),
}  # fmt: skip


def infer(
    graph: gs.Graph,
    input_shapes: Mapping[str, tuple[int, ...]],
    overridable: Collection[str] = (),
    *,
    prune_normalised: bool = False,
    compared_at: Collection[str] = (),
    scopes: Mapping[str, tuple[str, ...]] | None = None,
) -> Structure:
    """Return groups, consumers and all that has to change together in `graph`.

    Args:
        graph: topologically sorted; constants folded. It is not changed.
        input_shapes: the sizes to count multiply-accumulates with, for every graph input, and for what operators give
            that neither ONNX nor a rule knows, as far as it was observed.
        overridable: names of initializers that are graph inputs too: the caller may replace them, so they stay whole.
        prune_normalised: whether axes that a normalisation takes statistics over may shrink.
        compared_at: names of the outputs that networks are compared at, where that is not at all of them.
        scopes: of the exported program that nodes come from, by the node's name, the outermost first.

    """
    ctx = Context(Records(graph.opset, frozenset(overridable)), prune_normalised, sizes=input_shapes)
    for tensor in graph.inputs:
        _enter_axes(tensor, input_shapes[tensor.name], ctx)
    for node in graph.nodes:
        _visit(node, ctx)
        _name_sizes(node, ctx)
    for tensor in graph.outputs:
        kind = "networks are compared at" if tensor.name in compared_at else "graph output"
        _freeze_tensor(tensor, f"{kind} '{tensor.name}'", ctx)
    settle_reductions(graph, ctx)
    for doubt in ctx.doubts:
        if doubt.unit.resolve() != ONE:
            freeze(doubt.dim, doubt.reason)
    _settle_sizes(ctx)
    freeze_unseen(graph, ctx.records, compared_at)
    return collect(graph, ctx.records, scopes or {})


def _enter_axes(tensor: gs.Tensor, shape: tuple[int, ...], ctx: Context) -> None:
    declared = tensor.shape if tensor.shape is not None else [None] * len(shape)
    axes = []
    for size, given in zip(shape, declared, strict=True):
        # Some exporters write a dynamic axis as -1.
        if isinstance(given, int) and given > 0:
            axes.append(fresh(given))
        else:
            axes.append(ctx.symbols.claim(given, fresh(size, dynamic=True)))
    for i, dim in enumerate(axes):
        freeze(dim, f"axis {i} of graph input '{tensor.name}'")
    ctx.axes[tensor.name] = tuple(axes)


def _name_sizes(node: gs.Node, ctx: Context) -> None:
    """Take axes that are declared to have the same size at run time for one; nothing is ever pruned from them."""
    for tensor in node.outputs:
        for dim, symbol in zip(ctx.axes.get(tensor.name, ()), tensor.shape or (), strict=False):
            if purely_dynamic(dim):
                ctx.unify(ctx.symbols.claim(symbol, dim), dim, node)


def _visit(node: gs.Node, ctx: Context) -> None:
    try:
        if not _shape_arithmetic(node, ctx):
            rule = rule_of(node)
            if rule is None:
                raise NotUnderstood(reason_for(node))
            _guard_sizes(node, ctx)
            rule(node, ctx)
            _check_sizes(node, ctx)
    except NotUnderstood as refusal:
        _barrier(node, str(refusal), ctx)
    except Exception as error:
        _note_failure(node, error, ctx)


def _note_failure(node: gs.Node, error: Exception, ctx: Context) -> None:
    """Note a bug in a rule; the node becomes a barrier, so that it costs pruning alone. Tests want it raised."""
    text = f"{type(error).__name__}: {error}"
    if rule_errors.RAISED:
        raise InternalError(f"the rule for {label(node)} failed ({text}); please report this") from error
    _logger.warning("the rule for %s failed (%s); please report this", label(node), text)
    ctx.note(rule_errors.RuleError(str(node.op), str(node.name), text))
    _barrier(node, f"the rule for {label(node)} failed ({text}); please report this", ctx)


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
            sizes = "x".join(str(dim.size) for dim in axes)
            raise NotUnderstood(f"{label(node)} was expected to give {sizes} entries, but gives {tensor.shape}")


def _guard_sizes(node: gs.Node, ctx: Context) -> None:
    """Let the sizes that this node takes as numbers (an attention scale computed from the width, say) stay as they are.

    Masked units leave every number of the dense network as it was, and so must removed ones. Operators that are not
    elementwise may take a number as a length or a position: for them its axes freeze.
    """
    for index, tensor in enumerate(node.inputs):
        if index in _SIZE_INPUTS.get(node.op, ()) or isinstance(tensor, gs.Constant):
            continue
        values = ctx.extents.get(tensor.name)
        if node.op not in ELEMENTWISE:
            _freeze_sizes(values, f"{label(node)} computes with the size of this axis")
            continue
        for position, extent in enumerate(() if values is None else values.ravel()):
            ctx.hold(node, index, position, extent)


def _settle_sizes(ctx: Context) -> None:
    """Freeze the axes of sizes that could not be rewritten: at odds with the graph, or known at run time only."""
    settled, inferred = [], set()
    for use in ctx.records.size_uses:
        expected, present = fixed(use.expected), evaluate(use.present, {})
        alike = present == evaluate(use.expected, {}) and proportional(use.expected, use.present)
        if in_step(use.expected, use.present) or expected == present or alike:
            settled.append(use)
            continue
        if use.spare and expected is None and id(use.node) not in inferred:
            inferred.add(id(use.node))
            settled.append(replace(use, inferred=True))
            continue
        for dim in (*dims_of(use.expected), *dims_of(use.present)):
            ctx.freeze(dim, use.node, "takes a size that cannot be rewritten")
    ctx.records.size_uses[:] = settled


def _freeze_sizes(values: np.ndarray | None, reason: str) -> None:
    for extent in () if values is None else values.ravel():
        for dim in dims_of(extent):
            freeze(dim, reason)


def _barrier(node: gs.Node, reason: str, ctx: Context) -> None:
    """Freeze all that a node touches, also from inside its subgraphs, and give its outputs frozen axes."""
    for tensor in node.inputs:
        _freeze_tensor(tensor, reason, ctx)
    for tensor in captured(node):
        _freeze_tensor(tensor, reason if is_hoisted(node) else f"{label(node)} reads it in a body", ctx)
    for tensor in node.outputs:
        if tensor.shape is None:
            ctx.axes.pop(tensor.name, None)
            continue
        sizes = ctx.sizes.get(tensor.name, (1,) * len(tensor.shape))
        axes = tuple(
            fresh(n if isinstance(n, int) and n > 0 else max(1, size), not isinstance(n, int))
            for n, size in zip(tensor.shape, sizes, strict=True)
        )
        for dim in axes:
            freeze(dim, reason)
        ctx.axes[tensor.name] = axes


def _freeze_tensor(tensor: gs.Tensor, reason: str, ctx: Context) -> None:
    _freeze_sizes(ctx.extents.get(tensor.name), reason)
    axes = ctx.tie(tensor) if ctx.is_constant(tensor) else ctx.axes.get(tensor.name, ())
    for dim in axes:
        freeze(dim, reason)
