"""Reshape: the factors of the input's axes, regrouped.

The target sizes are matched as monomials (static factor x run-time sizes) from both ends, so that one unknown (-1, or a
size computed from data) is left in the middle at most. An Atom that a boundary cuts is carved into a product.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from onnx_subprune.structure.axes import (
    ONE,
    Dim,
    Doubt,
    Extent,
    Factor,
    Monomial,
    Size,
    carve,
    dims_of,
    evaluate,
    fixed,
    freeze,
    fresh,
    monomial,
    pair_covered,
    product,
    purely_dynamic,
    same_size,
)
from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import label

__all__ = ["RULES"]

REGROUPS = "regroups this axis across its units"


def reshape(node: gs.Node, ctx: Context) -> None:
    """Relate the axes of input and output of a Reshape."""
    x = ctx.input(node, 0)
    target = ctx.extent_list(node, 1, "shape")
    zero_copies = not node.attrs.get("allowzero", 0)
    if zero_copies and 0 in target[len(x) :]:
        raise NotUnderstood(f"{label(node)} copies the size of an axis that its input does not have")
    wanted: list[Extent] = [Size(x[i]) if t == 0 and zero_copies else t for i, t in enumerate(target)]
    y = _Matcher(x, label(node), ctx.doubts).match(
        [_declared_size(node, i, extent, ctx) for i, extent in enumerate(wanted)]
    )
    where: int | str = "shape" if "shape" in node.attrs else 1
    spare = -1 not in target and zero_copies
    for i, (present, dim) in enumerate(zip(wanted, y, strict=True)):
        if present != -1:
            ctx.expect(node, where, i, Size(dim), present, spare=spare)
    ctx.output(node, y)


def _declared_size(node: gs.Node, axis: int, extent: Extent, ctx: Context) -> Extent:
    """Return a size that is computed in ways unknown here as that of the axis which the model says it is."""
    if extent == -1 or monomial(extent) is not None:
        return extent
    dim = ctx.symbols.find(node.outputs[0], axis, evaluate(extent, {}))
    return extent if dim is None else Size(dim)


@dataclass
class _Matcher:
    """Takes factors off both ends of the input's axes, one target size after the other."""

    axes: tuple[Dim, ...]
    where: str
    doubts: list[Doubt]

    def match(self, wanted: list[Extent]) -> list[Dim]:
        rest: deque[Factor] = deque(product(*self.axes).resolve().factors)
        leading: list[Dim] = []
        trailing: list[Dim] = []
        todo = deque(wanted)
        while todo and (taken := self._take_first(rest, todo[0])) is not None:
            leading.append(taken)
            todo.popleft()
        while todo and (taken := self._take_last(rest, todo[-1])) is not None:
            trailing.append(taken)
            todo.pop()
        return leading + self._match_middle(rest, list(todo)) + trailing[::-1]

    def _match_middle(self, rest: deque[Factor], todo: list[Extent]) -> list[Dim]:
        """Give all that is left to the one size still unknown; several cannot be told apart."""
        whole = Dim(tuple(rest))
        if len(todo) == 1:
            return [whole]
        if not todo:
            return []
        around = self._match_run_time_sizes(rest, todo)
        if around is not None:
            return around
        reason = f"{self.where} {REGROUPS}"
        freeze(whole, reason)
        cut = []
        for extent in todo:
            for dim in dims_of(extent):
                freeze(dim, reason)
            size = None if extent == -1 else fixed(extent)
            cut.append(fresh(max(1, evaluate(extent, {})), whole.dynamic or size is None))
            freeze(cut[-1], reason)
        return self._fill(whole, todo, cut)

    def _match_run_time_sizes(self, rest: deque[Factor], todo: list[Extent]) -> list[Dim] | None:
        """Match sizes of run time with axes that others were broadcast to, leaving the factors of -1 together.

        [Bx, Sx, 4, 8] -> [B, S, -1], where B was broadcast to Bx and S to Sx, gives the last axis (Bx Sx / B S) x 32:
        a whole number, and nearly always 1. A later meeting with 32 weights settles that it is 1.
        """
        needs = [monomial(extent) for extent in todo]
        holes = [i for i, extent in enumerate(todo) if extent == -1]
        if any(need is None for i, need in enumerate(needs) if i not in holes) or len(holes) > 1:
            return None
        known = [Monomial(1, ()) if need is None else need for need in needs]
        if purely_dynamic(Dim(tuple(rest))) and all(need.static == 1 for need in known):
            size = math.prod(factor.size for factor in rest) // max(1, math.prod(_nominal(need) for need in known))
            return [fresh(max(1, size), True) if i in holes else Dim(need.dynamic) for i, need in enumerate(known)]
        if holes:
            return self._into_hole(rest, todo, known, holes[0])
        # All sizes are given, and none is smaller than what was broadcast to it.
        changed = same_size(Dim(tuple(rest)), Dim(tuple(f for need in known for f in _factors(need))))
        return _Matcher((Dim(tuple(rest)),), self.where, self.doubts).match(todo) if changed else None

    def _into_hole(self, rest: deque[Factor], todo: list[Extent], known: list[Monomial], hole: int) -> list[Dim] | None:
        """Give the axis `hole` what the sizes on either side of it leave in the middle."""
        before = _share(rest, known[:hole])
        behind = None if before is None else _share(deque(list(rest)[len(before.taken) :][::-1]), known[hole + 1 :])
        if before is None or behind is None:
            return None
        kept = tuple(rest)[len(before.taken) : len(rest) - len(behind.taken)]
        for share in (before, behind):
            # Where the quotient is not 1, the axes beside the hole hold other entries than before.
            self.doubts.append(Doubt(share.quotient, Dim(share.taken), f"{self.where} {REGROUPS}"))
        return [
            *_Matcher((Dim(before.aligned),), self.where, self.doubts).match(todo[:hole]),
            product(before.quotient, Dim(kept), behind.quotient),
            *_Matcher((Dim(behind.aligned[::-1]),), self.where, self.doubts).match(todo[hole + 1 :]),
        ]

    @staticmethod
    def _fill(whole: Dim, todo: list[Extent], cut: list[Dim]) -> list[Dim]:
        """Give the axis of -1 the entries that the others leave."""
        if -1 in todo:
            others = math.prod(dim.size for extent, dim in zip(todo, cut, strict=True) if extent != -1)
            place = todo.index(-1)
            cut[place] = fresh(max(1, whole.size // max(1, others)), whole.dynamic)
            freeze(cut[place], "it comes out of a Reshape that regroups units")
        return cut

    def _take_first(self, rest: deque[Factor], extent: Extent) -> Dim | None:
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
                halves = self._carve_off(factor, static, last)
                if halves is None:
                    return None
                piece, remainder = halves
                taken.extend(piece[::-1] if last else piece)
                trial.extend(remainder) if last else trial.extendleft(reversed(remainder))
                static = 1
        rest.clear()
        rest.extend(trial)
        return Dim(tuple(taken[::-1] if last else taken))

    def _carve_off(self, factor: Factor, size: int, last: bool) -> tuple[tuple[Factor, ...], tuple[Factor, ...]] | None:
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


def _nominal(need: Monomial) -> int:
    return need.static * Dim(need.dynamic).size


def _factors(need: Monomial) -> tuple[Factor, ...]:
    return (*need.dynamic, *fresh(need.static).factors)


@dataclass(frozen=True)
class _Share:
    """The factors at one end of a shape that some sizes account for; `aligned` are these where `quotient` is 1."""

    taken: tuple[Factor, ...]
    aligned: tuple[Factor, ...]
    quotient: Dim


def _share(factors: deque[Factor], needs: list[Monomial]) -> _Share | None:
    """Take factors off the front until they are a multiple of `needs`; None if they never are."""
    static, narrow = math.prod(need.static for need in needs), [factor for need in needs for factor in need.dynamic]
    taken: list[Factor] = []
    wide: list[Factor] = []
    for factor in factors:
        if static == 1 and pair_covered(wide, narrow) is not None:
            break
        if not factor.dynamic and static % factor.size:
            return None
        static //= 1 if factor.dynamic else factor.size
        taken.append(factor)
        wide += [factor] if factor.dynamic else []
    pairs = pair_covered(wide, narrow)
    if static > 1 or pairs is None:
        return None
    partner = dict(pairs)
    aligned = tuple(partner.get(factor, factor) for factor in taken if factor in partner or not factor.dynamic)
    if aligned == tuple(taken):
        return _Share(aligned, aligned, ONE)
    quotient = Dim(tuple(wide)).size // max(1, Dim(tuple(narrow)).size)
    return _Share(tuple(taken), aligned, fresh(max(1, quotient), dynamic=True))


def _next(queue: deque[Factor], last: bool) -> Factor:
    """Take a factor off an end, after splitting it as far as it has been refined by now."""
    refined = Dim((queue.pop() if last else queue.popleft(),)).resolve().factors
    queue.extend(refined) if last else queue.extendleft(reversed(refined))
    return queue.pop() if last else queue.popleft()


RULES = {"Reshape": reshape}
