"""Where errors count relative to the size of a position: a normalisation divides the sum that a layer writes into.

The residual stream of a transformer is read through LayerNorm or RMSNorm alone. An error in it counts relative to the
stream's own size at that position, which differs: in language models the first token and delimiters may be thousands of
times as large as all others, and squared errors as they are would be about little else.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.groups import Structure
from onnx_subprune.structure.records import Consumer

__all__ = ["normalised_sum"]

# Operators whose statistics are of each position, over the last axis.
_NORMALISATIONS = (
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "LpNormalization",
)
_MEANS = ("ReduceMean", "ReduceSumSquare", "ReduceL2")
_KEEPING = ("Identity", "Dropout")


def normalised_sum(structure: Structure, consumer: Consumer) -> str | None:
    """Return the tensor that the output of a layer becomes part of and that is normalised position by position.

    Its last axis holds the layer's outputs, its others are those of what the layer reads, entry for entry. None where
    there is none, or where that is not certain.
    """
    node, axes = consumer.node, structure.records.axes
    read = axes.get(consumer.source, ())
    plain = node.op in ("Gemm", "MatMul") and consumer.blocks.size == 1 and not consumer.stack
    if not plain or len(read) < 2 or consumer.axis % len(read) != len(read) - 1:
        return None
    for tensor in _sums(structure.graph, node.outputs[0]):
        found = axes.get(tensor.name, ())
        if len(found) != len(read) or any(a.resolve() != b.resolve() for a, b in zip(found, read[:-1], strict=False)):
            return None
        if _is_normalised(tensor, len(found)):
            return str(tensor.name)
    return None


def _sums(graph: gs.Graph, tensor: gs.Tensor) -> Iterator[gs.Tensor]:
    """Yield a tensor and, for as long as nothing else reads it, what additions and scales make of it."""
    outputs = {id(output) for output in graph.outputs}
    yield tensor
    while len(tensor.outputs) == 1 and id(tensor) not in outputs:
        node = tensor.outputs[0]
        scaled = node.op == "Mul" and any(isinstance(one, gs.Constant) for one in node.inputs)
        if not (scaled or node.op in ("Add", *_KEEPING)) or sum(one is tensor for one in node.inputs) != 1:
            return
        tensor = node.outputs[0]
        yield tensor


def _is_normalised(tensor: gs.Tensor, rank: int) -> bool:
    """Whether a normalisation takes statistics over the last axis of a tensor, or over that of its squares."""
    for node in tensor.outputs:
        if node.inputs[0] is not tensor:
            continue
        if _is_over_last(node, rank):
            return True
        squared = node.op == "Pow" or (node.op == "Mul" and node.inputs[1] is tensor)
        if squared and any(_is_over_last(other, rank) for other in node.outputs[0].outputs):
            return True
    return False


def _is_over_last(node: gs.Node, rank: int) -> bool:
    """Whether a node normalises over the last axis alone, or takes a mean over it."""
    if node.op in _NORMALISATIONS:
        return int(node.attrs.get("axis", -1)) % rank == rank - 1
    if node.op not in _MEANS:
        return False
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1 and isinstance(node.inputs[1], gs.Constant):
        axes = np.ravel(node.inputs[1].values).tolist()
    return axes is not None and [int(axis) % rank for axis in axes] == [rank - 1]
