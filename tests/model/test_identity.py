"""One fingerprint for models that compute the same with the same names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from onnx_subprune.errors import ModelError
from onnx_subprune.model import (
    fingerprint,
)

Saver = Callable[..., Path]


def test_the_fingerprint_ignores_what_changes_no_result(model: onnx.ModelProto) -> None:
    before = fingerprint(model)
    model.producer_name, model.doc_string = "other", "other"
    model.metadata_props.add(key="a", value="b")
    model.graph.node[0].name = "other"
    model.graph.node[1].attribute[0].doc_string = "other"
    weight = model.graph.initializer[0]
    weight.float_data.extend(numpy_helper.to_array(weight).reshape(-1).tolist())
    weight.ClearField("raw_data")
    assert fingerprint(model) == before


def test_the_fingerprint_follows_all_that_changes_results(rich_model: onnx.ModelProto) -> None:
    graph = rich_model.graph
    nodes = {node.output[0]: node for node in graph.node if node.output}
    changes = [
        lambda: rich_model.opset_import[0].__setattr__("version", 19),
        lambda: graph.initializer[1].__setattr__("raw_data", bytes(36)),
        lambda: graph.initializer[7].string_data.__setitem__(0, b"ab"),
        lambda: graph.initializer[2].__setattr__("name", "other"),
        lambda: graph.initializer[10].dims.__setitem__(1, 4),
        lambda: graph.sparse_initializer[0].dims.__setitem__(1, 4),
        lambda: graph.node[2].attribute[0].__setattr__("i", 0),
        lambda: graph.node[1].attribute[0].t.__setattr__("raw_data", bytes(16)),
        lambda: graph.node[3].input.__setitem__(2, "weight"),
        lambda: nodes["t"].__setattr__("overload", "other"),
        lambda: nodes["y"].attribute[0].g.node[0].attribute[0].__setattr__("f", 9.0),
        lambda: graph.output[0].__setattr__("name", "other"),
        lambda: graph.input[0].type.tensor_type.shape.dim[2].__setattr__("dim_value", 4),
        lambda: rich_model.functions[0].node[0].__setattr__("op_type", "Mul"),
    ]
    found = [fingerprint(rich_model)]
    for change in changes:
        change()
        found.append(fingerprint(rich_model))
    assert len(set(found)) == len(found)


def test_the_fingerprint_needs_the_weights(external: Saver, model: onnx.ModelProto, tmp_path: Path) -> None:
    light = onnx.load(external(model, tmp_path), load_external_data=False)
    with pytest.raises(ModelError, match="'w' is in an external file that is not loaded"):
        fingerprint(light)
