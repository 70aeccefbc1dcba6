"""Low-rank factorisation, the baseline that pruning is compared with."""

from onnx_subprune.factorisation.low_rank_pipeline import calibrate_layers, factorise
from onnx_subprune.factorisation.ranks import TARGETS, RankedLayer
from onnx_subprune.factorisation.result import Factorisation

__all__ = [
    "TARGETS",
    "Factorisation",
    "RankedLayer",
    "calibrate_layers",
    "factorise",
]
