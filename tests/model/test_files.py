from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper, parser

from onnx_subprune.errors import ModelError, OutputError
from onnx_subprune.model import check_writable, fingerprint, load_model, model_bytes, open_session, run, save_model
from onnx_subprune.model import save as files_module


@pytest.fixture
def model() -> onnx.ModelProto:
    model = parser.parse_model("""
        <ir_version: 8, opset_import: ["": 17]>
        g (float[N, 20] x) => (float[N, 30] y) { h = MatMul(x, w)  c = Constant<value_float = 2.0>()  y = Mul(h, c) }
    """)
    weight = np.random.default_rng(0).normal(size=(20, 30)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    model.graph.initializer[0].doc_string = "trained"
    return model


def outputs(source: onnx.ModelProto | Path) -> np.ndarray:
    x = np.random.default_rng(1).normal(size=(2, 20)).astype(np.float32)
    return run(open_session(source, threads=1), {"x": x})["y"]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Loading


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


# External data


def external(model: onnx.ModelProto, folder: Path, **entries: str) -> Path:
    """Save with external data, then overwrite entries of the first tensor."""
    save_model(model, folder / "m.onnx", threshold=0)
    light = onnx.load(folder / "m.onnx", load_external_data=False)
    for entry in light.graph.initializer[0].external_data:
        entry.value = entries.get(entry.key, entry.value)
    (folder / "m.onnx").write_bytes(light.SerializeToString())
    return folder / "m.onnx"


def test_a_large_model_goes_with_external_data(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    save_model(model, path, threshold=1000)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    assert path.stat().st_size < 500
    onnx.checker.check_model(path, full_check=True)
    np.testing.assert_array_equal(outputs(path), outputs(model))
    loaded = load_model(path)
    assert loaded.graph.initializer[0].doc_string == "trained"
    assert fingerprint(loaded) == fingerprint(model)


def test_constants_in_nodes_and_typed_weights_go_outside_too(tmp_path: Path, model: onnx.ModelProto) -> None:
    value = np.random.default_rng(2).normal(size=(20, 30)).astype(np.float32)
    model.graph.node[0].input[1] = "k"
    constant = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(value))
    model.graph.node.insert(0, constant)
    typed = helper.make_tensor("w", TensorProto.FLOAT16, [600], np.arange(600))
    model.graph.initializer[0].CopyFrom(typed)
    path = tmp_path / "m.onnx"
    save_model(model, path, threshold=0)
    assert path.stat().st_size < 700
    np.testing.assert_array_equal(outputs(path), outputs(model))
    assert fingerprint(load_model(path)) == fingerprint(model)


@pytest.mark.parametrize("location", ["/etc/hostname", "../m.onnx.data", "sub/../../m", "..\\m", "C:\\m", ""])
def test_external_data_outside_the_folder_is_refused(model: onnx.ModelProto, tmp_path: Path, location: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "m.onnx.data").write_bytes(bytes(2400))
    with pytest.raises(ModelError, match="'w' must lie in the model's folder"):
        load_model(external(model, folder, location=location))


def test_a_link_out_of_the_folder_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = external(model, folder)
    (folder / "m.onnx.data").rename(tmp_path / "outside")
    (folder / "m.onnx.data").symlink_to(tmp_path / "outside")
    with pytest.raises(ModelError, match=r"must lie in the model's folder, found 'm.onnx.data'"):
        load_model(path)


def test_external_data_in_a_folder_below_is_read(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = external(model, tmp_path, location="weights/part1.bin")
    (tmp_path / "weights").mkdir()
    (tmp_path / "m.onnx.data").rename(tmp_path / "weights" / "part1.bin")
    assert fingerprint(load_model(path)) == fingerprint(model)


def test_missing_external_data_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = external(model, tmp_path)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"'m.onnx.data' of tensor 'w' is missing"):
        load_model(path)


@pytest.mark.parametrize("entries", [{"offset": "8"}, {"offset": "-1"}, {"length": "8"}, {"length": "99999999"}])
def test_external_data_of_the_wrong_size_is_refused(
    model: onnx.ModelProto, tmp_path: Path, entries: dict[str, str]
) -> None:
    with pytest.raises(ModelError, match=r"'w' must be 2400 bytes, found .* cut off or not this model's"):
        load_model(external(model, tmp_path, **entries))


def test_external_data_with_an_offset_that_is_no_number_is_refused(model: onnx.ModelProto, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="'w' must have whole-number offset and length"):
        load_model(external(model, tmp_path, offset="many"))


# Saving


def test_the_same_model_gives_the_same_bytes(model: onnx.ModelProto, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        save_model(model, tmp_path / name / "m.onnx", threshold=0)
    for name in ("m.onnx", "m.onnx.data"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_a_saved_file_has_the_permissions_of_any_new_file(model: onnx.ModelProto, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.onnx")
    (tmp_path / "other").touch()
    assert (tmp_path / "m.onnx").stat().st_mode == (tmp_path / "other").stat().st_mode


def test_the_input_may_be_overwritten(model: onnx.ModelProto, tmp_path: Path) -> None:
    path = external(model, tmp_path)
    loaded = load_model(path)
    loaded.graph.initializer[0].raw_data = bytes(2400)
    save_model(loaded, path, threshold=0)
    assert names(tmp_path) == ["m.onnx", "m.onnx.data"]
    assert not outputs(path).any()


@pytest.mark.parametrize("check", [check_writable, lambda path: save_model(onnx.ModelProto(), path)])
def test_places_that_cannot_be_written_are_refused(check: object, tmp_path: Path) -> None:
    assert callable(check)
    (tmp_path / "folder.onnx").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    for path, message in {
        "none/m.onnx": "none' does not exist: create it first",
        "folder.onnx": "it is a folder: name a file in it",
        "file/m.onnx": "file' does not exist",
        "pipe": "it is not a regular file",
        "n" * 300: "File name too long",
    }.items():
        with pytest.raises(OutputError, match=message):
            check(tmp_path / path)
    assert names(tmp_path) == ["file", "folder.onnx", "pipe"]


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_text("older")
    check_writable(tmp_path / "m.onnx")
    check_writable(tmp_path / "new.onnx")
    assert names(tmp_path) == ["m.onnx"]
    assert (tmp_path / "m.onnx").read_text() == "older"


@pytest.mark.parametrize("threshold", [0, 10**9])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_save_leaves_what_was_there(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threshold: int, error: BaseException
) -> None:
    path = tmp_path / "m.onnx"
    path.write_text("older")

    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(files_module.os, "fsync", fail)
    with pytest.raises((OutputError, KeyboardInterrupt), match=r"No space left on device|^$"):
        save_model(model, path, threshold=threshold)
    assert names(tmp_path) == ["m.onnx"]
    assert path.read_text() == "older"


def test_a_model_never_stands_with_the_weights_of_another(
    model: onnx.ModelProto, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = external(model, tmp_path)
    replaced: list[str] = []

    def replace(source: Path, target: Path) -> None:
        replaced.append(target.name)
        if target == path:
            raise OSError(5, "Input/output error")
        Path(source).rename(target)

    monkeypatch.setattr(files_module.os, "replace", replace)
    with pytest.raises(OutputError, match="Input/output error"):
        save_model(model, path, threshold=0)
    assert replaced == ["m.onnx.data", "m.onnx"]
    assert names(tmp_path) == ["m.onnx.data"]


def test_a_killed_save_leaves_no_half_written_file(tmp_path: Path) -> None:
    script = """
import os, signal, sys, onnx
from onnx_subprune.model import save as files
real = os.fsync
def killed(descriptor):
    real(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)
files.os.fsync = killed
files.save_model(onnx.ModelProto(ir_version=8, doc_string="new"), sys.argv[1])
"""
    path = tmp_path / "m.onnx"
    path.write_text("older")
    done = subprocess.run([sys.executable, "-c", script, str(path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "older"


# Size and identity


def test_bytes_are_those_on_the_disk(model: onnx.ModelProto, tmp_path: Path) -> None:
    save_model(model, tmp_path / "m.onnx")
    assert model_bytes(model) == (tmp_path / "m.onnx").stat().st_size


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


def test_the_fingerprint_needs_the_weights(model: onnx.ModelProto, tmp_path: Path) -> None:
    light = onnx.load(external(model, tmp_path), load_external_data=False)
    with pytest.raises(ModelError, match="'w' is in an external file that is not loaded"):
        fingerprint(light)
