from __future__ import annotations

import ml_dtypes
import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import numpy_helper, parser

from onnx_subprune.errors import InternalError
from onnx_subprune.model import open_session, run, to_graph, to_model

TWO_LAYERS = """
    <ir_version: 9, opset_import: ["": 18]>
    g (float[N, 4] x) => (float[N, 2] y) {
        h = Gemm(x, w1, b1)
        [Relu_9] r = Relu(h)
        y = MatMul(r, w2)
    }
"""


def two_layers() -> onnx.ModelProto:
    model = parser.parse_model(TWO_LAYERS)
    rng = np.random.default_rng(0)
    for name, shape in {"w1": (4, 3), "b1": (3,), "w2": (3, 2), "unused": (5,)}.items():
        tensor = numpy_helper.from_array(rng.normal(size=shape).astype(np.float32), name)
        tensor.doc_string = f"trained {name}"
        model.graph.initializer.append(tensor)
    return model


def stored(model: onnx.ModelProto) -> dict[str, onnx.TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def check_and_run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    onnx.checker.check_model(model, full_check=True)
    return list(run(open_session(model, threads=1), feeds).values())


def test_changed_weights_are_written_and_the_rest_is_kept() -> None:
    model = two_layers()
    graph = to_graph(model)
    keep = [0, 2]
    tensors = graph.tensors()
    before = {name: tensors[name].values.copy() for name in ("w1", "b1", "w2")}
    tensors["w1"].values = tensors["w1"].values[:, keep]
    tensors["b1"].values = tensors["b1"].values[keep]
    tensors["w2"].values = tensors["w2"].values[keep]
    pruned = to_model(graph, model)
    x = np.random.default_rng(1).normal(size=(5, 4)).astype(np.float32)
    expected = np.maximum(x @ before["w1"][:, keep] + before["b1"][keep], 0) @ before["w2"][keep]
    np.testing.assert_allclose(check_and_run(pruned, x=x)[0], expected, rtol=1e-5, atol=1e-6)
    assert stored(pruned)["w1"].doc_string == "trained w1"
    assert stored(pruned)["unused"] == stored(model)["unused"]
    assert [node.name for node in pruned.graph.node] == ["", "Relu_9", ""]
    assert list(pruned.graph.initializer[0].dims) == [4, 2]
    assert list(model.graph.initializer[0].dims) == [4, 3]


def test_what_lost_its_last_reader_is_dropped() -> None:
    model = two_layers()
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("h", 1, ["N", 3]))
    model.graph.quantization_annotation.add(tensor_name="b1")
    graph = to_graph(model)
    gemm, relu, _ = graph.nodes
    relu.inputs[0] = graph.inputs[0]
    relu.outputs[0].outputs[0].inputs[1] = gs.Constant("w3", np.ones((4, 2), np.float32))
    graph.nodes.remove(gemm)
    pruned = to_model(graph, model)
    assert sorted(stored(pruned)) == ["unused", "w3"]
    assert not pruned.graph.value_info
    assert not pruned.graph.quantization_annotation
    (y,) = check_and_run(pruned, x=np.array([[1, -1, 2, 0]], np.float32))
    np.testing.assert_array_equal(y, [[3, 3]])


def test_value_infos_take_the_shapes_of_the_graph() -> None:
    model = two_layers()
    info = onnx.helper.make_tensor_value_info("h", 1, ["N", 3], doc_string="hidden")
    info.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    model.graph.value_info.extend([info, onnx.helper.make_tensor_value_info("w1", 1, [4, 3])])
    graph = to_graph(model)
    tensors = graph.tensors()
    tensors["h"].shape = ["N", 2]
    tensors["w1"].values = tensors["w1"].values[:, :2]
    tensors["r"].shape, tensors["r"].dtype = (None, 2), np.float32
    hidden, weight, new = to_model(graph, model).graph.value_info
    assert hidden.doc_string == "hidden"
    assert hidden.type.tensor_type.shape.dim[0] == info.type.tensor_type.shape.dim[0]
    assert hidden.type.tensor_type.shape.dim[1].dim_value == 2
    assert [dim.dim_value for dim in weight.type.tensor_type.shape.dim] == [4, 2]
    assert new == onnx.helper.make_tensor_value_info("r", 1, [None, 2])


def test_a_forgotten_shape_is_not_written() -> None:
    model = two_layers()
    model.graph.value_info.append(onnx.helper.make_tensor_value_info("h", 1, ["N", 3]))
    graph = to_graph(model)
    graph.tensors()["h"].shape = None
    assert not to_model(graph, model).graph.value_info[0].type.tensor_type.HasField("shape")


def test_an_initializer_that_is_an_input_stays_one_with_its_new_shape() -> None:
    model = two_layers()
    model.graph.input.insert(0, onnx.helper.make_tensor_value_info("w1", 1, [4, 3], doc_string="may be fed"))
    graph = to_graph(model)
    tensors = graph.tensors()
    for name, cut in {"w1": np.s_[:, :1], "b1": np.s_[:1], "w2": np.s_[:1]}.items():
        tensors[name].values = tensors[name].values[cut]
    pruned = to_model(graph, model)
    assert [value.name for value in pruned.graph.input] == ["w1", "x"]
    assert [dim.dim_value for dim in pruned.graph.input[0].type.tensor_type.shape.dim] == [4, 1]
    assert pruned.graph.input[0].doc_string == "may be fed"
    check_and_run(pruned, x=np.zeros((1, 4), np.float32))


def test_new_constants_are_initializers_or_before_ir_4_nodes() -> None:
    for version, inputs in ((9, ["x"]), (3, ["x", "w1", "b1", "w2", "unused"])):
        model = two_layers()
        model.ir_version = version
        if version == 3:
            infos = [onnx.helper.make_tensor_value_info(t.name, 1, t.dims) for t in model.graph.initializer]
            model.graph.input.extend(infos)
        graph = to_graph(model)
        graph.nodes[0].inputs[2] = gs.Constant("new bias", np.zeros(3, np.float32))
        exported = to_model(graph, model)
        assert [value.name for value in exported.graph.input] == [name for name in inputs if name != "b1"]
        assert ("new bias" in stored(exported)) == (version == 9)
        assert (exported.graph.node[0].op_type == "Constant") == (version == 3)
        check_and_run(exported, x=np.zeros((1, 4), np.float32))


def test_a_changed_constant_node_stays_a_node_before_its_reader() -> None:
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18]>
        g (float[6] x) => (float[a, b] y) {
            r = Relu(x)
            [shape] s = Constant<value_ints = [2, 3]>()
            y = Reshape(r, s)
        }
    """)
    model.graph.node[1].doc_string = "target shape"
    graph = to_graph(model)
    graph.tensors()["s"].values = np.array([3, 2])
    exported = to_model(graph, model)
    assert [node.op_type for node in exported.graph.node] == ["Relu", "Constant", "Reshape"]
    assert (exported.graph.node[1].name, exported.graph.node[1].doc_string) == ("shape", "target shape")
    assert check_and_run(exported, x=np.zeros(6, np.float32))[0].shape == (3, 2)


def test_a_constant_node_moves_before_a_reader_that_is_new() -> None:
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18]>
        g (float[2] x) => (float[2] y) { r = Relu(x)  c = Constant<value_float = 2.0>()  y = Mul(r, c) }
    """)
    graph = to_graph(model)
    relu, mul = graph.nodes
    shifted = gs.Variable("shifted", np.float32, [2])
    graph.nodes.insert(0, gs.Node("Add", "shift", inputs=[graph.inputs[0], mul.inputs[1]], outputs=[shifted]))
    relu.inputs[0] = shifted
    exported = to_model(graph, model)
    assert [node.op_type for node in exported.graph.node] == ["Constant", "Add", "Relu", "Mul"]
    np.testing.assert_array_equal(check_and_run(exported, x=np.array([1, -3], np.float32))[0], [6, 0])


OUTER = """
    <ir_version: 9, opset_import: ["": 18]>
    g (bool c, float[1, 2] x) => (float[1, k] y) <float[2, 2] w = {1, 2, 3, 4}> {
        y = If(c) <
            then_branch = t () => (float[1, k] a) { a = MatMul(x, w) },
            else_branch = e () => (float[1, k] b) { n = Neg(x)  b = MatMul(n, w) }>
    }
"""


@pytest.mark.parametrize("repeated", [False, True])
def test_a_weight_read_only_in_bodies_is_stored_once_outside(repeated: bool) -> None:
    model = parser.parse_model(OUTER)
    if repeated:  # the way GraphSurgeon's own export leaves it
        for attribute in model.graph.node[0].attribute:
            attribute.g.initializer.append(model.graph.initializer[0])
        assert to_model(to_graph(model), model) == model
    graph = to_graph(model)
    for branch in graph.nodes[0].attrs.values():
        weight = branch.tensors()["w"]
        weight.values = weight.values[:, :1]
    exported = to_model(graph, model)
    assert not any(attribute.g.initializer for attribute in exported.graph.node[0].attribute)
    session = open_session(exported, threads=1)
    x = np.array([[1, 1]], np.float32)
    assert run(session, {"c": np.array(True), "x": x})["y"].tolist() == [[4]]
    assert run(session, {"c": np.array(False), "x": x})["y"].tolist() == [[-4]]


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fnuz, ml_dtypes.int4, ml_dtypes.uint4])
def test_changed_weights_of_small_types_are_valid(rich_model: onnx.ModelProto, dtype: type) -> None:
    graph = to_graph(rich_model)
    values = np.array([1, 2, 3, 1, 2], dtype)
    graph.tensors()["four"].values = values
    tensor = stored(to_model(graph, rich_model))["four"]
    onnx.checker.check_tensor(tensor)
    assert numpy_helper.to_array(tensor).dtype == dtype
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), values)
    assert tensor.doc_string == "weights four"


def test_an_export_type_is_honoured() -> None:
    model = two_layers()
    graph = to_graph(model)
    graph.nodes[0].inputs[2] = gs.Constant("half", np.ones(3, np.float32))
    graph.nodes[0].inputs[2]._export_dtype = np.float16
    assert numpy_helper.to_array(stored(to_model(graph, model))["half"]).dtype == np.float16


def test_a_changed_sparse_initializer_becomes_dense(rich_model: onnx.ModelProto) -> None:
    graph = to_graph(rich_model)
    graph.tensors()["sparse"].values = graph.tensors()["sparse"].values[:, 1:]
    exported = to_model(graph, rich_model)
    assert not exported.graph.sparse_initializer
    np.testing.assert_array_equal(numpy_helper.to_array(stored(exported)["sparse"]), [[5, 0], [0, 7]])


def test_attributes_follow_the_graph(rich_model: onnx.ModelProto) -> None:
    graph = to_graph(rich_model)
    softmax = next(node for node in graph.nodes if node.op == "Softmax")
    softmax.attrs = {"axis": np.int64(1), "empty": [], "many": (1, 2), "to": np.float16, "text": "t", "real": 1.5}
    softmax.attrs["tensor"] = gs.Constant("", np.ones(2, np.float32))
    opaque = next(node for node in graph.nodes if node.op == "Opaque")
    opaque.attrs["none"] = [1, 2]
    exported = {node.output[0]: node for node in to_model(graph, rich_model).graph.node if node.output}
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in exported["p"].attribute}
    np.testing.assert_array_equal(numpy_helper.to_array(attributes.pop("tensor")), [1, 1])
    assert attributes == {"axis": 1, "empty": [], "many": [1, 2], "to": 10, "text": b"t", "real": 1.5}
    assert exported["p"].attribute[0].doc_string == "the last axis"
    assert [(a.name, list(a.floats)) for a in exported["o"].attribute if a.name == "none"] == [("none", [1.0, 2.0])]
    assert {a.name for a in exported["o"].attribute} == {"blob", "none", "kind", "parts"}


def test_a_replaced_operator_keeps_documentation_but_no_attributes(rich_model: onnx.ModelProto) -> None:
    graph = to_graph(rich_model)
    for node in graph.nodes:
        if node.op in ("MatMul", "Opaque"):
            node.op, node.domain, node.attrs = "Fused", "com.new", {}
    model = to_model(graph, rich_model)
    exported = {node.output[0]: node for node in model.graph.node if node.output}
    assert exported["h"].doc_string == "first"
    assert exported["h"].metadata_props[0].key == "pkg.torch.onnx.stack_trace"
    assert not exported["o"].attribute
    assert {"com.new": 1, "com.example": 3}.items() <= {o.domain: o.version for o in model.opset_import}.items()


def test_tensors_that_share_a_name_are_refused() -> None:
    model = two_layers()
    graph = to_graph(model)
    graph.nodes[2].inputs[1] = gs.Constant("w1", np.ones((3, 2), np.float32))
    with pytest.raises(InternalError, match="two constants of the graph are named 'w1'"):
        to_model(graph, model)
    graph = to_graph(model)
    graph.nodes[1].outputs[0].name = "h"
    with pytest.raises(InternalError, match="two tensors of the graph are named 'h'"):
        to_model(graph, model)


def test_a_constant_of_a_body_that_differs_from_the_outer_one_is_refused() -> None:
    model = parser.parse_model(OUTER)
    graph = to_graph(model)
    body = graph.nodes[0].attrs["else_branch"]
    body.nodes[1].inputs[1] = gs.Constant("w", np.zeros((2, 2), np.float32))
    with pytest.raises(InternalError, match="constant 'w' of a body hides an outer one"):
        to_model(graph, model)


def test_a_constant_may_be_folded_into_an_output() -> None:
    model = parser.parse_model("""
        <ir_version: 9, opset_import: ["": 18]>
        g (float[2] x) => (float[2] y, float[2] z) <float[2] w = {1, 2}> { y = Add(x, w)  z = Neg(w) }
    """)
    graph = to_graph(model)
    negated = graph.nodes.pop()
    negated.outputs[0].to_constant(np.array([-1, -2], np.float32))
    negated.outputs.clear()
    negated.inputs.clear()
    y, z = check_and_run(to_model(graph, model), x=np.ones(2, np.float32))
    np.testing.assert_array_equal([y, z], [[2, 3], [-1, -2]])


def test_symbols_that_shape_inference_made_up_are_not_written() -> None:
    model = two_layers()
    graph = to_graph(model)
    for node, shape in zip(graph.nodes, (["unk__3", 3], ["N", 3]), strict=False):
        node.outputs[0].dtype, node.outputs[0].shape = np.dtype(np.float32), shape
    written = {info.name: info.type.tensor_type.shape.dim for info in to_model(graph, model).graph.value_info}
    assert [dim.WhichOneof("value") for dim in written["h"]] == [None, "dim_value"]
    assert written["r"][0].dim_param == "N"


def test_a_symbol_of_the_user_may_be_called_like_that() -> None:
    model = two_layers()
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "unk__3"
    graph = to_graph(model)
    graph.nodes[0].outputs[0].dtype = np.dtype(np.float32)
    graph.nodes[0].outputs[0].shape = ["unk__3", 3]
    written = {info.name: info.type.tensor_type.shape.dim for info in to_model(graph, model).graph.value_info}
    assert written["h"][0].dim_param == "unk__3"
