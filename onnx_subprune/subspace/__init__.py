"""The mathematics of subspace node pruning: LDL decomposition, orderings and least-squares recovery."""

from __future__ import annotations

from onnx_subprune.subspace.corrections import Correction, Fit, Pending, corrected, fit_corrections, intercept_is_exact
from onnx_subprune.subspace.ldl import equilibrate, fold, ldl
from onnx_subprune.subspace.least_squares import Recovery, centred, recover
from onnx_subprune.subspace.low_rank import (
    Factors,
    Spectrum,
    factors,
    input_spectrum,
    output_spectrum,
    share_of_variance,
)
from onnx_subprune.subspace.obs import Term, loss_of_order, obs_sweep
from onnx_subprune.subspace.ordering import (
    METHODS,
    conditional_variance_scores,
    cumulative_variance,
    feature_scores,
    joint_scores,
    magnitude_scores,
    random_scores,
    rank,
    saw_scores,
    unit_scores,
    wanda_scores,
    zca_scores,
)
from onnx_subprune.subspace.ranking import Moments, Ranking, Reader, rank_group
from onnx_subprune.subspace.rescaling import Rescaling, rescaling, unscaled

__all__ = [
    "METHODS",
    "Correction",
    "Factors",
    "Fit",
    "Moments",
    "Pending",
    "Ranking",
    "Reader",
    "Recovery",
    "Rescaling",
    "Spectrum",
    "Term",
    "centred",
    "conditional_variance_scores",
    "corrected",
    "cumulative_variance",
    "equilibrate",
    "factors",
    "feature_scores",
    "fit_corrections",
    "fold",
    "input_spectrum",
    "intercept_is_exact",
    "joint_scores",
    "ldl",
    "loss_of_order",
    "magnitude_scores",
    "obs_sweep",
    "output_spectrum",
    "random_scores",
    "rank",
    "rank_group",
    "recover",
    "rescaling",
    "saw_scores",
    "share_of_variance",
    "unit_scores",
    "unscaled",
    "wanda_scores",
    "zca_scores",
]
