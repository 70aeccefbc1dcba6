"""Groups: their names, what they cost, and globs that match them."""

from __future__ import annotations

import numpy as np
import pytest

from onnx_subprune.model import measure_cost
from onnx_subprune.network.rewrite import shrink
from onnx_subprune.pipeline import analyse
from onnx_subprune.structure import features_of

TEXT = """g (float[2,3,6,6] x) => (float[a,b] y) {
    [stem] h = Conv(x, w1, b1)
    [dw] d = Conv <group=8, pads=[1,1,1,1]> (h, wd)
    [up] u = ConvTranspose <group=2, strides=[2,2]> (d, wt)
    [t] t = Transpose <perm=[0,2,3,1]> (u)
    [mix] m = MatMul(t, wm)
    [bias] v = Add(m, bm)
    [f] f = Flatten(v)
    [fc] y = Gemm(f, w2)
}"""
WEIGHTS = {
    "w1": (8, 3, 1, 1), "b1": (8,), "wd": (8, 1, 3, 3), "wt": (8, 3, 2, 2), "wm": (6, 5), "bm": (5,), "w2": (720, 4),
}  # fmt: skip


@pytest.fixture
def structure(net):
    return analyse(net(TEXT, **WEIGHTS)).structure


def test_groups_come_in_graph_order_and_are_named_after_what_makes_them(structure):
    assert [group.name for group in structure.groups] == ["stem", "stem#2", "up", "mix", "fc"]
    assert [group.size for group in structure.groups] == [2, 4, 3, 5, 4]
    assert structure.prunable == structure.groups[:-1]
    assert structure.frozen == structure.groups[-1:]
    assert [consumer.name for consumer in structure.consumers] == ["stem", "up", "mix", "fc"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("stem*", ["stem", "stem#2"]),
        ("stem#2", ["stem#2"]),
        ("w1", ["stem", "stem#2"]),
        ("wd", ["stem", "stem#2"]),
        ("bm", ["mix"]),
        ("dw", ["stem", "stem#2"]),
        ("[!s]*m", ["mix"]),
        ("nothing", []),
    ],
)
def test_globs_match_groups_nodes_and_weights(structure, pattern, names):
    assert [group.name for group in structure.groups if group.matches(pattern)] == names


def test_costs_are_those_of_the_model_before_and_after(net):
    analysis = analyse(net(TEXT, **WEIGHTS))
    structure = analysis.structure
    dense = measure_cost(analysis.model, analysis.input_shapes)
    assert (structure.macs({}), structure.parameters({})) == (dense.macs, dense.parameters)
    counts = {group.atom: n for group, n in zip(structure.prunable, (1, 3, 2, 4), strict=True)}
    expected = (structure.macs(counts), structure.parameters(counts))
    keeps = {atom: np.arange(atom.size) < count for atom, count in counts.items()}
    pruned = measure_cost(shrink(analysis.normalised, structure, keeps), analysis.input_shapes)
    assert (pruned.macs, pruned.parameters) == expected


def test_features_are_blocks_features_and_positions(structure):
    up, mix, fc = (features_of(structure, consumer) for consumer in structure.consumers[1:])
    shapes = [(f.blocks, f.outer, f.count, f.inner) for f in (up, mix, fc)]
    assert shapes == [(2, 1, 4, 1), (1, 1, 6, 1), (1, 144, 5, 1)]
    stem, within, made, mixed = (group.atom for group in structure.prunable)
    np.testing.assert_array_equal(up.units(within), [[0, 1, 2, 3]] * 2)
    np.testing.assert_array_equal(up.units(stem), [[0] * 4, [1] * 4])
    np.testing.assert_array_equal(mix.units(made), [[0, 1, 2, 0, 1, 2]])
    np.testing.assert_array_equal(fc.units(mixed), [range(5)])
    keeps = {stem: np.array([True, False]), made: np.array([True, False, True])}
    np.testing.assert_array_equal(mix.kept(keeps), [[True, False, True, False, False, False]])


def test_flattened_positions_are_inner(net):
    text = """g (float[2,3,6,5] x) => (float[a,b] y) {
        [c1] h = Conv(x, w1)
        [f] f = Flatten(h)
        [fc] y = Gemm(f, w2)
    }"""
    structure = analyse(net(text, w1=(8, 3, 1, 1), w2=(240, 4))).structure
    features = features_of(structure, structure.consumers[1])
    assert (features.blocks, features.count, features.inner) == (1, 8, 30)
