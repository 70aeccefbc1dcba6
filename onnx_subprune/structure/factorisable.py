"""Which layers can be written as two, of a smaller rank between them, and why the others cannot.

A layer is a Conv, Gemm or MatMul with one dense weight of its own: o outputs, each a sum of f products (channels times
taps of the kernel). Two layers f -> r -> o take r (f + o) products where one takes f o.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.groups import Structure
from onnx_subprune.structure.records import DEFAULT_DOMAINS, Consumer, ReadValues, Records, Weight
from onnx_subprune.structure.weight_blocks import as_blocks

__all__ = ["Layer", "layers_of"]

_OPERATORS = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True, eq=False)
class Layer:
    """A linear map W [outputs, features] that can be factorised.

    Attributes:
        consumer: its node and weight.
        outputs: how many values it gives at one position.
        features: products in each sum.
        spare: whether the node has a constant bias, one value per output, that nobody else reads.
        added: the constant that the node itself adds to its product, or None.

    """

    consumer: Consumer
    outputs: int
    features: int
    spare: bool
    added: Weight | None = None

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.consumer.node.name)

    @property
    def output(self) -> tuple[str, int]:
        """The tensor that the node writes, and the axis of its outputs."""
        axis = 1 if self.consumer.kind == "Conv" else -1 if self.consumer.index == 1 else -2
        return self.consumer.node.outputs[0].name, axis

    @property
    def narrow(self) -> bool:
        """Whether the statistics of its inputs are exact and smaller than those of its outputs."""
        return self.consumer.kind != "Conv" and self.features < self.outputs

    @property
    def full(self) -> int:
        """The rank at which nothing is lost, whatever the data."""
        return self.features if self.narrow else self.outputs

    @property
    def most(self) -> int:
        """The largest rank that saves anything; 0 where none does."""
        return (self.features * self.outputs - 1) // (self.features + self.outputs)

    def matrix(self, read: ReadValues) -> np.ndarray:
        """Return W [outputs, features] in float64.

        Args:
            read: returns the values of a constant.

        """
        weight = self.consumer.weight.view(read).astype(np.float64)
        return as_blocks(self.consumer, weight).reshape(self.outputs, self.features)

    @property
    def alpha(self) -> float:
        """What the node multiplies W x with."""
        return _alpha(self.consumer)

    def bias(self, read: ReadValues) -> np.ndarray:
        """Return what the node itself adds to alpha W x, float64 [outputs].

        Args:
            read: returns the values of a constant.

        """
        if self.added is None:
            return np.zeros(self.outputs)
        values = self.added.view(read).astype(np.float64)
        if self.consumer.kind == "Gemm":
            values = values * float(self.consumer.node.attrs.get("beta", 1.0))
        return np.broadcast_to(values.ravel(), (self.outputs,))


def layers_of(structure: Structure) -> tuple[list[Layer], dict[str, str]]:
    """Return the layers that can be factorised, in graph order, and for every other node with products the reason.

    Args:
        structure: of the dense graph.

    """
    uses = Counter(consumer.weight.constant.name for consumer in structure.consumers)
    outputs = {tensor.name for tensor in structure.graph.outputs}
    consumers = {id(consumer.node): consumer for consumer in structure.consumers}
    layers: list[Layer] = []
    reasons: dict[str, str] = {}
    for node in {id(term.node): term.node for term in structure.records.mac_terms}.values():
        consumer = consumers.get(id(node))
        reason = _without_weight(node) if consumer is None else _refusal(structure.records, consumer, uses, outputs)
        layer = _layer(structure, consumer) if consumer is not None and reason is None else None
        if layer is not None and layer.most:
            layers.append(layer)
        else:
            reasons[str(node.name)] = reason or "no rank takes fewer products than it does"
    return layers, reasons


def _without_weight(node: gs.Node) -> str:
    if node.op in ("Conv", "ConvTranspose"):
        return "its channels are not mixed (depthwise)"
    return "it multiplies by no constant weight that is understood"


def _refusal(records: Records, consumer: Consumer, uses: Mapping[str, int], outputs: set[str]) -> str | None:
    """Return why a linear map stays as it is, or None."""
    if consumer.node.op not in _OPERATORS or consumer.node.domain not in DEFAULT_DOMAINS:
        return f"only {', '.join(_OPERATORS)} are factorised, it is of {consumer.node.op}"
    if consumer.blocks.size > 1 or (consumer.kind != "Conv" and len(consumer.weight.perm) != 2):
        return "its weight is not one matrix: its channels are in groups, or it is a stack"
    if uses[consumer.weight.constant.name] > 1 or not _is_alone(consumer, outputs):
        return f"its weight '{consumer.weight.constant.name}' is used elsewhere too"
    if not _alpha(consumer):
        return "its product is multiplied by 0"
    if _adds(records, consumer) and not _has_value_per_output(_added(records, consumer), consumer):
        return "what it adds to its product is no constant with a value per output"
    return None


def _is_alone(consumer: Consumer, outputs: set[str]) -> bool:
    """Whether nothing but the node reads the weight, or what it passes through on the way."""
    tensor = consumer.node.inputs[consumer.index]
    while len(tensor.outputs) == 1 and tensor.name not in outputs:
        if isinstance(tensor, gs.Constant):
            return True
        tensor = tensor.inputs[0].inputs[0]
    return False


def _alpha(consumer: Consumer) -> float:
    return float(consumer.node.attrs.get("alpha", 1.0)) if consumer.kind == "Gemm" else 1.0


def _adds(records: Records, consumer: Consumer) -> bool:
    """Whether the node adds something to its product."""
    return consumer.kind != "MatMul" and records.has(consumer.node, 2)


def _added(records: Records, consumer: Consumer) -> Weight | None:
    """Return the constant that the node adds to its product; None where there is none, or it is computed."""
    known = records.weight(consumer.node, 2) if _adds(records, consumer) else None
    return None if known is None else known[0]


def _has_value_per_output(added: Weight | None, consumer: Consumer) -> bool:
    """Whether what a node adds is constant, and the same in every row of the product."""
    if added is None or consumer.kind != "Gemm":
        return added is not None
    shape = (1, 1, *(added.constant.shape[axis] for axis in added.perm))[-2:]
    return bool(shape[1 - consumer.index] == 1)


def _layer(structure: Structure, consumer: Consumer) -> Layer:
    weight = consumer.weight
    size = int(np.prod(weight.constant.shape, dtype=np.int64))
    outputs = consumer.outputs.size
    spare = _has_spare_bias(structure, consumer, outputs)
    return Layer(consumer, outputs, size // outputs, spare, _added(structure.records, consumer))


def _has_spare_bias(structure: Structure, consumer: Consumer, size: int) -> bool:
    """Whether a shift of the outputs takes no new parameters, as far as that is sure."""
    node = consumer.node
    if consumer.kind == "Conv" or (consumer.kind == "Gemm" and consumer.index == 1):
        bias = node.inputs[2] if structure.records.has(node, 2) else None
    else:
        readers = node.outputs[0].outputs
        add = readers[0] if len(readers) == 1 and readers[0].op == "Add" else None
        bias = next((t for t in add.inputs if isinstance(t, gs.Constant)), None) if add is not None else None
    if not isinstance(bias, gs.Constant) or len(bias.outputs) != 1:
        return False
    return int(np.prod(bias.shape, dtype=np.int64)) == size and size > 1
