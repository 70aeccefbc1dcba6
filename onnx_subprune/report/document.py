"""Documents: a run as plain data, printed by `--json` and written by `--report`.

The same run writes the same bytes: no time, no machine, no order that depends on hashing. Times are there only
where it was asked for: under `timing`, and under `latency` where that was the target. A number that JSON does not have
(infinity, NaN) is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any, TypeAlias

__all__ = ["Document", "to_json"]

Document: TypeAlias = dict[str, Any]
"""A run as plain data: strings, numbers, lists and dictionaries; `format` names its kind."""


def to_json(document: Mapping[str, Any], *, letters: bool = True) -> str:
    r"""Return the document as JSON text that ends in a newline.

    Args:
        document: plain data; tuples become lists, and numbers that are not finite become null, as JSON has no others.
        letters: whether letters beyond ASCII stand as they are. What is no letter is escaped in any case: a terminal
            would obey it.

    >>> to_json({"error": float("inf"), "widths": (8, 16)})
    '{\n  "error": null,\n  "widths": [\n    8,\n    16\n  ]\n}\n'
    >>> print(to_json({"é\x1b\u202e": 1}), end="")
    {
      "é\u001b\u202e": 1
    }

    """
    text = json.dumps(_finite(document), indent=2, ensure_ascii=not letters, allow_nan=False)
    # Line breaks are those between the entries: within a text they are escaped.
    return "\n".join(map(_escaped, text.split("\n"))) + "\n"


def _escaped(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else json.dumps(letter)[1:-1] for letter in line)


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
