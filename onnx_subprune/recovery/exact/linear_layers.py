"""The linear nodes of a network whose weights can be fitted anew: Conv, ConvTranspose, Gemm and MatMul.

A `Linear` is y = W x + b with a stored weight that nobody else reads. The bias is an input of the node, or the constant
of the Add behind a MatMul. A Conv or a Gemm without one is given a bias of zeros; a MatMul without one is fitted
without an intercept, so that no node is added. Weights are seen as matrices [blocks, outputs, features]: the features
of a Conv are its kernel taps x channels, the blocks its groups.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper

from onnx_subprune.model import array_of, attribute_of, initializer
from onnx_subprune.model.protos import ONNX_DOMAINS, bodies, graphs
from onnx_subprune.recovery.exact.weight_views import View, Views

__all__ = ["Linear", "count_reads", "find_linears", "with_biases", "without_idle_biases"]

Array = np.ndarray[Any, Any]

_OPERATORS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
# bfloat16 may be stored, not computed with.
_STORED = (*_FLOATS, onnx.TensorProto.BFLOAT16)


@dataclass(frozen=True, eq=False)
class Linear:
    """A node that computes y = W x + b.

    Attributes:
        node: the Conv, ConvTranspose, Gemm or MatMul.
        output: name of y, the output of the Add where the bias is added by one.
        weight: name of the initializer that the node reads as its second input, at once or through a chain.
        bias: name of the initializer that holds b; None where there is none.
        outputs: number of entries of y on its axis of channels.
        kernel: sizes of the kernel; empty for Gemm and MatMul.
        perm: axes of the stored weight in the order that the node sees; empty where it sees them as they are.

    """

    node: onnx.NodeProto
    output: str
    weight: str
    bias: str | None
    outputs: int
    kernel: tuple[int, ...] = ()
    perm: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """The node's name."""
        return str(self.node.name)

    @property
    def source(self) -> str:
        """Name of x."""
        return str(self.node.input[0])

    @property
    def spatial(self) -> bool:
        """Whether x and y are maps [samples, channels, ...]; else their features are the last axis."""
        return self.node.op_type in ("Conv", "ConvTranspose")

    @property
    def reading(self) -> tuple[object, ...]:
        """What two layers have in common that read the same rows: the input, and how positions are taken from it."""
        if not self.spatial:
            return (self.source,)
        kinds = ("auto_pad", "dilations", "output_padding", "output_shape", "pads", "strides")
        given = (str(attribute_of(self.node, kind, None)) for kind in kinds)
        return (self.source, self.node.op_type, self.kernel, *given)

    @property
    def rank(self) -> int:
        """Number of axes of the weight."""
        return len(self.kernel) + 2

    @property
    def behind(self) -> int:
        """Number of axes of y behind its channels."""
        return len(self.kernel)

    @property
    def scale(self) -> float:
        """What the node multiplies its stored bias by."""
        return float(attribute_of(self.node, "beta", 1.0)) if self.node.op_type == "Gemm" else 1.0

    @property
    def blocks(self) -> int:
        """Number of groups of the Conv, each with a matrix of its own."""
        return int(attribute_of(self.node, "group", 1)) if self.spatial else 1

    def matrices(self, weight: Array) -> Array:
        """Return the weight as [blocks, outputs per block, features per block], float64."""
        values = self.view(weight).astype(np.float64)
        if self.node.op_type == "Gemm":
            alpha = float(attribute_of(self.node, "alpha", 1.0))
            return np.asarray(alpha * (values if attribute_of(self.node, "transB", 0) else values.T)[None])
        if self.node.op_type == "MatMul":
            return np.asarray(values.T[None])
        split = self._split(values)
        # [blocks, outputs, inputs, taps] -> taps before inputs, as the rows of patches have them.
        return np.asarray(split.transpose(0, 1, 3, 2).reshape(*split.shape[:2], -1))

    def stored(self, matrices: Array, like: Array) -> Array:
        """Undo `matrices`, for a stored weight of the shape of `like`."""
        viewed = self._viewed(matrices, self.view(like))
        return viewed.transpose(np.argsort(self.perm)) if self.perm else viewed

    def view(self, weight: Array) -> Array:
        """Return a stored weight with its axes as the node sees them."""
        return weight.transpose(self.perm) if self.perm else weight

    def _viewed(self, matrices: Array, like: Array) -> Array:
        if self.node.op_type == "Gemm":
            values = matrices[0] / float(attribute_of(self.node, "alpha", 1.0))
            return np.asarray(values if attribute_of(self.node, "transB", 0) else values.T)
        if self.node.op_type == "MatMul":
            return np.asarray(matrices[0].T)
        taps = math.prod(like.shape[2:])
        split = matrices.reshape(*matrices.shape[:2], taps, -1).transpose(0, 1, 3, 2)
        if self.node.op_type == "ConvTranspose":
            split = split.transpose(0, 2, 1, 3)
        return np.asarray(split.reshape(like.shape))

    def _split(self, values: Array) -> Array:
        taps = math.prod(values.shape[2:])
        split = values.reshape(self.blocks, values.shape[0] // self.blocks, values.shape[1], taps)
        return split.transpose(0, 2, 1, 3) if self.node.op_type == "ConvTranspose" else split


def with_biases(model: onnx.ModelProto) -> tuple[onnx.ModelProto, dict[str, str]]:
    """Return a copy in which Conv and Gemm nodes with a stored weight have biases of their own.

    Returns:
        The copy, and of the biases that are new the names: of the one that was read before, empty for none.

    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {tensor.name: tensor for tensor in copy.graph.initializer}
    reads = count_reads(copy)
    views = Views(copy, reads)
    fixed = {value.name for value in (*copy.graph.input, *copy.graph.output)}
    added: dict[str, str] = {}
    taken = set(reads) | set(stored) | fixed | {name for node in copy.graph.node for name in node.output}
    for node in copy.graph.node:
        if node.op_type not in _OPERATORS[:3] or node.domain not in ONNX_DOMAINS or len(node.input) < 2:
            continue
        weight, bias = views.of(node.input[1]), node.input[2] if len(node.input) > 2 else ""
        own = bias in fixed or reads[bias] == 1
        if weight is None or weight.kind not in _FLOATS or (bias and (bias not in stored or own)):
            continue
        name = _fresh(f"{node.name}_bias", taken)
        taken.add(name)
        added[name] = bias
        none = np.zeros(_outputs(node, weight), helper.tensor_dtype_to_np_dtype(weight.kind))
        values = array_of(stored[bias]) if bias else none
        copy.graph.initializer.append(initializer(values, name))
        del node.input[2:]
        node.input.append(name)
    return copy, added


def _fresh(name: str, taken: Collection[str]) -> str:
    return next(each for each in (f"{name}{n or ''}" for n in range(len(taken) + 1)) if each not in taken)


def without_idle_biases(model: onnx.ModelProto, added: Mapping[str, str]) -> onnx.ModelProto:
    """Return the model without those of the biases of `with_biases` that say nothing; it is changed in place."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    gone = {name for name, before in added.items() if _is_idle(stored, name, before)}
    for node in model.graph.node:
        if len(node.input) > 2 and node.input[2] in gone:
            before = added[node.input[2]]
            del node.input[2:]
            node.input.extend([before] if before else [])
    # What nobody reads any more: a bias that was shared, all of whose readers have one of their own.
    reads = count_reads(model)
    gone |= {name for name in added.values() if name and not reads[name]}
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in gone]
    if gone:
        del model.graph.initializer[:]
        model.graph.initializer.extend(kept)
    return model


def _is_idle(stored: Mapping[str, onnx.TensorProto], name: str, before: str) -> bool:
    values = array_of(stored[name])
    return bool(np.array_equal(values, array_of(stored[before])) if before else not values.any())


def find_linears(model: onnx.ModelProto) -> tuple[list[Linear], dict[str, str]]:
    """Return the nodes that can be fitted, in graph order, and for the other linear nodes why not, by name."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    reads = count_reads(model)
    fixed = {value.name for value in (*model.graph.input, *model.graph.output)}
    own = {name: tensor for name, tensor in stored.items() if reads[name] == 1 and name not in fixed}
    views = Views(model, reads)
    found: list[Linear] = []
    reasons: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type not in _OPERATORS or node.domain not in ONNX_DOMAINS:
            continue
        weight = views.of(node.input[1])
        reason = _refusal(node, weight, stored, reads, fixed)
        if weight is not None and reason is None:
            found.append(_linear(model.graph, node, weight, own, reads))
        elif reason:
            reasons[node.name] = reason
    reasons |= {node.name: "it is in the body of a loop or a branch" for node in _within_bodies(model.graph)}
    return found, reasons


def _within_bodies(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    inner = (body for node in graph.node for held in bodies(node) for body in graphs(held))
    return (node for body in inner for node in body.node if node.op_type in _OPERATORS and node.name)


def _refusal(
    node: onnx.NodeProto,
    weight: View | None,
    stored: Mapping[str, onnx.TensorProto],
    reads: Counter[str],
    fixed: set[str],
) -> str | None:
    """Return why a node cannot be fitted; an empty text where it has no weight at all, None where it can."""
    if weight is None:
        return "" if node.op_type == "MatMul" else "its weight is computed"
    if not weight.sole:
        return f"weight '{weight.tensor.name}' has other readers"
    bias = node.input[2] if len(node.input) > 2 else ""
    own = bias in stored and reads[bias] == 1 and bias not in fixed
    whole = own and _is_row(stored[bias], _outputs(node, weight))
    faults = {
        "it does not multiply an activation by floating-point weights": weight.kind not in _FLOATS
        or weight.tensor.data_type not in _STORED
        or node.input[0] in stored,
        f"its weight has {len(weight.dims)} axes": node.op_type in ("Gemm", "MatMul") and len(weight.dims) != 2,
        "it transposes its input": bool(attribute_of(node, "transA", 0)),
        "its bias is computed, or not its own": bool(bias) and not own,
        "its bias is broadcast": bool(bias) and not whole,
        "it multiplies by zero": 0.0 in (attribute_of(node, "alpha", 1.0), attribute_of(node, "beta", 1.0)),
    }
    return next((reason for reason, holds in faults.items() if holds), None)


def _linear(
    graph: onnx.GraphProto, node: onnx.NodeProto, weight: View, own: Mapping[str, onnx.TensorProto], reads: Counter[str]
) -> Linear:
    """Return a layer; `own` are the initializers that one node alone reads."""
    output, name = node.output[0], weight.tensor.name
    width = _outputs(node, weight)
    rest = (width, weight.dims[2:], () if weight.perm == tuple(range(len(weight.perm))) else weight.perm)
    if node.op_type != "MatMul":
        return Linear(node, output, name, node.input[2] if len(node.input) > 2 and node.input[2] else None, *rest)
    readers = [other for other in graph.node if output in other.input]
    if len(readers) == 1 and reads[output] == 1 and readers[0].op_type == "Add":
        bias = readers[0].input[1 - list(readers[0].input).index(output)]
        if bias in own and _is_row(own[bias], width):
            return Linear(node, readers[0].output[0], name, bias, *rest)
    return Linear(node, output, name, None, *rest)


def _is_row(tensor: onnx.TensorProto, width: int) -> bool:
    return bool(tensor.dims) and tensor.dims[-1] == width and math.prod(tensor.dims) == width


def _outputs(node: onnx.NodeProto, weight: View) -> int:
    if node.op_type == "ConvTranspose":
        return weight.dims[1] * int(attribute_of(node, "group", 1))
    if node.op_type == "Gemm":
        return weight.dims[0 if attribute_of(node, "transB", 0) else 1]
    return weight.dims[1 if node.op_type == "MatMul" else 0]


def count_reads(model: onnx.ModelProto) -> Counter[str]:
    """Count how often each name is read, in bodies and as an output too."""
    return Counter(_read_names(model.graph))


def _read_names(graph: onnx.GraphProto) -> Iterator[str]:
    for inner in graphs(graph):
        yield from (value.name for value in inner.output)
        for node in inner.node:
            yield from filter(None, node.input)
