"""Where errors count relative to the size of a position: a normalisation divides the sum that a layer writes into.

The residual stream of a transformer is read through LayerNorm or RMSNorm alone. An error in it counts relative to the
stream's own size at that position, which differs: in language models the first token and delimiters may be thousands of
times as large as all others, and squared errors as they are would be about little else.

Which nodes take such statistics is said once, of `Reader`s: nodes as they are, whatever holds the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.structure.groups import Structure
from onnx_subprune.structure.records import Consumer

__all__ = ["KEEPING", "Reader", "is_normalised", "normalised_sum"]

# Operators whose statistics are of each position, over the last axis unless they say otherwise.
_NORMALISATIONS = (
    "LayerNormalization",
    "RMSNormalization",
    "SimplifiedLayerNormalization",
    "LpNormalization",
)
_MEANS = ("ReduceMean", "ReduceSumSquare", "ReduceL2")
KEEPING = ("Identity", "Dropout")
"""Operators that give what they read."""


@dataclass(frozen=True)
class Reader:
    """A node that reads a tensor.

    Attributes:
        operator: of the node.
        inputs: names of the tensors that it reads.
        output: name of its first output.
        axis: its attribute of that name; the last where it has none.
        axes: that it reduces over; None where they are not given, or are computed.

    """

    operator: str
    inputs: Sequence[str]
    output: str
    axis: int = -1
    axes: Sequence[int] | None = None


def is_normalised(name: str, rank: int, readers: Callable[[str], Iterable[Reader]]) -> bool:
    """Whether a normalisation of each position reads a tensor: it takes statistics over the last axis, or of squares.

    Args:
        name: of the tensor.
        rank: its number of axes.
        readers: returns the nodes that read a tensor.

    >>> nodes = {"x": [Reader("Pow", ("x", "two"), "xx")], "xx": [Reader("ReduceMean", ("xx",), "mean", axes=(-1,))]}
    >>> is_normalised("x", 3, lambda name: nodes.get(name, ()))
    True

    """
    for reader in readers(name):
        if reader.inputs[0] != name:
            continue
        if _is_over_last(reader, rank) or _is_mean_of_last(reader, rank):
            return True
        squared = reader.operator == "Pow" or (reader.operator == "Mul" and list(reader.inputs) == [name, name])
        if squared and any(_is_mean_of_last(other, rank) for other in readers(reader.output)):
            return True
    return False


def _is_over_last(reader: Reader, rank: int) -> bool:
    return reader.operator in _NORMALISATIONS and reader.axis % rank == rank - 1


def _is_mean_of_last(reader: Reader, rank: int) -> bool:
    """Whether a node takes a mean over the last axis alone."""
    if reader.operator not in _MEANS or reader.axes is None:
        return False
    return [axis % rank for axis in reader.axes] == [rank - 1]


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
        dims = axes.get(tensor.name, ())
        if len(dims) != len(read) or any(a.resolve() != b.resolve() for a, b in zip(dims, read[:-1], strict=False)):
            return None
        if _is_normalised(tensor, len(dims)):
            return str(tensor.name)
    return None


def _sums(graph: gs.Graph, tensor: gs.Tensor) -> Iterator[gs.Tensor]:
    """Yield a tensor and, for as long as nothing else reads it, what additions and scales make of it."""
    outputs = {id(output) for output in graph.outputs}
    yield tensor
    while len(tensor.outputs) == 1 and id(tensor) not in outputs:
        node = tensor.outputs[0]
        scaled = node.op == "Mul" and any(isinstance(operand, gs.Constant) for operand in node.inputs)
        reads_once = sum(operand is tensor for operand in node.inputs) == 1
        if not (scaled or node.op in ("Add", *KEEPING)) or not reads_once:
            return
        tensor = node.outputs[0]
        yield tensor


def _is_normalised(tensor: gs.Tensor, rank: int) -> bool:
    read_by = {tensor.name: tensor.outputs}
    for node in tensor.outputs:
        read_by.setdefault(node.outputs[0].name, node.outputs[0].outputs)
    return is_normalised(tensor.name, rank, lambda name: map(_reader, read_by[name]))


def _reader(node: gs.Node) -> Reader:
    axes = node.attrs.get("axes")
    if axes is None and len(node.inputs) > 1 and isinstance(node.inputs[1], gs.Constant):
        given = node.inputs[1]
        axes = np.ravel(given.values).tolist() if node.op in _MEANS else None
    axis = node.attrs.get("axis")
    return Reader(
        node.op,
        [operand.name for operand in node.inputs],
        node.outputs[0].name,
        -1 if axis is None else int(axis),
        None if axes is None else [int(value) for value in axes],
    )
