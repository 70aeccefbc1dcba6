"""Integers that know which axes they were computed from."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.structure.axes import (
    ONE,
    Monomial,
    Operation,
    Size,
    Unknown,
    apply,
    concat,
    dims_of,
    evaluate,
    fixed,
    fresh,
    in_step,
    monomial,
    product,
    total,
)


@pytest.mark.parametrize(
    ("name", "a", "b", "expected"),
    [
        ("Add", 7, 2, 9), ("Sub", 2, 7, -5), ("Mul", 3, 4, 12), ("Div", 7, 2, 3), ("Div", -7, 2, -3), ("Div", 7, 0, 0),
        ("Mod", 7, 3, 1), ("Mod", -7, 3, 2), ("Max", 3, 5, 5), ("Min", 3, 5, 3), ("Equal", 3, 3, 1), ("Equal", 3, 4, 0),
    ],
)  # fmt: skip
def test_literals_are_computed_at_once(name, a, b, expected):
    assert apply(name, a, b) == expected


def test_operators_of_many_arguments():
    assert apply("Max", 3, 9, 5) == 9
    assert apply("Where", 1, 4, 5) == 4
    size = Size(fresh(3))
    assert apply("Where", 0, 4, size) is size


def test_a_size_before_and_after_pruning():
    channels, height = fresh(8), fresh(5)
    extent = apply("Mul", Size(channels), Size(height))
    assert evaluate(extent, {}) == 40
    assert evaluate(extent, {next(channels.atoms()): np.arange(8) < 3}) == 15
    assert evaluate(apply("Where", apply("Equal", Size(height), 5), Size(channels), 1), {}) == 8
    assert list(dims_of(extent)) == [channels, height]


def test_sums_skip_zeros():
    size = Size(fresh(3))
    assert total() == 0
    assert total(0, size) is size
    assert evaluate(total(size, 2, size), {}) == 8


def test_what_is_fixed_before_the_network_runs():
    assert fixed(7) == 7
    assert fixed(apply("Mul", Size(fresh(3)), 2)) == 6
    assert fixed(Size(fresh(3, dynamic=True))) is None
    assert fixed(apply("Add", 1, Unknown())) is None
    assert evaluate(Unknown(), {}) == 1


def test_extents_that_keep_step_whatever_is_removed():
    n, c, h = fresh(2, dynamic=True), fresh(8), fresh(5)
    folded = Size(product(n, c))
    assert in_step(folded, apply("Mul", Size(c), Size(n)))
    assert not in_step(folded, apply("Mul", Size(n), 8))
    assert in_step(Size(c), apply("Div", Size(product(c, h)), Size(h)))
    assert in_step(Size(product(c, ONE)), Size(c))
    assert not in_step(Size(c), 8)
    assert not in_step(Size(c), Unknown())
    unlike = Operation("Add", (Size(c), 1))
    assert in_step(unlike, Operation("Add", (Size(c), 1)))
    assert not in_step(unlike, Operation("Add", (Size(c), 2)))
    assert not in_step(apply("Div", Size(c), 3), apply("Div", Size(c), 2))


def test_monomials_separate_what_is_known_at_run_time():
    n, past = fresh(1, dynamic=True), fresh(1, dynamic=True)
    (atom,) = n.atoms()
    assert monomial(12) == Monomial(12, ())
    assert monomial(0) is None
    assert monomial(-1) is None
    assert monomial(Size(product(n, fresh(3), fresh(4)))) == Monomial(12, (atom,))
    assert monomial(apply("Mul", Size(n), 6)) == Monomial(6, (atom,))
    assert monomial(apply("Div", Size(product(n, fresh(12))), 4)) == Monomial(3, (atom,))
    assert monomial(apply("Div", Size(product(n, fresh(12))), Size(n))) == Monomial(12, ())
    assert monomial(apply("Div", Size(fresh(12)), 5)) is None
    assert monomial(apply("Div", 12, Size(n))) is None
    assert monomial(apply("Add", Size(n), 1)) is None
    assert monomial(Unknown()) is None
    longer = concat(past, fresh(3))
    assert monomial(Size(longer)) == Monomial(1, longer.resolve().factors)


def test_a_size_never_equals_a_negative_number() -> None:
    assert apply("Equal", Size(fresh(4, dynamic=True)), -1) == 0
    assert apply("Where", apply("Equal", Size(fresh(4)), -1), 1, 7) == 7
