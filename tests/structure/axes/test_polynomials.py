from __future__ import annotations

import math

from onnx_subprune.structure.axes import Atom, Dim, Products, concat, fresh, product


def atom(dim: Dim) -> Atom:
    (one,) = dim.resolve().factors
    assert isinstance(one, Atom)
    return one


A, B, C = fresh(8), fresh(5), fresh(3)
JOINED = concat(product(A, fresh(2)), B)  # 8 * 2 + 5


def test_a_sum_of_products_follows_the_counts() -> None:
    products = Products([("one", (A, B)), ("two", (A, C, C)), ("three", (JOINED, C))])
    assert products.value({}) == 8 * 5 + 8 * 3 * 3 + 21 * 3
    assert products.value({atom(A): 4, atom(C): 1}) == 4 * 5 + 4 + 13
    assert products.value({atom(A): 0, atom(B): 0}) == 0


def test_only_terms_of_live_owners_count() -> None:
    products = Products([("one", (A,)), ("two", (B,)), ("two", (B,)), ("two", (C,))])
    assert products.value({}, {"two"}) == 5 + 5 + 3
    assert products.value({atom(B): 2}, frozenset({"one", "two"})) == 8 + 2 + 2 + 3
    assert products.value({}, ()) == 0


def test_no_axes_are_a_product_of_one() -> None:
    assert Products([("one", ())]).value({}) == math.prod(()) == 1
    assert Products([]).value({}) == 0


def test_an_axis_that_no_memory_holds_is_counted_as_one_that_is_very_long() -> None:
    assert Products([("one", (fresh(1 << 62), fresh(1 << 62), fresh(0)))]).value({}) == 0
    assert Products([("one", (product(fresh(1 << 40), fresh(1 << 40)),))]).value({}) == 1 << 48


def test_lengths_inside_lengths_follow_too() -> None:
    nested = product(concat(product(concat(A, B), C), JOINED), fresh(2))  # ((8 + 5) * 3 + 21) * 2
    products = Products([("one", (nested, A)), ("two", (nested,)), ("three", (JOINED,)), ("four", (fresh(1),))])
    assert products.value({}) == 120 * 8 + 120 + 21 + 1
    assert products.value({atom(A): 1, atom(C): 2}) == 38 * 1 + 38 + 7 + 1


def test_units_of_other_networks_do_not_matter() -> None:
    assert Products([("one", (A,))]).value({atom(B): 1}) == 8


def test_a_sum_beside_given_counts_is_that_of_the_changed_counts() -> None:
    inner = concat(product(JOINED, fresh(2)), C)
    products = Products(
        [("one", (A, B)), ("two", (A, C, C)), ("three", (JOINED, C)), ("four", (inner, inner)), ("", (B,))]
    )
    for counts in ({}, {atom(A): 4, atom(C): 1}, {atom(B): 0}):
        for dim in (A, B, C):
            for count in (0, 1, 7):
                assert products.beside(counts, atom(dim), count) == products.value({**counts, atom(dim): count})
    assert products.beside({}, atom(fresh(9)), 2) == products.value({})
