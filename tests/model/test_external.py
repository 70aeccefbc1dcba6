"""Weights in files beside the model: read from its folder alone, and only if they fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from onnx_subprune.errors import ModelError
from onnx_subprune.model import (
    fingerprint,
    load_model,
)

Saver = Callable[..., Path]


@pytest.mark.parametrize("location", ["/etc/hostname", "../m.onnx.data", "sub/../../m", "..\\m", "C:\\m", ""])
def test_external_data_outside_the_folder_is_refused(
    external: Saver, model: onnx.ModelProto, tmp_path: Path, location: str
) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    (tmp_path / "m.onnx.data").write_bytes(bytes(2400))
    with pytest.raises(ModelError, match="'w' must lie in the model's folder"):
        load_model(external(model, folder, location=location))


def test_a_link_out_of_the_folder_is_refused(external: Saver, model: onnx.ModelProto, tmp_path: Path) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    path = external(model, folder)
    (folder / "m.onnx.data").rename(tmp_path / "outside")
    (folder / "m.onnx.data").symlink_to(tmp_path / "outside")
    with pytest.raises(ModelError, match=r"must lie in the model's folder, found 'm.onnx.data'"):
        load_model(path)


def test_external_data_in_a_folder_below_is_read(external: Saver, model: onnx.ModelProto, tmp_path: Path) -> None:
    path = external(model, tmp_path, location="weights/part1.bin")
    (tmp_path / "weights").mkdir()
    (tmp_path / "m.onnx.data").rename(tmp_path / "weights" / "part1.bin")
    assert fingerprint(load_model(path)) == fingerprint(model)


def test_missing_external_data_is_refused(external: Saver, model: onnx.ModelProto, tmp_path: Path) -> None:
    path = external(model, tmp_path)
    (tmp_path / "m.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"'m.onnx.data' of tensor 'w' is missing"):
        load_model(path)


@pytest.mark.parametrize("entries", [{"offset": "8"}, {"offset": "-1"}, {"length": "8"}, {"length": "99999999"}])
def test_external_data_of_the_wrong_size_is_refused(
    external: Saver, model: onnx.ModelProto, tmp_path: Path, entries: dict[str, str]
) -> None:
    with pytest.raises(ModelError, match=r"'w' must be 2400 bytes, found .* cut off or not this model's"):
        load_model(external(model, tmp_path, **entries))


def test_external_data_with_an_offset_that_is_no_number_is_refused(
    external: Saver, model: onnx.ModelProto, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="'w' must have whole-number offset and length"):
        load_model(external(model, tmp_path, offset="many"))
