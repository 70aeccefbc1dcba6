"""The algebra of axes on terms written out by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from onnx_subprune.structure.axes import (
    Atom,
    Concat,
    Dim,
    carve,
    concat,
    freeze,
    fresh,
    keep_mask,
    product,
    split,
    unify,
)


def _atom(dim: Dim) -> Atom:
    (atom,) = dim.atoms()
    return atom


def _reasons(*dims: Dim) -> list[list[str]]:
    return [atom.reasons for dim in dims for atom in dim.atoms()]


def test_two_atoms_become_one():
    a, b = fresh(5), fresh(5)
    unify(a, b, "Add")
    assert a.resolve() == b.resolve()
    keeps = {_atom(a): np.array([1, 0, 1, 1, 0], bool)}
    np.testing.assert_array_equal(keep_mask(a, keeps), keep_mask(b, keeps))


def test_a_long_chain_of_atoms_does_not_exhaust_the_stack():
    """A residual stream of a thousand layers, each unified with the one before."""
    dims = [fresh(4) for _ in range(5000)]
    for before, after in pairwise(dims):
        unify(before, after, "Add")
    assert len({_atom(dim) for dim in dims}) == 1


def test_a_reason_reaches_what_is_unified_later_and_earlier():
    a, b, c = fresh(5), fresh(5), fresh(5)
    unify(a, b, "Add")
    freeze(b, "because")
    unify(c, a, "Add")
    assert _reasons(a, c) == [["because"], ["because"]]
    freeze(c, "because")
    assert _reasons(a) == [["because"]]


def test_a_product_refines_an_atom_for_all_that_mention_it():
    whole, rows, columns = fresh(12), fresh(3), fresh(4)
    stack = concat(whole, fresh(2))
    unify(whole, product(rows, columns), "Reshape")
    keeps = {_atom(rows): np.array([1, 0, 1], bool), _atom(columns): np.array([0, 1, 1, 1], bool)}
    expected = np.outer([1, 0, 1], [0, 1, 1, 1]).ravel().astype(bool)
    np.testing.assert_array_equal(keep_mask(whole, keeps), expected)
    np.testing.assert_array_equal(keep_mask(stack, keeps), [*expected, True, True])


def test_products_with_other_boundaries_meet_in_the_finest():
    a, b = product(fresh(2), fresh(6)), product(fresh(4), fresh(3))
    unify(a, b, "Add")
    assert a.resolve() == b.resolve()
    assert [factor.size for factor in a.resolve().factors] == [2, 2, 3]


def test_products_that_share_an_atom_are_carved_once():
    """The atom of six stands on both sides at different places; where that cannot be resolved, it is frozen."""
    six = fresh(6)
    a, b = product(six, fresh(4)), product(fresh(2), fresh(2), six)
    unify(a, b, "Add")
    for atom in {atom for dim in (a, b) for atom in dim.atoms()}:
        keeps = {atom: (np.arange(atom.size) != 0) | bool(atom.reasons)}
        np.testing.assert_array_equal(
            keep_mask(a, keeps), keep_mask(b, keeps), err_msg=repr((a.resolve(), b.resolve()))
        )


def test_concatenations_with_other_boundaries_meet_in_the_finest():
    a, b = concat(fresh(4), fresh(8)), concat(fresh(6), fresh(6))
    unify(a, b, "Add")
    assert a.resolve() == b.resolve()
    assert [atom.size for atom in a.atoms()] == [4, 2, 6]


@pytest.mark.parametrize(
    "other", [lambda: product(fresh(3), fresh(5)), lambda: fresh(14), lambda: fresh(15, dynamic=True)]
)
def test_what_does_not_fit_freezes_both(other):
    a, b = product(fresh(5), fresh(3)), other()
    unify(a, b, "Add 'x'")
    assert all(reasons and "meet at Add 'x'" in reasons[0] for reasons in _reasons(a, b)), _reasons(a, b)


def test_an_axis_that_meets_a_part_of_itself_freezes():
    a = fresh(6)
    pieces = split(a, [2, 4])
    assert pieces is not None
    b = fresh(6)
    unify(b, concat(pieces[1], pieces[0]), "Concat")
    unify(a, b, "Add")
    keeps = {atom: np.arange(atom.size) != 0 for atom in a.atoms() if not atom.reasons}
    np.testing.assert_array_equal(keep_mask(a, keeps), keep_mask(b, keeps))


def test_sizes_known_at_run_time_are_equal_where_the_rest_is():
    n, m = fresh(2, dynamic=True), fresh(2, dynamic=True)
    a, b = product(n, fresh(6)), product(n, product(fresh(2), fresh(3)))
    unify(a, b, "Add")
    assert a.resolve() == b.resolve()
    assert _reasons(a) == [[], [], []]
    c, d = product(n, fresh(6)), product(m, fresh(6))
    unify(c, d, "Add")
    assert c.resolve() == d.resolve()
    e, f = product(n, fresh(6)), product(fresh(3), m, fresh(2))
    unify(e, f, "Add")
    assert all(reasons for reasons in _reasons(e, f))


def test_a_size_known_at_run_time_is_one_where_the_rest_has_the_static_size():
    n, inner = fresh(1, dynamic=True), fresh(6)
    a, b = product(n, inner), product(fresh(2), fresh(3))
    unify(a, b, "MatMul")
    assert a.resolve() == b.resolve() == inner.resolve()
    assert not a.dynamic
    c, d = product(fresh(2, dynamic=True), fresh(3)), fresh(6)
    unify(c, d, "MatMul")
    assert all(reasons for reasons in _reasons(c, d))


def test_sizes_known_at_run_time_in_another_order_end_in_a_freeze():
    """With one entry at hand the order of the factors cannot be told from the sizes."""
    n = fresh(1, dynamic=True)
    a, b = product(n, fresh(8)), product(fresh(8), n)
    unify(a, b, "Add")
    assert all(reasons for reasons in _reasons(a, b))


def test_concatenations_with_parts_known_at_run_time():
    past = fresh(1, dynamic=True)
    a, b = concat(past, fresh(3)), concat(past, fresh(3))
    unify(a, b, "Add")
    assert a.resolve() == b.resolve()
    c, d = concat(past, fresh(3)), concat(fresh(3), past)
    unify(c, d, "Add")
    assert all(reasons for reasons in _reasons(c, d))


def test_split_refines_the_atom():
    a = fresh(7)
    pieces = split(a, [3, 4])
    assert pieces is not None
    assert a.resolve() == concat(*pieces).resolve()
    assert split(a, [7]) == [a.resolve()]


def test_split_of_a_product_cuts_its_outermost_factor():
    a = product(fresh(6), fresh(4))
    pieces = split(a, [8, 16])
    assert pieces is not None
    assert [piece.size for piece in pieces] == [8, 16]
    assert split(a, [6, 18]) is None
    assert split(product(fresh(2, dynamic=True), fresh(4)), [4, 4]) is None


def test_split_of_a_concatenation_follows_or_cuts_its_parts():
    a, b, c = fresh(4), fresh(6), fresh(2)
    pieces = split(concat(a, b, c), [4, 3, 5])
    assert pieces is not None
    assert pieces[0].resolve() == a.resolve()
    assert [factor.size for factor in pieces[2].resolve().factors[0].parts] == [3, 2]
    assert split(concat(product(a, fresh(2)), b), [3, 11]) is None


def test_a_part_of_a_concatenation_is_cut_in_many_at_once() -> None:
    head, tail = fresh(3), fresh(2500)
    pieces = split(concat(head, tail), [1] * 3 + [4] * 625)
    assert pieces is not None
    assert [piece.size for piece in pieces] == [1] * 3 + [4] * 625
    assert [atom.size for atom in tail.atoms()] == [4] * 625


def test_an_axis_cut_again_and_again_does_not_exhaust_the_stack() -> None:
    whole = rest = fresh(2000)
    for left in range(1999, 0, -1):
        first_and_rest = split(rest, [1, left])
        assert first_and_rest is not None
        rest = first_and_rest[1]
    assert [part.size for part in whole.resolve().factors[0].parts] == [1] * 2000  # type: ignore[union-attr]


def test_carve_cuts_an_atom_in_two():
    atom = _atom(fresh(12))
    carved = carve(atom, 3, "Reshape")
    assert carved is not None
    assert [[f.size for f in half] for half in carved] == [[3], [4]]
    again = carve(atom, 6, "Reshape")
    assert again is not None
    assert [[f.size for f in half] for half in again] == [[3, 2], [2]]
    assert [factor.size for factor in Dim((atom,)).resolve().factors] == [3, 2, 2]
    assert carve(atom, 5, "Reshape") is None
    assert carve(_atom(fresh(4, dynamic=True)), 2, "Reshape") is None


def test_carve_of_equal_parts_ties_them_and_freezes_their_index():
    parts = [fresh(4) for _ in range(3)]
    whole = Concat(tuple(parts))
    carved = carve(whole, 3, "Reshape 'r'")
    assert carved is not None
    (index,), (part,) = carved
    assert isinstance(index, Atom)
    assert index.reasons == ["index over concatenated parts at Reshape 'r'"]
    assert {_atom(p) for p in parts} == {part}
    assert carve(Concat((product(fresh(2), fresh(3)), fresh(3))), 3, "Reshape") is not None
    assert carve(Concat((product(fresh(3), fresh(2)), fresh(3))), 3, "Reshape") is None
