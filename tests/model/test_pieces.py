"""What is behind a tensor runs as a network of its own, on what the rest hands over."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from onnx_subprune.model import run
from onnx_subprune.model.pieces import Behind
from onnx_subprune.model.runtime import Runtime
from onnx_subprune.model.stored import Place, place

TEXT = """<ir_version: 8, opset_import: ["": 17]>
g (float[N,2] x) => (float[N,2] y, float[N,2] z)
<float[2,2] v = {1, 0, 0, 1}, float[2,2] w = {1, 2, 3, 4}, int64[1] axes = {1}> {
    s = Identity(axes)
    a = MatMul(x, v)
    b = MatMul(a, w)
    m = ReduceMax(b)
    c = Add(b, m)
    y = Add(c, a)
    z = Neg(a)
    unread = MatMul(b, w)
}"""


@pytest.fixture
def behind() -> Behind:
    return Behind(onnx.parser.parse_model(TEXT))


def names_of(behind: Behind, nodes: list[int]) -> list[str]:
    return [node.output[0] for node in behind.piece(nodes, [], {}).graph.node]


def test_only_what_outputs_depend_on_is_behind_a_constant(behind: Behind) -> None:
    nodes = behind.nodes(["w"])
    assert names_of(behind, nodes) == ["b", "m", "c", "y"]
    assert behind.fed(nodes) == ["a"]
    assert names_of(behind, behind.nodes(["v"])) == ["a", "b", "m", "c", "y", "z"]
    assert names_of(behind, behind.nodes([], [("c", 1)])) == ["c", "y"]


def test_a_piece_gives_the_outputs_that_it_makes(behind: Behind) -> None:
    nodes = behind.nodes(["w"])
    shapes = {"a": (3, 2), "w": (2, 2)}
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    piece = behind.piece(nodes, inputs, {})
    assert [tensor.name for tensor in piece.graph.initializer] == []
    a, w = np.arange(6, dtype=np.float32).reshape(3, 2), np.full((2, 2), 2.0, np.float32)
    values = run(Runtime(threads=1).session(piece), {"a": a, "w": w})
    b = a @ w
    assert list(values) == ["y"]
    np.testing.assert_allclose(values["y"], b + b.max() + a)


def test_what_a_node_reads_is_multiplied_there_and_nowhere_else(behind: Behind) -> None:
    nodes = behind.nodes([], [("y", 1)])
    shapes = {"a": (3, 2), "c": (3, 2), "mask": (1, 2)}
    inputs = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in shapes.items()]
    piece = behind.piece(nodes, inputs, {("y", 1): "mask"})
    a, c = np.ones((3, 2), np.float32), np.full((3, 2), 5.0, np.float32)
    mask = np.array([[1, 0]], np.float32)
    values = run(Runtime(threads=1).session(piece), {"a": a, "c": c, "mask": mask})
    np.testing.assert_allclose(values["y"], c + a * mask)
    # The whole is as it was.
    assert names_of(behind, behind.nodes(["v"])) == ["a", "b", "m", "c", "y", "z"]


def test_what_computes_with_constants_alone_comes_along() -> None:
    """ONNX Runtime folds it again: a size that is fed is not known when a session is opened."""
    text = """<ir_version: 3, opset_import: ["": 13]>
    g (float[N,2] x, float[2,2] w) => (float[N,2] y)
    <float[2,2] w = {1, 2, 3, 4}> {
        start = Constant <value_ints = [-1, 2]> ()
        shape = Identity(start)
        a = MatMul(x, w)
        y = Reshape(a, shape)
    }"""
    behind = Behind(onnx.parser.parse_model(text))
    nodes = behind.with_makers(behind.nodes(["w"]), ())
    assert names_of(behind, nodes) == ["shape", "a", "y"]
    assert behind.fed(nodes) == ["x"]
    piece = behind.piece(nodes, [], {})
    # A constant that was a node is stored, which files before version 4 cannot hold.
    assert {tensor.name for tensor in piece.graph.initializer} == {"w", "start"}
    assert piece.ir_version == 4
    assert behind.stored("start").tolist() == [-1, 2]


def test_makers_of_what_cannot_be_fed_come_along(behind: Behind) -> None:
    nodes = behind.nodes([], [("c", 1)])
    assert behind.fed(nodes) == ["a", "b", "m"]
    assert names_of(behind, behind.with_makers(nodes, ["m"])) == ["m", "c", "y"]


def test_a_stored_tensor_may_lie_in_a_file(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(TEXT)
    tensor = next(each for each in model.graph.initializer if each.name == "w")
    values = onnx.numpy_helper.to_array(tensor)
    path = tmp_path / "weights"
    path.write_bytes(values.tobytes())
    place(tensor, Place(path, 0, values.nbytes))
    np.testing.assert_array_equal(Behind(model).stored("w"), values)
