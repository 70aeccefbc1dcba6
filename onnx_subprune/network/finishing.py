"""The last steps to every network that is written: it is given the form that a file should have."""

from __future__ import annotations

import onnx

from onnx_subprune import passes
from onnx_subprune.network.analysis import Analysis
from onnx_subprune.network.hoisting import sunk

__all__ = ["finish"]


def finish(model: onnx.ModelProto, analysis: Analysis) -> onnx.ModelProto:
    """Return a network as it is written.

    Constants that are larger than what computes them are nodes again, and hoisted branches stand within their Ifs.

    Args:
        model: made of the normalised network; it is changed.
        analysis: of the dense network.

    """
    passes.unfold_constants(model, passes.inline_functions(analysis.model))
    return model if analysis.hoisted is None else sunk(model, analysis.hoisted)
