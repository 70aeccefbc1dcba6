"""Sequential, asymmetric recovery: the layers of a pruned network fitted one after the other to the dense network."""

from onnx_subprune.refit.engine import LayerFit, Networks, Refit, refit
from onnx_subprune.refit.settings import Settings

__all__ = ["LayerFit", "Networks", "Refit", "Settings", "refit"]
