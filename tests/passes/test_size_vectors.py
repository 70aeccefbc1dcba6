"""Vectors of sizes are edited where an entry comes from, and give what the edits say, at any size of the input."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from onnx_subprune.model import to_graph, to_model
from onnx_subprune.passes.size_vectors import SizeVectors

# batch comes from the input, 32 is four heads of eight channels.
JOINED = """[shape] sizes = Shape(x)
    [pick] batch = Gather(sizes, zero)
    [column] first = Unsqueeze(batch, zeros)
    [target] v = Concat <axis=0> (first, width, rest)"""
MULTIPLIED = """[shape] sizes = Shape(x)
    [pick] batch = Gather(sizes, zero)
    [times] flat = Mul(batch, heads)
    [column] first = Unsqueeze(flat, zeros)
    [target] v = Concat <axis=0> (first, width)"""
TAKEN = """[shape] sizes = Shape(x)
    [target] v = Slice(sizes, zeros, two)"""
NUMBERS = {
    "zero": np.int64(0), "zeros": np.array([0]), "two": np.array([2]), "width": np.array([32]),
    "rest": np.array([-1, 5]), "heads": np.int64(4),
}  # fmt: skip
SIZES = {"batch": (), "flat": (), "first": (1,), "sizes": (2,)}


@pytest.fixture
def edited(build):
    """`edited(text, edits, length)`: the graph's `v` with edits, by batch size, and the operators that were added."""

    def make(text, edits, length):
        words = set(text.replace("(", " ").replace(")", " ").replace(",", " ").split())
        numbers = {name: value for name, value in NUMBERS.items() if name in words}
        model = build(f"g (float[N,3] x) => (int64[n] v) {{ {text} }}", **numbers)
        graph = to_graph(model)
        tensors = graph.tensors()
        known = {name: np.empty(shape, object) for name, shape in SIZES.items() if name in tensors}
        known["v"] = np.empty((length,), object)
        before = len(graph.nodes)
        vectors = SizeVectors(graph, known)
        tensor = vectors.edited(tensors["v"], edits)
        assert vectors.edited(tensors["v"], edits) is tensor, "readers that want the same share it"
        added = [node.op for node in graph.nodes if node.name.endswith(f"_{node.op.lower()}") and "pruned" in node.name]
        assert len(graph.nodes) == before + len(added)
        graph.outputs.append(given(graph, tensor))
        return to_model(graph, model), added

    return make


def given(graph: gs.Graph, tensor: gs.Tensor) -> gs.Variable:
    """Make a tensor an output of the graph."""
    output = gs.Variable("edited", dtype=np.int64, shape=[None])
    graph.nodes.append(gs.Node("Identity", name="give", inputs=[tensor], outputs=[output]))
    return output


def values(outputs, model: onnx.ModelProto, batch: int) -> list[int]:
    dense, changed = outputs(model, x=np.zeros((batch, 3), np.float32))
    assert dense is not changed
    return [int(value) for value in changed]


def test_a_number_of_a_concat_is_written_over(edited, outputs):
    model, added = edited(JOINED, {1: 16}, 4)
    assert added == ["Concat"]
    assert [values(outputs, model, batch) for batch in (2, 7)] == [[2, 16, -1, 5], [7, 16, -1, 5]]


def test_several_entries_of_one_part(edited, outputs):
    model, added = edited(JOINED, {1: 16, 2: 9, 3: Fraction(3, 5)}, 4)
    assert added == ["Concat"]
    assert values(outputs, model, 2) == [2, 16, 9, 3]


def test_all_entries_are_a_constant(edited, outputs):
    model, added = edited(JOINED, {0: 1, 1: 2, 2: 3, 3: 4}, 4)
    assert added == []
    assert values(outputs, model, 5) == [1, 2, 3, 4]


def test_a_number_that_a_size_is_multiplied_by_is_replaced(edited, outputs):
    model, added = edited(MULTIPLIED, {0: Fraction(3, 4)}, 2)
    assert sorted(added) == ["Concat", "Mul", "Unsqueeze"]
    assert [values(outputs, model, batch) for batch in (2, 5)] == [[6, 32], [15, 32]]


def test_a_ratio_that_no_number_takes_up_is_computed(edited, outputs):
    """Four heads times a third is no whole number: multiply by the one, divide by the other."""
    model, added = edited(MULTIPLIED, {0: Fraction(1, 3)}, 2)
    assert "Div" in added
    assert values(outputs, model, 6) == [8, 32]


def test_entries_that_come_from_elsewhere_are_chosen(edited, outputs):
    model, added = edited(TAKEN, {1: 9}, 2)
    assert added == ["Where"]
    assert [values(outputs, model, batch) for batch in (2, 5)] == [[2, 9], [5, 9]]


def test_numbers_and_ratios_together(edited, outputs):
    model, added = edited(TAKEN, {0: Fraction(3, 2), 1: 9}, 2)
    assert sorted(added) == ["Div", "Mul", "Where"]
    assert values(outputs, model, 4) == [6, 9]


def test_the_vector_itself_stays(edited, outputs):
    model, _ = edited(JOINED, {1: 16}, 4)
    dense, _ = outputs(model, x=np.zeros((2, 3), np.float32))
    np.testing.assert_array_equal(dense, [2, 32, -1, 5])
