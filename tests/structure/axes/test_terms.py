"""Atoms, products and concatenations, and what is known of run-time sizes."""

from __future__ import annotations

from onnx_subprune.structure.axes import ONE, concat, covers, fresh, pair_covered, product, purely_dynamic


def test_an_axis_of_one_entry_needs_no_atom():
    assert fresh(1) is ONE
    assert fresh(1, dynamic=True) != ONE
    assert ONE.size == 1
    assert list(ONE.atoms()) == []


def test_sizes_multiply_and_add():
    a, b = fresh(3), fresh(4)
    assert product(a, b).size == 12
    assert concat(a, b).size == 7
    assert product(concat(a, b), a).size == 21
    assert not product(a, b).dynamic
    assert concat(a, product(b, fresh(2, dynamic=True))).dynamic


def test_nested_terms_resolve_flat():
    a, b, c = fresh(2), fresh(3), fresh(4)
    assert product(product(a, b), c).resolve().factors == (*a.factors, *b.factors, *c.factors)
    assert concat(concat(a, b), c).resolve() == concat(a, b, c).resolve()
    assert concat(a) is a


def test_a_size_covers_what_was_broadcast_to_it():
    n, m = fresh(2, dynamic=True), fresh(2, dynamic=True)
    wide = fresh(2, dynamic=True, covers=(n, m))
    wider = fresh(2, dynamic=True, covers=(wide, fresh(2, dynamic=True)))
    assert all(covers(wider, dim) for dim in (n, m, wide, wider, ONE))
    assert not any(covers(dim, wide) for dim in (n, m, ONE))


def test_run_time_sizes_are_paired_with_what_covers_them() -> None:
    n, m = fresh(2, dynamic=True), fresh(2, dynamic=True)
    wide, other = fresh(2, dynamic=True, covers=(n,)), fresh(2, dynamic=True, covers=(m,))
    (a,), (b,), (x,), (y,) = (dim.factors for dim in (wide, other, n, m))
    assert pair_covered([a, b], [y, x]) == [(b, y), (a, x)]
    assert pair_covered([a], [x, x]) is None
    assert pair_covered([a], []) == []


def test_an_axis_is_purely_dynamic_where_nothing_of_it_can_go() -> None:
    n = fresh(2, dynamic=True)
    assert purely_dynamic(n)
    assert purely_dynamic(product(n, n))
    assert not purely_dynamic(product(n, fresh(3)))
    assert not purely_dynamic(ONE)
