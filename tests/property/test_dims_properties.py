"""The algebra of axes on random terms, against index tuples enumerated one by one."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from onnx_subprune.structure.axes import (
    Atom,
    Dim,
    carve,
    concat,
    freeze,
    fresh,
    keep_mask,
    product,
    split,
    unify,
    unit_index,
)

SETTINGS = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def entries(dim: Dim) -> list[frozenset[tuple[Atom, int]]]:
    """Return for every entry of an axis the units it is made of: what an axis means, by brute force."""
    result: list[frozenset[tuple[Atom, int]]] = [frozenset()]
    for factor in dim.resolve().factors:
        if isinstance(factor, Atom):
            choices = [frozenset([(factor, i)]) for i in range(factor.size)]
        else:
            choices = [entry for part in factor.parts for entry in entries(part)]
        result = [outer | inner for outer in result for inner in choices]
    return result


def atoms_of(*dims: Dim) -> list[Atom]:
    return list(dict.fromkeys(atom for dim in dims for atom in dim.atoms()))


@st.composite
def factorings(draw, size: int, pool: list[Atom], depth: int = 2) -> Dim:
    """Draw a term of `size` entries; atoms of `pool` may be used again."""
    forms = ["atom"]
    divisors = [d for d in range(2, size) if size % d == 0]
    if depth and divisors:
        forms.append("product")
    if depth and size >= 2:
        forms.append("concat")
    fitting = [atom for atom in pool if atom.size == size and atom.bound is None]
    if fitting:
        forms.append("again")
    form = draw(st.sampled_from(forms))
    if form == "product":
        outer = draw(st.sampled_from(divisors))
        return product(draw(factorings(outer, pool, depth - 1)), draw(factorings(size // outer, pool, depth - 1)))
    if form == "concat":
        cut = draw(st.integers(1, size - 1))
        return concat(draw(factorings(cut, pool, depth - 1)), draw(factorings(size - cut, pool, depth - 1)))
    if form == "again":
        return Dim((draw(st.sampled_from(fitting)),))
    dim = fresh(size)
    pool.extend(dim.atoms())
    return dim


@st.composite
def terms(draw, count: int, sizes=st.integers(1, 24)) -> list[Dim]:
    size, pool = draw(sizes), []
    return [draw(factorings(size, pool)) for _ in range(count)]


@st.composite
def keeps_for(draw, atoms: list[Atom]) -> dict[Atom, np.ndarray]:
    keeps = {}
    for atom in atoms:
        if not atom.reasons and draw(st.booleans()):
            keeps[atom] = np.array(draw(st.lists(st.booleans(), min_size=atom.size, max_size=atom.size)), bool)
    return keeps


@given(st.data())
@SETTINGS
def test_masks_and_units_agree_with_index_tuples(data):
    (dim,) = data.draw(terms(1))
    keeps = data.draw(keeps_for(atoms_of(dim)))
    listed = entries(dim)
    assert len(listed) == dim.size == math.prod(f.size for f in dim.resolve().factors)
    expected = [all(atom not in keeps or keeps[atom][unit] for atom, unit in entry) for entry in listed]
    np.testing.assert_array_equal(keep_mask(dim, keeps), expected)
    for atom in atoms_of(dim):
        units = unit_index(dim, atom)
        for entry, unit in zip(listed, units, strict=True):
            mine = [u for a, u in entry if a is atom]
            assert unit == (max(mine) if mine else -1)


@given(st.data())
@SETTINGS
def test_unified_axes_keep_the_same_entries(data):
    a, b, bystander = data.draw(terms(3, st.integers(1, 36)))
    sizes = [dim.size for dim in (a, b, bystander)]
    unify(a, b, "Add 'x'")
    assert [dim.size for dim in (a, b, bystander)] == sizes
    keeps = data.draw(keeps_for(atoms_of(a, b, bystander)))
    np.testing.assert_array_equal(keep_mask(a, keeps), keep_mask(b, keeps))


@given(st.data())
@SETTINGS
def test_unifying_in_sequence_holds_all_of_them(data):
    dims = data.draw(terms(4, st.sampled_from([8, 12, 24, 30])))
    for other in dims[1:]:
        unify(dims[0], other, "Add")
    keeps = data.draw(keeps_for(atoms_of(*dims)))
    for other in dims[1:]:
        np.testing.assert_array_equal(keep_mask(dims[0], keeps), keep_mask(other, keeps))


@given(st.data())
@SETTINGS
def test_pieces_of_a_split_are_consecutive(data):
    (dim,) = data.draw(terms(1, st.integers(2, 30)))
    cut = data.draw(st.integers(1, dim.size - 1))
    pieces = split(dim, [cut, dim.size - cut])
    keeps = data.draw(keeps_for(atoms_of(dim)))
    if pieces is not None:
        assert [piece.size for piece in pieces] == [cut, dim.size - cut]
        assert entries(pieces[0]) + entries(pieces[1]) == entries(dim)
        mask = np.concatenate([keep_mask(piece, keeps) for piece in pieces])
        np.testing.assert_array_equal(mask, keep_mask(dim, keeps))


@given(st.data())
@SETTINGS
def test_a_carved_factor_keeps_what_it_kept(data):
    (dim,) = data.draw(terms(1, st.sampled_from([4, 6, 12, 18, 24])))
    factor = dim.resolve().factors[0]
    outer = data.draw(st.sampled_from([d for d in range(1, factor.size + 1) if factor.size % d == 0]))
    carved = carve(factor, outer, "Reshape")
    if carved is not None:
        rewritten = Dim(carved[0] + carved[1])
        assert Dim(carved[0]).size == outer
        assert rewritten.size == factor.size
        keeps = data.draw(keeps_for(atoms_of(rewritten, Dim((factor,)))))
        np.testing.assert_array_equal(keep_mask(rewritten, keeps), keep_mask(Dim((factor,)), keeps))


@given(st.data())
@SETTINGS
def test_what_is_frozen_stays_frozen(data):
    a, b = data.draw(terms(2))
    freeze(a, "because")
    unify(a, b, "Add")
    assert all(atom.reasons for atom in a.atoms())
    if a.resolve() == b.resolve():
        assert all("because" in atom.reasons for atom in b.atoms())
