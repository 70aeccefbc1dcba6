"""What a constant is to the graph, as far as its sane size depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import onnx

__all__ = ["Role", "roles_of"]

_PASSED = frozenset({"Transpose", "Identity", "Cast"})
_NORMALISATIONS = frozenset({"LayerNormalization", "GroupNormalization", "InstanceNormalization", "RMSNormalization"})
_RECURRENT = frozenset({"LSTM", "GRU", "RNN"})
_BATCHNORM = {1: "scale", 2: "shift", 3: "shift", 4: "variance"}
_CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})

Readers = dict[str, list[tuple[onnx.NodeProto, int]]]


@dataclass(frozen=True)
class Role:
    """`linear` (with its fan-in), `scale`, `shift`, `variance` or `other`."""

    kind: str
    fan_in: int = 1


def roles_of(graph: onnx.GraphProto) -> dict[str, Role]:
    """Return the role of every constant of a graph; that of a linear map goes before others of the same tensor."""
    readers: Readers = {}
    for node in graph.node:
        for index, name in enumerate(node.input):
            readers.setdefault(name, []).append((node, index))
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    shapes |= {
        node.output[0]: list(attribute.t.dims)
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.name == "value"
    }
    return {name: _best(_roles(name, shape, readers)) for name, shape in shapes.items()}


def _best(roles: list[Role]) -> Role:
    return min(roles, key=lambda role: (role.kind != "linear", role.kind == "other"), default=Role("other"))


def _roles(name: str, shape: list[int], readers: Readers) -> list[Role]:
    found = []
    for node, index in readers.get(name, ()):
        if node.op_type in _PASSED:
            perm = next((list(a.ints) for a in node.attribute if a.name == "perm"), None)
            order = perm if perm is not None else list(range(len(shape)))
            turned = [shape[axis] for axis in (order if perm or node.op_type != "Transpose" else order[::-1])]
            found.extend(_roles(node.output[0], turned, readers))
        else:
            found.append(_role(node, index, shape))
    return found


def _role(node: onnx.NodeProto, index: int, shape: list[int]) -> Role:
    op, attributes = node.op_type, {a.name: a for a in node.attribute}
    if op in _CONVOLUTIONS | {"Gemm"} | _RECURRENT and index > 2:
        return Role("shift" if op in _RECURRENT else "other")
    if op in _CONVOLUTIONS | {"Gemm"} and index == 2:
        return Role("shift")
    if op == "Conv" and index == 1:
        return Role("linear", prod(shape[1:]))
    if op == "ConvTranspose" and index == 1:
        groups = attributes["group"].i if "group" in attributes else 1
        overlap = prod(shape[2:]) // prod(attributes["strides"].ints if "strides" in attributes else [1])
        return Role("linear", max(1, shape[0] // groups * overlap))
    if op == "Gemm":
        turned = "transB" in attributes and attributes["transB"].i == 1
        return Role("linear", shape[-1] if turned or index == 0 else shape[0])
    if op == "MatMul":
        return Role("linear", shape[-1] if index == 0 or len(shape) == 1 else shape[-2])
    if op in _RECURRENT:
        return Role("linear", shape[-1])
    if op == "BatchNormalization":
        return Role(_BATCHNORM.get(index, "other"))
    if op in _NORMALISATIONS:
        return Role("scale" if index == 1 else "shift")
    return Role("other")
