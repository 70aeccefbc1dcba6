"""The linear maps of a network whose stored weights can be fitted anew, and why the others cannot.

A `Linear` is y = W x + b. Conv, ConvTranspose, Gemm and MatMul give y; a fused attention projects its input to queries,
keys and values, and a recurrent layer to its gates, out of sight: there y is computed beside the network. The bias is
an input of the node, or the constant of the Add behind a MatMul. A Conv or a Gemm without one is given a bias of zeros;
any other layer without one is fitted without an intercept, so that no node is added. Weights are seen as matrices
[blocks, outputs, features]: the features of a Conv are its kernel taps x channels, the blocks its groups.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx

from onnx_subprune.model import array_of, attribute_of
from onnx_subprune.model.protos import ONNX_DOMAINS, bodies, graphs
from onnx_subprune.recovery.exact.weight_views import View, Views, bias_input
from onnx_subprune.structure import RECURRENT
from onnx_subprune.structure.weight_layout import Layout, contracted_axis, unfused

__all__ = [
    "RECURRENCE",
    "Linear",
    "find_linears",
    "intercept_of",
    "is_linear",
    "is_row",
    "outputs_of",
    "projection_of",
    "recurrence_of",
]

Array = np.ndarray[Any, Any]

_SPATIAL = ("Conv", "ConvTranspose")
_CONTRIB = "com.microsoft"
_FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16, onnx.TensorProto.DOUBLE)


RECURRENCE = "it reads its own states, which every fit changes; to those of the dense network it is fitted by channel"
"""Why the weights that a recurrent layer reads its states by are not fitted once more."""


def projection_of(node: str) -> str:
    """Return the name under which the unseen output of a node's linear map is known.

    Args:
        node: its name.

    >>> projection_of("/encoder/lstm")
    '/encoder/lstm (projection)'

    """
    return f"{node} (projection)"


def recurrence_of(node: str) -> str:
    """Return how the map of a recurrent layer's own states is named.

    >>> recurrence_of("/encoder/lstm")
    '/encoder/lstm (recurrence)'
    """
    return f"{node} (recurrence)"


@dataclass(frozen=True, eq=False)
class Linear:
    """A node that computes y = W x + b.

    Attributes:
        node: the operator.
        output: name of y, the output of the Add where the bias is added by one; see `projected`.
        weight: name of the initializer that the node reads as its second input, at once or through a chain.
        bias: name of the initializer that holds b; None where there is none.
        outputs: number of entries of y on its axis of channels.
        layout: of the weight as the node sees it.
        kernel: sizes of the kernel; empty where there is none.
        perm: axes of the stored weight in the order that the node sees; empty where it sees them as they are.
        projected: whether y is not in the graph: what the node does with it is out of sight.
        stack: sizes of the axes that a stack of matrices lies on; empty for a single matrix.

    """

    node: onnx.NodeProto
    output: str
    weight: str
    bias: str | None
    outputs: int
    layout: Layout
    kernel: tuple[int, ...] = ()
    perm: tuple[int, ...] = ()
    projected: bool = False
    stack: tuple[int, ...] = ()

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
        return self.node.op_type in _SPATIAL

    @property
    def reading(self) -> tuple[object, ...]:
        """What two layers have in common that read the same rows: the input, and how positions are taken from it."""
        if not self.spatial:
            return (self.source,)
        kinds = ("auto_pad", "dilations", "output_padding", "output_shape", "pads", "strides")
        given = (str(attribute_of(self.node, kind, None)) for kind in kinds)
        return (self.source, self.node.op_type, self.kernel, *given)

    @property
    def holding(self) -> tuple[object, ...]:
        """What two layers have in common whose stored weight, if it is the same, is the same matrix."""
        order = self.perm or tuple(range(self.rank))
        if self.spatial:
            return (self.layout, order, self.kernel)
        contracted = order[self.layout.contracted]
        return ("matrix", contracted, tuple(axis for axis in order if axis != contracted), self.factor)

    @property
    def rank(self) -> int:
        """Number of axes of the weight."""
        return 3 if self.node.op_type in RECURRENT else len(self.kernel) + len(self.stack) + 2

    @property
    def behind(self) -> int:
        """Number of axes of y behind its channels."""
        return len(self.kernel)

    @property
    def factor(self) -> float:
        """What the node multiplies its product by."""
        return float(attribute_of(self.node, "alpha", 1.0)) if _is_scaled(self.node) else 1.0

    @property
    def scale(self) -> float:
        """What the node multiplies its stored bias by."""
        return float(attribute_of(self.node, "beta", 1.0)) if self.node.op_type == "Gemm" else 1.0

    @property
    def blocks(self) -> int:
        """Number of groups of the Conv, or of matrices of the stack: each has a matrix of its own."""
        return self.layout.groups

    def matrices(self, weight: Array) -> Array:
        """Return the weight as [blocks, outputs per block, features per block], float64."""
        split = self.layout.split(self.view(weight).astype(np.float64))
        # [blocks, outputs, inputs, taps] -> taps before inputs, as the rows of patches have them.
        matrices = np.asarray(split.transpose(0, 1, 3, 2).reshape(*split.shape[:2], -1))
        return matrices if self.factor == 1 else self.factor * matrices

    def stored(self, matrices: Array, like: Array) -> Array:
        """Undo `matrices`, for a stored weight of the shape of `like`."""
        shape = self.view(like).shape
        taps = math.prod(self.kernel)
        split = matrices.reshape(*matrices.shape[:2], taps, -1).transpose(0, 1, 3, 2)
        viewed = self.layout.join(split if self.factor == 1 else split / self.factor, shape)
        return viewed.transpose(np.argsort(self.perm)) if self.perm else viewed

    def view(self, weight: Array) -> Array:
        """Return a stored weight with its axes as the node sees them."""
        return weight.transpose(self.perm) if self.perm else weight

    def intercept(self, bias: Array) -> Array:
        """Return a stored bias as [blocks, outputs per block], float64."""
        values = self.scale * self._own_half(bias).astype(np.float64)
        return np.asarray(values.reshape(self.blocks, self.outputs // self.blocks))

    def stored_bias(self, intercept: Array, like: Array) -> Array:
        """Undo `intercept`, for a stored bias like `like`."""
        values = (intercept / self.scale).reshape(self._own_half(like).shape).astype(like.dtype)
        if self.node.op_type not in RECURRENT:
            return np.asarray(values)
        return np.concatenate([values, like[:, values.shape[1] :]], axis=1)

    def _own_half(self, bias: Array) -> Array:
        """Return the part of a stored bias that goes with W: a recurrent layer has another for its states."""
        return bias[:, : bias.shape[1] // 2] if self.node.op_type in RECURRENT else bias


def _is_scaled(node: onnx.NodeProto) -> bool:
    return node.op_type in ("Gemm", "FusedMatMul")


def find_linears(model: onnx.ModelProto) -> tuple[list[Linear], dict[str, str]]:
    """Return the layers that can be fitted, in graph order, and for the other linear maps why not, by name.

    Layers that share a weight are all there, or none of them is.
    """
    finder = _Finder(model)
    reasons: dict[str, str] = {}
    linears: dict[str, list[Linear]] = {}
    for node in model.graph.node:
        if node.op_type in RECURRENT and node.domain in ONNX_DOMAINS:
            reasons[recurrence_of(node.name)] = RECURRENCE
        if not is_linear(node):
            continue
        linear = finder.linear(node)
        if isinstance(linear, Linear):
            linears.setdefault(linear.weight, []).append(linear)
        elif linear:
            reasons[node.name] = linear
    for name, sharing in list(linears.items()):
        reason = finder.sharing(name, sharing)
        if reason is not None:
            reasons |= dict.fromkeys([linear.name for linear in sharing], reason)
            del linears[name]
    reasons |= {node.name: "it is in the body of a loop or a branch" for node in _within_bodies(model.graph)}
    known = {id(linear.node): linear for sharing in linears.values() for linear in sharing}
    return [known[id(node)] for node in model.graph.node if id(node) in known], reasons


def is_linear(node: onnx.NodeProto) -> bool:
    """Whether a node is a linear map, or has one inside, whose weight is its second input."""
    if node.domain == _CONTRIB:
        return node.op_type in ("FusedMatMul", "Attention", "FusedConv", "FusedGemm")
    return node.domain in ONNX_DOMAINS and node.op_type in (*_SPATIAL, "Gemm", "MatMul", *RECURRENT)


def _within_bodies(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    inner = (body for node in graph.node for held in bodies(node) for body in graphs(held))
    return (node for body in inner for node in body.node if is_linear(node) and node.name)


class _Finder:
    """Tells layers apart that can be fitted from those that cannot."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._stored = {tensor.name: tensor for tensor in model.graph.initializer}
        self._views = Views(model)
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in set(node.input):
                self._readers.setdefault(name, []).append(node)
        self._makers = {name: node for node in model.graph.node for name in node.output}

    def linear(self, node: onnx.NodeProto) -> Linear | str:
        """Return a node as a layer, or why it is none; an empty text where it has no weight at all."""
        if node.op_type in ("FusedConv", "FusedGemm"):
            # All others were taken apart.
            activation = attribute_of(node, "activation", b"").decode()
            return f"what its activation '{activation}' reads is out of sight"
        weight = self._views.of(node.input[1])
        if weight is None:
            absence = self._views.absence(node.input[1])
            if node.op_type not in ("MatMul", "FusedMatMul") or "sparse" in absence:
                return absence
            return "" if self._views.of(node.input[0]) is None else "its weight is the first operand of the product"
        return self._refusal(node, weight) or self._linear(node, weight)

    def sharing(self, name: str, linears: list[Linear]) -> str | None:
        """Return why a weight that these layers read cannot be fitted; None where it can."""
        elsewhere = self._views.elsewhere(name)
        if elsewhere is not None:
            return f"weight '{name}' {elsewhere}"
        own = {(id(linear.node), 1) for linear in linears}
        for node, index in self._views.uses(name):
            if (id(node), index) not in own:
                return f"weight '{name}' is read by {node.op_type} '{node.name}' too, which is not fitted"
        if len({linear.holding for linear in linears}) > 1:
            listed = " and ".join(f"'{linear.name}'" for linear in linears[:2])
            return f"weight '{name}' is not the same matrix to {listed}"
        return None

    def _refusal(self, node: onnx.NodeProto, weight: View) -> str | None:
        faults = {
            "it does not multiply an activation by floating-point weights": weight.dtype not in _FLOATS
            or any(dtype not in _FLOATS for dtype in weight.dtypes)
            or node.input[0] in self._stored,
            f"its weight has {len(weight.dims)} axes": unfused(node.op_type) in ("Gemm", "MatMul")
            and len(weight.dims) != 2
            and not _stack(node, weight),
            "it transposes its input": bool(attribute_of(node, "transA", 0)),
            "it moves its batch axes": 1 in (attribute_of(node, f"transBatch{side}", 0) for side in "AB"),
            "it multiplies by zero": 0.0 in (attribute_of(node, "alpha", 1.0), attribute_of(node, "beta", 1.0)),
        }
        return next((reason for reason, holds in faults.items() if holds), None) or self._bias_refusal(node, weight)

    def _bias_refusal(self, node: onnx.NodeProto, weight: View) -> str | None:
        """Return why a bias cannot be fitted with its weight; None where it can, or there is none."""
        bias = bias_input(node)
        if not bias:
            return None
        if bias not in self._stored:
            # A correction by channel is added to a bias that the caller may replace.
            parts = self._makers[bias].input if bias in self._makers else [bias]
            listed = [(name, self._views.elsewhere(name)) for name in parts if name in self._stored]
            return next((f"its bias '{name}' {reason}" for name, reason in listed if reason), "its bias is computed")
        elsewhere = self._views.elsewhere(bias)
        if elsewhere is not None:
            return f"its bias '{bias}' {elsewhere}"
        if self._readers[bias] != [node] and not self._is_shared_alike(bias, weight.tensor.name):
            return f"its bias '{bias}' is not shared as its weight is"
        return None if self._is_whole(node, weight, bias) else "its bias is broadcast"

    def _is_shared_alike(self, bias: str, weight: str) -> bool:
        biased = {id(reader) for reader in self._readers[bias]}
        return biased == {id(reader) for reader, _ in self._views.uses(weight)}

    def _is_whole(self, node: onnx.NodeProto, weight: View, bias: str) -> bool:
        stored = self._stored[bias]
        return len(stored.dims) == 2 if node.op_type in RECURRENT else is_row(stored, outputs_of(node, weight))

    def _linear(self, node: onnx.NodeProto, weight: View) -> Linear:
        width = outputs_of(node, weight)
        projected = node.op_type in ("Attention", *RECURRENT)
        output = projection_of(node.name) if projected else node.output[0]
        bias: str | None = bias_input(node) or None
        if unfused(node.op_type) == "MatMul":
            bias, output = self._added(node, weight, width)
        return Linear(
            node,
            output,
            weight.tensor.name,
            bias,
            width,
            _layout(node, weight),
            weight.dims[2:] if node.op_type in _SPATIAL else (),
            () if weight.perm == tuple(range(len(weight.perm))) else weight.perm,
            projected,
            _stack(node, weight),
        )

    def _added(self, node: onnx.NodeProto, weight: View, width: int) -> tuple[str | None, str]:
        """Return the bias that an Add behind a product adds, and what the Add gives; None and what the product does."""
        output = node.output[0]
        add = self._add_behind(output)
        if add is None:
            return None, output
        bias = add.input[1 - list(add.input).index(output)]
        if bias not in self._stored or self._views.elsewhere(bias) is not None:
            return None, output
        stack = _stack(node, weight)
        whole = tuple(self._stored[bias].dims) == (*stack, 1, width // math.prod(stack))
        if not (whole if stack else is_row(self._stored[bias], width)):
            return None, output
        if len(self._readers[bias]) > 1:
            products = [reader for reader, _ in self._views.uses(weight.tensor.name)]
            adds = [self._add_behind(product.output[0]) for product in products]
            if {id(behind) for behind in adds} != {id(reader) for reader in self._readers[bias]}:
                return None, output
        return bias, add.output[0]

    def _add_behind(self, output: str) -> onnx.NodeProto | None:
        """Return the Add that alone reads a tensor."""
        readers = self._readers.get(output, [])
        alone = (
            len(readers) == 1 and self._views.elsewhere(output) is None and list(readers[0].input).count(output) == 1
        )
        return readers[0] if alone and readers[0].op_type == "Add" else None


def _layout(node: onnx.NodeProto, weight: View) -> Layout:
    transposed = bool(attribute_of(node, "transB", 0))
    axis = contracted_axis(node.op_type, len(weight.dims), transposed=transposed)
    groups = int(attribute_of(node, "group", 1)) if node.op_type in _SPATIAL else math.prod(_stack(node, weight))
    return Layout(node.op_type, axis, groups)


def _stack(node: onnx.NodeProto, weight: View) -> tuple[int, ...]:
    """Return the sizes of the axes that the matrices of a stack lie on; a stack of one is none."""
    sizes = weight.dims[:-2] if unfused(node.op_type) == "MatMul" else ()
    return sizes if math.prod(sizes) > 1 else ()


def is_row(tensor: onnx.TensorProto, width: int) -> bool:
    """Whether a stored tensor has one value for each of `width` channels on its last axis, and no others."""
    return bool(tensor.dims) and tensor.dims[-1] == width and math.prod(tensor.dims) == width


def outputs_of(node: onnx.NodeProto, weight: View) -> int:
    """Return how many channels a node makes with a weight."""
    layout = _layout(node, weight)
    if node.op_type in _SPATIAL:
        return weight.dims[1 - layout.contracted] * (layout.groups if node.op_type == "ConvTranspose" else 1)
    return math.prod(size for axis, size in enumerate(weight.dims) if axis != layout.contracted)


def intercept_of(linear: Linear, stored: Mapping[str, onnx.TensorProto]) -> Array:
    """Return the bias of a layer as [blocks, outputs per block]; zeros where it has none."""
    if linear.bias is None:
        return np.zeros((linear.blocks, linear.outputs // linear.blocks))
    return linear.intercept(array_of(stored[linear.bias]))
