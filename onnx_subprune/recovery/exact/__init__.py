"""Sequential, asymmetric recovery: the layers of a pruned network fitted one after the other to the dense network."""

from onnx_subprune.recovery.exact.fit_layers import LayerFit, Refit, refit
from onnx_subprune.recovery.exact.paired_run import Networks
from onnx_subprune.recovery.exact.settings import Settings

__all__ = ["LayerFit", "Networks", "Refit", "Settings", "refit"]
