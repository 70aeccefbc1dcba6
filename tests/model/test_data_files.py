"""Files of weights are known by name and content, and removed when no graph names them."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from onnx_subprune.model.data_files import Digest, data_name, is_data_name, older_data, remove_unread


def data_of(target: Path, content: bytes) -> Path:
    path = target.with_name(data_name(target.name, hashlib.sha256(content).hexdigest()))
    path.write_bytes(content)
    return path


def test_a_digest_is_that_of_all_bytes() -> None:
    digest = Digest()
    digest.write(b"one")
    digest.write(memoryview(b"two"))
    assert digest.tell() == 6
    assert digest.hexdigest() == hashlib.sha256(b"onetwo").hexdigest()


def test_a_name_is_known_again_whatever_the_models(tmp_path: Path) -> None:
    for model in ("out.onnx", "a+b (1).onnx", "é" * 127, "n" * 255, os.fsdecode(b"\xff.onnx")):
        name = data_name(model, "0123456789abcdef")
        assert len(os.fsencode(name)) <= 255
        assert is_data_name(name, model)
        assert not is_data_name(name, "x" + model[1:])
    assert not is_data_name("out.onnx.0123456789aX.data", "out.onnx")
    assert not is_data_name("outxonnx.0123456789ab.data", "out.onnx")


def test_only_what_the_name_promises_is_ours(tmp_path: Path) -> None:
    target = tmp_path / "out.onnx"
    written = [data_of(target, content) for content in (b"one", b"two")]
    (tmp_path / "out.onnx.data").touch()
    (tmp_path / "out.onnx.0123456789ab.data").write_bytes(b"of somebody else")
    (tmp_path / "out.onnx.1123456789ab.data").symlink_to(written[0])
    os.mkfifo(tmp_path / "out.onnx.2123456789ab.data")
    (tmp_path / "out.onnx.3123456789ab.data").mkdir()
    data_of(tmp_path / "other.onnx", b"one")
    assert older_data(target) == sorted(written)
    assert older_data(target, written[0].name) == [written[1]]
    written[1].write_bytes(b"damaged")
    assert older_data(target) == [written[0]]


@pytest.mark.parametrize("kind", ["graph", "link", "unreadable", "nothing"])
def test_what_a_file_beside_it_names_stays(tmp_path: Path, kind: str) -> None:
    (tmp_path / "sub").mkdir()
    data = data_of(tmp_path / "sub" / "out.onnx", b"one")
    for name in ("a pipe", "b pipe"):
        os.mkfifo(data.with_name(name))
    data.with_name("empty").touch()
    data.with_name("lost").symlink_to("nowhere")
    graph = (data.parent if kind == "graph" else tmp_path) / "copy.onnx"
    graph.write_bytes(b"location" + os.fsencode(data.name))
    if kind == "link":
        data.with_name("link.onnx").symlink_to(graph)
    if kind == "unreadable":
        data.with_name("link.onnx").symlink_to("link.onnx")
    target = data.with_name("out.onnx")
    remove_unread(target, data.name)
    assert data.exists()
    remove_unread(target)
    assert data.exists() == (kind != "nothing")
