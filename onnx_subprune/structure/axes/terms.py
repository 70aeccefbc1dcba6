"""The terms of the algebra of axes: Atoms, concatenations and products, and knowledge of run-time sizes.

A run-time size is an Atom that is `dynamic`. Nothing is ever pruned from it; which of them are equal matters where a
Reshape lines up the factors beside them. An axis that others were broadcast to covers them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

__all__ = [
    "ONE",
    "Atom",
    "Concat",
    "Dim",
    "Factor",
    "concat",
    "covers",
    "fresh",
    "pair_covered",
    "product",
    "purely_dynamic",
    "resolved",
]


class Atom:
    """An index set of `size` entries (the nominal size where it is `dynamic`, i.e. known at run time only).

    Entries that are `apart` hold different things (directions, gates), not positions of the same features. A run-time
    size that others were broadcast to `covers` them: each of them is then equal to it or 1.

    Args:
        size: number of entries.
        dynamic: whether the size is known at run time only.
        covers: axes that were broadcast to this one.

    """

    __slots__ = ("apart", "bound", "covers", "dynamic", "reasons", "size")

    def __init__(self, size: int, dynamic: bool = False, covers: tuple[Dim, ...] = ()) -> None:
        self.size = size
        self.dynamic = dynamic
        self.covers = covers
        self.bound: Dim | None = None
        self.reasons: list[str] = []
        self.apart = False

    def __repr__(self) -> str:
        return f"Atom({self.size}{'?' if self.dynamic else ''}{'!' if self.reasons else ''})"


@dataclass(frozen=True)
class Concat:
    """Dims laid end to end along one axis."""

    parts: tuple[Dim, ...]

    @property
    def size(self) -> int:
        """Sum of the sizes of the parts."""
        return sum(part.size for part in self.parts)

    @property
    def dynamic(self) -> bool:
        """Whether a part is known at run time only."""
        return any(part.dynamic for part in self.parts)


Factor = Atom | Concat


@dataclass(frozen=True)
class Dim:
    """An axis: the row-major product of its factors; `Dim(())` has one entry."""

    factors: tuple[Factor, ...]

    @property
    def size(self) -> int:
        """Number of entries (nominal where dynamic)."""
        return math.prod(factor.size for factor in self.factors)

    @property
    def dynamic(self) -> bool:
        """Whether a factor is known at run time only, and has not turned out to be 1."""
        return any(f.dynamic for f in self.factors) and any(f.dynamic for f in self.resolve().factors)

    def resolve(self) -> Dim:
        """Return the finest equal term: bound Atoms replaced, nested products and concatenations flattened."""
        if all(isinstance(factor, Atom) and factor.bound is None for factor in self.factors):
            return self
        _settle(self)
        return Dim(tuple(f for factor in self.factors for f in resolved(factor)))

    def atoms(self) -> Iterator[Atom]:
        """Yield the unbound Atoms of the resolved term, left to right."""
        for factor in self.resolve().factors:
            if isinstance(factor, Atom):
                yield factor
            else:
                for part in factor.parts:
                    yield from part.atoms()


ONE = Dim(())


def resolved(factor: Factor) -> tuple[Factor, ...]:
    """Return the factors that a factor has been refined to by now."""
    if isinstance(factor, Atom):
        last = _last(factor)
        if last.bound is None:
            return (last,)
        last.bound = last.bound.resolve()
        return last.bound.factors
    parts: list[Dim] = []
    for part in factor.parts:
        resolved = part.resolve()
        inner = resolved.factors[0] if len(resolved.factors) == 1 else None
        parts.extend(inner.parts if isinstance(inner, Concat) else (resolved,))
    return (Concat(tuple(parts)),)


def _settle(dim: Dim) -> None:
    """Resolve what Atoms are bound to, the innermost first.

    An axis that is cut again and again, each time what was left of it, is a chain as long as there are cuts: more than
    calls can be nested.
    """
    waiting, found = [dim], dict[Atom, Dim]()
    while waiting:
        for atom in _leaves(waiting.pop()):
            if atom.bound is not None and atom not in found:
                found[atom] = atom.bound
                waiting.append(atom.bound)
    for atom, bound in reversed(found.items()):
        if any(leaf.bound is not None for leaf in _leaves(bound)):
            atom.bound = bound.resolve()


def _leaves(dim: Dim) -> Iterator[Atom]:
    """Yield the Atoms that a term names, bound or not."""
    for factor in dim.factors:
        if isinstance(factor, Atom):
            yield factor
        else:
            for part in factor.parts:
                yield from _leaves(part)


def _last(atom: Atom) -> Atom:
    """Follow Atoms bound to single Atoms: residual streams make long chains, which are walked and shortened."""
    chain: list[Atom] = []
    while atom.bound is not None and len(atom.bound.factors) == 1 and isinstance(atom.bound.factors[0], Atom):
        chain.append(atom)
        atom = atom.bound.factors[0]
    for passed in chain:
        passed.bound = Dim((atom,))
    return atom


def fresh(size: int, dynamic: bool = False, covers: tuple[Dim, ...] = ()) -> Dim:
    """Return an axis of one new Atom; a static axis of one entry needs none.

    Args:
        size: entries; the nominal size where it is dynamic.
        dynamic: whether the size is known at run time only.
        covers: axes that were broadcast to this one; each has its size at run time, or 1.

    >>> fresh(3).size, fresh(1) == ONE
    (3, True)

    """
    return ONE if size == 1 and not dynamic else Dim((Atom(size, dynamic, covers),))


def product(*dims: Dim) -> Dim:
    """Return the row-major product of axes.

    Args:
        dims: outermost first; none make the axis of one entry.

    >>> product(fresh(2), fresh(3)).size
    6

    """
    return Dim(tuple(factor for dim in dims for factor in dim.factors))


def purely_dynamic(dim: Dim) -> bool:
    """Whether an axis is made of run-time sizes alone: nothing of it can be pruned, only its size matters.

    Args:
        dim: the axis.

    >>> batch = fresh(5, dynamic=True)
    >>> purely_dynamic(batch), purely_dynamic(product(batch, fresh(3)))
    (True, False)

    """
    return dim.dynamic and all(atom.dynamic for atom in dim.atoms())


def covers(wide: Dim, narrow: Dim) -> bool:
    """Whether at run time `narrow` is equal to `wide` or 1, because it was broadcast to it.

    Args:
        wide: a run-time size.
        narrow: another.

    >>> narrow = fresh(5, dynamic=True)
    >>> wide = fresh(5, dynamic=True, covers=(narrow,))
    >>> covers(wide, narrow), covers(narrow, wide)
    (True, False)

    """
    narrow = narrow.resolve()
    seen: set[Dim] = set()
    queue = [ONE, wide]
    while queue:
        dim = queue.pop().resolve()
        if dim == narrow:
            return True
        if dim not in seen and len(dim.factors) == 1 and isinstance(dim.factors[0], Atom):
            queue.extend(dim.factors[0].covers)
        seen.add(dim)
    return False


def concat(*dims: Dim) -> Dim:
    """Return axes laid end to end as one axis.

    Args:
        dims: in the order of their entries; at least one.

    >>> concat(fresh(2), fresh(3)).size
    5

    """
    return dims[0] if len(dims) == 1 else Dim((Concat(dims),))


def pair_covered(wide: Sequence[Factor], narrow: Sequence[Factor]) -> list[tuple[Factor, Factor]] | None:
    """Pair run-time sizes with others that they were broadcast to, and that they therefore divide.

    Args:
        wide: the sizes that cover others.
        narrow: the sizes that are covered.

    Returns:
        Pairs (wide, narrow), as many as `narrow` has factors; None where one of these has no partner of its own.

    """
    rest, pairs = list(wide), []
    for factor in narrow:
        cover = next((f for f in rest if covers(Dim((f,)), Dim((factor,)))), None)
        if cover is None:
            return None
        rest.remove(cover)
        pairs.append((cover, factor))
    return pairs
