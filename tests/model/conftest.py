from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import AttributeProto, TensorProto, helper, numpy_helper, parser

from onnx_subprune.model import save_model


def _entry(key: str, value: str) -> onnx.StringStringEntryProto:
    return onnx.StringStringEntryProto(key=key, value=value)


def _value(
    name: str, shape: list[int | str | None] | None = None, kind: int = TensorProto.FLOAT
) -> onnx.ValueInfoProto:
    info = helper.make_tensor_value_info(name, kind, shape, doc_string=f"about {name}")
    info.metadata_props.append(_entry("axis", name))
    return info


def _stored(name: str, array: np.ndarray) -> onnx.TensorProto:
    tensor = numpy_helper.from_array(array, name)
    tensor.doc_string = f"weights {name}"
    tensor.metadata_props.append(_entry("from", "training"))
    return tensor


def _inputs() -> list[onnx.ValueInfoProto]:
    x = _value("x", ["batch", None, 3])
    x.type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    sequence = helper.make_tensor_sequence_value_info("frames", TensorProto.FLOAT, ["frame", 3])
    optional = onnx.ValueInfoProto(name="hint")
    optional.type.optional_type.elem_type.tensor_type.elem_type = TensorProto.FLOAT
    table = onnx.ValueInfoProto(name="table")
    table.type.map_type.key_type = TensorProto.INT64
    table.type.map_type.value_type.tensor_type.elem_type = TensorProto.FLOAT
    return [x, _value("overridable", [3]), sequence, optional, table, _value("flag", [], TensorProto.BOOL)]


def _initializers() -> list[onnx.TensorProto]:
    typed = helper.make_tensor("typed", TensorProto.FLOAT, [2], [1.0, 2.0])
    nan = np.array([np.nan, -0.0, 1e-45], np.float32)
    return [
        _stored("overridable", np.arange(3, dtype=np.float32)),
        _stored("weight", np.arange(9, dtype=np.float32).reshape(3, 3)),
        typed,
        _stored("odd_floats", nan),
        _stored("brain", np.array([1.5, 2.5], ml_dtypes.bfloat16)),
        _stored("eight", np.array([1.5, 2.0], ml_dtypes.float8_e4m3fnuz)),
        _stored("four", np.array([1, -2, 3], ml_dtypes.int4)),
        _stored("words", np.array(["a", "é"], object)),
        _stored("unused", np.zeros(2, np.float32)),
        _stored("scale", np.ones((), np.float32)),
        helper.make_tensor("empty", TensorProto.FLOAT, [0, 3], []),
    ]


def _sparse(name: str) -> onnx.SparseTensorProto:
    values = _stored(name, np.array([5.0, 7.0], np.float32))
    return helper.make_sparse_tensor(values, numpy_helper.from_array(np.array([1, 5])), [2, 3])


def _constant_nodes() -> list[onnx.NodeProto]:
    attributes = [
        helper.make_attribute("value", _stored("inner_name", np.ones((2, 2), np.float32))),
        helper.make_attribute("value_float", 0.1),
        helper.make_attribute("value_floats", [0.1, 2.0]),
        helper.make_attribute("value_int", -3),
        helper.make_attribute("value_ints", [1, 2]),
        helper.make_attribute("value_ints", [], attr_type=AttributeProto.INTS),
        helper.make_attribute("value_string", "text"),
        helper.make_attribute("value_strings", ["a", "b"]),
        helper.make_attribute("sparse_value", _sparse("")),
    ]
    attributes[1].doc_string = "a tenth"
    nodes = [onnx.NodeProto(op_type="Constant", output=[f"c{i}"], attribute=[a]) for i, a in enumerate(attributes)]
    nodes[0].name, nodes[0].doc_string = "named constant", "kept"
    nodes[4].metadata_props.append(_entry("stack", "line 7"))
    nodes.append(onnx.NodeProto(op_type="Constant", output=["dead constant"], attribute=attributes[3:4]))
    return nodes


def _branch(name: str, scale: float) -> onnx.GraphProto:
    nested = helper.make_graph(
        [helper.make_node("Mul", ["weight", "local"], ["n"], name="same")], "nested", [], [_value("n")]
    )
    nodes = [
        helper.make_node("Constant", [], ["k"], value_float=scale),
        helper.make_node("If", ["flag"], ["m"], name="inner if", then_branch=nested, else_branch=nested),
        helper.make_node("Add", ["m", "only in bodies"], ["s"]),
        helper.make_node("Mul", ["s", "k"], [f"{name}_out"], name="same", doc_string="in a body"),
    ]
    graph = helper.make_graph(nodes, name, [], [onnx.ValueInfoProto(name=f"{name}_out")], doc_string=f"branch {name}")
    graph.initializer.append(_stored("local", np.full(3, scale, np.float32)))
    graph.metadata_props.append(_entry("branch", name))
    graph.value_info.append(_value("s", [3, 3]))
    return graph


def _loop_body() -> onnx.GraphProto:
    nodes = [
        helper.make_node("Identity", ["go"], ["go_on"]),
        helper.make_node("MatMul", ["state", "weight"], ["next_state"]),
    ]
    inputs = [_value("i", [], TensorProto.INT64), _value("go", [], TensorProto.BOOL), _value("state", ["batch", 3, 3])]
    # The last output is an outer initializer, read by its name alone.
    outputs = [_value("go_on", [], TensorProto.BOOL), _value("next_state"), _value("scanned only")]
    return helper.make_graph(nodes, "body", inputs, outputs)


_USED = ["typed", "odd_floats", "brain", "eight", "four", "words", "c1", "c2", "c4", "c5", "c0"]


def _nodes() -> list[onnx.NodeProto]:
    documented = helper.make_node("MatMul", ["x", "weight"], ["h"], name="/layer/MatMul", doc_string="first")
    documented.metadata_props.append(_entry("pkg.torch.onnx.stack_trace", "File model.py, line 1"))
    soft = helper.make_node("Softmax", ["h"], ["p"], name="twice", axis=-1)
    soft.attribute[0].doc_string = "the last axis"
    raw = helper.make_node("Opaque", ["p", "c6", "c7", "c8"], ["o"], domain="com.example")
    raw.attribute.append(helper.make_attribute("blob", b"\xff\xfe"))
    raw.attribute.append(helper.make_attribute("none", [], attr_type=AttributeProto.FLOATS))
    raw.attribute.append(helper.make_attribute("kind", helper.make_tensor_type_proto(TensorProto.FLOAT, [2])))
    raw.attribute.append(helper.make_attribute("parts", [_stored("part", np.ones(1, np.float32))]))
    call = helper.make_node("Twice", ["o"], ["t"], domain="local", overload="wide")
    branches = {"then_branch": _branch("then", 1.0), "else_branch": _branch("else", 2.0)}
    constants = _constant_nodes()
    return [
        documented,
        constants[0],
        soft,
        helper.make_node("Clip", ["p", "", "scale"], ["clipped"], name="twice"),
        helper.make_node("Dropout", ["clipped"], ["dropped", ""]),
        *constants[1:],
        raw,
        call,
        helper.make_node("If", ["flag"], ["y"], name="branching", **branches),
        helper.make_node("Loop", ["c3", "", "h"], ["looped", "scanned"], body=_loop_body()),
        helper.make_node("Add", ["overridable", "sparse"], ["a"], domain=""),
        helper.make_node("Uses", _USED, ["u"], domain="com.example"),
        helper.make_node("Sink", ["u", "empty"], [], name="sink", domain="com.example", doc_string="no outputs"),
    ]


def _functions() -> list[onnx.FunctionProto]:
    opsets = [helper.make_opsetid("", 20)]
    nodes = [helper.make_node("Add", ["v", "v"], ["r"])]
    functions = [
        helper.make_function("local", "Twice", ["v"], ["r"], nodes, opsets, overload=overload, doc_string="doubles")
        for overload in ("", "wide")
    ]
    functions[1].metadata_props.append(_entry("function", "second"))
    return functions


@pytest.fixture
def rich_model() -> onnx.ModelProto:
    """A model with everything that GraphSurgeon loses; no runtime would take it."""
    outputs = [_value("y", ["batch", 3]), _value("looped"), _value("scale", []), _value("c0", [2, 2]), _value("t")]
    graph = helper.make_graph(_nodes(), "rich", _inputs(), outputs, doc_string="the graph")
    graph.initializer.extend(_initializers())
    graph.initializer.append(_stored("only in bodies", np.ones(3, np.float32)))
    graph.initializer.append(_stored("scanned only", np.ones(1, np.float32)))
    graph.sparse_initializer.append(_sparse("sparse"))
    graph.metadata_props.append(_entry("graph", "metadata"))
    graph.value_info.extend([_value("h", ["batch", None, 3]), _value("weight", [3, 3]), _value("y"), _value("p")])
    graph.value_info.append(_value("local::Twice/r", ["batch"]))
    for name in ("h", "weight", "unknown"):
        quantized = graph.quantization_annotation.add(tensor_name=name)
        quantized.quant_parameter_tensor_names.append(_entry("SCALE_TENSOR", "scale"))
    domains = {"": 20, "com.microsoft": 1, "com.example": 3, "local": 1, "ai.onnx.ml": 3}
    opsets = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    model = helper.make_model(
        graph, ir_version=10, opset_imports=opsets, functions=_functions(), doc_string="the model"
    )
    model.producer_name, model.producer_version, model.domain = "tests", "0.1", "org.example"
    model.model_version = 42
    model.metadata_props.append(_entry("licence", "CC0"))
    training = model.training_info.add()
    training.initialization_binding.append(_entry("weight", "x"))
    return model


@pytest.fixture
def model() -> onnx.ModelProto:
    """A product with a weight of 2,400 bytes and a constant in a node."""
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 20] x) => (float[N, 30] y) { h = MatMul(x, w)  c = Constant<value_float = 2.0>()  y = Mul(h, c) }
    """)
    weight = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    model.graph.initializer[0].doc_string = "trained"
    return model


@pytest.fixture
def external() -> Callable[..., Path]:
    """Save a model with external data in `m.onnx.data`, then overwrite entries of the first tensor."""

    def save(model: onnx.ModelProto, folder: Path, **entries: str) -> Path:
        save_model(model, folder / "m.onnx", threshold=0)
        (data,) = folder.glob("m.onnx.*.data")
        data.rename(folder / "m.onnx.data")
        entries = {"location": "m.onnx.data", **entries}
        light = onnx.load(folder / "m.onnx", load_external_data=False)
        for entry in light.graph.initializer[0].external_data:
            entry.value = entries.get(entry.key, entry.value)
        (folder / "m.onnx").write_bytes(light.SerializeToString())
        return folder / "m.onnx"

    return save
