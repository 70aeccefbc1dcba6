"""Small files that stand for huge graphs or tensors: sizes are counted before anything is expanded."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import onnx

from onnx_subprune.model.graph_checks import label
from onnx_subprune.model.protos import ONNX_DOMAINS, bodies, constant_tensor, is_external
from onnx_subprune.model.tensor_checks import LARGEST_DENSE

__all__ = ["LARGEST_INLINED", "constants_error", "functions_error"]

LARGEST_INLINED = 100_000
"""Nodes that a model with functions may have once these are inlined."""

_MOST_BOXES = 10_000  # NonMaxSuppression takes time by the square
_SHORT = 64  # values of a shape

_Key = tuple[str, str, str]


def functions_error(model: onnx.ModelProto) -> str | None:
    """Return why the functions of a model cannot be inlined: they call each other in a circle, or grow too large."""
    functions = {(f.domain, f.name, f.overload): f for f in model.functions}
    sizes: dict[_Key, int | None] = {}

    def size(key: _Key) -> int:
        """Nodes of one function, inlined; a circle counts as endless."""
        if key not in sizes:
            sizes[key] = None
            sizes[key] = min(sum(call_size(called) for called in _calls(functions[key].node)), 2 * LARGEST_INLINED)
        known = sizes[key]
        if known is None:
            raise RecursionError
        return known

    def call_size(key: _Key) -> int:
        return size(key) if key in functions else 1

    if not functions:
        return None
    try:
        total = sum(call_size(called) for called in _calls(model.graph.node))
    except RecursionError:
        return "functions must not call each other in a circle, or a thousand deep: export without them"
    if total > LARGEST_INLINED:
        return f"functions must expand to at most {LARGEST_INLINED} nodes, found more: export without them"
    return None


def _calls(nodes: Iterable[onnx.NodeProto]) -> Iterator[_Key]:
    for node in nodes:
        yield node.domain, node.op_type, node.overload
        for body in bodies(node):
            yield from _calls(body.node)


def constants_error(nodes: Iterable[onnx.NodeProto], initializers: Iterable[onnx.TensorProto] = ()) -> str | None:
    """Return which node makes a huge tensor, or works without end, from constants alone.

    Args:
        nodes: of a graph or a function, in order; those that are not are passed over.
        initializers: of the same graph.

    """
    counts: dict[str, int] = {}
    values: dict[str, list[float]] = {}
    for tensor in initializers:
        _note(tensor, tensor.name, counts, values)
    for node in nodes:
        if (constant := constant_tensor(node)) is not None:
            _note(constant, node.output[0], counts, values)
            continue
        names = [name for name in node.input if name]
        if node.domain not in ONNX_DOMAINS or not names or not all(name in counts for name in names):
            continue
        count = _count(node.op_type, [counts[name] for name in names], [values.get(name) for name in names])
        if count > LARGEST_DENSE:
            return f"{label(node)} must make at most {LARGEST_DENSE} values of constants, found {count}: export it anew"
        if node.op_type == "NonMaxSuppression" and counts[names[0]] // 4 > _MOST_BOXES:
            return (
                f"{label(node)} must choose among at most {_MOST_BOXES} constant boxes, found {counts[names[0]] // 4}: "
                "store the boxes it chooses"
            )
        counts.update((name, count) for name in node.output)
    return None


def _note(tensor: onnx.TensorProto, name: str, counts: dict[str, int], values: dict[str, list[float]]) -> None:
    counts[name] = math.prod(tensor.dims)
    numeric = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32, onnx.TensorProto.FLOAT)
    if numeric and counts[name] <= _SHORT and not is_external(tensor):
        values[name] = np.ravel(onnx.numpy_helper.to_array(tensor)).tolist()


def _count(op_type: str, counts: list[int], values: list[list[float] | None]) -> int:
    """Values of a result; exact for the operators that grow, else as many as the largest operand has."""
    last = values[-1]
    if op_type == "Concat":
        return sum(counts)
    if op_type == "ConstantOfShape" and last is not None:
        return _product(last)
    if op_type == "Expand" and last is not None:
        return max(counts[0], _product(last))
    if op_type == "Tile" and last is not None:
        return counts[0] * _product(last)
    if op_type == "Range" and len(values) == 3:
        start, limit, delta = (value[0] if value else 0.0 for value in values)
        steps = (limit - start) / delta if delta else 0.0
        return max(0, math.ceil(steps)) if math.isfinite(steps) else LARGEST_DENSE + 1
    return max(counts)


def _product(sizes: list[float]) -> int:
    return math.prod(max(0, int(size)) for size in sizes if math.isfinite(size))
