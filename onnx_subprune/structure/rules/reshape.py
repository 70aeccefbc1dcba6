"""Reshape: the factors of the input's axes, regrouped.

The target sizes are matched as monomials (static factor x run-time sizes) from both ends, so that one unknown (-1, or a
size computed from data) is left in the middle at most. An Atom that a boundary cuts is carved into a product.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context, label
from onnx_subprune.structure.dims import Dim, Factor, carve, freeze, fresh, product
from onnx_subprune.structure.extents import Extent, Monomial, Size, dims_of, evaluate, fixed, monomial

__all__ = ["RULES"]


def reshape(node: gs.Node, ctx: Context) -> None:
    """Relate the axes of input and output of a Reshape."""
    x = ctx.input(node, 0)
    target = ctx.extent_list(node, 1, "shape")
    zero_copies = not node.attrs.get("allowzero", 0)
    wanted: list[Extent] = [Size(x[i]) if t == 0 and zero_copies else t for i, t in enumerate(target)]
    y = _Matcher(x, label(node)).match(wanted)
    where: int | str = "shape" if "shape" in node.attrs else 1
    for i, (present, dim) in enumerate(zip(wanted, y, strict=True)):
        if present != -1:
            ctx.expect(node, where, i, Size(dim), present)
    ctx.output(node, y)


@dataclass
class _Matcher:
    """Takes factors off both ends of the input's axes, one target size after the other."""

    axes: tuple[Dim, ...]
    where: str

    def match(self, wanted: list[Extent]) -> list[Dim]:
        rest: deque[Factor] = deque(product(*self.axes).resolve().factors)
        left: list[Dim] = []
        right: list[Dim] = []
        todo = deque(wanted)
        while todo and (taken := self._take(rest, todo[0])) is not None:
            left.append(taken)
            todo.popleft()
        while todo and (taken := self._take_last(rest, todo[-1])) is not None:
            right.append(taken)
            todo.pop()
        return left + self._middle(rest, list(todo)) + right[::-1]

    def _middle(self, rest: deque[Factor], todo: list[Extent]) -> list[Dim]:
        """Give all that is left to the one size still unknown; several cannot be told apart."""
        whole = Dim(tuple(rest))
        if len(todo) == 1:
            return [whole]
        if not todo:
            return []
        reason = f"{self.where} regroups this axis across its units"
        freeze(whole, reason)
        cut = []
        for extent in todo:
            for dim in dims_of(extent):
                freeze(dim, reason)
            size = None if extent == -1 else fixed(extent)
            cut.append(fresh(max(1, evaluate(extent, {})), whole.dynamic or size is None))
            freeze(cut[-1], reason)
        return self._fill(whole, todo, cut)

    @staticmethod
    def _fill(whole: Dim, todo: list[Extent], cut: list[Dim]) -> list[Dim]:
        """Give the axis of -1 the entries that the others leave."""
        if -1 in todo:
            others = math.prod(dim.size for extent, dim in zip(todo, cut, strict=True) if extent != -1)
            place = todo.index(-1)
            cut[place] = fresh(max(1, whole.size // max(1, others)), whole.dynamic)
            freeze(cut[place], "it comes out of a Reshape that regroups units")
        return cut

    def _take(self, rest: deque[Factor], extent: Extent) -> Dim | None:
        need = monomial(extent)
        return None if need is None else self._collect(rest, need, last=False)

    def _take_last(self, rest: deque[Factor], extent: Extent) -> Dim | None:
        need = monomial(extent)
        return None if need is None else self._collect(rest, need, last=True)

    def _collect(self, rest: deque[Factor], need: Monomial, last: bool) -> Dim | None:
        static, dynamic = need.static, list(need.dynamic)
        taken: list[Factor] = []
        trial = deque(rest)
        while static > 1 or dynamic:
            if not trial:
                return None
            factor = _next(trial, last)
            if factor.dynamic:
                if factor not in dynamic:
                    return None
                dynamic.remove(factor)
                taken.append(factor)
            elif static % factor.size == 0:
                static //= factor.size
                taken.append(factor)
            else:
                halves = self._cut(factor, static, last)
                if halves is None:
                    return None
                piece, remainder = halves
                taken.extend(piece[::-1] if last else piece)
                trial.extend(remainder) if last else trial.extendleft(reversed(remainder))
                static = 1
        rest.clear()
        rest.extend(trial)
        return Dim(tuple(taken[::-1] if last else taken))

    def _cut(self, factor: Factor, size: int, last: bool) -> tuple[tuple[Factor, ...], tuple[Factor, ...]] | None:
        """Carve `size` entries off the outer (first) or inner (last) side of a factor."""
        # Of size 1 there is nothing to carve: what is still needed then is a size of run time, and this is none.
        if size <= 1 or factor.size % size:
            return None
        outer = factor.size // size if last else size
        carved = carve(factor, outer, self.where)
        if carved is None:
            return None
        head, tail = carved
        return (tail, head) if last else (head, tail)


def _next(queue: deque[Factor], last: bool) -> Factor:
    """Take a factor off an end, after splitting it as far as it has been refined by now."""
    refined = Dim((queue.pop() if last else queue.popleft(),)).resolve().factors
    queue.extend(refined) if last else queue.extendleft(reversed(refined))
    return queue.pop() if last else queue.popleft()


RULES = {"Reshape": reshape}
