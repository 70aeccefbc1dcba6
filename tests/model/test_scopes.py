"""Scopes of nodes: as the dynamo exporter of PyTorch writes them, and anything else that may stand in their place."""

from __future__ import annotations

import onnx
import pytest

from onnx_subprune.model import scopes_of, to_graph

KEY = "pkg.torch.onnx.name_scopes"


def _model(*written: str | None, names: tuple[str, ...] = ("a", "b", "c")) -> onnx.ModelProto:
    """A chain of Relus, with these texts as the scopes of the first of them."""
    model = onnx.parser.parse_model("""<ir_version: 10, opset_import: ["": 18]> g (float[2] x) => (float[2] y) {
        h = Relu(x)
        k = Relu(h)
        y = Relu(k)
    }""")
    for node, name, text in zip(model.graph.node, names, [*written, None, None], strict=False):
        node.name = name
        if text is not None:
            node.metadata_props.add(key="namespace", value="elsewhere")
            node.metadata_props.add(key=KEY, value=text)
    return model


def test_the_root_is_left_out_and_nodes_without_scopes_too():
    model = _model("['', 'encoder', 'encoder.layers.0', 'relu']", "['', 'relu_1']")
    assert scopes_of(model, to_graph(model)) == {
        "a": ("encoder", "encoder.layers.0", "relu"),
        "b": ("relu_1",),
    }


def test_nodes_of_one_name_keep_apart():
    """The graph gives nodes names of their own; scopes follow the outputs."""
    model = _model("['', 'one', 'relu']", "['', 'two', 'relu']", names=("same", "same", ""))
    scopes = scopes_of(model, to_graph(model))
    assert sorted(scopes.values()) == [("one", "relu"), ("two", "relu")]


@pytest.mark.parametrize(
    "written",
    ["", "encoder", "['open", "{'a': 1}", "7", "[7, '']", "__import__('os')", "[" * 5000, r"['\ud800', '\x1b[2J']"],
)
def test_what_is_no_list_of_names_is_no_scope(written):
    model = _model(written)
    assert scopes_of(model, to_graph(model)) == {}
