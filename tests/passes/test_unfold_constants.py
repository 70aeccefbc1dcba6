"""A constant that is larger than what computes it becomes the nodes that compute it, and gives the same values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper, parser

from onnx_subprune.model import open_session, run, to_graph, to_model
from onnx_subprune.passes import FoldConstants, unfold_constants

X = {"x": np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)}
# A table of cosines, one of sines, and a mask: eight kilobytes and more each.
TABLES = """g (float[n,64] x) => (float[n,64] y)
    <int64 zero = {0}, int64 size = {64}, int64 one = {1}, float step = {0.09817477}, int64[1] rows = {1},
     int64[1] columns = {0}, int64[2] square = {64, 64}> {
    r = Range(zero, size, one)
    f = Cast <to = 1> (r)
    column = Unsqueeze(f, rows)
    row = Unsqueeze(f, columns)
    angles = Mul(column, row)
    phases = Mul(angles, step)
    cosines = Cos(phases)
    sines = Sin(phases)
    ones = ConstantOfShape <value = float[1] {1}> (square)
    c = MatMul(x, cosines)
    s = MatMul(x, sines)
    m = MatMul(x, ones)
    p = Mul(c, s)
    y = Add(p, m)
}"""


def build(text: str) -> onnx.ModelProto:
    return parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')


def folded(model: onnx.ModelProto) -> onnx.ModelProto:
    graph = to_graph(onnx.shape_inference.infer_shapes(model))
    assert FoldConstants()(graph).modified
    return to_model(graph, model)


def outputs(model: onnx.ModelProto) -> np.ndarray:
    onnx.checker.check_model(model, full_check=True)
    return run(open_session(model), X)["y"]


def assert_close(actual: np.ndarray, expected: np.ndarray) -> None:
    """The runtime's sines are not those of NumPy to the last bit."""
    np.testing.assert_allclose(actual, expected, atol=1e-5 * np.abs(expected).max(), rtol=0)


def test_tables_are_computed_again():
    original = build(TABLES)
    model = folded(original)
    before, expected = model.ByteSize(), outputs(model)
    assert before > 3 * 64 * 64 * 4
    saved = unfold_constants(model, original)
    assert model.ByteSize() <= original.ByteSize() + 128
    assert saved == pytest.approx(before - model.ByteSize(), abs=200)
    assert [node.op_type for node in model.graph.node] == [node.op_type for node in original.graph.node]
    assert_close(outputs(model), expected)


def test_what_is_smaller_than_its_nodes_stays_a_constant():
    original = build("""g (float[n,64] x) => (float[n,64] y) <float a = {2}, float b = {3}> {
        c = Mul(a, b)  y = Mul(x, c) }""")
    model = folded(original)
    assert unfold_constants(model, original) == 0
    assert [node.op_type for node in model.graph.node] == ["Mul"]


def test_what_is_computed_from_as_much_stays_a_constant():
    """The weight itself is as large as its sum with something small."""
    original = build("g (float[n,64] x) => (float[n,64] y) { v = Add(w, w)  y = MatMul(x, v) }")
    original.graph.initializer.append(numpy_helper.from_array(np.ones((64, 64), np.float32), "w"))
    model = folded(original)
    assert unfold_constants(model, original) == 0


def replaced(model: onnx.ModelProto, name: str, values: np.ndarray) -> onnx.ModelProto:
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    tensor.CopyFrom(numpy_helper.from_array(values, name))
    return model


def stored(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(tensor for tensor in model.graph.initializer if tensor.name == name))


def test_a_table_whose_values_have_changed_stays_a_constant():
    original = build(TABLES)
    model = folded(original)
    changed = stored(model, "sines").copy()
    changed[3, 5] += 1
    replaced(model, "sines", changed)
    expected = outputs(model)
    unfold_constants(model, original)
    assert "sines" in {tensor.name for tensor in model.graph.initializer}
    assert "Cos" in [node.op_type for node in model.graph.node]
    assert_close(outputs(model), expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_of_a_table_that_has_lost_entries_the_others_are_gathered(axis):
    text = """g (float[n,64] x) => (float[n,k] y) <int64 zero = {0}, int64 size = {64}, int64 one = {1},
        float step = {0.1}, int64[1] rows = {1}, int64[1] columns = {0}, int64[1] half = {32}> {
        r = Range(zero, size, one)  f = Cast <to = 1> (r)  a = Unsqueeze(f, rows)  b = Unsqueeze(f, columns)
        p = Mul(a, b)  q = Mul(p, step)  t = Cos(q)  h = Slice(x, columns, cut, rows)  y = MatMul(h, t) }"""
    original = build(text)
    original.graph.initializer.append(numpy_helper.from_array(np.array([32 if axis == 0 else 64]), "cut"))
    model = folded(original)
    kept = np.flatnonzero(np.arange(64) % 2)
    replaced(model, "t", np.ascontiguousarray(np.take(stored(model, "t"), kept, axis)))
    del model.graph.value_info[:]
    model.graph.output[0].CopyFrom(onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", "k"]))
    expected = outputs(model)
    assert unfold_constants(model, original) > 6_000
    assert stored(model, "t_kept").tolist() == kept.tolist()
    assert_close(outputs(model), expected)


def test_two_parts_of_one_table():
    original = build(TABLES)
    whole = stored(folded(original), "cosines")
    model = build("""g (float[n,64] x) => (float[n,40] y) {
        c = MatMul(x, cosines_pruned)  s = MatMul(x, cosines_pruned_1)  y = Mul(c, s) }""")
    for name, kept in {"cosines_pruned": slice(0, 40), "cosines_pruned_1": slice(24, 64)}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(whole[:, kept]), name))
    expected = outputs(model)
    unfold_constants(model, original)
    assert [node.op_type for node in model.graph.node].count("Gather") == 2
    assert_close(outputs(model), expected)


def test_a_name_that_stands_for_two_tensors_is_left_alone():
    """Both branches make a tensor of that name; which of them a constant was is not known."""
    text = """g (bool c, float[n,64] x) => (float[n,64] y) <int64[2] square = {64, 64}> {
        y = If(c) <
            then_branch = t () => (float[n,64] a) {
                o = ConstantOfShape <value = float[1] {1}> (square)  a = MatMul(x, o) },
            else_branch = e () => (float[n,64] b) {
                o = ConstantOfShape <value = float[1] {2}> (square)  b = MatMul(x, o) }>
    }"""
    model = build("g (float[n,64] x) => (float[n,64] y) { y = MatMul(x, o) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((64, 64), np.float32), "o"))
    assert unfold_constants(model, build(text)) == 0


def test_constant_nodes_stand_before_what_reads_them():
    """They are constants of the model still, and other nodes read them too."""
    original = build("""g (float[n,64] x) => (float[n,64] y) {
        square = Constant <value_ints = [64, 64]> ()
        two = Constant <value_float = 2.0> ()
        z = ConstantOfShape <value = float[1] {1}> (square)
        w = Mul(z, two)
        h = MatMul(x, w)
        y = Mul(h, two)
    }""")
    model = folded(original)
    expected = outputs(model)
    assert unfold_constants(model, original) > 16_000
    assert_close(outputs(model), expected)


def test_draws_and_bodies_compute_no_constants():
    original = build("""g (float[n,64] x) => (float[n,64] y) <int64[2] square = {64, 64}> {
        w = RandomNormal <shape = [64, 64], seed = 3.0> ()  y = MatMul(x, w) }""")
    model = build("g (float[n,64] x) => (float[n,64] y) { y = MatMul(x, w) }")
    model.graph.initializer.append(numpy_helper.from_array(np.ones((64, 64), np.float32), "w"))
    assert unfold_constants(model, original) == 0
