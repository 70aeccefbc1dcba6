"""What ONNX Runtime says when it refuses something, in a line that a user can read.

Its own texts hold codes, places in its sources, C++ signatures and conditions that were false. What is left says which
node refused what.
"""

from __future__ import annotations

import re

from onnx_subprune.model.protos import one_line

__all__ = ["runtime_reason"]

_LIMIT = 300
_UNCUT = 1 << 16
_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : ")
_LOADING = re.compile(r"^Load model from .+? failed: ?")
_RUNNING = re.compile(r"Non-zero status code returned while running (\S+) node\. Name:'([^']*)' Status Message: ")
_FALSE_CONDITION = re.compile(r"\S+\.(?:h|hpp|cc|cpp|cu|cuh):\d+ .*? was false\. ")
_SIGNATURE = re.compile(r"\S*/\S+\.(?:h|hpp|cc|cpp|cu|cuh):\d+ [^()]*(?:\([^()]*\)(?: const)? )?")
_FUNCTION = re.compile(r"\S+\.(?:h|hpp|cc|cpp|cu|cuh):\d+ (?:\S+ )?")
_SIZE = re.compile(r" index: (\d+) Got: (\d+) Expected: (\d+)")
_SIZES = re.compile(rf"Got invalid dimensions for input: (.+?) for the following indices((?:{_SIZE.pattern})+)")
_ADVICE = " Please fix either the inputs/outputs or the model."


def runtime_reason(error: BaseException) -> str:
    """Return why ONNX Runtime refused a model or its inputs, in one line.

    Args:
        error: what it raised, or an error of this package that was raised from that.

    >>> runtime_reason(RuntimeError(
    ...     "[ONNXRuntimeError] : 1 : FAIL : Non-zero status code returned while running MatMul node. Name:'m' "
    ...     "Status Message: matmul_helper.h:142 Compute left operand cannot broadcast on dim 0"))
    "MatMul 'm': left operand cannot broadcast on dim 0"

    """
    source = error.__cause__ or error
    text = _LOADING.sub("", _CODE.sub("", one_line(source, _UNCUT)))
    text = _RUNNING.sub(_node, text)
    for noise in (_FALSE_CONDITION, _SIGNATURE, _FUNCTION):
        text = noise.sub("", text)
    text = _SIZES.sub(_sizes, text).replace(_ADVICE, "")
    return one_line(text.rstrip(" ."), _LIMIT)


def _node(match: re.Match[str]) -> str:
    operator, name = match.groups()
    return f"{operator} '{name}': " if name else f"{operator}: "


def _sizes(match: re.Match[str]) -> str:
    name, sizes = match.group(1, 2)
    found = [f"size {got} on axis {axis}, expected {wanted}" for axis, got, wanted in _SIZE.findall(sizes)]
    return f"input '{name}' has {' and '.join(found)}"
