"""Matrix products: MatMul and Gemm, plain or fused, with a constant matrix, a constant stack of them, or none.

A stack [E, K, N] multiplies each matrix of a batch by one of its own: the experts of a mixture, or heads.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import ONE, Dim, product
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import Consumer, Contraction, MacTerm, Role, Weight, label
from onnx_subprune.structure.rules.elementwise import broadcast

__all__ = ["CONTRIB", "RULES"]

Axes = tuple[Dim, ...]
Known = tuple[Weight, Axes]


@dataclass(frozen=True)
class _Side:
    """The two last axes of an operand: which of them is summed over, which is kept."""

    inner: int
    kept: int

    @classmethod
    def of(cls, node: gs.Node, index: int, rank: int) -> _Side:
        """Rows by columns for the first operand, columns by rows for the second, unless transposed."""
        turned = bool(node.attrs.get("transB" if index else "transA"))
        last = bool(index) == turned
        return cls(rank - 1, rank - 2) if last else cls(rank - 2, rank - 1)


def gemm(node: gs.Node, ctx: Context) -> None:
    """Relate A' [M, K], B' [K, N], C and Y [M, N], where ' is the transposition asked for."""
    y = _multiply(node, ctx)
    if ctx.has(node, 2):
        broadcast(node, [ctx.input(node, 2), y], ctx)
    ctx.output(node, y)


def matmul(node: gs.Node, ctx: Context) -> None:
    """Relate A [..., M, K], B [..., K, N] and Y [..., M, N]; either side may be constant."""
    if node.attrs.get("transBatchA") or node.attrs.get("transBatchB"):
        raise NotUnderstood(f"{label(node)} moves its batch axes behind the first of the matrix")
    ctx.output(node, _multiply(node, ctx))


def _multiply(node: gs.Node, ctx: Context) -> Axes:
    known = [ctx.weight(node, index) for index in (0, 1)]
    for index in (1, 0):
        stored = known[index]
        if stored is not None and known[1 - index] is None:
            y = _multiply_constant(node, ctx, stored, index)
            if y is not None:
                return y
    return _multiply_activations(node, ctx, any(known))


def _multiply_constant(node: gs.Node, ctx: Context, known: Known, index: int) -> Axes | None:
    """Record a consumer; None where the batch axes of a stack are not those of the activation, or of a single entry."""
    weight, w = known
    x = ctx.input(node, 1 - index)
    if len(x) < 2 or len(w) < 2:
        raise NotUnderstood(f"{label(node)} multiplies a vector")
    here, there = _Side.of(node, 1 - index, len(x)), _Side.of(node, index, len(w))
    stack = _stack(x[:-2], w[:-2])
    if stack is None:
        return None
    ctx.unify(x[here.inner], w[there.inner], node)
    kept = (w[there.kept], x[here.kept]) if index == 0 else (x[here.kept], w[there.kept])
    y = (*broadcast(node, [x[:-2], w[:-2]], ctx), *kept) if max(len(x), len(w)) > 2 else kept
    own = product(*w[:-2])
    ctx.use("producer", node, index, weight.constant, [(weight.perm[there.kept], w[there.kept])])
    ctx.use("consumer", node, index, weight.constant, [(weight.perm[there.inner], w[there.inner])])
    role: Role = "carrier" if stack else "producer"
    ctx.use(role, node, index, weight.constant, list(zip(weight.perm, w[:-2], strict=False)))
    blocks = own if stack else ONE
    features = product(blocks, w[there.inner])
    source = node.inputs[1 - index].name
    consumer = Consumer(node, source, here.inner, features, w[there.kept], weight, index, blocks, stack=stack)
    ctx.note(consumer)
    ctx.note(MacTerm(node, (*y, w[there.inner])))
    return y


def _stack(x: Axes, w: Axes) -> tuple[int, ...] | None:
    """Return the axes of the activation that a stack's batch axes meet: none where all matrices read the same."""
    shift = len(x) - len(w)
    wide = {axis + shift: dim for axis, dim in enumerate(w) if dim.size > 1}
    if all(axis < 0 or x[axis].resolve() == ONE for axis in wide):
        return ()
    met = all(axis >= 0 and not x[axis].dynamic and x[axis].size == dim.size for axis, dim in wide.items())
    return tuple(wide) if met else None


def _multiply_activations(node: gs.Node, ctx: Context, stacked: bool) -> Axes:
    a, b = ctx.input(node, 0), ctx.input(node, 1)
    if len(a) < 2 or len(b) < 2:
        raise NotUnderstood(f"{label(node)} multiplies a vector")
    left, right = _Side.of(node, 0, len(a)), _Side.of(node, 1, len(b))
    batch = broadcast(node, [a[:-2], b[:-2]], ctx) if max(len(a), len(b)) > 2 else ()
    if stacked:
        for dim in (a[left.inner], b[right.inner]):
            ctx.freeze(dim, node, "contracts this axis with a stack of constants")
    ctx.unify(a[left.inner], b[right.inner], node)
    sides = ((node.inputs[0].name, left.inner), (node.inputs[1].name, right.inner))
    ctx.note(Contraction(node, sides, a[left.inner]))
    y = (*batch, a[left.kept], b[right.kept])
    ctx.note(MacTerm(node, (*y, a[left.inner])))
    return y


RULES = {"Gemm": gemm, "MatMul": matmul}
CONTRIB = {"FusedGemm": gemm, "FusedMatMul": matmul, "TransposeMatMul": matmul}
