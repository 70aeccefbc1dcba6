"""Reports as files, each whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onnx_subprune.errors import OptionError, OutputError
from onnx_subprune.model import atomic_write
from onnx_subprune.report.document import to_json
from onnx_subprune.report.html_page import to_html

__all__ = ["check_name", "is_page", "write_json", "write_report"]

_PAGES = (".html", ".htm")


def is_page(path: str | os.PathLike[str]) -> bool:
    """Whether a report of this name is a page and not data.

    Args:
        path: its ending alone is looked at, in upper or lower case.

    >>> is_page("report.HTML"), is_page("report.json")
    (True, False)

    """
    return Path(path).suffix.lower() in _PAGES


def check_name(path: str | os.PathLike[str], *, pages: bool = True) -> None:
    """Check that a name says which kind of report it is: a page or data.

    Args:
        path: of the report; the file need not exist.
        pages: whether a page is allowed.

    Raises:
        OptionError: the name ends in neither.

    """
    if (pages and is_page(path)) or Path(path).suffix.lower() == ".json":
        return
    kinds, endings = ("FILE.html or FILE.json", ".html or .json") if pages else ("FILE.json", ".json")
    raise OptionError(f"expected a report {kinds}, found '{path}'; give a name that ends in {endings}")


def write_report(document: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a document as a page or as JSON, as the name says, in one step.

    Args:
        document: plain data, as `Result.to_dict` gives it.
        path: ends in .html, .htm or .json.

    Raises:
        OptionError: the name ends in none of them.
        OutputError: the file cannot be written.

    """
    check_name(path)
    _write(to_html(document) if is_page(path) else to_json(document), path)


def write_json(document: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a document as JSON, in one step.

    Args:
        document: plain data, as `Result.to_dict` gives it.
        path: a file that is there is replaced.

    Raises:
        OutputError: the file cannot be written.

    """
    _write(to_json(document), path)


def _write(text: str, path: str | os.PathLike[str]) -> None:
    target = Path(path)
    try:
        with atomic_write(target) as temporary:
            temporary.write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise OutputError(
            f"cannot write the report '{target}': {error.strerror}; give a path in a folder you can write to"
        ) from error
