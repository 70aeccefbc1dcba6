"""Fold an inference BatchNormalization into the Conv, ConvTranspose or Gemm before it.

With s = scale / sqrt(variance + epsilon), BatchNormalization is z = s (y - mean) + B per channel. For y = W * x + b,
linear in W, that is the same operator with

    W' = s W  (along the axis of output channels),   b' = s (b - mean) + B.

The arithmetic is done in float64 and stored in the element type of the weight. A pair is left as it is where the fold
would change something else: a weight that another node reads too or that callers may replace, a convolution whose own
output is used elsewhere, BatchNormalization in training mode, or values that would overflow.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from onnx_subprune.passes.base import Pass
from onnx_subprune.passes.wiring import (
    drop_nodes,
    fresh_name,
    is_readable,
    protected_names,
    read_values,
    replace_uses,
    stored_input,
)
from onnx_subprune.structure import is_float

__all__ = ["FoldBatchNorm"]

_EPSILON = 1e-5
_FIRST_OPSET_INFERENCE_BY_OUTPUTS = 7
_FIRST_OPSET_TRAINING_MODE = 14


@dataclass(frozen=True)
class _Affine:
    """z = scale * y + shift per channel, both [C] float64."""

    scale: np.ndarray
    shift: np.ndarray


@dataclass(frozen=True)
class _Fold:
    """What the linear node gets in place of its parameters, and the BatchNormalization that goes."""

    linear: gs.Node
    norm: gs.Node
    weight: np.ndarray
    bias: np.ndarray


class FoldBatchNorm(Pass):
    """Fold BatchNormalization into the linear node before it, wherever nothing else notices.

    Args:
        overridable: initializers that are graph inputs too (`overridable_initializers`); they are not constant.

    """

    def __init__(self, overridable: Collection[str] = ()) -> None:
        self._overridable = frozenset(overridable)

    def ensures(self, graph: gs.Graph) -> str | None:
        """No pair that can be folded is left."""
        unfolded = next(self._folds(graph), None)
        return None if unfolded is None else f"BatchNormalization '{unfolded.norm.name}' was not folded"

    def run(self, graph: gs.Graph) -> bool:
        """Fold pair by pair, so that a second BatchNormalization right behind the first goes too."""
        folded = []
        for fold in self._folds(graph):
            _apply(graph, fold)
            folded.append(fold.norm)
        drop_nodes(graph, folded)
        return bool(folded)

    def _folds(self, graph: gs.Graph) -> Iterator[_Fold]:
        """The pairs that can be folded; each is worked out when it is asked for."""
        protected = protected_names(graph)
        for node in graph.nodes:
            if node.op == "BatchNormalization" and node.outputs:
                fold = self._fold(node, protected, graph.opset)
                if fold is not None:
                    yield fold

    def _fold(self, norm: gs.Node, protected: frozenset[str], opset: int) -> _Fold | None:
        fixed = protected | self._overridable
        linear = _linear_before(norm, protected)
        if linear is None or not _is_inference(norm, opset) or not self._parameters_are_ours(linear, fixed):
            return None
        dtype = linear.inputs[1].dtype
        # What is not finite, here or in the end, is looked at below.
        with np.errstate(all="ignore"):
            affine = self._affine(norm)
            parameters = None if affine is None else _LINEAR[linear.op](linear, affine)
            if parameters is None:
                return None
            weight, bias = (array.astype(dtype) for array in parameters)
        finite = np.isfinite(weight).all() and np.isfinite(bias).all()
        return _Fold(linear, norm, weight, bias) if finite else None

    def _parameters_are_ours(self, linear: gs.Node, fixed: frozenset[str]) -> bool:
        """Whether the weight can be rewritten in place and the bias, if there is one, can be read."""
        weight, bias = linear.inputs[1], _bias(linear)
        if not _is_float(weight) or weight.name in fixed or len(weight.outputs) != 1:
            return False
        return bias is None or (_is_float(bias) and bias.name not in self._overridable)

    def _affine(self, norm: gs.Node) -> _Affine | None:
        """The affine map of the BatchNormalization; None where a parameter is not constant or makes no sense."""
        tensors = list(norm.inputs[1:5])
        if any(not _is_float(tensor) or tensor.name in self._overridable for tensor in tensors):
            return None
        scale, shift, mean, variance = (_float64(tensor) for tensor in tensors)
        if len({array.shape for array in (scale, shift, mean, variance)}) != 1 or scale.ndim != 1:
            return None
        factor = scale / np.sqrt(variance + norm.attrs.get("epsilon", _EPSILON))
        return _Affine(factor, shift - factor * mean)


def _linear_before(norm: gs.Node, protected: frozenset[str]) -> gs.Node | None:
    """The linear node whose output goes to this node and nowhere else."""
    tensor = norm.inputs[0]
    if len(tensor.inputs) != 1 or len(tensor.outputs) != 1 or tensor.name in protected:
        return None
    node = tensor.inputs[0]
    return node if node.op in _LINEAR and not node.domain and len(node.inputs) >= 2 else None


def _is_inference(norm: gs.Node, opset: int) -> bool:
    """Whether the statistics are the constants, as each version of the operator says it."""
    if norm.domain or any(tensor.name for tensor in norm.outputs[1:]) or norm.attrs.get("spatial", 1) != 1:
        return False
    if opset >= _FIRST_OPSET_TRAINING_MODE:
        return not norm.attrs.get("training_mode", 0)
    return opset >= _FIRST_OPSET_INFERENCE_BY_OUTPUTS or bool(norm.attrs.get("is_test", 0))


def _apply(graph: gs.Graph, fold: _Fold) -> None:
    linear = fold.linear
    _set_bias(graph, linear, fold.bias)
    stored_input(linear, 1).values = fold.weight
    if linear.attrs.get("beta", 1.0) != 1.0:
        linear.attrs["beta"] = 1.0
    _bypass(fold, protected_names(graph))


def _bypass(fold: _Fold, protected: frozenset[str]) -> None:
    """Let the linear node take over; it keeps its own output, and with it its identity, unless the name must stay."""
    result, own = fold.norm.outputs[0], fold.linear.outputs[0]
    fold.norm.inputs.clear()
    fold.norm.outputs.clear()
    if result.name in protected:
        fold.linear.outputs[0] = result
    else:
        replace_uses(result, own)


def _set_bias(graph: gs.Graph, linear: gs.Node, values: np.ndarray) -> None:
    """Give the node this bias: in place where it alone reads the tensor, else as a tensor of its own."""
    bias = _bias(linear)
    shared = bias is not None and (len(bias.outputs) != 1 or bias.name in protected_names(graph))
    if isinstance(bias, gs.Constant) and not shared:
        bias.values = values
        return
    stem = linear.inputs[1].name if bias is None else bias.name
    own = gs.Constant(fresh_name(graph, f"{stem}_bias" if bias is None else f"{stem}_folded"), values)
    if len(linear.inputs) > 2:
        linear.inputs[2] = own
    else:
        linear.inputs.append(own)


def _fold_conv(node: gs.Node, affine: _Affine) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight [C_out, C_in / groups, *kernel]."""
    weight = _float64(node.inputs[1])
    if weight.shape[0] != affine.scale.size:
        return None
    return weight * affine.scale.reshape(-1, *[1] * (weight.ndim - 1)), _folded_bias(node, affine)


def _fold_conv_transpose(node: gs.Node, affine: _Affine) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight [C_in, C_out / groups, *kernel]; the rows of one group of inputs make one group of outputs."""
    weight = _float64(node.inputs[1])
    groups = int(node.attrs.get("group", 1))
    if weight.shape[0] % groups or weight.shape[1] * groups != affine.scale.size:
        return None
    blocks = weight.reshape(groups, -1, *weight.shape[1:])
    scale = affine.scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    return (blocks * scale).reshape(weight.shape), _folded_bias(node, affine)


def _fold_gemm(node: gs.Node, affine: _Affine) -> tuple[np.ndarray, np.ndarray] | None:
    """Weight [K, C], or [C, K] when transB; alpha stays, beta goes into the bias."""
    weight = _float64(node.inputs[1])
    axis = 0 if node.attrs.get("transB", 0) else 1
    if weight.shape[axis] != affine.scale.size:
        return None
    scale = affine.scale[:, None] if axis == 0 else affine.scale
    return weight * scale, _folded_bias(node, affine, float(node.attrs.get("beta", 1.0)))


def _folded_bias(node: gs.Node, affine: _Affine, beta: float = 1.0) -> np.ndarray:
    """S beta b + (B - s mean); a Gemm's b may have any shape that broadcasts to [rows, C]."""
    bias = _bias(node)
    values: np.ndarray = affine.shift if bias is None else affine.scale * beta * _float64(bias) + affine.shift
    return values


_LINEAR: dict[str, Callable[[gs.Node, _Affine], tuple[np.ndarray, np.ndarray] | None]] = {
    "Conv": _fold_conv,
    "ConvTranspose": _fold_conv_transpose,
    "Gemm": _fold_gemm,
}


def _bias(node: gs.Node) -> gs.Tensor | None:
    return node.inputs[2] if len(node.inputs) > 2 and node.inputs[2].name else None


def _is_float(tensor: gs.Tensor) -> bool:
    return is_readable(tensor) and is_float(tensor.dtype)


def _float64(tensor: gs.Tensor) -> np.ndarray:
    values = read_values(tensor)
    assert values is not None, tensor.name
    return values.astype(np.float64)
