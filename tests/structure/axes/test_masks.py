"""What is left of an axis once units are gone."""

from __future__ import annotations

import numpy as np

from onnx_subprune.structure.axes import ONE, Atom, Dim, concat, fresh, keep_mask, product, unify, unit_index


def _atom(dim: Dim) -> Atom:
    (atom,) = dim.atoms()
    return atom


def test_entries_and_their_units():
    a, b = fresh(2), fresh(3)
    dim = concat(product(a, b), a, fresh(2))
    np.testing.assert_array_equal(unit_index(dim, _atom(a)), [0, 0, 0, 1, 1, 1, 0, 1, -1, -1])
    np.testing.assert_array_equal(unit_index(dim, _atom(b)), [0, 1, 2, 0, 1, 2, -1, -1, -1, -1])
    keeps = {_atom(a): np.array([False, True]), _atom(b): np.array([True, True, False])}
    np.testing.assert_array_equal(keep_mask(dim, keeps), np.array([0, 0, 0, 1, 1, 0, 0, 1, 1, 1], bool))


def test_an_axis_of_one_entry_stays_and_belongs_to_nobody() -> None:
    other = _atom(fresh(3))
    np.testing.assert_array_equal(keep_mask(ONE, {other: np.zeros(3, bool)}), [True])
    np.testing.assert_array_equal(unit_index(ONE, other), [-1])


def test_all_units_of_an_atom_may_go() -> None:
    a, b = fresh(2), fresh(3)
    assert not keep_mask(product(a, b), {_atom(a): np.zeros(2, bool)}).any()
    np.testing.assert_array_equal(keep_mask(concat(a, b), {_atom(a): np.zeros(2, bool)}), [0, 0, 1, 1, 1])


def test_a_bound_atom_has_the_mask_of_what_it_turned_out_to_be() -> None:
    whole, rows, columns = fresh(6), fresh(2), fresh(3)
    unify(whole, product(rows, columns), "Reshape")
    keeps = {_atom(columns): np.array([True, False, True])}
    np.testing.assert_array_equal(keep_mask(whole, keeps), [1, 0, 1, 1, 0, 1])
    np.testing.assert_array_equal(unit_index(whole, _atom(rows)), [0, 0, 0, 1, 1, 1])
