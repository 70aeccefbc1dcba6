"""The algebra of axes: every axis of every tensor is a `Dim`, a term over index sets.

An `Atom` is an index set of fixed size. A `Dim` is an ordered, row-major product of factors (768 = 12 heads x 64),
where a factor is an Atom or a `Concat` of Dims laid end to end. The empty product is an axis of one entry.

Two axes that must keep the same indices are *unified*. Unification only ever refines: an Atom is bound to the finer
term it turned out to be (a product, when a Reshape splits it; a concatenation, when a Split cuts it), and everything
that already mentions the Atom sees the refinement. Since the sizes of terms never change, one pass over the graph in
topological order reaches the fixpoint. What cannot be aligned is *frozen* with a reason that a user can read.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from onnx_subprune.structure.axes.terms import (
    ONE,
    Atom,
    Concat,
    Dim,
    Factor,
    concat,
    fresh,
    pair_covered,
    product,
    resolved,
)

__all__ = ["carve", "freeze", "same_size", "set_apart", "split", "unify"]


def freeze(dim: Dim, reason: str) -> None:
    """Forbid every Atom of an axis to shrink.

    Args:
        dim: the axis.
        reason: for the user to read; it is entered once.

    >>> channels = fresh(4)
    >>> freeze(channels, "it is a graph output")
    >>> channels.factors[0].reasons
    ['it is a graph output']

    """
    for atom in dim.atoms():
        if reason not in atom.reasons:
            atom.reasons.append(reason)


def set_apart(dim: Dim) -> None:
    """Note that the entries of an axis hold different things, whatever it is unified with.

    Args:
        dim: the axis, such as that of a recurrent layer's gates.

    >>> gates = fresh(4)
    >>> set_apart(gates)
    >>> gates.factors[0].apart
    True

    """
    for atom in dim.atoms():
        atom.apart = True


def unify(a: Dim, b: Dim, where: str) -> None:
    """Make two axes keep the same indices; what cannot be aligned is frozen.

    Args:
        a: an axis.
        b: another; the Atoms of both are bound to the finest terms that they have in common.
        where: the node that made them meet; it is named in the reason where they freeze.

    >>> flat, heads, channels = fresh(6), fresh(2), fresh(3)
    >>> unify(flat, product(heads, channels), "Reshape '/r'")
    >>> flat.resolve() == product(heads, channels)
    True
    >>> unify(heads, fresh(5), "Add '/a'")
    >>> heads.factors[0].reasons
    ["axes of different size meet at Add '/a'"]

    """
    a, b = a.resolve(), b.resolve()
    if a == b:
        return
    if (a.dynamic or b.dynamic) and same_size(a, b):
        a, b = a.resolve(), b.resolve()
        if a == b:
            return
    if a.size != b.size or a.dynamic != b.dynamic:
        _freeze_both(a, b, f"axes of different size meet at {where}")
    elif len(a.factors) == 1 and isinstance(a.factors[0], Atom):
        _bind(a.factors[0], b, where)
    elif len(b.factors) == 1 and isinstance(b.factors[0], Atom):
        _bind(b.factors[0], a, where)
    elif len(a.factors) == len(b.factors) == 1:
        _unify_concats(a, b, where)
    else:
        _unify_products(a, b, where)


def split(dim: Dim, sizes: Sequence[int]) -> list[Dim] | None:
    """Cut an axis into consecutive pieces, refining Atoms where a cut falls.

    Args:
        dim: the axis.
        sizes: of the pieces; they add up to its size.

    Returns:
        The pieces, or None where a cut falls inside an inner factor of a product; then nothing that matters changed.

    >>> whole = fresh(7)
    >>> [piece.size for piece in split(whole, [3, 4])]
    [3, 4]
    >>> [atom.size for atom in whole.atoms()]
    [3, 4]
    >>> split(product(fresh(6), fresh(4)), [6, 18]) is None
    True

    """
    dim = dim.resolve()
    if len(sizes) == 1:
        return [dim]
    if dim.dynamic or not dim.factors:
        return None
    head, inner = dim.factors[0], Dim(dim.factors[1:])
    if inner.factors:
        if any(size % inner.size for size in sizes):
            return None
        outer = split(Dim((head,)), [size // inner.size for size in sizes])
        return None if outer is None else [product(piece, inner) for piece in outer]
    if isinstance(head, Atom):
        pieces = [fresh(size) for size in sizes]
        _bind(head, concat(*pieces), "a split")
        return pieces
    return _split_concat(head, sizes)


def same_size(a: Dim, b: Dim) -> bool:
    """Conclude what follows from two axes having the same size at run time; returns whether anything does.

    Where the static factors are equal, so are the products of the run-time sizes. None of these is smaller than the
    sizes that were broadcast to it, so each is equal to it, and the others are 1.

    Args:
        a: one axis.
        b: the other; the order does not matter.

    """
    a, b = a.resolve(), b.resolve()
    if _static(a) != _static(b) or a.size != b.size:
        return False
    for wide, narrow in ((a, b), (b, a)):
        unknown = [factor for factor in wide.factors if factor.dynamic]
        pairs = pair_covered(unknown, [factor for factor in narrow.factors if factor.dynamic])
        if pairs is not None and _bind_covered(unknown, pairs):
            return True
    return False


def _static(dim: Dim) -> int:
    return math.prod(factor.size for factor in dim.factors if not factor.dynamic)


def _bind_covered(wide: Sequence[Factor], pairs: Sequence[tuple[Factor, Factor]]) -> bool:
    """Bind run-time sizes to those that were broadcast to them, and those without a partner to 1."""
    unpaired = [factor for factor in wide if all(factor is not cover for cover, _ in pairs)]
    changed = [(cover, ONE) for cover in unpaired] + [(c, Dim((n,))) for c, n in pairs if c != n]
    if any(not isinstance(cover, Atom) or cover.size != dim.size for cover, dim in changed):
        return False
    for cover, dim in changed:
        if isinstance(cover, Atom):
            _bind(cover, dim, "sizes known at run time only")
    return bool(changed)


def _freeze_both(a: Dim, b: Dim, reason: str) -> None:
    freeze(a, reason)
    freeze(b, reason)


def _bind(atom: Atom, term: Dim, where: str) -> None:
    if any(leaf is atom for leaf in term.atoms()):
        freeze(term, f"an axis meets a part of itself at {where}")
        return
    atom.bound = term
    for reason in atom.reasons:
        freeze(term, reason)
    if atom.apart:
        set_apart(term)


def _unify_concats(a: Dim, b: Dim, where: str) -> None:
    """Unify two concatenations, cutting the longer part wherever their boundaries differ."""
    left, right = (deque(_concat_of(dim).parts) for dim in (a, b))
    while left and right:
        x, y = left.popleft().resolve(), right.popleft().resolve()
        if x.size != y.size and not (x.dynamic or y.dynamic):
            longer, queue = (x, left) if x.size > y.size else (y, right)
            short = min(x.size, y.size)
            pieces = split(longer, [short, longer.size - short])
            if pieces is not None:
                queue.appendleft(pieces[1])
                x, y = (pieces[0], y) if longer is x else (x, pieces[0])
        if x != y and (x.dynamic or y.dynamic or x.size != y.size):
            # Past a part whose size is known at run time only, nothing is known to lie side by side.
            for rest in (x, y, *left, *right):
                freeze(rest, f"concatenations that cannot be aligned meet at {where}")
            return
        unify(x, y, where)


def _concat_of(dim: Dim) -> Concat:
    factor = dim.factors[0]
    assert isinstance(factor, Concat)
    return factor


def _unify_products(a: Dim, b: Dim, where: str) -> None:
    """Unify two products, carving the larger factor wherever their boundaries differ."""
    left, right = deque(a.factors), deque(b.factors)
    while left and right:
        x, y = _refined_front(left), _refined_front(right)
        if x == y:
            left.popleft()
            right.popleft()
            continue
        known = not (x.dynamic or y.dynamic)
        if known and x.size == y.size:
            unify(Dim((left.popleft(),)), Dim((right.popleft(),)), where)
            continue
        if not known and _unify_behind_run_time_sizes(left, right, where):
            return
        queue = left if x.size > y.size else right
        carved = carve(queue[0], min(x.size, y.size), where) if known else None
        if carved is None:
            for rest in (*left, *right):
                freeze(Dim((rest,)), f"shapes that cannot be aligned meet at {where}")
            return
        queue.popleft()
        queue.extendleft(reversed(carved[0] + carved[1]))


def _unify_behind_run_time_sizes(left: deque[Factor], right: deque[Factor], where: str) -> bool:
    """Unify the static factors behind run-time sizes: where their products are equal, those of the sizes are too."""
    (lead, rest), (lead2, rest2) = _run_time_lead(left), _run_time_lead(right)
    if not lead.factors or not lead2.factors or rest.dynamic or rest2.dynamic or rest.size != rest2.size:
        return False
    if lead.size == lead2.size and (len(lead.factors) == 1 or len(lead2.factors) == 1):
        unify(lead, lead2, where)
    unify(rest, rest2, where)
    return True


def _run_time_lead(factors: Iterable[Factor]) -> tuple[Dim, Dim]:
    """Return the factors up to the last run-time size that no static factor precedes, and those behind."""
    whole = Dim(tuple(factors)).resolve().factors
    count = next((i for i, factor in enumerate(whole) if not factor.dynamic), len(whole))
    return Dim(whole[:count]), Dim(whole[count:])


def _refined_front(queue: deque[Factor]) -> Factor:
    """Return the first factor, after splitting it as far as it has been refined by now."""
    queue.extendleft(reversed(resolved(queue.popleft())))
    return queue[0]


def carve(factor: Factor, outer: int, where: str) -> tuple[tuple[Factor, ...], tuple[Factor, ...]] | None:
    """Rewrite a factor as two products, the first of `outer` entries; None where that is impossible.

    Args:
        factor: an Atom or a Concat; it is refined where the cut does not fall between its own factors.
        outer: entries of the first product.
        where: names the node that asks, for the reasons of axes that freeze.

    >>> head, rest = carve(fresh(12).factors[0], 3, "Reshape '/r'")
    >>> [factor.size for factor in head], [factor.size for factor in rest]
    ([3], [4])

    """
    head: list[Factor] = []
    rest = deque(resolved(factor))
    while outer > 1:
        if not rest or rest[0].dynamic:
            return None
        first = rest.popleft()
        if outer % first.size == 0:
            outer //= first.size
            head.append(first)
            continue
        halves = None if first.size % outer else _halve(first, outer, where)
        if halves is None:
            return None
        head.extend(halves[0])
        rest.extendleft(reversed(halves[1]))
        break
    return tuple(head), tuple(rest)


def _halve(factor: Factor, outer: int, where: str) -> tuple[tuple[Factor, ...], tuple[Factor, ...]] | None:
    """Carve one factor that is not refined any further.

    A concatenation of `outer` equal parts (fused QKV) becomes (a frozen index over the parts) x (the part that all of
    them are unified with).
    """
    inner = factor.size // outer
    if isinstance(factor, Atom):
        pair = (fresh(outer), fresh(inner))
        _bind(factor, product(*pair), where)
        return pair[0].factors, pair[1].factors
    parts = split(Dim((factor,)), [inner] * outer)
    if parts is None:
        return None
    for part in parts[1:]:
        unify(parts[0], part, where)
    index = fresh(outer)
    freeze(index, f"index over concatenated parts at {where}")
    set_apart(index)
    return index.factors, parts[0].resolve().factors


def _split_concat(whole: Concat, sizes: Sequence[int]) -> list[Dim] | None:
    """Cut every part at once wherever a piece ends in it: cut off one by one, pieces would bind ever longer chains."""
    ends = list(accumulate(sizes))
    taken: list[list[Dim]] = [[] for _ in sizes]
    start = 0
    for part in whole.parts:
        stop = start + part.size
        bounds = [start, *ends[bisect_right(ends, start) : bisect_left(ends, stop)], stop]
        cut = split(part, [high - low for low, high in pairwise(bounds)])
        if cut is None:
            return None
        for low, piece in zip(bounds, cut, strict=False):
            taken[bisect_right(ends, low)].append(piece)
        start = stop
    return [concat(*parts) for parts in taken]
