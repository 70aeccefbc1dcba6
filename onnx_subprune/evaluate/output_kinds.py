"""What the outputs of a network are not, as far as its graph tells: activations are no classes, tokens are no text.

An output that a normalisation or a Tanh makes, directly or with its layout changed, its positions picked or averaged,
holds activations: hidden states, embeddings, a pooled vector. Its largest entry means nothing. A network that reads
token ids gives a class for each token: steps that follow one another are not merged, as they are in CTC.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx

from onnx_subprune.model import input_specs
from onnx_subprune.model.made_inputs import known_value

__all__ = ["OutputKinds"]

_LAYOUT = frozenset(
    {"Cast", "Flatten", "Gather", "Identity", "ReduceMean", "Reshape", "Slice", "Squeeze", "Transpose", "Unsqueeze"}
)
_NORMALISED = frozenset({
    "BatchNormalization", "EmbedLayerNormalization", "GroupNorm", "GroupNormalization", "InstanceNormalization",
    "LayerNormalization", "LpNormalization", "RMSNormalization", "SimplifiedLayerNormalization",
    "SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "Tanh",
})  # fmt: skip
# Between a norm and the division by it.
_OF_A_NORM = frozenset({"Add", "Cast", "Clip", "Expand", "Identity", "Max", "Reshape", "Unsqueeze"})
_TOKEN_AXES = 2


@dataclass(frozen=True)
class OutputKinds:
    """What is known of the outputs of a network.

    Attributes:
        activations: names of outputs that hold no classes.
        tokens: whether the network reads token ids.

    """

    activations: frozenset[str]
    tokens: bool

    @classmethod
    def of(cls, model: onnx.ModelProto) -> OutputKinds:
        """Read them off a graph.

        Args:
            model: its nodes are looked at, and its inputs.

        """
        made = {name: node for node in model.graph.node for name in node.output}
        constants = {tensor.name for tensor in model.graph.initializer}
        constants |= {name for name, node in made.items() if node.op_type == "Constant"}
        names = (value.name for value in model.graph.output)
        activations = frozenset(name for name in names if _is_activation(name, made, constants))
        whole = ((spec, (1,) * len(spec.shape)) for spec in input_specs(model) if spec.dtype.kind in "iu")
        tokens = any(len(shape) == _TOKEN_AXES and known_value(spec, shape) is None for spec, shape in whole)
        return cls(activations, tokens)


def _is_activation(name: str, made: Mapping[str, onnx.NodeProto], constants: set[str]) -> bool:
    while (node := made.get(name)) is not None:
        if node.op_type in _NORMALISED:
            return True
        if node.op_type == "Div":
            return _is_norm(node.input[1], made)
        varying = [tensor for tensor in node.input if tensor not in constants]
        # A normalisation that is written out ends with a scale and a shift.
        if node.op_type not in _LAYOUT and not (node.op_type in ("Add", "Mul") and len(varying) == 1):
            return False
        name = node.input[0] if node.op_type in _LAYOUT else varying[0]
    return False


def _is_norm(name: str, made: Mapping[str, onnx.NodeProto]) -> bool:
    """Whether a divisor is a root of a sum or mean of squares."""
    while (node := made.get(name)) is not None and node.op_type in _OF_A_NORM:
        name = next((tensor for tensor in node.input if tensor in made), "")
    return node is not None and node.op_type in ("ReduceL2", "Sqrt")
