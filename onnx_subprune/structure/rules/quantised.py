"""Quantised operators: refused, because what an integer weight stands for is fixed by scales taken from the data.

The order that works is the other one: prune the float model, then quantise the result.
"""

from __future__ import annotations

from typing import NoReturn

import onnx_graphsurgeon as gs

from onnx_subprune.structure.context import Context, NotUnderstood
from onnx_subprune.structure.records import label

__all__ = ["CONTRIB", "QUANTISED", "RULES"]

# fmt: off
_ONNX = (
    "ConvInteger", "DequantizeLinear", "DynamicQuantizeLinear", "MatMulInteger", "QLinearConv", "QLinearMatMul",
    "QuantizeLinear",
)
_CONTRIB = (
    "DequantizeLinear", "DequantizeBFP", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "GatherBlockQuantized",
    "GemmFloat8", "MatMulBlockQuantizedFp4Weight", "MatMulBlockQuantizedFp8Weight", "MatMulBnb4", "MatMulFpQ4",
    "MatMulInteger16", "MatMulIntegerToFloat", "MatMulNBits", "MatMulNBitsMlp", "MatMulNBitsQkv", "MulInteger",
    "QAttention", "ReduceSumInteger",
    "QEmbedLayerNormalization", "QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv",
    "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearReduceMean", "QLinearSigmoid",
    "QLinearSoftmax", "QLinearWhere", "QMoE", "QOrderedAttention", "QOrderedGelu", "QOrderedLayerNormalization",
    "QOrderedLongformerAttention", "QOrderedMatMul", "QuantizeBFP", "QuantizeLinear", "QuantizeWithOrder",
    "DequantizeWithOrder",
)
# fmt: on


def refuse(node: gs.Node, _: Context) -> NoReturn:
    """Raise NotUnderstood."""
    raise NotUnderstood(f"{label(node)} is quantised: prune the float model before quantising")


RULES = dict.fromkeys(_ONNX, refuse)
CONTRIB = dict.fromkeys(_CONTRIB, refuse)
QUANTISED = frozenset({*(("", op) for op in RULES), *(("com.microsoft", op) for op in CONTRIB)})
