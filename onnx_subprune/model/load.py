"""Read model files, which are checked first, and check messages that are handed in.

External data may lie only in the model's own folder.
"""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError

from onnx_subprune.errors import ModelError
from onnx_subprune.model.atomic import check_regular
from onnx_subprune.model.domains import import_domains, with_domains
from onnx_subprune.model.external import files_of, load_external_data
from onnx_subprune.model.protos import ONNX_DOMAINS, is_external, tensors
from onnx_subprune.model.session import open_session
from onnx_subprune.model.stored import is_placed
from onnx_subprune.model.validation import validate

__all__ = ["ModelSource", "check_model", "external_files", "load_model", "open_model"]

_PathLike = str | os.PathLike[str]
ModelSource: TypeAlias = str | os.PathLike[str] | onnx.ModelProto
"""A path or a loaded model."""


def open_model(source: ModelSource) -> onnx.ModelProto:
    """Return the model at a path, its large weights left in their files, or a message that was handed in.

    Args:
        source: either.

    Raises:
        ModelError: as for `load_model`, which checks a file as `check_model` checks a message.

    """
    if isinstance(source, onnx.ModelProto):
        model = with_domains(source)
        check_model(model)
        return model
    if not isinstance(source, str | os.PathLike):
        raise ModelError(f"a path or an onnx.ModelProto expected, found {type(source).__name__}: export it to ONNX")
    return load_model(source, resident=False)


def check_model(model: onnx.ModelProto) -> None:
    """Refuse a message in memory as files are refused.

    Args:
        model: with its weights.

    Raises:
        ModelError: it is broken, or a few bytes of it stand for something huge (see `validation`); weights are in files
            that were not loaded; it has no outputs; its IR or opset version is beyond the installed ONNX Runtime.

    """
    name = model.graph.name or "ModelProto"
    if not model.HasField("graph") or not model.ir_version:
        raise ModelError(f"model '{name}' must have a graph and an IR version, found none: export it anew")
    _check(model, name)
    for tensor in tensors(model):
        if is_external(tensor) and not is_placed(tensor):
            raise ModelError(
                f"weight '{tensor.name}' of model '{name}' must be loaded, found it in a file: give the path of the "
                "model, or read it with load_model(path)"
            )


def _check(model: onnx.ModelProto, name: object) -> None:
    validate(model, name)
    if not model.graph.output:
        raise ModelError(f"model '{name}' must have at least one output, found none: export it anew")
    _check_versions(model, name)


def load_model(path: _PathLike, *, resident: bool = True) -> onnx.ModelProto:
    """Read an ONNX model with its external data.

    Args:
        path: of the `.onnx` file; external data may lie in its folder or below.
        resident: whether all weights are held in memory. Otherwise those of a model with 256 MiB of external data or
            more stay in their files: only this process can read the message then, and only while the files stay as
            they are.

    Raises:
        ModelError: the file is missing or no ONNX model; it is broken, or a few bytes of it stand for something huge
            (see `validation`); its external data is missing, too short or outside its folder; it has no outputs; its
            IR or opset version is beyond the installed ONNX Runtime.

    """
    model = _parse(path)
    _check(model, path)
    import_domains(model)
    for entry in model.opset_import:
        # Exporters leave the version of other sets than ONNX's out.
        entry.version = entry.version or 1
    load_external_data(model, Path(path).parent, resident=resident)
    return model


def external_files(path: _PathLike) -> set[Path]:
    """Return the files beside a model that hold its weights.

    Args:
        path: of the model; for a file that is no model there are none.

    """
    try:
        return files_of(_parse(path), Path(path).parent)
    except ModelError:
        return set()


def _parse(path: _PathLike) -> onnx.ModelProto:
    try:
        check_regular(path)
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise ModelError(f"model '{path}' does not exist: check the path") from error
    except IsADirectoryError as error:
        raise ModelError(f"model '{path}' must be a file, found a folder: name the .onnx file in it") from error
    except OSError as error:
        raise ModelError(f"model '{path}' cannot be read: {error.strerror or error}") from error
    if not data:
        raise ModelError(f"model '{path}' is empty: download or export it again")
    model = onnx.ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        raise ModelError(f"model '{path}' is not an ONNX model, or is cut off: export or download it again") from error
    if not model.HasField("graph") or not model.ir_version:
        raise ModelError(f"model '{path}' is not an ONNX model: it holds no graph")
    return model


def _check_versions(model: onnx.ModelProto, name: object) -> None:
    if not model.opset_import:
        raise ModelError(f"model '{name}' names no opset: export it anew")
    opset = max((entry.version for entry in model.opset_import if entry.domain in ONNX_DOMAINS), default=None)
    if (refusal := _version_refusal(model.ir_version, opset)) is not None:
        raise ModelError(
            f"model '{name}' has IR version {model.ir_version} and opset {opset}, which the installed ONNX Runtime "
            f"does not support ({refusal}): update it or convert the model"
        )


@lru_cache(maxsize=64)
def _version_refusal(ir_version: int, opset: int | None) -> str | None:
    """Return why ONNX Runtime refuses the versions, asked with the smallest model that has them; or None."""
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    graph = onnx.helper.make_graph([], "probe", [value], [value])
    # A model of custom operators alone need not import ONNX's own.
    imported = onnx.helper.make_opsetid("com.microsoft", 1) if opset is None else onnx.helper.make_opsetid("", opset)
    probe = onnx.helper.make_model(graph, ir_version=ir_version, opset_imports=[imported])
    try:
        open_session(probe)
    except ModelError as error:
        return re.sub(r"^.*refuses the model: ", "", str(error))
    return None
