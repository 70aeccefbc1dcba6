"""If, Loop and Scan: of an If whose branches are hoisted, the outputs are those of both; other bodies stay whole.

An If whose condition is known has been inlined before (`passes.InlineBranches`), and the nodes of branches that hold
weights stand in front of their If (`passes.HoistBranches`), whose bodies hand out what these make. Nothing is pruned in
other bodies, nor what they touch.
"""

from __future__ import annotations

from typing import NoReturn

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import Dim, purely_dynamic
from onnx_subprune.structure.branch_places import BRANCHES, handed_out
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import Axes, label

__all__ = ["RULES"]

_DOES = {"Loop": "repeats a body", "Scan": "repeats a body", "SequenceMap": "repeats a body"}


def choose(node: gs.Node, ctx: Context) -> None:
    """Let both branches of an If keep the same indices of what either hands out."""
    both = [handed_out(node.attrs.get(branch)) for branch in BRANCHES]
    if any(tensors is None for tensors in both):
        raise NotUnderstood(f"{label(node)} chooses between two bodies at run time")
    chosen = [list(pair) for pair in zip(*(tensors for tensors in both if tensors is not None), strict=True)]
    axes = [[_axes(tensor, node, ctx) for tensor in pair] for pair in chosen]
    for index, (first, second) in enumerate(axes):
        if len(first) != len(second):
            raise NotUnderstood(f"the branches of {label(node)} give tensors of {len(first)} and {len(second)} axes")
        ctx.output(node, [_alike(a, b, node, ctx) for a, b in zip(first, second, strict=True)], index)


def _axes(tensor: gs.Tensor, node: gs.Node, ctx: Context) -> Axes:
    if ctx.is_constant(tensor) or tensor.name not in ctx.axes:
        raise NotUnderstood(f"{label(node)} hands out '{tensor.name}', whose axes are not known")
    extents = ctx.extents.get(tensor.name)
    ctx.pin(() if extents is None else extents.ravel(), node)
    return ctx.axes[tensor.name]


def _alike(first: Dim, second: Dim, node: gs.Node, ctx: Context) -> Dim:
    """Return an axis of the output, which is that of whichever branch runs."""
    a, b = first.resolve(), second.resolve()
    if a == b:
        return a
    if purely_dynamic(a) and purely_dynamic(b):
        # Sizes of run time may differ from branch to branch.
        return ctx.computed_axis(node, a.size, dynamic=True)
    if a.dynamic or b.dynamic or a.size != b.size:
        raise NotUnderstood(f"the branches of {label(node)} give tensors of different sizes")
    ctx.unify(a, b, node)
    return a.resolve()


def refuse(node: gs.Node, _: Context) -> NoReturn:
    """Raise NotUnderstood."""
    raise NotUnderstood(f"{label(node)} {_DOES[node.op]}")


RULES = {"If": choose, **dict.fromkeys(_DOES, refuse)}
