"""Weights and biases in Constant nodes (Paddle, IR 3): initializers for a run, and nodes again in the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnx_subprune.model import attribute_of
from onnx_subprune.model.protos import ONNX_DOMAINS
from onnx_subprune.recovery.exact.linear_layers import is_linear
from onnx_subprune.recovery.exact.weight_views import Views, bias_input

__all__ = ["Stored", "stored_as_initializers"]


@dataclass(frozen=True, eq=False)
class Stored:
    """A network whose constants are initializers.

    Attributes:
        model: the network; where no weight or bias lies in a node the very one that was given.
        before: the nodes as they were, in order.
        constants: of them those that are initializers now, by the name of the tensor.

    """

    model: onnx.ModelProto
    before: tuple[onnx.NodeProto, ...] = ()
    constants: Mapping[str, onnx.NodeProto] | None = None

    def as_nodes(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Put constants of a fitted network back into their nodes, in place; its other nodes are those of before."""
        if not self.constants:
            return model
        stored = {tensor.name: tensor for tensor in model.graph.initializer if tensor.name in self.constants}
        others = iter(list(model.graph.node))
        nodes = [
            _constant(node, stored[node.output[0]]) if node.output[0] in self.constants else next(others)
            for node in self.before
        ]
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in self.constants]
        del model.graph.node[:], model.graph.initializer[:]
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(kept)
        return model


def stored_as_initializers(model: onnx.ModelProto) -> Stored:
    """Return a network with its constants as initializers, if a weight or bias of a linear map lies in a node."""
    constants = {node.output[0]: node for node in model.graph.node if _holds_tensor(node)}
    copy = onnx.ModelProto()
    if constants:
        copy.CopyFrom(model)
        del copy.graph.node[:]
        copy.graph.node.extend(node for node in model.graph.node if node.output[0] not in constants)
        for name, node in constants.items():
            tensor = copy.graph.initializer.add()
            tensor.CopyFrom(attribute_of(node, "value", None))
            tensor.name = name
    if not constants or not _reads_weights(copy, constants):
        return Stored(model)
    return Stored(copy, tuple(model.graph.node), constants)


def _holds_tensor(node: onnx.NodeProto) -> bool:
    dense = isinstance(attribute_of(node, "value", None), onnx.TensorProto)
    return node.op_type == "Constant" and node.domain in ONNX_DOMAINS and dense


def _reads_weights(model: onnx.ModelProto, constants: Mapping[str, onnx.NodeProto]) -> bool:
    views = Views(model)
    linear = [node for node in model.graph.node if is_linear(node)]
    read = (views.of(name) for node in linear for name in (node.input[1], bias_input(node)) if name)
    if any(view is not None and view.tensor.name in constants for view in read):
        return True
    # The bias of a product is the constant of the Add behind it.
    products = {node.output[0] for node in linear}
    adds = (node for node in model.graph.node if node.op_type == "Add" and not products.isdisjoint(node.input))
    return any(name in constants for add in adds for name in add.input)


def _constant(node: onnx.NodeProto, tensor: onnx.TensorProto) -> onnx.NodeProto:
    """Return a Constant node with the values of a stored tensor."""
    constant = onnx.NodeProto()
    constant.CopyFrom(node)
    for attribute in constant.attribute:
        if attribute.name == "value":
            name = attribute.t.name
            attribute.t.CopyFrom(tensor)
            attribute.t.name = name
            if not name:
                attribute.t.ClearField("name")
    return constant
