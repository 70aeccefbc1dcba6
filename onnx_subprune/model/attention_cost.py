"""Multiply-accumulates of attention in one operator: queries by keys, probabilities by values, packed projections."""

from __future__ import annotations

import math
from collections.abc import Mapping

import onnx

__all__ = ["AttentionCost", "PackedCost"]

_Shape = tuple[int, ...]
_FLAT, _PACKED_KEYS = 3, 5


class AttentionCost:
    """`past` is the input with the keys of earlier steps, whose last axis but one counts them."""

    def __init__(self, past: int) -> None:
        self._past = past

    def names(self, node: onnx.NodeProto) -> tuple[str, ...]:
        """Return the tensors whose shapes are needed."""
        past = self._input(node, self._past)
        return tuple(name for name in (*node.input[:2], past, node.output[0]) if name)

    def macs(self, node: onnx.NodeProto, known: Mapping[str, _Shape]) -> int:
        """Return the MACs: S queries meet T keys, where T counts the earlier ones."""
        queries, output = known[node.input[0]], known[node.output[0]]
        key = self._input(node, 1)
        keys = queries if not key else known[key]
        past = self._input(node, self._past)
        total = self._length(keys) + (known[past][-2] if past else 0)
        # Packed queries, keys and values are of one size of head, like what comes out.
        flat = bool(key) and len(queries) < _PACKED_KEYS
        return total * (math.prod(queries if flat else output) + math.prod(output))

    @staticmethod
    def _length(keys: _Shape) -> int:
        return keys[-2] if len(keys) == _FLAT + 1 else keys[1]

    @staticmethod
    def _input(node: onnx.NodeProto, index: int) -> str:
        return str(node.input[index]) if len(node.input) > index else ""


class PackedCost(AttentionCost):
    """Attention of ONNX Runtime, domain com.microsoft: X [B, S, I] is multiplied by weights [I, q + k + v] first."""

    def macs(self, node: onnx.NodeProto, known: Mapping[str, _Shape]) -> int:
        """Return the MACs with those of the projection."""
        x, weights, output = known[node.input[0]], known[node.input[1]], known[node.output[0]]
        past = self._input(node, self._past)
        total = x[1] + (known[past][-2] if past else 0)
        # The columns that are no values are queries and as many keys.
        queries = (weights[1] - output[-1]) // 2
        return math.prod(x) * weights[1] + total * x[0] * x[1] * (queries + output[-1])
