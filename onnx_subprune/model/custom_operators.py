"""Libraries of custom operators, which every session of this process can use once they are registered.

To register a library is to load it into the process: its code runs, and it cannot be taken out again. So they are kept
for the whole process, not session by session.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
from collections.abc import Iterable
from pathlib import Path

import onnxruntime as ort

from onnx_subprune.errors import OptionError
from onnx_subprune.model.protos import one_line

__all__ = ["EXTENSIONS", "custom_ops", "offer_custom_ops", "register_custom_ops"]

EXTENSIONS = "onnxruntime_extensions"
"""Stands for the library in the Python package of that name."""

_registered: list[str] = []


def register_custom_ops(libraries: Iterable[str | os.PathLike[str]]) -> None:
    """Let all sessions of this process know the custom operators of some libraries. The code of the libraries runs.

    Args:
        libraries: paths of shared libraries that export `RegisterCustomOps`, or `onnxruntime_extensions` for the one in
            the Python package of that name. A library that is registered already is not registered again.

    Raises:
        OptionError: a library does not exist or cannot be loaded, or the package is not installed.

    """
    for library in libraries:
        path = _path_of(os.fspath(library))
        if path not in _registered:
            try:
                ort.SessionOptions().register_custom_ops_library(path)
            except Exception as error:  # ONNX Runtime's errors have no base of their own
                reason = re.sub(r"^\[ONNXRuntimeError\] : \d+ : FAIL : ", "", one_line(error))
                raise OptionError(
                    f"expected '{library}' to be a shared library of custom operators for this machine, which exports "
                    f"RegisterCustomOps, found: {reason}; build it again, or name another"
                ) from error
            _registered.append(path)


def custom_ops() -> tuple[str, ...]:
    """Return the paths of the libraries that are registered, for a process that has to register them too."""
    return tuple(_registered)


def offer_custom_ops(options: ort.SessionOptions) -> None:
    """Let a session know the operators of all registered libraries.

    Args:
        options: of the session that will be opened.

    """
    for path in _registered:
        options.register_custom_ops_library(path)


def _path_of(library: str) -> str:
    """Return an absolute path: the loader of the system would look for a bare name elsewhere than in this folder."""
    if library.replace("-", "_") == EXTENSIONS and not os.path.exists(library):
        return _path_of_extensions(library)
    if not os.path.isfile(library):
        found = "a folder" if os.path.isdir(library) else "no such file"
        raise OptionError(
            f"expected the path of a shared library of custom operators, or {EXTENSIONS}, found '{library}': {found}; "
            "check the path"
        )
    return str(Path(library).resolve())


def _path_of_extensions(name: str) -> str:
    if importlib.util.find_spec(EXTENSIONS) is None:
        raise OptionError(
            f"expected the package {EXTENSIONS} for '{name}', found none installed; pip install onnxruntime-extensions"
        )
    return str(importlib.import_module(EXTENSIONS).get_library_path())
