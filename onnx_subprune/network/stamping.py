"""A finished network says of itself what it was made from, and its cost is measured."""

from __future__ import annotations

from dataclasses import replace

import onnx

from onnx_subprune import passes
from onnx_subprune.model import Cost, model_bytes
from onnx_subprune.network.analysis import Analysis

__all__ = ["stamp"]


def stamp(model: onnx.ModelProto, analysis: Analysis, target: str) -> Cost:
    """Write into a finished network its target, its cost and that of the dense one, and return its cost.

    Args:
        model: is changed: the stamp is part of its metadata.
        analysis: of the dense network.
        target: in words.

    """
    dense, pruned = analysis.cost, analysis.measure_cost(model)
    costs = (dense.macs, pruned.macs, dense.parameters, pruned.parameters)
    passes.write_stamp(model, passes.Stamp(target, *costs, analysis.fingerprint))
    return replace(pruned, bytes=model_bytes(model))
