from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnx_subprune.errors import ModelError
from onnx_subprune.model import load_model, quiet, to_graph, to_model

SHARED = Path(__file__).parents[3] / "shared" / "data"


def assert_same(model: onnx.ModelProto, other: onnx.ModelProto) -> None:
    for field in model.graph.DESCRIPTOR.fields:
        assert getattr(model.graph, field.name) == getattr(other.graph, field.name), field.name
    assert model == other


def test_nothing_is_lost_when_nothing_is_changed(rich_model: onnx.ModelProto) -> None:
    before = rich_model.SerializeToString(deterministic=True)
    assert_same(to_model(to_graph(rich_model), rich_model), rich_model)
    assert rich_model.SerializeToString(deterministic=True) == before


def test_nothing_is_lost_when_every_value_was_read(rich_model: onnx.ModelProto) -> None:
    graph = to_graph(rich_model)
    for inner in [graph, *graph.subgraphs(recursive=True)]:
        for tensor in inner.tensors().values():
            if isinstance(tensor, gs.Constant):
                assert isinstance(tensor.values, np.ndarray)
    assert_same(to_model(graph, rich_model), rich_model)


def test_a_copied_graph_gives_the_same_model(rich_model: onnx.ModelProto) -> None:
    assert_same(to_model(to_graph(rich_model).copy(), rich_model), rich_model)


def test_the_model_may_be_another_object(rich_model: onnx.ModelProto) -> None:
    reloaded = onnx.ModelProto.FromString(rich_model.SerializeToString())
    assert_same(to_model(to_graph(rich_model), reloaded), rich_model)


def test_nothing_is_printed(rich_model: onnx.ModelProto, capfd: pytest.CaptureFixture[str]) -> None:
    graph = to_graph(rich_model)
    assert graph.tensors()["brain"].values.dtype == ml_dtypes.bfloat16
    to_model(graph, rich_model)
    assert capfd.readouterr() == ("", "")


def test_what_passes_make_graphsurgeon_say_can_be_silenced(capfd: pytest.CaptureFixture[str]) -> None:
    same = [gs.Variable("same") for _ in range(2)]
    graph = gs.Graph(nodes=[gs.Node("Add", inputs=same)])
    with quiet():
        graph.tensors()
    assert capfd.readouterr().out == ""
    graph.tensors()
    assert "share the same name" in capfd.readouterr().out


REAL = sorted(SHARED.rglob("*.onnx"))


@pytest.mark.skipif(not REAL, reason=f"no real models: {SHARED} is absent")
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.name)
def test_real_models_come_back_equal(path: Path) -> None:
    model = load_model(path)
    assert_same(to_model(to_graph(model), model), model)


def test_the_models_of_the_onnx_wheel_come_back_equal() -> None:
    paths = sorted((Path(onnx.__file__).parent / "backend" / "test" / "data").rglob("*.onnx"))
    if not paths:
        pytest.skip("this onnx wheel has no test models")
    for path in paths:
        model = onnx.load(path)
        assert to_model(to_graph(model), model) == model, path


def test_constant_nodes_become_constants(rich_model: onnx.ModelProto) -> None:
    graph = to_graph(rich_model)
    tensors = graph.tensors()
    assert [node.op for node in graph.nodes].count("Constant") == 3  # text and sparse values stay nodes
    np.testing.assert_array_equal(tensors["c0"].values, np.ones((2, 2), np.float32))
    floats = np.array([0.1, 2.0], np.float32)
    expected = {"c1": floats[0], "c2": floats, "c3": np.int64(-3), "c4": np.array([1, 2])}
    for name, value in expected.items():
        assert tensors[name].values.dtype == value.dtype
        np.testing.assert_array_equal(tensors[name].values, value)
    assert tensors["c5"].values.shape == (0,)


def test_constants_have_their_own_type(rich_model: onnx.ModelProto) -> None:
    tensors = to_graph(rich_model).tensors()
    dtypes = {"brain": ml_dtypes.bfloat16, "eight": ml_dtypes.float8_e4m3fnuz, "four": ml_dtypes.int4, "words": object}
    for name, dtype in dtypes.items():
        assert tensors[name].dtype == tensors[name].values.dtype == dtype
    np.testing.assert_array_equal(tensors["sparse"].values, np.array([[0, 5, 0], [0, 0, 7]], np.float32))
    assert tensors["sparse"].values.dtype == np.float32


def test_every_node_has_a_name_of_its_own(rich_model: onnx.ModelProto) -> None:
    graph = to_graph(rich_model)
    names = [node.name for inner in [graph, *graph.subgraphs(recursive=True)] for node in inner.nodes]
    assert all(names)
    assert len(set(names)) == len(names)
    assert {"/layer/MatMul", "branching", "inner if", "sink"} <= set(names)
    by_output = {node.outputs[0].name: node.name for node in graph.nodes if node.outputs}
    assert (by_output["p"], by_output["clipped"]) == ("twice", "twice_1")


def test_generated_names_avoid_given_ones() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2] x) => (float[2] y) { a = Relu(x)  [Relu_0] b = Relu(a)  y = Relu(b) }
    """)
    assert [node.name for node in to_graph(model).nodes] == ["Relu_0_1", "Relu_0", "Relu_2"]


def test_values_that_are_no_tensors_have_neither_type_nor_shape(rich_model: onnx.ModelProto) -> None:
    inputs = {tensor.name: tensor for tensor in to_graph(rich_model).inputs}
    for name, kind in {"frames": "sequence_type", "hint": "optional_type", "table": "map_type"}.items():
        assert (inputs[name].type, inputs[name].dtype, inputs[name].shape) == (kind, None, None)


def test_external_data_must_be_loaded() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2] x) => (float[2] y) <float[2] w = {1, 2}> { y = Add(x, w) }
    """)
    weight = model.graph.initializer[0]
    weight.ClearField("float_data")
    weight.data_location = TensorProto.EXTERNAL
    with pytest.raises(ModelError, match="'w' is in an external file that is not loaded: use load_model"):
        to_graph(model)


def test_an_attribute_without_type_is_refused() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[2] x) => (float[2] y) { y = Elu<alpha = 2.0>(x) }
    """)
    model.graph.node[0].attribute[0].ClearField("type")
    with pytest.raises(ModelError, match="'alpha' of node 'Elu' has no type"):
        to_graph(model)


def test_a_list_of_graphs_is_refused() -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17, "com.example": 1]>
        g (float[2] x) => (float[2] y) { y = com.example.Pick(x) }
    """)
    body = helper.make_graph([], "body", [], [])
    model.graph.node[0].attribute.append(helper.make_attribute("choices", [body]))
    with pytest.raises(ModelError, match="'choices' of node 'Pick' holds a list of graphs"):
        to_graph(model)


IF = """
    <ir_version: 8, opset_import: ["": 17]>
    g (bool c, float[2] x) => (float[2] y) <float[2] w = {1, 2}> {
        h = Relu(x)
        y = If(c) <
            then_branch = t () => (float[2] a) <float[2] v = {3, 4}> { b = Mul(h, w)  a = Add(b, v) },
            else_branch = e () => (float[2] d) <float[2] v = {5, 6}> { d = Add(h, v) }>
    }
"""


def test_bodies_share_outer_tensors_and_keep_their_own() -> None:
    model = parser.parse_model(IF)
    graph = to_graph(model)
    then_branch, else_branch = graph.nodes[1].attrs.values()
    assert then_branch.nodes[0].inputs[0] is graph.nodes[0].outputs[0]
    np.testing.assert_array_equal(then_branch.tensors()["v"].values, [3, 4])
    np.testing.assert_array_equal(else_branch.tensors()["v"].values, [5, 6])
    assert_same(to_model(graph, model), model)


def test_a_body_that_hides_an_outer_tensor_is_refused() -> None:
    model = parser.parse_model(IF)
    body = model.graph.node[1].attribute[0].g
    body.initializer.append(numpy_helper.from_array(np.zeros(2, np.float32), "w"))
    with pytest.raises(ModelError, match="initializer 'w' of graph 't' hides a tensor outside"):
        to_graph(model)
    body.initializer[-1].name = "h"
    with pytest.raises(ModelError, match="initializer 'h' of graph 't' hides"):
        to_graph(model)


def test_a_body_that_reads_ahead_is_refused() -> None:
    model = parser.parse_model(IF)
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(reversed(nodes))
    with pytest.raises(ModelError, match="reads 'h' in a body before it is produced: sort the nodes topologically"):
        to_graph(model)
