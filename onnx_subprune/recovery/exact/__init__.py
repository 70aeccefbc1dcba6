"""Sequential, asymmetric recovery: the layers of a pruned network fitted one after the other to the dense network."""

from onnx_subprune.recovery.exact.fit_layers import LayerFit, Refit, refit
from onnx_subprune.recovery.exact.fit_size import FitSize, FitSizes, LayerSize
from onnx_subprune.recovery.exact.linear_layers import projection_of
from onnx_subprune.recovery.exact.settings import Settings
from onnx_subprune.recovery.exact.targets import Networks

__all__ = [
    "FitSize",
    "FitSizes",
    "LayerFit",
    "LayerSize",
    "Networks",
    "Refit",
    "Settings",
    "projection_of",
    "refit",
]
