"""Fused nodes taken apart for a run, and put together again: what the activation of a FusedConv reads can be seen then.

ONNX Runtime fuses y = activation(conv(x) + z) and y = activation(gemm(x)) into one node each. A fit needs what the
activation reads. So both networks run with the parts in the place of such nodes; names of weights stay, and all
that was fitted is written into the fused nodes at the end.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from onnx_subprune.model import attribute_of, initializer
from onnx_subprune.recovery.exact.weight_views import Views
from onnx_subprune.structure.weight_layout import unfused

__all__ = ["Apart", "names_in", "take_apart"]

# Activations, and their attributes in the order in which a FusedConv lists them.
_ACTIVATIONS: Mapping[str, tuple[str, ...]] = {
    "Relu": (),
    "Sigmoid": (),
    "Tanh": (),
    "LeakyRelu": ("alpha",),
    "HardSigmoid": ("alpha", "beta"),
    "Clip": ("min", "max"),
}
# From this version on the limits of a Clip are inputs.
_LIMITS_ARE_INPUTS = 11
_PRODUCT, _SUM = "product", "sum"


@dataclass(frozen=True, eq=False)
class Apart:
    """A network whose fused nodes are taken apart.

    Attributes:
        model: the network; where nothing is fused the very one that was given.
        stands_for: of each tensor that was not there before, the output of its fused node, with the same axes.
        fused: the nodes before, by the names of the linear nodes in their places.
        added: nodes and initializers that stand for nothing but a part, by name of output or tensor.

    """

    model: onnx.ModelProto
    stands_for: Mapping[str, str] = field(default_factory=dict)
    fused: Mapping[str, onnx.NodeProto] = field(default_factory=dict)
    added: Collection[str] = ()

    def fuse(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Fuse the nodes of a fitted network again, in place; the biases are those of the parts."""
        if not self.fused:
            return model
        nodes = list(self._fused_nodes(model))
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in self.added]
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(kept)
        return model

    def _fused_nodes(self, model: onnx.ModelProto) -> Iterator[onnx.NodeProto]:
        for node in model.graph.node:
            before = self.fused.get(node.output[0])
            if before is not None:
                fused = onnx.NodeProto()
                fused.CopyFrom(before)
                rest = list(before.input)[3:]
                bias = node.input[2] if len(node.input) > 2 else ""
                del fused.input[2:]
                fused.input.extend([bias, *rest] if bias or rest else [])
                yield fused
            elif node.name not in self.added:
                yield node


def take_apart(model: onnx.ModelProto, taken: set[str]) -> Apart:
    """Return a network with its fused nodes taken apart, in names that are not `taken` in any network it is held to."""
    if not any(_is_known(node) for node in model.graph.node):
        return Apart(model)
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    parts = _Parts(copy, taken)
    nodes = [part for node in model.graph.node for part in parts.of(node)]
    del copy.graph.node[:]
    copy.graph.node.extend(nodes)
    return Apart(copy, parts.stands_for, parts.fused, frozenset(parts.added))


def names_in(model: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes and tensors of a network."""
    graph = model.graph
    names = {name for node in graph.node for name in (node.name, *node.input, *node.output)}
    return names | {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}


def _is_known(node: onnx.NodeProto) -> bool:
    fused = node.op_type in ("FusedConv", "FusedGemm") and node.domain == "com.microsoft"
    return fused and attribute_of(node, "activation", b"").decode() in ("", *_ACTIVATIONS)


class _Parts:
    """Writes fused nodes as several."""

    def __init__(self, model: onnx.ModelProto, taken: set[str]) -> None:
        self._graph = model.graph
        self._views = Views(model)
        self._taken = taken
        versions = {entry.domain: entry.version for entry in model.opset_import}
        self._version = versions.get("", versions.get("ai.onnx", _LIMITS_ARE_INPUTS))
        self.stands_for: dict[str, str] = {}
        self.fused: dict[str, onnx.NodeProto] = {}
        self.added: set[str] = set()

    def of(self, node: onnx.NodeProto) -> Iterator[onnx.NodeProto]:
        """Yield the parts of a node; a node that is not fused is its only part."""
        names = {part: f"{node.output[0]} ({part})" for part in (_PRODUCT, _SUM)}
        if not _is_known(node) or not self._taken.isdisjoint(names.values()):
            yield node
            return
        activation = attribute_of(node, "activation", b"").decode()
        summand = node.input[3] if node.op_type == "FusedConv" and len(node.input) > 3 else ""
        tensors = [names[_PRODUCT], *([names[_SUM]] if summand else [])]
        if not activation:
            tensors[-1] = node.output[0]
        self.stands_for |= dict.fromkeys([name for name in tensors if name != node.output[0]], node.output[0])
        self.fused[tensors[0]] = node
        yield self._product(node, tensors[0])
        if summand:
            yield self._part(node, "Add", [tensors[0], summand], tensors[1])
        if activation:
            yield self._activation(node, activation, tensors[-1])

    def _product(self, node: onnx.NodeProto, output: str) -> onnx.NodeProto:
        inputs = list(node.input)[:3] if len(node.input) > 2 and node.input[2] else list(node.input)[:2]
        product = helper.make_node(unfused(node.op_type), inputs, [output], name=node.name)
        product.attribute.extend(kept for kept in node.attribute if not kept.name.startswith("activation"))
        return product

    def _part(self, node: onnx.NodeProto, operator: str, inputs: list[str], output: str) -> onnx.NodeProto:
        name = f"{node.output[0]} ({operator})"
        self.added.add(name)
        return helper.make_node(operator, inputs, [output], name=name)

    def _activation(self, node: onnx.NodeProto, activation: str, source: str) -> onnx.NodeProto:
        given = dict(zip(_ACTIVATIONS[activation], attribute_of(node, "activation_params", ()), strict=False))
        for name in _ACTIVATIONS[activation]:
            value = attribute_of(node, f"activation_{name}", given.get(name))
            if value is not None:
                given[name] = value
        part = self._part(node, activation, [source], node.output[0])
        if activation == "Clip" and self._version >= _LIMITS_ARE_INPUTS:
            part.input.extend(self._limit(node, name, given[name]) if name in given else "" for name in ("min", "max"))
        else:
            part.attribute.extend(helper.make_attribute(name, float(value)) for name, value in given.items())
        return part

    def _limit(self, node: onnx.NodeProto, name: str, value: float) -> str:
        weight = self._views.of(node.input[1])
        kind = onnx.TensorProto.FLOAT if weight is None else weight.dtype
        tensor = f"{node.output[0]} ({name})"
        self.added.add(tensor)
        self._graph.initializer.append(initializer(np.array(value, helper.tensor_dtype_to_np_dtype(kind)), tensor))
        return tensor
