"""Inlining model-local functions with everything else kept."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import onnx
import pytest

from onnx_subprune.errors import ModelError
from onnx_subprune.passes import inline_functions

Build = Callable[..., onnx.ModelProto]
Same = Callable[..., None]

LOCAL = ', "local" : 1'
GRAPH = """g (float[N,4] x) => (float[N,4] y) {
    [one] a = local.block (x, w)
    [two] b = local.block <slope = 0.5> (a, v)
    y = Neg (b)
}"""
BLOCK = """
<domain: "local", opset_import: ["" : 17, "local" : 1]>
block <slope: float = 0.1> (p, q) => (r) { [add] t = Add (p, q) r = local.bend <slope: float = @slope> (t) }
<domain: "local", opset_import: ["" : 17]>
bend <slope: float = 0.2> (p) => (r) { r = LeakyRelu <alpha: float = @slope> (p) }
"""


def arrays(rng: np.random.Generator) -> dict[str, np.ndarray]:
    return {"w": rng.normal(size=4).astype(np.float32), "v": rng.normal(size=4).astype(np.float32)}


def test_nested_functions_with_attributes(rng, build: Build, same_outputs: Same) -> None:
    before = build(GRAPH, functions=BLOCK, domains=LOCAL, **arrays(rng))
    after = inline_functions(before)
    assert not after.functions
    assert [node.op_type for node in after.graph.node] == ["Add", "LeakyRelu", "Add", "LeakyRelu", "Neg"]
    assert len({name for node in after.graph.node for name in node.output}) == 5
    same_outputs(before, after)


def test_everything_else_is_kept(rng, build: Build) -> None:
    before = build(GRAPH, functions=BLOCK, domains=LOCAL, **arrays(rng))
    before.producer_name, before.domain, before.doc_string, before.model_version = "maker", "here", "words", 7
    before.metadata_props.add(key="k", value="v")
    before.graph.metadata_props.add(key="gk", value="gv")
    before.graph.doc_string = "more words"
    before.graph.quantization_annotation.add(tensor_name="x")
    before.graph.node[2].doc_string = "of the last node"
    before.graph.initializer[0].doc_string = "of the weight"
    before.graph.input[0].doc_string = "of the input"
    snapshot = before.SerializeToString(deterministic=True)
    after = inline_functions(before)
    assert before.SerializeToString(deterministic=True) == snapshot
    last = after.graph.node[-1]
    for model in (before, after):
        del model.functions[:]
        del model.graph.node[:]
    assert after == before
    assert last.doc_string == "of the last node"


def test_a_model_without_functions_is_returned_as_it_is(build: Build) -> None:
    model = build("g (float[4] x) => (float[4] y) { y = Neg (x) }")
    assert inline_functions(model) is model


def test_names_of_initializers_are_not_taken_by_bodies(build: Build, same_outputs: Same) -> None:
    graph = "g (float[N,4] x) => (float[N,4] y) { a = local.twice (x) b = local.twice (a) y = Add (b, t__1) }"
    function = '<domain: "local", opset_import: ["" : 17]> twice (p) => (r) { t = Add (p, p) r = Neg (t) }'
    before = build(graph, functions=function, domains=LOCAL, t__1=np.arange(4, dtype=np.float32))
    after = inline_functions(before)
    assert not after.functions
    same_outputs(before, after)


def test_operator_sets_of_bodies_are_imported(build: Build, same_outputs: Same) -> None:
    graph = "g (float[N,4] x) => (float[N,4] y) { y = local.act (x) }"
    function = (
        '<domain: "local", opset_import: ["" : 17, "com.microsoft" : 1]> act (p) => (r) { r = com.microsoft.Gelu (p) }'
    )
    before = build(graph, functions=function, domains=LOCAL)
    after = inline_functions(before)
    assert {entry.domain: entry.version for entry in after.opset_import} == {"": 17, "local": 1, "com.microsoft": 1}
    same_outputs(before, after)


def test_another_version_of_an_operator_set_stays_a_function(build: Build, caplog: pytest.LogCaptureFixture) -> None:
    graph = "g (float[N,4] x) => (float[N,4] y) { y = local.act (x) }"
    function = '<domain: "local", opset_import: ["" : 16]> act (p) => (r) { r = Relu (p) }'
    before = build(graph, functions=function, domains=LOCAL)
    with caplog.at_level(logging.WARNING):
        after = inline_functions(before)
    assert [node.op_type for node in after.graph.node] == ["act"]
    assert len(after.functions) == 1
    assert "'local.act' cannot be inlined" in caplog.text


def test_an_inliner_that_fails_is_a_model_error(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: onnx.ModelProto) -> onnx.ModelProto:
        raise RuntimeError("assertion failed\nwith details")

    before = build(GRAPH, functions=BLOCK, domains=LOCAL, w=np.ones(4, np.float32), v=np.ones(4, np.float32))
    monkeypatch.setattr(onnx.inliner, "inline_local_functions", fail)
    with pytest.raises(ModelError, match="found: assertion failed; export without them"):
        inline_functions(before)


CHOICES = """
<domain: "local", opset_import: ["" : 17, "local" : 1]>
choose <slope: float = 0.1> (p, d) => (r) {
    q = Neg (p)
    r = If (d) <
        then_branch = t () => (float[N,4] o) { o = local.bend <slope: float = @slope> (p) },
        else_branch = e () => (float[N,4] u) { u = Sub (q, p) }>
}
<domain: "local", opset_import: ["" : 17]>
bend <slope: float = 0.2> (p) => (r) { m = LeakyRelu <alpha: float = @slope> (p) r = Tanh (m) }
"""


def test_bodies_in_functions_and_calls_in_bodies(build: Build, same_outputs: Same) -> None:
    """Bodies read the function's values and attributes; each call gets names of its own."""
    graph = """g (float[N,4] x, bool c) => (float[N,4] y) {
        a = local.choose <slope = 0.7> (x, c)
        b = local.choose (a, c)
        y = If (c) <
            then_branch = t () => (float[N,4] o) { o = local.bend <slope = 0.4> (b) },
            else_branch = e () => (float[N,4] u) { u = local.bend (b) }>
    }"""
    before = build(graph, functions=CHOICES, domains=LOCAL)
    after = inline_functions(before)
    assert not after.functions
    assert [node.op_type for node in after.graph.node] == ["Neg", "If", "Neg", "If", "If"]
    for _ in range(4):
        same_outputs(before, after)


def test_overloads_are_told_apart(build: Build) -> None:
    before = build(GRAPH, functions=BLOCK, domains=LOCAL, **arrays(np.random.default_rng(0)))
    before.ir_version = 10
    other = before.functions.add()
    other.CopyFrom(before.functions[1])
    other.overload = "squared"
    del other.node[:], other.attribute_proto[:]
    other.node.add(op_type="Mul", input=["p", "p"], output=["r"])
    before.functions[0].node[1].overload = "squared"
    del before.functions[0].node[1].attribute[:]
    onnx.checker.check_model(before)
    after = inline_functions(before)
    assert [node.op_type for node in after.graph.node] == ["Add", "Mul", "Add", "Mul", "Neg"]
