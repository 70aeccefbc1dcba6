"""Models are read whole, or refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import parser

from onnx_subprune.errors import ModelError
from onnx_subprune.model import (
    check_model,
    fingerprint,
    load_model,
    open_model,
    save_model,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_saved_is_loaded(model: onnx.ModelProto, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.onnx")
    assert load_model(str(tmp_path / "m.onnx")) == model
    assert names(tmp_path) == ["m.onnx"]


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"m.onnx' does not exist: check the path"):
        load_model(tmp_path / "m.onnx")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="must be a file, found a folder"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is not an ONNX model"),
        (b"<!DOCTYPE html>", "is not an ONNX model"),
        (bytes(100), "is not an ONNX model"),
        (onnx.ModelProto(ir_version=8).SerializeToString(), "holds no graph"),
    ],
)
def test_what_is_not_onnx_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message):
        load_model(path)


def test_a_cut_off_file_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString()[:-100])
    with pytest.raises(ModelError, match="is not an ONNX model, or is cut off"):
        load_model(path)


def test_a_message_is_checked_as_a_file_is(model: onnx.ModelProto, tmp_path: Path) -> None:
    assert open_model(model) is model
    save_model(model, tmp_path / "m.onnx")
    assert open_model(tmp_path / "m.onnx") == model
    external = onnx.ModelProto()
    external.CopyFrom(model)
    tensor = external.graph.initializer[0]
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")
    with pytest.raises(ModelError, match=f"weight '{tensor.name}' of model '.*' must be loaded, found it in a file"):
        check_model(external)
    model.graph.node.add(op_type="Relu", input=["nowhere"], output=["somewhere"])
    with pytest.raises(ModelError, match=r"is broken: .*nowhere"):
        open_model(model)


@pytest.mark.parametrize("source", [b"bytes", None, onnx.GraphProto()])
def test_what_is_neither_a_path_nor_a_message_is_refused(source: Any) -> None:
    with pytest.raises(ModelError, match=f"a path or an onnx.ModelProto expected, found {type(source).__name__}"):
        open_model(source)
    with pytest.raises(ModelError, match="must have a graph and an IR version"):
        open_model(onnx.ModelProto())


def test_a_model_without_outputs_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    del model.graph.output[:]
    save_model(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="must have at least one output"):
        load_model(tmp_path / "m.onnx")


@pytest.mark.parametrize(("field", "value"), [("IR version", 99), ("opset", 999)])
def test_versions_beyond_the_runtime_are_refused(
    model: onnx.ModelProto, tmp_path: Path, field: str, value: int
) -> None:
    if field == "opset":
        model.opset_import[0].version = value
    else:
        model.ir_version = value
    save_model(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match=f"{field} {value}.*the installed ONNX Runtime does not support"):
        load_model(tmp_path / "m.onnx")


def test_a_model_of_custom_operators_alone_is_read(tmp_path: Path) -> None:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["com.microsoft": 1]>
        g (float[2] x) => (float[2] y) { y = com.microsoft.Gelu(x) }
    """)
    save_model(model, tmp_path / "m.onnx")
    assert load_model(tmp_path / "m.onnx") == model
    del model.opset_import[:]
    save_model(model, tmp_path / "m.onnx")
    with pytest.raises(ModelError, match="names no opset"):
        load_model(tmp_path / "m.onnx")


def test_a_model_with_a_tensor_of_no_type_is_read(model: onnx.ModelProto, tmp_path: Path) -> None:
    # GraphSurgeon writes such a placeholder for attributes of functions.
    model.graph.node[2].attribute.add(name="placeholder", type=onnx.AttributeProto.TENSOR).t.SetInParent()
    save_model(model, tmp_path / "m.onnx")
    assert fingerprint(load_model(tmp_path / "m.onnx")) == fingerprint(model)
