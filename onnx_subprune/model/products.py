"""Operators that sum products, and how many multiply-accumulates each takes, by the shapes of what it reads and gives.

n elements, each a sum of k products, are n k MACs:

- Conv, weight [M, C/g, k1, ..]: k = C/g k1 .. for each output element; ConvTranspose the same for each *input* element;
- MatMul and Gemm, [.., M, K] by [.., K, N]: k = K for each output element;
- LSTM, GRU and RNN: every entry of W and R once for each step of each sample;
- Einsum as the products that it is made of.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import onnx

from onnx_subprune.model.attention_cost import AttentionCost, PackedCost
from onnx_subprune.model.einsum_cost import EinsumCost
from onnx_subprune.model.protos import ONNX_DOMAINS

__all__ = ["Shape", "needed_tensors", "product_of"]

Shape: TypeAlias = tuple[int, ...]
_OUTPUT = -1


@dataclass(frozen=True)
class _Product:
    """An operator that sums products: `counted` elements (an input, or the output), `terms` products in each.

    `terms` reads the node and the shape of its input `operand`.
    """

    counted: int
    operand: int
    terms: Callable[[onnx.NodeProto, Shape], int]

    def names(self, node: onnx.NodeProto) -> tuple[str, str]:
        counted = node.output[0] if self.counted == _OUTPUT else node.input[self.counted]
        return counted, node.input[self.operand]

    def macs(self, node: onnx.NodeProto, known: Mapping[str, Shape]) -> int:
        counted, operand = self.names(node)
        return math.prod(known[counted]) * self.terms(node, known[operand])


def _kernel(_: onnx.NodeProto, weight: Shape) -> int:
    return math.prod(weight[1:])


def _inner(node: onnx.NodeProto, matrix: Shape) -> int:
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return matrix[-2] if transposed else matrix[-1]


class _Recurrence:
    """LSTM, GRU, RNN: X [S, N, I] (or [N, S, I]), W [D, G*H, I], R [D, G*H, H]."""

    @staticmethod
    def names(node: onnx.NodeProto) -> tuple[str, ...]:
        return tuple(node.input[:3])

    @staticmethod
    def macs(node: onnx.NodeProto, known: Mapping[str, Shape]) -> int:
        x, w, r = (known[name] for name in node.input[:3])
        return math.prod(x[:2]) * (math.prod(w) + math.prod(r))


_CONV = _Product(_OUTPUT, 1, _kernel)
_MATMUL = _Product(_OUTPUT, 0, _inner)
_PACKED = PackedCost(4)
_Counted: TypeAlias = _Product | _Recurrence | AttentionCost | EinsumCost
_PRODUCTS: dict[str, _Counted] = {
    "Attention": AttentionCost(4),
    "CausalConvWithState": _CONV,
    "Conv": _CONV,
    "ConvInteger": _CONV,
    "ConvTranspose": _Product(0, 1, _kernel),
    "DeformConv": _CONV,
    "Einsum": EinsumCost(),
    "FusedConv": _CONV,
    "FusedGemm": _MATMUL,
    "FusedMatMul": _MATMUL,
    "Gemm": _MATMUL,
    "GroupQueryAttention": AttentionCost(3),
    "MatMul": _MATMUL,
    "MatMulInteger": _MATMUL,
    "MultiHeadAttention": AttentionCost(6),
    "NhwcConv": _CONV,
    "NhwcFusedConv": _CONV,
    "QLinearConv": _Product(_OUTPUT, 3, _kernel),
    "QLinearMatMul": _MATMUL,
    "TransposeMatMul": _MATMUL,
    **dict.fromkeys(("LSTM", "GRU", "RNN"), _Recurrence()),
}


def needed_tensors(node: onnx.NodeProto) -> tuple[str, ...]:
    """Return the tensors whose shapes the MACs of a node follow from; none where it has no MACs.

    Args:
        node: of any operator.

    """
    product = product_of(node)
    return () if product is None else product.names(node)


def product_of(node: onnx.NodeProto) -> _Counted | None:
    """Return how a node is counted; None where it sums no products.

    ONNX Runtime has an Attention of its own under the name of ONNX's.

    Args:
        node: of any operator.

    """
    if node.op_type == "Attention" and node.domain not in ONNX_DOMAINS:
        return _PACKED
    return _PRODUCTS.get(node.op_type)
