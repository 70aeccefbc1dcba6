"""What a pruning run gives back."""

from __future__ import annotations

import os
from dataclasses import dataclass, field

import onnx

from onnx_subprune.analysis import Analysis
from onnx_subprune.calibration import Statistics
from onnx_subprune.model import Cost, save_model
from onnx_subprune.plan import Plan

__all__ = ["Result"]


@dataclass(frozen=True, eq=False)
class Result:
    """A pruned model and how it came about.

    Attributes:
        model: the pruned model.
        plan: which units stay.
        dense: cost of the model as given.
        pruned: cost of the result; both measured on the models themselves.
        statistics: of the calibration; None where none was needed.
        analysis: the model taken apart.
        errors: share of the features' variance that the recovery does not explain, by consumer.
        warnings: what the user should know.

    """

    model: onnx.ModelProto
    plan: Plan
    dense: Cost
    pruned: Cost
    statistics: Statistics | None
    analysis: Analysis
    errors: dict[str, float] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the pruned model, all or nothing; OutputError if that is not possible."""
        save_model(self.model, path)
