"""Integers that know where they come from: shape arithmetic carried as expressions over Dims.

`Shape -> Gather -> Mul -> Concat -> Reshape` chains compute sizes at run time. An `Extent` is such an integer: a
literal, the size of a Dim, or an operation on extents. It has a value before pruning and, given keep masks, one after
pruning; where the two ends of a chain disagree after pruning, a constant has to be rewritten.
"""

from __future__ import annotations

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

from onnx_subprune.structure.axes.masks import Keeps, keep_mask
from onnx_subprune.structure.axes.terms import Dim, Factor

__all__ = [
    "Extent",
    "Monomial",
    "Operation",
    "Size",
    "Unknown",
    "apply",
    "dense",
    "dims_of",
    "evaluate",
    "fixed",
    "in_step",
    "monomial",
    "proportional",
    "total",
]


@dataclass(frozen=True)
class Size:
    """The number of entries of an axis."""

    dim: Dim


@dataclass(frozen=True)
class Operation:
    """An integer operation on extents; `name` is the ONNX operator.

    Attributes:
        name: such as "Mul".
        arguments: extents, in the order of the operator's inputs.

    """

    name: str
    arguments: tuple[Extent, ...]


@dataclass(frozen=True, eq=False)
class Unknown:
    """An integer known at run time only, such as a size that was scaled in floating point; it counts as 1."""


Extent = int | Size | Operation | Unknown

_PYTHON: dict[str, Callable[[int, int], int]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
    # ONNX divides integers towards zero.
    "Div": lambda a, b: int(a / b) if b else 0,
    "Mod": lambda a, b: a % b if b else 0,
    "Max": max,
    "Min": min,
    "Equal": lambda a, b: int(a == b),
}


def evaluate(extent: Extent, keeps: Keeps) -> int:
    """Return the value of `extent` once the units outside `keeps` are gone (`{}`: before pruning).

    Args:
        extent: an integer, a size or an operation on such; a run-time size counts with its nominal value.
        keeps: for each Atom that loses units, bool [size].

    >>> import numpy as np
    >>> from onnx_subprune.structure.axes.terms import fresh
    >>> channels = fresh(4)
    >>> half = apply("Div", Size(channels), 2)
    >>> evaluate(half, {}), evaluate(half, {channels.factors[0]: np.array([True, False, True, False])})
    (2, 1)

    """
    if isinstance(extent, int):
        return extent
    if isinstance(extent, Unknown):
        return 1
    if isinstance(extent, Size):
        return int(keep_mask(extent.dim, keeps).sum()) if keeps else extent.dim.size
    values = [evaluate(argument, keeps) for argument in extent.arguments]
    if extent.name == "Where":
        return values[1] if values[0] else values[2]
    return reduce(_PYTHON[extent.name], values)


def apply(name: str, *arguments: Extent) -> Extent:
    """Return an operation on extents, folded at once where all its arguments are literals.

    Args:
        name: of the ONNX operator, such as "Mul".
        arguments: its inputs, in order.

    >>> apply("Mul", 3, 4)
    12

    """
    if name == "Where" and isinstance(arguments[0], int):
        return arguments[1] if arguments[0] else arguments[2]
    if name in ("Max", "Min") and all(in_step(arguments[0], other) for other in arguments[1:]):
        return arguments[0]
    if name == "Equal" and any(isinstance(a, Size) for a in arguments) and any(_is_negative(a) for a in arguments):
        # No size is negative: exporters compare with -1 to see whether an axis is to keep its size.
        return 0
    operation = Operation(name, arguments)
    return evaluate(operation, {}) if all(isinstance(a, int) for a in arguments) else operation


def _is_negative(extent: Extent) -> bool:
    return isinstance(extent, int) and extent < 0


def dense(extent: Extent) -> Extent | None:
    """Return `extent` as it is while nothing is removed: run-time sizes and numbers; None where that is unsaid.

    Args:
        extent: an integer, a size or an operation on such.

    """
    if isinstance(extent, Size):
        factors = extent.dim.resolve().factors
        unknown = Dim(tuple(factor for factor in factors if factor.dynamic))
        static = math.prod(factor.size for factor in factors if not factor.dynamic)
        if any(not atom.dynamic for atom in unknown.atoms()):
            return None
        return apply("Mul", Size(unknown), static) if unknown.factors else static
    if not isinstance(extent, Operation):
        return extent
    arguments = [dense(argument) for argument in extent.arguments]
    known = [argument for argument in arguments if argument is not None]
    return apply(extent.name, *known) if len(known) == len(arguments) else None


def total(*terms: Extent) -> Extent:
    """Return the sum of extents.

    Args:
        terms: of the sum; none make 0.

    >>> total(2, 3, 4)
    9

    """
    result: Extent = 0
    for term in terms:
        result = term if result == 0 else apply("Add", result, term)
    return result


def dims_of(extent: Extent) -> Iterator[Dim]:
    """Yield the Dims whose size `extent` depends on.

    Args:
        extent: an integer, which depends on none, a size or an operation on such.

    >>> from onnx_subprune.structure.axes.terms import fresh
    >>> channels = fresh(4)
    >>> list(dims_of(apply("Mul", Size(channels), 2))) == [channels]
    True

    """
    if isinstance(extent, Size):
        yield extent.dim
    elif isinstance(extent, Operation):
        for argument in extent.arguments:
            yield from dims_of(argument)


def fixed(extent: Extent) -> int | None:
    """Return the value of an extent before pruning, or None where it depends on a size known at run time only.

    Args:
        extent: an integer, a size or an operation on such.

    >>> from onnx_subprune.structure.axes.terms import fresh
    >>> fixed(Size(fresh(4))), fixed(Size(fresh(4, dynamic=True)))
    (4, None)

    """
    return None if _is_unknown(extent) or any(dim.dynamic for dim in dims_of(extent)) else evaluate(extent, {})


def _is_unknown(extent: Extent) -> bool:
    return isinstance(extent, Unknown) or (isinstance(extent, Operation) and any(map(_is_unknown, extent.arguments)))


def in_step(a: Extent, b: Extent) -> bool:
    """Whether two extents are equal whatever units are removed, and whatever the sizes known at run time only.

    Args:
        a: one extent.
        b: the other; the order does not matter.

    >>> from onnx_subprune.structure.axes.terms import fresh
    >>> a, b = Size(fresh(4)), Size(fresh(4))
    >>> in_step(apply("Mul", a, 2), apply("Mul", 2, a)), in_step(a, b)
    (True, False)

    """
    x, y = _factorise(a), _factorise(b)
    return a == b or (x is not None and y is not None and x == y)


def proportional(a: Extent, b: Extent) -> bool:
    """Whether the ratio of two extents is the same for all sizes known at run time only, whatever is removed.

    Args:
        a: one extent.
        b: the other; the order does not matter.

    >>> from onnx_subprune.structure.axes.terms import fresh
    >>> batch = Size(fresh(5, dynamic=True))
    >>> proportional(batch, apply("Mul", batch, 3)), proportional(batch, 3)
    (True, False)

    """
    x, y = _factorise(a), _factorise(b)
    return x is not None and y is not None and _unknowns(x[1]) == _unknowns(y[1])


def _unknowns(factors: Counter[Factor]) -> Counter[Factor]:
    return Counter({factor: count for factor, count in factors.items() if factor.dynamic})


def _factorise(extent: Extent) -> tuple[int, Counter[Factor]] | None:
    """Return an extent as a number times the sizes of factors, or None where it is not one."""
    if isinstance(extent, int):
        return extent, Counter()
    if isinstance(extent, Size):
        return 1, Counter(extent.dim.resolve().factors)
    if isinstance(extent, Unknown) or extent.name not in ("Mul", "Div"):
        return None
    terms = [_factorise(argument) for argument in extent.arguments]
    if terms[0] is None or terms[1] is None:
        return None
    (a, first), (b, second) = terms[0], terms[1]
    if extent.name == "Mul":
        return a * b, first + second
    exact = b != 0 and a % b == 0 and not second - first
    return (a // b, first - second) if exact else None


@dataclass(frozen=True)
class Monomial:
    """A size as (static factor) x (product of dynamic factors): what a Reshape is matched by."""

    static: int
    dynamic: tuple[Factor, ...]

    def times(self, other: Monomial) -> Monomial:
        """Return the product of two monomials.

        Args:
            other: the second factor; its dynamic factors follow the first's.

        """
        return Monomial(self.static * other.static, self.dynamic + other.dynamic)


def monomial(extent: Extent) -> Monomial | None:
    """Return an extent as a monomial, or None where it is not one.

    Args:
        extent: an integer, a size or an operation on such.

    >>> from onnx_subprune.structure.axes.terms import fresh
    >>> batch = fresh(5, dynamic=True)
    >>> times = monomial(apply("Mul", Size(batch), 3))
    >>> times.static, times.dynamic == batch.factors
    (3, True)

    """
    if isinstance(extent, int):
        return Monomial(extent, ()) if extent > 0 else None
    if isinstance(extent, Size):
        return _of_dim(extent.dim)
    if isinstance(extent, Unknown) or extent.name not in ("Mul", "Div"):
        return None
    first, second = (monomial(argument) for argument in extent.arguments)
    if first is None or second is None:
        return None
    return first.times(second) if extent.name == "Mul" else _quotient(first, second)


def _of_dim(dim: Dim) -> Monomial:
    result = Monomial(1, ())
    for factor in dim.resolve().factors:
        result = result.times(Monomial(1, (factor,)) if factor.dynamic else Monomial(factor.size, ()))
    return result


def _quotient(a: Monomial, b: Monomial) -> Monomial | None:
    dynamic = list(a.dynamic)
    for factor in b.dynamic:
        if factor not in dynamic:
            return None
        dynamic.remove(factor)
    return None if a.static % b.static else Monomial(a.static // b.static, tuple(dynamic))
