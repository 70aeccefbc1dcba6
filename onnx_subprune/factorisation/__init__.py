"""Low-rank factorisation, the baseline that pruning is compared with."""

from onnx_subprune.factorisation.low_rank_pipeline import (
    TARGETS,
    Factorisation,
    RankedLayer,
    calibrate_layers,
    factorise,
)

__all__ = [
    "TARGETS",
    "Factorisation",
    "RankedLayer",
    "calibrate_layers",
    "factorise",
]
